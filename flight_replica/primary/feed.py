"""`PrimaryFeed`: one table's ops for followers, the recent ones from memory, older ones from the store.

The writer thread publishes what has become durable; anybody reads. Retention raises `low_water` here
before anything is trimmed, so a reader that finds ops missing always finds the gap too.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import replace
from uuid import UUID

import duckdb
import pyarrow as pa

from flight_replica.errors import LogGap, TableNotFound
from flight_replica.log.batches import conform_ops, fitting_rows, seqs_of
from flight_replica.log.op_log import HEARTBEAT_MS, OpLog
from flight_replica.log.source import FeedMark, OpBatch
from flight_replica.primary.changes import one_batch
from flight_replica.primary.store import TableRecord
from flight_replica.primary.transaction import Commit
from flight_replica.schema import TableSchema
from flight_replica.sql.database import quote

PUBLICATION_SECONDS = 10.0  # from a durable commit to its publication; it takes microseconds
STORED_ROWS = 32_768  # ops looked at in one read of the store; a batch of 1 MiB holds fewer or not many more


class PrimaryFeed:
    """A `TableFeed` over a `TableRecord`. Owned by the engine; thread-safe; ends with `drop`."""

    def __init__(
        self,
        record: TableRecord,
        open_session: Callable[[], duckdb.DuckDBPyConnection],
        clock_us: Callable[[], int],
        recent_bytes: int,
    ) -> None:
        self._record = record  # names of the store's tables; positions are those of the opening
        self._open_session = open_session
        self._clock_us = clock_us
        self._low_water = record.low_water
        self._lock = threading.Lock()
        self._recent = OpLog(
            record.name,
            record.lineage,
            record.schema,
            start=record.high_water,
            bytes_max=recent_bytes,
            clock_us=clock_us,
        )

    @property
    def table(self) -> str:
        return self._record.name

    @property
    def lineage(self) -> UUID:
        return self._record.lineage

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
        return self._recent.high_water

    def wait(self, since: int, timeout_seconds: float) -> bool:
        return self._recent.wait(since, timeout_seconds)

    def wake(self) -> None:
        self._recent.wake()

    # --- by the writer and by retention -----------------------------------------------------------

    def publish(self, commit: Commit, commit_time_us: int) -> None:
        """Hand on the ops of a durable commit."""
        self._recent.append(commit.ops, through=commit.through, commit_time_us=commit_time_us)

    def change_schema(self, schema: TableSchema) -> None:
        self._recent.change_schema(schema)

    def raise_low_water(self, low_water: int) -> None:
        """From now on nothing at or below `low_water` is served; then it may be trimmed."""
        with self._lock:
            assert low_water >= self._low_water, f"{self.table!r}: low_water {low_water} < {self._low_water}"
            self._low_water = low_water
        self._recent.trim(low_water)
        self._recent.wake()

    def drop(self) -> None:
        self._recent.drop()

    # --- reading ----------------------------------------------------------------------------------

    def check_since(self, since: int, lineage: UUID | None) -> None:
        if since > self.high_water:
            self._await_publication(since)
        try:
            self._recent.check_since(since, lineage)
        except LogGap as gap:
            is_stored = since <= self.high_water and lineage in (None, self.lineage)
            if not is_stored:
                raise LogGap(since, self.low_water, gap.reason, self.lineage) from None
        low_water = self.low_water
        if since < low_water:
            reason = f"table {self.table!r} keeps ops after {low_water} only"
            raise LogGap(since, low_water, reason, self.lineage)

    def read(
        self, since: int, through: int | None, byte_limit: int, schema_version: int | None = None
    ) -> OpBatch:
        self.check_since(since, None)
        try:
            batch = self._recent.read(since, through, byte_limit, schema_version)
        except LogGap:  # below what is in memory
            batch = self._read_stored(since, through, byte_limit, schema_version)
        # Retention may have moved while we read: what it trimmed is missing in the batch.
        self.check_since(since, None)
        mark = replace(batch.mark, low_water=self.low_water)
        if mark.through == self._record.high_water and mark.commit_time_us == 0:
            mark = replace(mark, commit_time_us=self._record.commit_time_us)  # where the recent ops begin
        return OpBatch(batch.ops, mark)

    def _await_publication(self, since: int) -> None:
        """Wait for a commit that readers of the store see already, but that isn't handed on yet."""
        session = self._open_session()
        try:
            query = 'SELECT high_water FROM "$tables" WHERE id = ? AND lineage = ?'
            durable = session.execute(query, [self._record.id, str(self.lineage)]).fetchall()
        finally:
            session.close()
        deadline = time.monotonic() + PUBLICATION_SECONDS
        if durable and durable[0][0] >= since:
            while self.high_water < since and (left := deadline - time.monotonic()) > 0:
                self._recent.wait(since - 1, left)

    def _read_stored(
        self, since: int, through: int | None, byte_limit: int, schema_version: int | None
    ) -> OpBatch:
        version = self.schema_version if schema_version is None else schema_version
        schema, high_water = self.schema_at(version), self.high_water
        ends = (high_water, through, self.schema_end(version), since + STORED_ROWS)
        bound = max(since, min(end for end in ends if end is not None))
        session = self._open_session()
        try:
            session.execute("BEGIN TRANSACTION READ ONLY")
            found = self._select(session, schema, since, bound)
            rows = fitting_rows(found, byte_limit)
            end = int(seqs_of(found)[rows - 1]) if rows < found.num_rows else bound
            ops = conform_ops(found.slice(0, rows), schema)
            return OpBatch(ops, self._mark(session, since, end, high_water))
        except duckdb.CatalogException as error:
            raise TableNotFound(f"table {self.table!r} was dropped") from error
        finally:
            session.close()

    def _select(
        self, session: duckdb.DuckDBPyConnection, schema: TableSchema, since: int, through: int
    ) -> pa.RecordBatch:
        """The ops in `(since, through]`; columns of later versions are left out."""
        columns = "".join(f", c{number} AS {quote(name)}" for number, name in enumerate(schema.names))
        query = f"SELECT seq, op, pk_bytes{columns} FROM {self._record.ops} WHERE seq > $1 AND seq <= $2"
        return one_batch(session.sql(f"{query} ORDER BY seq", params=[since, through]).to_arrow_table())

    def _mark(
        self, session: duckdb.DuckDBPyConnection, after: int, through: int, high_water: int
    ) -> FeedMark:
        query = f"""SELECT max(through) FILTER (through <= $1),
            arg_min(commit_time_us, through) FILTER (through >= $1) FROM {self._record.commit_ends}"""
        ((commit_through, time_us),) = session.execute(query, [through]).fetchall()
        return FeedMark(
            lineage=self.lineage,
            after=after,
            through=through,
            low_water=self.low_water,
            high_water=high_water,
            commit_time_us=time_us or 0,
            sent_time_us=self._clock_us(),
            # Retention trims at ends of commits only, so low_water is one.
            commit_through=commit_through if commit_through is not None else min(self.low_water, through),
            heartbeat_ms=HEARTBEAT_MS,
        )
