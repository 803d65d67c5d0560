"""The seam between a log and what consumes it: batches of ops with marks that prove completeness.

A log source yields `OpBatch`es; `feed.py` beside it is the seam on the serving side. Shapes: an op
batch is an Arrow record batch `seq uint64, op utf8, pk_bytes binary`, then the table's columns in
order, all nullable (`TableSchema.feed_schema`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol
from uuid import UUID

import pyarrow as pa

from flight_replica.errors import LogGap, ReplicaError
from flight_replica.schema import TableSchema

__all__ = ["FeedMark", "LogGap", "LogSource", "Op", "OpBatch", "OpRecord", "OpStream"]


class Op(StrEnum):
    """What an op does. INSERT and UPDATE mean the same to a replica: put."""

    INSERT = "INSERT"
    UPDATE = "UPDATE"
    DELETE = "DELETE"


@dataclass(frozen=True, slots=True)
class FeedMark:
    """What a batch proves: it holds every op in `(after, through]`. Times are µs since 1970."""

    lineage: UUID
    after: int
    through: int
    low_water: int
    high_water: int
    commit_time_us: int  # of `through`; 0 unknown
    sent_time_us: int
    commit_through: int  # newest seq <= through at which a commit ends
    heartbeat_ms: int = 500

    @property
    def is_caught_up(self) -> bool:
        return self.through == self.high_water


@dataclass(frozen=True, slots=True)
class OpRecord:
    """One row of an `OpBatch`, for those who want rows."""

    seq: int
    op: Op
    pk_bytes: bytes
    row: dict[str, object] | None  # None: a delete without pre-image


@dataclass(frozen=True, slots=True)
class OpBatch:
    """Ops in ascending seq order, with the mark that says which range they fill."""

    ops: pa.RecordBatch
    mark: FeedMark
    is_more_ready: bool = False  # whether the next one is there already, so that both may be taken at once

    def records(self) -> Iterator[OpRecord]:
        """The ops one by one; for tests and tools, not for the apply path."""
        names = self.ops.schema.names[3:]
        columns = [column.to_pylist() for column in self.ops.columns]
        for values in zip(*columns, strict=True):
            row = dict(zip(names, values[3:], strict=True))
            op = Op(values[1])
            is_bare = op is Op.DELETE and all(value is None for value in row.values())
            yield OpRecord(values[0], op, values[2], None if is_bare else row)


class OpStream(Protocol):
    """An open stream of batches. Iterating blocks; `close()` from any thread ends it at once.

    Raises `LogGap` where ops are missing, `FeedError` for a feed that contradicts itself,
    `Unavailable` when the source can't be reached (bounded streams only: follow reconnects).
    """

    def __iter__(self) -> Iterator[OpBatch]: ...

    def close(self) -> None: ...


class LogSource(Protocol):
    """Where a replica reads one table's log. Thread-safe; `close()` ends every stream of it.

    A source stands for one lineage: when a `LogGap` names another one, open a new source.
    """

    @property
    def lineage(self) -> UUID: ...

    @property
    def schema(self) -> TableSchema:
        """The table's schema now; a follow stream ends when it changes, ask again then."""
        ...

    @property
    def last_mark(self) -> FeedMark | None:
        """The newest mark that arrived by following; it may be ahead of what was consumed."""
        ...

    @property
    def last_mark_at(self) -> float | None:
        """When `last_mark` arrived, on the source's monotonic clock, in seconds."""
        ...

    @property
    def clock_offset_us(self) -> int | None:
        """The origin's clock (µs since 1970) minus the source's monotonic clock; None unknown."""
        ...

    @property
    def clock_error_us(self) -> int | None:
        """The most by which `clock_offset_us` can be wrong; None unknown."""
        ...

    @property
    def last_error(self) -> ReplicaError | None:
        """Why a follow stream that reconnects by itself isn't flowing; None while it is, or never does so."""
        ...

    @property
    def failure_count(self) -> int:
        """How often such a stream was interrupted by an error or a stall."""
        ...

    def stream(self, since: int) -> OpStream:
        """Every op in `(since, seq at open]`, then the end, whatever is written meanwhile.

        `since` above the newest seq is a `LogGap`: the log behind it was lost.
        """
        ...

    def follow(self, since: int) -> OpStream:
        """Every op after `since` as it commits, and heartbeats, until closed.

        Iteration ends when the table's schema changes: ask `schema` again, which gives the new one,
        and follow from the position reached.
        """
        ...

    def latest_seq(self) -> int:
        """The newest seq now. A hint, no bound."""
        ...

    def close(self) -> None: ...
