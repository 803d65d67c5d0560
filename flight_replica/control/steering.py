"""What a kind of server lets an operator do with its tables. A server without any of it has no `Steering`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class TableDetails:
    """How a replica holds one table, besides what `merutable_status()` says. Times are µs since 1970."""

    table: str
    state_kind: str = ""  # "merge on read", "merge on apply"; "" until there is a state
    base_version: int | None = None  # of the base that the state stands on
    ops_applied: int = 0  # since the state was made
    tail_bytes: int = 0  # of ops over the base; 0 where they are merged
    history_bytes: int = 0  # of ops kept for other replicas and for rebases
    rebase_count: int = 0
    last_rebase_at_us: int = 0  # 0: none yet
    last_rebase_seconds: float = 0.0
    waiting: int = 0  # reads that wait for a seq or an age
    paused_by: str | None = None  # None: it is followed
    is_followed: bool = True  # there is a feed, which proves how fresh it is
    build: str = ""  # how far a state that is being built is; "": none is


@dataclass(frozen=True, slots=True)
class Rebased:
    """What a rebase or a compaction has led to."""

    table: str
    base_seq: int
    visible_seq: int
    state_kind: str
    seconds: float


@dataclass(frozen=True, slots=True)
class NewTable:
    """A table to serve. Without `base` it is one of the primary that is followed.

    `options` are those of `serve` about a stated table, by name and without dashes: `base`, `feed`, `key`, …
    """

    name: str
    options: Mapping[str, str]


class Steering(Protocol):
    """The tables of one server, to be steered. Thread-safe. Each raises `TableNotFound`, `Unsupported`."""

    def details(self) -> Sequence[TableDetails]: ...

    def pause(self, table: str, by: str) -> None:
        """Apply nothing from now on: queries answer the position at which it stands.

        Raises `Unavailable` for a table that can't be read yet.
        """
        ...

    def resume(self, table: str) -> None:
        """Follow again; nothing for a table that is followed."""
        ...

    def rebase(self, table: str) -> Rebased:
        """Adopt the newest base now, and catch up. Raises `Paused`, and what the base and the log raise."""
        ...

    def compact(self, table: str) -> Rebased:
        """Make the state anew in key order. Raises `Unsupported` for a table that stays on merge on read."""
        ...

    def add(self, table: NewTable) -> None:
        """Serve one more table. Raises `AlreadyExists`, `ConfigError`."""
        ...

    def remove(self, table: str) -> None:
        """Serve a table no longer; queries that run come to their end."""
        ...
