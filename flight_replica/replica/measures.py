"""`TableMeasures`: what has happened to one table since its server started, counted where it happens.

A table keeps its measures through every lineage. How it stands now is not in here: see `Replica`.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass

from flight_replica.distribution import BYTES, COUNTS, SECONDS, Distribution


class Tally:
    """A number of events. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._count = 0

    def add(self, count: int = 1) -> None:
        with self._lock:
            self._count += count

    @property
    def count(self) -> int:
        return self._count


@dataclass(frozen=True, slots=True)
class Applied:
    """Ops of the feed that have become visible. Times are µs since 1970, on this host's clock."""

    table: str
    after: int
    through: int
    ops: int
    bytes: int
    sent_at_us: int | None  # when the origin sent them, at the earliest; None while its clock isn't known
    received_at_us: int  # taken out of the queue
    began_at_us: int  # to be applied
    visible_at_us: int


class TableMeasures:
    """Of one table; it is written by the threads of its replica, and read by anybody."""

    def __init__(self) -> None:
        # Hears of all that becomes visible out of the feed, on the thread that applies it. It never raises.
        self.on_applied: Callable[[Applied], None] | None = None
        self.apply_ops = Distribution(COUNTS)  # ops of one batch that was applied
        self.apply_bytes = Distribution(BYTES)  # their Arrow bytes
        self.apply_seconds = Distribution(SECONDS)  # until they were visible
        self.rebase_seconds = Distribution(SECONDS)  # of hot swaps, recoveries from gaps too
        self.rebase_failures = Tally()
        self.native_build_seconds = Distribution(SECONDS)
        self.native_build_failures = Tally()
        self.log_gaps = Tally()  # how often following ended in one; an unmended gap counts at each try
        self.gap_recoveries = Tally()  # gaps that a newer base has mended
        self.fresh_starts = Tally()  # lineages that ended, so that the table was loaded anew
        self.feed_failures = Tally()  # of connections of lineages that have ended


@dataclass(frozen=True, slots=True)
class Holding:
    """How one table is held now."""

    state_kind: str
    tail_ops: int  # applied since the state was made
    tail_bytes: int  # of them
    history_bytes: int  # of ops kept for other replicas and for rebases
    waiters: int  # reads that wait for a seq or an age
    old_states: int  # that are read and no longer current
    build_share: float | None  # how far a native state is that is being built, 0 to 1; None: none is


@dataclass(frozen=True, slots=True)
class MeasuredTable:
    """A table's measures, its feed and its state now."""

    table: str
    measures: TableMeasures
    is_connected: bool | None  # whether its feed flows; None where it has none, or isn't opened
    feed_failures: int  # how often its feed was interrupted
    holding: Holding | None  # None while there is nothing to read
