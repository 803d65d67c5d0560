"""`RecentOps`: every op of `(start, end]` as the log gave it, the newest in memory, all of them in files.

It outlives a flush and a compaction of the engine, so a replica that is slow finds its ops here, and a
restart of the feed server, which reads on where it stopped. What is older than `start` only the table's
files tell.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from uuid import UUID

import pyarrow as pa

from flight_replica.beside.op_segments import Hashes, OpSegments, StoredOps
from flight_replica.errors import LogGap
from flight_replica.log import batches
from flight_replica.log.op_log import HEARTBEAT_MS, OpLog
from flight_replica.log.source import FeedMark, OpBatch
from flight_replica.schema import TableSchema

MEMORY_BYTES = 64 << 20  # of ops that readers get without touching a file


class RecentOps:
    """The ops of one lineage of a table. One writer; reading is safe from any thread.

    Every stored range ends with a write batch. `start` rises before anything below it goes.
    """

    def __init__(
        self,
        table: str,
        lineage: UUID,
        schema: TableSchema,
        directory: Path,
        *,
        start: int,
        bytes_max: int,
        clock_us: Callable[[], int],
        memory_bytes: int = MEMORY_BYTES,
    ) -> None:
        """What `directory` holds; `start` is where to begin if it holds nothing."""
        self._table = table
        self._lineage = lineage
        self._stored = OpSegments(directory, bytes_max)
        if self._stored.is_empty:
            self._stored.restart(start, schema)
        self._clock_us = clock_us
        self._lock = threading.Lock()
        self._start = self._stored.start
        self._noted = 0  # there are ops up to here, served or not
        self._memory = OpLog(
            table, lineage, schema, start=self._stored.end, bytes_max=memory_bytes, clock_us=clock_us
        )

    @property
    def start(self) -> int:
        with self._lock:
            return self._start

    @property
    def end(self) -> int:
        return self._memory.high_water

    @property
    def high_water(self) -> int:
        """The newest seq known of: `end`, or more while something can't be served."""
        with self._lock:
            return max(self._noted, self.end)

    @property
    def schema(self) -> TableSchema:
        return self._memory.schema

    @property
    def schema_version(self) -> int:
        return self._memory.schema_version

    def schema_at(self, version: int) -> TableSchema:
        return self._memory.schema_at(version)

    def schema_end(self, version: int) -> int | None:
        return self._memory.schema_end(version)

    # --- by the one writer ------------------------------------------------------------------------

    def append(self, ops: pa.RecordBatch, hashes: Hashes, seen_time_us: int) -> None:
        """Add the ops that follow `end`; a write batch ends with the last one. Raises `OSError`."""
        through = int(batches.seqs_of(ops)[-1])
        self._stored.append(StoredOps(self.end, through, ops, hashes, seen_time_us), self.schema)
        self._memory.append(ops, through=through, commit_time_us=seen_time_us)

    def hashes(self, since: int, through: int) -> tuple[Hashes, Hashes]:
        """Seqs and hashes of what is held in `(since, through]`."""
        return self._stored.hashes(since, through)

    def first_after(self, seq: int) -> int | None:
        """The first op held after `seq`, None for none."""
        if seq >= self.end:
            return None
        ops = self.read(max(seq, self.start), None, 1, self.schema_version).ops
        return int(batches.seqs_of(ops)[0]) if ops.num_rows else None

    def change_schema(self, schema: TableSchema) -> None:
        self._memory.change_schema(schema)

    def restart(self, seq: int) -> None:
        """Forget everything and go on after `seq`, which isn't below `end`."""
        with self._lock:
            self._start = seq
        self._stored.restart(seq, self.schema)
        self._memory.restart(seq)

    def note(self, high_water: int) -> None:
        """There are ops up to `high_water` that can't be served yet."""
        with self._lock:
            self._noted = max(self._noted, high_water)
        self._memory.note(high_water, 0)

    def excess(self, flushed: int) -> int:
        """What `start` has to become to keep to the limit; ops after `flushed` stay whatever that takes."""
        return self._stored.excess(flushed)

    def trim(self, start: int) -> None:
        """Forget what lies at or below `start`."""
        with self._lock:
            self._start = max(self._start, start)
        self._stored.trim(start)

    def close(self) -> None:
        self._memory.drop()
        self._stored.close()

    # --- reading ----------------------------------------------------------------------------------

    def read(self, since: int, through: int | None, byte_limit: int, version: int) -> OpBatch:
        """The next ops after `since`, which lies in `[start, end]`, as a `TableFeed` gives them.

        Raises `LogGap` where retention has passed `since`.
        """
        try:
            return self._memory.read(since, through, byte_limit, version)
        except LogGap:
            if since < self.start:
                raise
        ends = (self.end, through, self.schema_end(version))
        bound = max(since, min(seq for seq in ends if seq is not None))
        try:
            return self._read_stored(since, bound, byte_limit, version)
        except FileNotFoundError:
            reason = f"table {self._table!r} keeps ops after {self.start} only"
            raise LogGap(since, self.start, reason, self._lineage) from None

    def _read_stored(self, since: int, bound: int, byte_limit: int, version: int) -> OpBatch:
        schema = self.schema_at(version)
        parts: list[pa.RecordBatch] = []
        position, left = since, byte_limit
        commit_through, seen_time_us = 0, 0
        while position < bound and left > 0:
            stored = self._stored.next_after(position)
            assert stored is not None, f"table {self._table!r}: nothing stored after {position}"
            found = batches.between(stored.ops, position, bound)
            rows = batches.fitting_rows(found, left) if found.num_rows else 0
            parts.append(batches.conform_ops(found.slice(0, rows), schema))
            left -= parts[-1].nbytes
            seen_time_us = stored.seen_time_us
            if rows < found.num_rows:
                position = int(batches.seqs_of(parts[-1])[-1])
                break
            position = min(stored.through, bound)
            commit_through = position if position == stored.through else max(commit_through, stored.after)
        ops = batches.concat(parts, schema.feed_schema)
        return OpBatch(ops, self._mark(since, position, commit_through, seen_time_us))

    def _mark(self, after: int, through: int, commit_through: int, seen_time_us: int) -> FeedMark:
        return FeedMark(
            lineage=self._lineage,
            after=after,
            through=through,
            low_water=self.start,
            high_water=self.high_water,
            commit_time_us=seen_time_us,
            sent_time_us=self._clock_us(),
            commit_through=min(commit_through, through),
            heartbeat_ms=HEARTBEAT_MS,
        )

    def wait(self, since: int, timeout_seconds: float) -> bool:
        """As a `TableFeed`; `since` is at or above `start`."""
        return self._memory.wait(since, timeout_seconds)

    def wake(self) -> None:
        self._memory.wake()
