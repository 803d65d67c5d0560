"""`OpLog`: a bounded in-memory history of one table's ops, read by any number of followers.

The primary keeps its recent ops in one, a replica spools the feed into one and serves it on to other
replicas, tests fill one from a list. What a reader gets is cut out of the appended batches without
a copy, unless several small ones fit one answer. Nothing here is durable. What is held and how it is
cut: `segments.py`.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from uuid import UUID

import pyarrow as pa

from flight_replica.errors import LogGap, TableNotFound, Unavailable
from flight_replica.log import batches
from flight_replica.log.segments import Segments
from flight_replica.log.source import FeedMark, OpBatch
from flight_replica.schema import TableSchema

HEARTBEAT_MS = 500
# Trimming frees one part in this many at once, so that moving the list's rest is rare.
_TRIM_PARTS = 8


@dataclass(frozen=True, slots=True)
class _SchemaEra:
    """One schema of the table. `end` is the last seq under it, None for the current one."""

    schema: TableSchema
    end: int | None


class OpLog:
    """One table's ops from `low_water` on, as a `TableFeed`. Thread-safe; one lock and one condition.

    One writer appends, in ascending order. In a cascading log (a replica's) readers see up to the
    `publish`ed seq and marks carry the origin's high_water and sent_time; in any other one they see all
    that is appended. `low_water` rises before anything below it goes.
    """

    def __init__(
        self,
        table: str,
        lineage: UUID,
        schema: TableSchema,
        *,
        start: int = 0,
        bytes_max: int,
        heartbeat_ms: int = HEARTBEAT_MS,
        clock_us: Callable[[], int],
        is_cascading: bool = False,
    ) -> None:
        """`start`: the end of a commit, after which the log begins. `clock_us`: µs since 1970."""
        self._table = table
        self._lineage = lineage
        self._bytes_max = bytes_max
        self._heartbeat_ms = heartbeat_ms
        self._clock_us = clock_us
        self._is_cascading = is_cascading
        self._changed = threading.Condition()
        # Everything below is guarded by `_changed`.
        self._eras = [_SchemaEra(schema, None)]  # index is the schema_version
        self._segments = Segments(start)
        self._low_water = start
        self._readable = start  # the newest seq that readers get
        self._high_water = start  # the newest committed seq known, the origin's in a cascading log
        self._sent_time_us = 0  # when the origin said `_high_water`; 0 unknown
        self._wakes = 0  # calls of `wake`
        self._is_dropped = False

    @property
    def table(self) -> str:
        return self._table

    @property
    def lineage(self) -> UUID:
        return self._lineage

    @property
    def schema(self) -> TableSchema:
        with self._changed:
            return self._eras[-1].schema

    @property
    def schema_version(self) -> int:
        with self._changed:
            return len(self._eras) - 1

    @property
    def low_water(self) -> int:
        with self._changed:
            return self._low_water

    @property
    def high_water(self) -> int:
        with self._changed:
            return self._readable

    @property
    def newest_seq(self) -> int:
        """Through which ops were appended, published or not."""
        with self._changed:
            return self._segments.last_seq

    @property
    def held_bytes(self) -> int:
        """Arrow bytes held, and what the objects around them take."""
        with self._changed:
            return self._segments.held_bytes

    def schema_at(self, version: int) -> TableSchema:
        with self._changed:
            return self._eras[version].schema

    def schema_end(self, version: int) -> int | None:
        with self._changed:
            return self._eras[version].end

    # --- writing ----------------------------------------------------------------------------------

    def append(
        self,
        ops: pa.RecordBatch,
        *,
        through: int,
        commit_through: int | None = None,
        commit_time_us: int,
        high_water: int | None = None,
        sent_time_us: int | None = None,
    ) -> None:
        """Add the ops of (newest appended seq, through], in the current schema. Zero rows are allowed.

        `commit_through` is the newest commit end at or below `through`, `through` itself if None. A
        commit that comes in parts needs `high_water`, its end, from the first part on.
        """
        commit_through = through if commit_through is None else commit_through
        high_water = through if high_water is None else high_water
        assert high_water >= through, f"{self._table!r}: high_water {high_water} below through {through}"
        with self._changed:
            self._segments.append(ops, through, commit_through, commit_time_us)
            self._note(high_water, sent_time_us)
            if not self._is_cascading:
                self._readable = through
            if self._segments.held_bytes > self._bytes_max:
                target = self._bytes_max - self._bytes_max // _TRIM_PARTS
                self._forget(self._segments.count_beyond(target, self._readable))
            self._changed.notify_all()

    def note(self, high_water: int, sent_time_us: int) -> None:
        """Keep what a heartbeat of the origin says: its newest seq at its time `sent_time_us`."""
        with self._changed:
            self._note(high_water, sent_time_us)

    def publish(self, seq: int) -> None:
        """Let readers of a cascading log see up to `seq`, a commit end that was appended."""
        with self._changed:
            assert self._is_cascading, f"{self._table!r}: only a cascading log is published by hand"
            last = self._segments.last_seq
            assert self._readable <= seq <= last, f"publish {seq} outside [{self._readable}, {last}]"
            self._readable = seq
            self._changed.notify_all()

    def change_schema(self, schema: TableSchema) -> None:
        """Begin a new schema after the newest appended op; older ops are then read in the new one."""
        with self._changed:
            self._eras[-1] = replace(self._eras[-1], end=self._segments.last_seq)
            self._eras.append(_SchemaEra(schema, None))
            self._changed.notify_all()

    def trim(self, below: int) -> None:
        """Forget what was appended as a whole at or below `below`, but nothing that isn't published."""
        with self._changed:
            self._forget(self._segments.count_through(min(below, self._readable)))

    def restart(self, seq: int) -> None:
        """Let the next `append` follow on `seq`: what was appended beyond it is forgotten.

        Where the log ends below `seq`, all of it goes: readers behind get a `LogGap`, never the hole.
        """
        with self._changed:
            assert seq >= self._readable, f"restart at {seq} below the published {self._readable}"
            if seq > self._segments.last_seq:
                self._low_water = self._readable = seq
                self._segments = Segments(seq)
            else:
                self._segments.cut_off(seq)
                self._eras = [
                    replace(era, end=min(era.end, seq)) if era.end is not None else era for era in self._eras
                ]
            self._high_water = max(self._high_water, seq)
            self._changed.notify_all()

    def drop(self) -> None:
        """The table is gone: readers get `TableNotFound`. Idempotent."""
        with self._changed:
            self._is_dropped = True
            self._changed.notify_all()

    # --- reading ----------------------------------------------------------------------------------

    def check_since(self, since: int, lineage: UUID | None) -> None:
        with self._changed:
            self._check_since(since, lineage)

    def read(
        self, since: int, through: int | None, byte_limit: int, schema_version: int | None = None
    ) -> OpBatch:
        with self._changed:
            era = self._eras[-1 if schema_version is None else schema_version]
            ends = (self._readable, through, era.end)
            bound = min(seq for seq in ends if seq is not None)
        return self._read(since, bound, byte_limit, era.schema)

    def read_received(self, since: int, byte_limit: int) -> OpBatch:
        """As `read`, but up to the newest op appended: for the owner of a cascading log."""
        return self._read(since, self.newest_seq, byte_limit, self.schema)

    def _read(self, since: int, bound: int, byte_limit: int, schema: TableSchema) -> OpBatch:
        with self._changed:
            self._check_since(since, None)
            bound = max(since, bound)
            pieces, end = self._segments.cut(since, bound, byte_limit)
            mark = self._mark(since, end)
        # Copies and casts happen outside the lock; the pieces keep their memory alive.
        shaped = [batches.conform_ops(piece, schema) for piece in pieces]
        return OpBatch(batches.concat(shaped, schema.feed_schema), mark)

    def wait(self, since: int, timeout_seconds: float) -> bool:
        with self._changed:
            before = (self._wakes, len(self._eras))
            self._changed.wait_for(
                lambda: self._has_news(since) or (self._wakes, len(self._eras)) != before, timeout_seconds
            )
            return self._readable > since

    def wake(self) -> None:
        with self._changed:
            self._wakes += 1
            self._changed.notify_all()

    # --- under the lock ---------------------------------------------------------------------------

    def _has_news(self, since: int) -> bool:
        return self._readable > since or self._is_dropped or self._low_water > since

    def _check_since(self, since: int, lineage: UUID | None) -> None:
        name = f"table {self._table!r}"
        if self._is_dropped:
            raise TableNotFound(f"{name} was dropped")
        if lineage is not None and lineage != self._lineage:
            raise self._gap(since, f"{name} has lineage {self._lineage}, not {lineage}")
        if since < self._low_water:
            raise self._gap(since, f"{name} keeps ops after {self._low_water} only")
        if since <= self._high_water:
            return
        if self._is_cascading:
            raise Unavailable(f"{name}: seq {since} isn't known here, newest known {self._high_water}")
        raise self._gap(since, f"{name} ends at seq {self._high_water}")

    def _gap(self, since: int, reason: str) -> LogGap:
        return LogGap(since, self._low_water, reason, self._lineage)

    def _note(self, high_water: int, sent_time_us: int | None) -> None:
        self._high_water = max(self._high_water, high_water)
        if sent_time_us is not None:
            self._sent_time_us = max(self._sent_time_us, sent_time_us)

    def _mark(self, after: int, through: int) -> FeedMark:
        commit_through, commit_time_us = self._segments.commit_at(through)
        return FeedMark(
            lineage=self._lineage,
            after=after,
            through=through,
            low_water=self._low_water,
            high_water=self._high_water,
            commit_time_us=commit_time_us,
            sent_time_us=self._sent_time_us if self._is_cascading else self._clock_us(),
            commit_through=commit_through,
            heartbeat_ms=self._heartbeat_ms,
        )

    def _forget(self, count: int) -> None:
        if count:
            self._low_water = self._segments.start_after(count)
            self._segments.forget(count)
            self._changed.notify_all()
