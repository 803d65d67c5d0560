"""The smallest Flight server that serves feeds: `merutable_changes` and `merutable_clock`, nothing else.

What a feed client needs and no more, so that tests of the log depend on no SQL engine, and wrong
streams can be made (`fault`).
"""

from __future__ import annotations

import itertools
import re
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from uuid import UUID

import pyarrow as pa
import pyarrow.flight as flight
from google.protobuf.any_pb2 import Any as AnyMessage

from flight_replica._pb import flight_sql_pb2
from flight_replica.errors import LogGap, ReplicaError, TableNotFound, Unavailable
from flight_replica.flightsql import feeds
from flight_replica.log.feed import TableFeed
from flight_replica.log.source import FeedMark
from flight_replica.log.wire import LINEAGE_HEADER, encode_log_gap, encode_positions
from tests.faults import Fault, Message

_CHANGES = re.compile(
    r"SELECT \* FROM merutable_changes\('((?:[^']|'')+)', (\d+)(, follow := true)?\)", re.DOTALL
)
_CLOCK_SCHEMA = pa.schema([pa.field("now", pa.timestamp("us", "UTC"))])


@dataclass(frozen=True, slots=True)
class _Plan:
    since: int
    schema: pa.Schema
    mark: FeedMark | None  # of a bounded stream


class _Lineage(flight.ServerMiddleware):
    def __init__(self, lineage: str | None) -> None:
        self.lineage = lineage


class _LineageFactory(flight.ServerMiddlewareFactory):
    def start_call(self, info: flight.CallInfo, headers: dict[str, list[str]]) -> _Lineage:
        return _Lineage(headers.get(LINEAGE_HEADER, [None])[0])


class FeedServer(flight.FlightServerBase):
    """Serves `feed` under its table's name, on a port of the loopback."""

    def __init__(self, feed: TableFeed, port: int = 0) -> None:
        super().__init__(f"grpc://127.0.0.1:{port}", middleware={"lineage": _LineageFactory()})
        self.feed = feed
        self.fault: Fault | None = None  # for the next follow stream only
        self.batch_sizes: list[int] = []  # rows sent, by batch
        self.follow_count = 0
        self.clock_count = 0
        self._plans: dict[bytes, _Plan] = {}  # by ticket
        self._numbers = itertools.count()
        self.clock_us = lambda: time.time_ns() // 1000
        self._is_over = threading.Event()
        self._may_open = threading.Event()
        self._may_open.set()

    @property
    def uri(self) -> str:
        return f"grpc://127.0.0.1:{self.port}"

    def close(self) -> None:
        self._is_over.set()
        self.feed.wake()
        self.shutdown()

    def hold(self) -> None:
        """Let follow streams be planned, and their opening hang until `let_go`."""
        self._may_open.clear()

    def let_go(self) -> None:
        self._may_open.set()

    def get_flight_info(
        self, context: flight.ServerCallContext, descriptor: flight.FlightDescriptor
    ) -> flight.FlightInfo:
        command = flight_sql_pb2.CommandStatementQuery()
        AnyMessage.FromString(descriptor.command).Unpack(command)
        text = context.get_middleware("lineage").lineage
        try:
            plan = self._plan(command.query, UUID(text) if text else None)
        except ReplicaError as error:
            raise _to_flight(error) from None
        ticket = str(next(self._numbers)).encode()
        self._plans[ticket] = plan
        metadata = encode_positions([], plan.mark) if plan.mark else b""
        return flight.FlightInfo(
            plan.schema, descriptor, [flight.FlightEndpoint(ticket, [])], -1, -1, False, metadata
        )

    def do_get(self, context: flight.ServerCallContext, ticket: flight.Ticket) -> flight.FlightDataStream:
        plan = self._plans.pop(ticket.ticket)
        if plan.schema is _CLOCK_SCHEMA:
            self.clock_count += 1
            now = pa.array([self.clock_us()], pa.timestamp("us", "UTC"))
            return flight.RecordBatchStream(pa.table([now], schema=_CLOCK_SCHEMA))
        if plan.mark is None:
            assert self._may_open.wait(10)
            return flight.GeneratorStream(plan.schema, self._following(plan, context))
        batches = feeds.bounded_batches(self.feed, plan.since, plan.mark.through, plan.schema)
        return flight.GeneratorStream(plan.schema, self._bounded(plan, batches))

    def _plan(self, query: str, lineage: UUID | None) -> _Plan:
        if query == "SELECT * FROM merutable_clock()":
            return _Plan(0, _CLOCK_SCHEMA, None)
        since, is_following = self._parse(query)
        if is_following:
            return _Plan(since, feeds.follow(self.feed, since, lineage), None)
        return _Plan(since, *feeds.bounded(self.feed, since, lineage))

    def _parse(self, query: str) -> tuple[int, bool]:
        match = _CHANGES.fullmatch(query)
        assert match is not None, query
        if match[1].replace("''", "'") != self.feed.table:
            raise TableNotFound(f"no table {match[1]}")
        return int(match[2]), match[3] is not None

    def _bounded(self, plan: _Plan, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        try:
            for batch in batches:
                yield batch.replace_schema_metadata(plan.schema.metadata)
        except ReplicaError as error:
            raise _to_flight(error) from None

    def _following(self, plan: _Plan, context: flight.ServerCallContext) -> Iterator[Message]:
        self.follow_count += 1
        fault, self.fault = self.fault, None
        messages = feeds.follow_batches(
            self.feed, plan.since, lambda: self._is_over.is_set() or context.is_cancelled(), plan.schema
        )
        try:
            for batch, metadata in fault(messages) if fault else messages:
                self.batch_sizes.append(batch.num_rows)
                yield batch.replace_schema_metadata(plan.schema.metadata), metadata
        except ReplicaError as error:
            raise _to_flight(error) from None


def _to_flight(error: ReplicaError) -> Exception:
    if isinstance(error, LogGap):
        text = f"{error}. Detail: Failed"
        return flight.FlightServerError(str(error), encode_log_gap(error, 2, text))
    if isinstance(error, TableNotFound):
        return KeyError(str(error))
    if isinstance(error, Unavailable):
        return flight.FlightUnavailableError(str(error))
    return flight.FlightInternalError(str(error))
