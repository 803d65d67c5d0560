"""What a ticket stands for: a planned statement, pinned where it reads, to be run once.

A plan is made by `planning.py`, kept by `statements.py` until its DoGet, and run by iterating `batches`.
It lets go of what it holds when its stream ends, however it ends, or when `close` is called instead.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol, TypeAlias

import pyarrow as pa

from flight_replica.errors import LimitExceeded, ReplicaError
from flight_replica.flightsql import feeds
from flight_replica.flightsql.call import Call
from flight_replica.flightsql.explained import without_directories
from flight_replica.flightsql.functions import Relation
from flight_replica.flightsql.limits import ServerLimits
from flight_replica.flightsql.observing import QueryKind
from flight_replica.flightsql.service import WriteResult
from flight_replica.flightsql.slots import Slots
from flight_replica.flightsql.streams import batch_rows, cut, fitted
from flight_replica.log.feed import TableFeed
from flight_replica.log.source import FeedMark
from flight_replica.log.wire import encode_positions
from flight_replica.position import TablePosition
from flight_replica.sql.sandbox import EXPLAIN
from flight_replica.sql.view import Parameters, View, duckdb_errors

POSITION_KEY = b"merutable.position"
SESSION_SCHEMA = pa.schema({"Success": pa.bool_()})
WRITE_SCHEMA = pa.schema({"rows_affected": pa.int64(), "seq": pa.uint64()})

_JSON = json.JSONEncoder(ensure_ascii=False)

Item: TypeAlias = pa.RecordBatch | tuple[pa.RecordBatch, bytes]  # a batch, or one with its app_metadata


class Plan(Protocol):
    """A planned statement. `schema` is the stream's, exactly."""

    @property
    def schema(self) -> pa.Schema: ...

    @property
    def app_metadata(self) -> bytes:
        """Of the FlightInfo."""
        ...

    @property
    def kind(self) -> QueryKind: ...

    @property
    def positions(self) -> Sequence[TablePosition]:
        """Of the tables that it reads."""
        ...

    @property
    def bytes_so_far(self) -> int | None:
        """Arrow bytes of the rows so far; None where it doesn't count them."""
        ...

    timeout_ms: float | None  # what the call that planned it asked for; None: nothing

    def answer(self, call: Call) -> pa.Table | None:
        """All rows in the place of `batches`, where they are known; it has ended then when `call` has."""
        ...

    @property
    def is_over(self) -> bool:
        """Whether it is known that nothing runs and nothing is held any more."""
        ...

    def batches(self, call: Call) -> Generator[Item]:
        """The rows; once. `call` is the DoGet, through which another thread ends it."""
        ...

    def close(self) -> None:
        """Let go of what it holds. Idempotent; not while `batches` runs."""
        ...


def with_position(
    schema: pa.Schema, positions: Sequence[TablePosition], mark: FeedMark | None = None
) -> pa.Schema:
    """The schema with the answer's position in its metadata, for clients that see no app_metadata."""
    position: dict[str, object] = {"tables": [at.as_json() for at in positions]}
    if mark is not None:
        position["mark"] = {
            "lineage": str(mark.lineage),
            "after": mark.after,
            "through": mark.through,
            "low_water": mark.low_water,
            "high_water": mark.high_water,
        }
    text = _JSON.encode(position)
    return schema.with_metadata({**(schema.metadata or {}), POSITION_KEY: text.encode()})


class _PinsNothing:
    """The part of a plan that holds nothing between its calls."""

    positions: Sequence[TablePosition] = ()
    bytes_so_far: int | None = None
    timeout_ms: float | None = None
    is_over = False

    def answer(self, call: Call) -> pa.Table | None:
        return None

    def close(self) -> None:
        """It holds nothing."""


