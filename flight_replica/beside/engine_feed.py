"""`EngineFeed`: one lineage of an engine's table as a `TableFeed`, out of its recent ops and its files.

A reader that is behind the recent ops first gets what the table's files tell: in seq order, complete at the
seq that the files reach, and no state in between is one to show, so no commit ends there. From that seq on it
gets every op. `low_water` is where both are proven to join.

The log has no times: an op's commit time is when it was read here. And nobody says that the log ends: what
proves freshness is that its reader found nothing more, so `sent_time` is when it last looked.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from uuid import UUID

import pyarrow as pa

from flight_replica.beside.engine_catalog import CatalogVersion
from flight_replica.beside.file_changes import FileChanges
from flight_replica.beside.recent_ops import RecentOps
from flight_replica.errors import LogGap, ReplicaError
from flight_replica.log.batches import concat, conform_ops
from flight_replica.log.op_log import HEARTBEAT_MS
from flight_replica.log.source import FeedMark, OpBatch
from flight_replica.schema import TableSchema

SNAPSHOTS_MAX = 1000  # whose seqs are remembered: a mirror may be some behind
FILES_SECONDS_MAX = 600.0  # how long a bounded read waits for the table's files to be read


class EngineFeed:
    """Thread-safe. Its owner (`engine_table.py`) shows it files, proves freshness, and ends it."""

    def __init__(self, table: str, lineage: UUID, recent: RecentOps, files: FileChanges) -> None:
        """Owns neither `recent` nor `files`."""
        self._table = table
        self._lineage = lineage
        self._recent = recent
        self._files = files
        self._lock = threading.Lock()
        # Everything below is guarded by `_lock`.
        self._low_water = 0
        self._reach_by_snapshot: dict[int, int] = {}  # newest last; of a version of the files its seq
        self._looked_at_us = 0  # when the log was last found to hold nothing more; 0 never
        self._end: Callable[[int], ReplicaError] | None = None  # why reading is over, by `since`
        self._trouble: ReplicaError | None = None  # why nothing can be said now

    @property
    def table(self) -> str:
        return self._table

    @property
    def lineage(self) -> UUID:
        return self._lineage

    @property
    def schema(self) -> TableSchema:
        return self._recent.schema

    @property
    def schema_version(self) -> int:
        return self._recent.schema_version

    def schema_at(self, version: int) -> TableSchema:
        return self._recent.schema_at(version)

    def schema_end(self, version: int) -> int | None:
        return self._recent.schema_end(version)

    @property
    def low_water(self) -> int:
        with self._lock:
            return self._low_water

    @property
    def high_water(self) -> int:
        return self._recent.end

    @property
    def files_reach(self) -> int | None:
        """The seq whose state the newest files that are known hold; None before the first ones."""
        with self._lock:
            return max(self._reach_by_snapshot.values(), default=None)

    def vouched_seq(self, snapshot_id: int) -> int | None:
        """The seq whose state the files of this snapshot hold (CF 4); None for one that isn't known."""
        with self._lock:
            return self._reach_by_snapshot.get(snapshot_id)

    @property
    def newest_snapshot(self) -> tuple[int, int] | None:
        """Snapshot id of the newest files, and the seq whose state they hold."""
        with self._lock:
            return next(reversed(self._reach_by_snapshot.items()), None)

    # --- by its owner -----------------------------------------------------------------------------

    def show_files(self, version: CatalogVersion, reach: int, lost_through: int) -> None:
        """The files hold the state at `reach`, and every change after `lost_through`.

        `reach` is at or above where the recent ops begin.
        """
        start = self._recent.start
        assert reach >= start, f"{self._table!r}: files reach {reach}, recent ops begin after {start}"
        with self._lock:
            self._reach_by_snapshot.pop(version.snapshot_id, None)
            self._reach_by_snapshot[version.snapshot_id] = reach
            for old in list(self._reach_by_snapshot)[:-SNAPSHOTS_MAX]:
                del self._reach_by_snapshot[old]
            self._low_water = max(self._low_water, min(lost_through, start))
        self._files.show(version, reach, self.schema)
        self.wake()

    def raise_low_water(self, low_water: int) -> None:
        """From now on nothing at or below `low_water` is served."""
        with self._lock:
            self._low_water = max(self._low_water, low_water)
        self.wake()

    def confirm(self, looked_at_us: int) -> None:
        """At that time the log held nothing that isn't here."""
        with self._lock:
            self._looked_at_us = max(self._looked_at_us, looked_at_us)

    def say_trouble(self, trouble: ReplicaError | None) -> None:
        """Until further notice readers get `trouble`: what is newest can't be told."""
        with self._lock:
            is_new = trouble is not self._trouble
            self._trouble = trouble
        if is_new:
            self.wake()

    def end(self, reason: Callable[[int], ReplicaError]) -> None:
        """Reading is over: whoever asks since `s` gets `reason(s)`."""
        with self._lock:
            self._end = reason
        self.wake()

    # --- reading ----------------------------------------------------------------------------------

    def check_since(self, since: int, lineage: UUID | None) -> None:
        """As a `TableFeed`. Changes that only the files have begin to be read."""
        self._check(since, lineage)
        if since < (start := self._recent.start):
            self._files.begin(since, start)

    def _check(self, since: int, lineage: UUID | None) -> None:
        with self._lock:
            end, trouble, low_water = self._end, self._trouble, self._low_water
        if end is not None:
            raise end(since)
        name = f"table {self._table!r}"
        if lineage not in (None, self._lineage):
            reason = f"{name} has lineage {self._lineage}, not {lineage}"
            raise LogGap(since, low_water, reason, self._lineage)
        if trouble is not None:
            raise trouble
        if since < low_water:
            reason = f"{name}: changes at or before seq {low_water} are in no file any more"
            raise LogGap(since, low_water, reason, self._lineage)
        newest = self._recent.high_water
        if since > newest:
            raise LogGap(since, low_water, f"{name} ends at seq {newest}", self._lineage)

    def read(
        self, since: int, through: int | None, byte_limit: int, schema_version: int | None = None
    ) -> OpBatch:
        """As a `TableFeed`; without `through` the batch is empty while the files are being read."""
        version = self.schema_version if schema_version is None else schema_version
        with self._lock:
            looked_at_us = self._looked_at_us
        self._check(since, None)
        batch = self._read(since, through, byte_limit, version)
        self._check(since, None)  # what was forgotten meanwhile is missing in the batch
        mark = replace(batch.mark, low_water=self.low_water, sent_time_us=looked_at_us)
        return OpBatch(batch.ops, mark)

    def _read(self, since: int, through: int | None, byte_limit: int, version: int) -> OpBatch:
        while since >= (start := self._recent.start):
            try:
                return self._recent.read(since, through, byte_limit, version)
            except LogGap:
                if since >= self._recent.start:
                    raise
        wait_seconds = 0.0 if through is None else FILES_SECONDS_MAX
        changes = self._files.get(since, start, through, wait_seconds)
        if changes is None:
            return OpBatch(self._nothing(version), self._files_mark(since, since, 0))
        ends = (changes.through, through, self.schema_end(version))
        bound = max(since, min(seq for seq in ends if seq is not None))
        ops, end = changes.read(since, bound, byte_limit)
        commit_through = end if end == changes.through else 0
        schema = self.schema_at(version)
        return OpBatch(conform_ops(ops, schema), self._files_mark(since, end, commit_through))

    def wait(self, since: int, timeout_seconds: float) -> bool:
        start = self._recent.start
        if since >= start:
            return self._recent.wait(since, timeout_seconds)
        self._files.wait(since, start, timeout_seconds)
        return True

    def wake(self) -> None:
        self._recent.wake()
        self._files.wake()

    def _nothing(self, version: int) -> pa.RecordBatch:
        return concat([], self.schema_at(version).feed_schema)

    def _files_mark(self, after: int, through: int, commit_through: int) -> FeedMark:
        """Between two ends of commits none is named: a consumer shows nothing until it is at one."""
        return FeedMark(
            lineage=self._lineage,
            after=after,
            through=through,
            low_water=0,
            high_water=self._recent.high_water,
            commit_time_us=0,
            sent_time_us=0,
            commit_through=commit_through,
            heartbeat_ms=HEARTBEAT_MS,
        )
