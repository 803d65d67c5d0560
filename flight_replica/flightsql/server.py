"""`FlightSqlServer`: a `Service` on a port. Thin: each RPC finds its command and hands it on.

Commands: commands.py. Queries: checking.py, planning.py, plans.py, statements.py. Writes: writes.py.
Actions: actions.py. Catalog: catalog.py. Vanished clients and deadlines: calls.py. Errors: status.py.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pyarrow as pa
from google.protobuf.message import Message
from pyarrow import flight

from flight_replica._pb import flight_sql_pb2 as pb
from flight_replica.errors import InvalidStatement
from flight_replica.flightsql import catalog
from flight_replica.flightsql.actions import ACTIONS, Actions
from flight_replica.flightsql.activities import Activities
from flight_replica.flightsql.auth import Logins, OpenLogins
from flight_replica.flightsql.call import Call
from flight_replica.flightsql.calls import Calls
from flight_replica.flightsql.cancels import Running
from flight_replica.flightsql.checking import Write
from flight_replica.flightsql.commands import pack, unpack
from flight_replica.flightsql.direct import DirectReads
from flight_replica.flightsql.doors import Doors
from flight_replica.flightsql.front import Front
from flight_replica.flightsql.handshake import Handshakes
from flight_replica.flightsql.limits import DEFAULT_LIMITS, LiveLimits, ServerLimits
from flight_replica.flightsql.observing import QueryKind
from flight_replica.flightsql.parameters import NO_PARAMETERS
from flight_replica.flightsql.pins import Pins
from flight_replica.flightsql.plans import WRITE_SCHEMA, Plan
from flight_replica.flightsql.port import in_uri
from flight_replica.flightsql.service import Service
from flight_replica.flightsql.session_actions import SessionActions
from flight_replica.flightsql.sessions import Sessions
from flight_replica.flightsql.statements import Statements
from flight_replica.flightsql.stats import ServerStats
from flight_replica.flightsql.status import MIDDLEWARE, Unimplemented, boundary, guarded_stream
from flight_replica.flightsql.tls import ServerTls
from flight_replica.flightsql.transactions import Transactions

_WRITING = pa.ipc.IpcWriteOptions()  # given, since pyarrow looks into the environment for each stream else
_RPCS = (
    *("get_flight_info", "get_schema", "do_get", "do_put", "do_exchange"),
    *("do_action", "list_actions", "list_flights"),
)


class FlightSqlServer(flight.FlightServerBase):  # type: ignore[misc]
    """Serves from creation to `close`. Doesn't own the service. Any number of calls at once."""

    def __init__(
        self,
        service: Service,
        host: str,
        port: int,
        limits: ServerLimits = DEFAULT_LIMITS,
        *,
        logins: Logins | None = None,
        tls: ServerTls | None = None,
    ) -> None:
        """`port` 0: a free one, see `.port`. `logins` None: everybody is let in; `tls` None: in the clear.

        Raises OSError when the address can't be used.
        """
        self.has_open_calls = False  # `close` has left some: the process can't end in order any more
        # Calls can arrive as soon as the base class is initialised.
        limits = self._limits = LiveLimits(limits)
        self.activities = Activities()
        self._statements = Statements(limits)
        self._front = Front(service, self._statements, limits)
        self._transactions = Transactions(limits, self._front.planner.pins)
        self._running = Running()
        self._sessions = Sessions(limits)
        self._actions = Actions(
            SessionActions(self._sessions, limits), self._transactions, self._running, self.activities
        )
        self._logins = logins or OpenLogins()
        self._calls = Calls(self._sessions, self._expire, self._logins)
        self.reads = DirectReads(self._front, self._calls, self.activities)
        try:
            super().__init__(**self._door(host, port, tls))
        except BaseException:
            self._calls.close()
            raise
        self._tls = tls
        self._doors = Doors((host, self.port), self)

    def _door(self, host: str, port: int, tls: ServerTls | None) -> dict[str, object]:
        """What pyarrow has to know to serve here."""
        location = flight.Location.for_grpc_tls if tls else flight.Location.for_grpc_tcp
        return {
            "location": location(in_uri(host), port),
            "auth_handler": Handshakes(self._logins),
            "middleware": {MIDDLEWARE: self._calls},
            **(tls.options() if tls else {}),
        }

    def use_limits(self, limits: ServerLimits) -> None:
        """The limits from now on."""
        self._limits.change(limits)

    def use_tls(self, tls: ServerTls) -> None:
        """Show another certificate to clients that connect from now on; connections that there are stay.

        Raises `Unavailable` when another process has taken the port.
        """
        assert self._tls is not None, "a server in the clear stays so"
        self._doors.change(lambda: _Door(self, **self._door(*self._doors.address, tls)))
        self._tls = tls

    def drain(self) -> None:
        """Refuse further calls with UNAVAILABLE, and end the feeds that others follow. Other calls go on.

        To be followed by `close`, once `is_idle` or when they have had their time.
        """
        self._calls.drain()

    @property
    def is_idle(self) -> bool:
        """Whether no call is under way that anybody waits for."""
        return self._calls.count == 0

    def close(self) -> None:
        """End every stream with UNAVAILABLE, then the server. Idempotent.

        A client that doesn't take what is sent can hold its call open; after `CLOSE_SECONDS` it is left.
        """
        self._calls.end_all()
        self.has_open_calls = self._doors.close()
        self._calls.close()
        self._statements.close()
        self._transactions.close()
        self._front.planner.pins.close()

    @property
    def sessions(self) -> Sessions:
        return self._sessions

    @property
    def transactions(self) -> Transactions:
        return self._transactions

    @property
    def pins(self) -> Pins:
        return self._front.planner.pins

    @property
    def stats(self) -> ServerStats:
        """What clients hold and use now."""
        return ServerStats(
            calls=self._calls.count,
            running=self._running.count,
            queries=self._front.planner.queries,
            follows=self._front.planner.follows,
            planned=self._statements.planned,
            prepared=self._statements.prepared_open,
            transactions=self._transactions.count,
            transactions_holding=self._transactions.holding_count,
            pins=self._front.planner.pins.count,
            sessions=self._sessions.count,
        )

    def _expire(self) -> None:
        self._statements.expire()
        self._sessions.expire()
        self._transactions.expire()
        self._front.planner.pins.expire()

    # --- queries ----------------------------------------------------------------------------------

    @boundary
    def get_flight_info(
        self, context: flight.ServerCallContext, descriptor: flight.FlightDescriptor
    ) -> flight.FlightInfo:
        command = _command(descriptor)
        call = _call(context)
        call.watch(context)
        front = self._front.seen_by(call.user)
        plan = self._plan(front, command, call)
        if plan is None:
            return _info(descriptor, catalog.schema_of(command), descriptor.command, b"")
        plan.timeout_ms = call.options.statement_timeout_ms
        ticket = pack(pb.TicketStatementQuery(statement_handle=front.handles.keep(plan)))
        return _info(descriptor, plan.schema, ticket, plan.app_metadata)

    def _plan(self, front: Front, command: Message, call: Call) -> Plan | None:
        """The plan of a statement, None for a catalog command."""
        match command:
            case pb.CommandStatementQuery():
                with self.activities.planning(call, command.query) as activity:
                    self._transactions.join(call, command.transaction_id)
                    statement = front.planner.checks.check(command.query)
                    return activity.planned(front.planner.plan(statement, NO_PARAMETERS, call))
            case pb.CommandPreparedStatementQuery():
                prepared = front.handles.prepared(command.prepared_statement_handle)
                with self.activities.planning(call, prepared.sql) as activity:
                    self._transactions.join_as(call, prepared.transaction_id)
                    front.planner.check_served(prepared.statement)
                    return activity.planned(front.planner.plan(prepared.statement, prepared.bound, call))
        return None

    @boundary
    def get_schema(
        self, context: flight.ServerCallContext, descriptor: flight.FlightDescriptor
    ) -> flight.SchemaResult:
        command = _command(descriptor)
        call = _call(context)
        call.watch(context)
        front = self._front.seen_by(call.user)
        match command:
            case pb.CommandStatementQuery():
                self._transactions.join(call, command.transaction_id)
                statement = front.planner.checks.check(command.query)
            case pb.CommandPreparedStatementQuery():
                statement = front.handles.prepared(command.prepared_statement_handle).statement
            case _:
                return flight.SchemaResult(catalog.schema_of(command))
        if isinstance(statement, Write):
            return flight.SchemaResult(WRITE_SCHEMA)
        return flight.SchemaResult(front.planner.schemas.of(statement, call))

    @boundary
    def do_get(self, context: flight.ServerCallContext, ticket: flight.Ticket) -> flight.FlightDataStream:
        command = unpack(ticket.ticket, "the ticket")
        call = _call(context)
        front = self._front.seen_by(call.user)
        if not isinstance(command, pb.TicketStatementQuery):
            catalog.schema_of(command)
            return flight.RecordBatchStream(catalog.reply(command, front.service, self._limits, ACTIONS))
        plan = front.handles.fetch(command.statement_handle)
        self._running.add(command.statement_handle, plan, call)
        call.watch(context)
        rows = plan.answer(call)
        if rows is not None:
            call.offers_all(self._limits.stalled_seconds)
            return flight.RecordBatchStream(rows, _WRITING)
        # The query runs inside the generator: a client can cancel only once it has the schema.
        batches = call.offered(plan.batches(call), self._limits.stalled_seconds)
        return flight.GeneratorStream(plan.schema, guarded_stream(batches, "do_get", context), _WRITING)

    # --- writes and actions -----------------------------------------------------------------------

    @boundary
    def do_put(
        self,
        context: flight.ServerCallContext,
        descriptor: flight.FlightDescriptor,
        reader: flight.MetadataRecordBatchReader,
        writer: flight.FlightMetadataWriter,
    ) -> None:
        command = _command(descriptor)
        call = _call(context)
        call.watch(context)
        front = self._front.seen_by(call.user)
        with self._doing(front, command, call):
            writer.write(pa.py_buffer(front.puts.put(command, reader, context)))

    @contextmanager
    def _doing(self, front: Front, command: Message, call: Call) -> Iterator[None]:
        """The statement of a DoPut is under way in the block, as a part of its transaction."""
        match command:
            case pb.CommandStatementUpdate():
                with self.activities.doing(call, command.query, QueryKind.WRITE):
                    self._transactions.join(call, command.transaction_id)
                    yield
            case pb.CommandPreparedStatementUpdate():
                prepared = front.handles.prepared(command.prepared_statement_handle)
                with self.activities.doing(call, prepared.sql, QueryKind.WRITE):
                    self._transactions.join_as(call, prepared.transaction_id)
                    yield
            case pb.CommandStatementIngest():
                with self.activities.doing(call, f"INGEST {command.table}", QueryKind.INGEST):
                    yield
            case _:  # binds parameters, or isn't served
                yield

    @boundary
    def do_action(self, context: flight.ServerCallContext, action: flight.Action) -> Iterator[flight.Result]:
        call = _call(context)
        front = self._front.seen_by(call.user)
        results = self._actions.act(front, call, action.type, action.body.to_pybytes(), context)
        return iter([flight.Result(result) for result in results])

    @boundary
    def list_flights(self, context: flight.ServerCallContext, criteria: bytes) -> Iterator[flight.FlightInfo]:
        raise Unimplemented("ListFlights isn't served here: ask for tables by CommandGetTables")

    @boundary
    def do_exchange(
        self,
        context: flight.ServerCallContext,
        descriptor: flight.FlightDescriptor,
        reader: flight.MetadataRecordBatchReader,
        writer: flight.FlightMetadataWriter,
    ) -> None:
        raise Unimplemented("DoExchange isn't served here: Flight SQL has DoGet and DoPut")

    def list_actions(self, context: flight.ServerCallContext) -> list[tuple[str, str]]:
        return list(ACTIONS.items())


class _Door(flight.FlightServerBase):  # type: ignore[misc]
    """Another of pyarrow's servers at the same port, with another certificate; its calls are `server`'s."""

    def __init__(self, server: FlightSqlServer, **options: object) -> None:
        for name in _RPCS:
            setattr(self, name, getattr(server, name))
        super().__init__(**options)


def _command(descriptor: flight.FlightDescriptor) -> Message:
    if descriptor.descriptor_type != flight.DescriptorType.CMD:
        raise InvalidStatement("the descriptor names a path; Flight SQL takes commands")
    return unpack(descriptor.command, "the command")


def _call(context: flight.ServerCallContext) -> Call:
    call = context.get_middleware(MIDDLEWARE)
    assert isinstance(call, Call), "a call without its middleware"
    call.peer = context.peer()
    return call


def _info(
    descriptor: flight.FlightDescriptor, schema: pa.Schema, ticket: bytes, app_metadata: bytes
) -> flight.FlightInfo:
    # Without a location the client asks where it asked before, whatever stands between.
    endpoint = flight.FlightEndpoint(ticket, [])
    return flight.FlightInfo(schema, descriptor, [endpoint], -1, -1, False, app_metadata)