class QueryPlan:
    """A SELECT over a pinned view. Owns the view."""

    kind = QueryKind.QUERY

    def __init__(
        self,
        view: View,
        sql: str,
        rows: Sequence[Parameters],
        relations: Sequence[tuple[str, Relation]],
        schema: pa.Schema,
        slots: Slots,
        limits: ServerLimits,
    ) -> None:
        """Run once for each of `rows`, the parameters of a run; `schema` as `plain_schema` made it.

        `relations` stand in `sql` under the names beside them.
        """
        self._view = view
        self._sql = sql
        self._rows = rows
        self._relations = relations
        shown = {at.table for at in view.positions}
        changes = [relation.position for _, relation in relations if relation.position is not None]
        positions = [*view.positions, *(at for at in changes if at.table not in shown)]
        self.positions: Sequence[TablePosition] = positions
        self.schema = with_position(schema, positions)
        self.app_metadata = encode_positions(positions)
        self._slots = slots
        self._limits = limits
        self._pulling = threading.Lock()  # held while the session works, not while the client takes a batch
        self._reader: pa.RecordBatchReader | None = None
        self._failure: ReplicaError | None = None  # of a relation that was being read
        self.timeout_ms: float | None = None
        self._has_slot = False
        self._is_over = False
        self._bytes = 0  # of the rows so far

    @property
    def bytes_so_far(self) -> int | None:
        return self._bytes

    @property
    def is_over(self) -> bool:
        return self._is_over

    def answer(self, call: Call) -> pa.Table | None:
        return None

    def batches(self, call: Call) -> Generator[pa.RecordBatch]:
        call.limit_to(self._limits.statement_seconds, self.timeout_ms)
        call.on_end(self._interrupt)
        try:
            self._slots.take(call)
            self._has_slot = True
            yield from self._run(call)
        finally:
            self.close()

    def _run(self, call: Call) -> Iterator[pa.RecordBatch]:
        for parameters in self._rows:
            with self._session_work(call):
                self._open(parameters)
            yield from self._opened(call)

    def _opened(self, call: Call) -> Iterator[pa.RecordBatch]:
        while True:
            with self._session_work(call):
                batch = self._next()
            if batch is None:
                return
            self._count(batch)
            yield from cut(self._sent(batch), self._limits.batch_bytes_max)

    def _count(self, batch: pa.RecordBatch) -> None:
        self._bytes += batch.nbytes
        if self._bytes > self._limits.result_bytes_max:
            raise LimitExceeded(
                f"the result has {self._bytes} bytes or more, result_bytes_max is "
                f"{self._limits.result_bytes_max} bytes; ask for less at once"
            )

    def _sent(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        found = fitted(batch, self.schema)
        return without_directories(found) if self._sql.startswith(EXPLAIN) else found

    def _open(self, parameters: Parameters) -> None:
        for name, relation in self._relations:
            data = relation.open(self._view)
            if isinstance(data, pa.RecordBatchReader):
                data = pa.RecordBatchReader.from_batches(data.schema, self._kept(data))
            self._view.bind_data(name, data)
        self._reader = self._view.execute(self._sql, parameters, batch_rows(self.schema))

    def _next(self) -> pa.RecordBatch | None:
        assert self._reader is not None, "read before it was opened"
        with duckdb_errors():
            try:
                return self._reader.read_next_batch()
            except StopIteration:
                return None

    def _kept(self, reader: pa.RecordBatchReader) -> Iterator[pa.RecordBatch]:
        """The reader's batches; its error is kept, since DuckDB makes a text with a traceback of it."""
        try:
            yield from reader
        except ReplicaError as error:
            self._failure = error
            raise

    @contextmanager
    def _session_work(self, call: Call) -> Iterator[None]:
        """Work on the session, alone; its errors are the reason why the call was ended, where it was."""
        with self._pulling:
            call.check()
            try:
                yield
            except Exception:
                self._view.spoil()
                call.check()
                if self._failure is not None:
                    raise self._failure from None
                raise

    def _interrupt(self) -> None:
        """End the query. One whose client just doesn't take its batches is closed at once."""
        # Nothing is interrupted where DuckDB isn't at work: that would end a transaction that others read in.
        if self._pulling.acquire(blocking=False):
            try:
                self._close_all()
            finally:
                self._pulling.release()
        else:
            self._view.interrupt()

    def close(self) -> None:
        with self._pulling:
            self._close_all()

    def _close_all(self) -> None:
        # The reader holds the transaction open, whatever becomes of the session.
        if self._reader is not None:
            self._reader.close()
            self._reader = None
        self._view.close()
        if self._has_slot:
            self._has_slot = False
            self._slots.give_back()
        self._is_over = True


class KnownPlan(_PinsNothing):
    """A SELECT whose rows were known when it was planned."""

    kind = QueryKind.QUERY

    def __init__(
        self, positions: Sequence[TablePosition], columns: Sequence[object], schema: pa.Schema
    ) -> None:
        """`columns`: Arrow's, or lists; `schema` as `plain_schema` made it."""
        self.positions: Sequence[TablePosition] = positions
        self.schema = with_position(schema, positions)
        self.app_metadata = encode_positions(positions)
        self._rows = pa.Table.from_arrays(columns, schema=self.schema)
        self.bytes_so_far: int = self._rows.nbytes

    def answer(self, call: Call) -> pa.Table | None:
        return self._rows

    def batches(self, call: Call) -> Generator[pa.RecordBatch]:
        yield from self._rows.to_batches()


class BoundedChangesPlan(_PinsNothing):
    """`SELECT * FROM merutable_changes(table, since)`, straight from the feed."""

    kind = QueryKind.CHANGES

    def __init__(
        self, feed: TableFeed, schema: pa.Schema, mark: FeedMark, slots: Slots, limits: ServerLimits
    ) -> None:
        self._feed = feed
        self._feed_schema = schema
        self._mark = mark
        self._slots = slots
        self._limits = limits
        self.schema = with_position(schema, (), mark)
        self.app_metadata = encode_positions((), mark)

    def batches(self, call: Call) -> Generator[pa.RecordBatch]:
        call.limit_to(self._limits.statement_seconds, self.timeout_ms)
        self._slots.take(call)
        try:
            mark = self._mark
            for batch in feeds.bounded_batches(self._feed, mark.after, mark.through, self._feed_schema):
                call.check()
                yield fitted(batch, self.schema)
        finally:
            self._slots.give_back()


class FollowPlan(_PinsNothing):
    """`SELECT * FROM merutable_changes(table, since, follow := true)`: the feed without end."""

    kind = QueryKind.FOLLOW

    def __init__(self, feed: TableFeed, since: int, schema: pa.Schema, slots: Slots) -> None:
        self._feed = feed
        self._since = since
        self.schema = schema
        self._slots = slots
        self.app_metadata = encode_positions(())

    def batches(self, call: Call) -> Generator[Item]:
        call.is_endless = True
        call.on_end(self._feed.wake)
        self._slots.take(call)
        try:
            yield from feeds.follow_batches(self._feed, self._since, lambda: call.is_ended, self.schema)
            call.check()
        finally:
            self._slots.give_back()


class SessionPlan(_PinsNothing):
    """The answer of a statement that has changed the session: no rows, as DuckDB answers a SET."""

    kind = QueryKind.SESSION
    schema = SESSION_SCHEMA
    app_metadata = encode_positions(())

    def batches(self, call: Call) -> Generator[pa.RecordBatch]:
        yield from ()


class WrittenPlan(_PinsNothing):
    """The answer of a write that came through the query path, one row. The write is done."""

    kind = QueryKind.WRITE
    schema = WRITE_SCHEMA
    app_metadata = encode_positions(())

    def __init__(self, done: WriteResult) -> None:
        self._done = done

    def batches(self, call: Call) -> Generator[pa.RecordBatch]:
        columns = [pa.array([self._done.rows_affected], pa.int64()), pa.array([self._done.seq], pa.uint64())]
        yield pa.RecordBatch.from_arrays(columns, schema=self.schema)
