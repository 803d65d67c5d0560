"""`FlightSqlServer`: a `Service` on a port. Thin: each RPC finds its command and hands it on.

Commands: commands.py. Queries: planning.py, plans.py, statements.py. Writes: writes.py. Catalog:
catalog.py. Vanished clients and deadlines: calls.py. Errors: status.py.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pyarrow as pa
from google.protobuf.message import Message
from pyarrow import flight

from flight_replica._pb import flight_sql_pb2 as pb
from flight_replica.errors import InvalidStatement, Unavailable
from flight_replica.flightsql import catalog
from flight_replica.flightsql.activities import Activities
from flight_replica.flightsql.auth import Logins, OpenLogins
from flight_replica.flightsql.calls import Call, Calls
from flight_replica.flightsql.cancels import CANCEL_ACTIONS, RENEW_ENDPOINT, Running, cancel_action
from flight_replica.flightsql.commands import pack, unpack
from flight_replica.flightsql.direct import DirectReads
from flight_replica.flightsql.front import Front
from flight_replica.flightsql.handshake import Handshakes
from flight_replica.flightsql.limits import DEFAULT_LIMITS, LiveLimits, ServerLimits
from flight_replica.flightsql.observing import QueryKind
from flight_replica.flightsql.parameters import NO_PARAMETERS
from flight_replica.flightsql.pins import END_PIN, Pins
from flight_replica.flightsql.planning import Write
from flight_replica.flightsql.plans import WRITE_SCHEMA, Plan
from flight_replica.flightsql.port import in_uri, stop_listening, wait_until_free
from flight_replica.flightsql.service import Service
from flight_replica.flightsql.session_actions import CLOSE, SESSION_ACTIONS, SessionActions
from flight_replica.flightsql.sessions import Sessions
from flight_replica.flightsql.statements import Prepared, Statements
from flight_replica.flightsql.stats import ServerStats
from flight_replica.flightsql.status import MIDDLEWARE, Unimplemented, boundary, guarded_stream
from flight_replica.flightsql.tls import ServerTls
from flight_replica.flightsql.transactions import Transactions
from flight_replica.flightsql.writes import SEQ_TRAILER, seq_text

logger = logging.getLogger(__name__)

DOORS_MAX = 8  # certificates that connections may be open with; the oldest ones are then told to come anew
PORT_SECONDS = 10.0  # how long the port may be taken while it changes hands
CLOSE_SECONDS = 10.0  # how long `close` waits for calls whose clients neither read nor go

_NO_COLUMNS = pa.schema([]).serialize().to_pybytes()
_WRITING = pa.ipc.IpcWriteOptions()  # given, since pyarrow looks into the environment for each stream else
_ACTIONS = {
    "CreatePreparedStatement": "Checks a statement and gives it a handle.",
    "ClosePreparedStatement": "Forgets the handle of a prepared statement.",
    **SESSION_ACTIONS,
    **CANCEL_ACTIONS,
    "BeginTransaction": "Begins a transaction and gives it an id.",
    "EndTransaction": "Commits a transaction, or rolls it back.",
    END_PIN: "Ends the pin whose name is the body; its moment is let go at once.",
}
_NO_SAVEPOINTS = "a transaction here commits or rolls back as a whole; there are no savepoints"
_RPCS = (
    *("get_flight_info", "get_schema", "do_get", "do_put", "do_exchange"),
    *("do_action", "list_actions", "list_flights"),
)
_NOT_SERVED = {
    "BeginSavepoint": _NO_SAVEPOINTS,
    "EndSavepoint": _NO_SAVEPOINTS,
    "CreatePreparedSubstraitPlan": "statements are SQL, not Substrait plans",
}


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
        self._session_actions = SessionActions(self._sessions, limits)
        self._logins = logins or OpenLogins()
        self._calls = Calls(self._sessions, self._expire, self._logins)
        self.reads = DirectReads(self._front, self._calls, self.activities)
        try:
            super().__init__(**self._door(host, port, tls))
        except BaseException:
            self._calls.close()
            raise
        self._address = (host, self.port)
        self._tls = tls
        self._doors: list[flight.FlightServerBase] = [self]  # the last one takes connections
        self._endings: list[threading.Thread] = []  # of doors that were shut, and have calls under way

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

        pyarrow reads a certificate once, and shares its port with nobody. So the port changes hands: the old
        server stops to listen and keeps its connections, and a second one of pyarrow's listens at once. For
        about a millisecond nobody does, and a client that connects just then is refused.
        Raises `Unavailable` when another process has taken the port.
        """
        assert self._tls is not None, "a server in the clear stays so"
        if not stop_listening(self._address):
            self._shut(self._doors.pop())
        wait_until_free(self._address, PORT_SECONDS)
        try:
            self._doors.append(_Door(self, **self._door(*self._address, tls)))
        except pa.ArrowException as error:
            raise Unavailable(f"port {self._address[1]} can't be listened on: {error}") from error
        self._tls = tls
        while len(self._doors) > DOORS_MAX:
            self._shut(self._doors.pop(0))

    def _shut(self, door: flight.FlightServerBase) -> None:
        """End one door once its calls have ended; its clients connect anew for further ones."""
        ending = threading.Thread(target=door.shutdown, name="flight-shutdown", daemon=True)
        ending.start()
        self._endings = [*(thread for thread in self._endings if thread.is_alive()), ending]

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
        while self._doors:
            self._shut(self._doors.pop())
        deadline = time.monotonic() + CLOSE_SECONDS
        for ending in self._endings:
            ending.join(max(deadline - time.monotonic(), 0.0))
        if any(ending.is_alive() for ending in self._endings):
            self.has_open_calls = True
            logger.warning("server closed with calls left open seconds=%g", CLOSE_SECONDS)
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
                    self._join(command.transaction_id, call)
                    statement = front.planner.check(command.query)
                    return activity.planned(front.planner.plan(statement, NO_PARAMETERS, call))
            case pb.CommandPreparedStatementQuery():
                prepared = front.handles.prepared(command.prepared_statement_handle)
                with self.activities.planning(call, prepared.sql) as activity:
                    self._join_as(prepared, call)
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
                self._join(command.transaction_id, call)
                statement = front.planner.check(command.query)
            case pb.CommandPreparedStatementQuery():
                statement = front.handles.prepared(command.prepared_statement_handle).statement
            case _:
                return flight.SchemaResult(catalog.schema_of(command))
        if isinstance(statement, Write):
            return flight.SchemaResult(WRITE_SCHEMA)
        return flight.SchemaResult(front.planner.result_schema(statement, call))

    @boundary
    def do_get(self, context: flight.ServerCallContext, ticket: flight.Ticket) -> flight.FlightDataStream:
        command = unpack(ticket.ticket, "the ticket")
        call = _call(context)
        front = self._front.seen_by(call.user)
        if not isinstance(command, pb.TicketStatementQuery):
            catalog.schema_of(command)
            return flight.RecordBatchStream(catalog.reply(command, front.service, self._limits, _ACTIONS))
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
                    self._join(command.transaction_id, call)
                    yield
            case pb.CommandPreparedStatementUpdate():
                prepared = front.handles.prepared(command.prepared_statement_handle)
                with self.activities.doing(call, prepared.sql, QueryKind.WRITE):
                    self._join_as(prepared, call)
                    yield
            case pb.CommandStatementIngest():
                with self.activities.doing(call, f"INGEST {command.table}", QueryKind.INGEST):
                    yield
            case _:  # binds parameters, or isn't served
                yield

    @boundary
    def do_action(self, context: flight.ServerCallContext, action: flight.Action) -> Iterator[flight.Result]:
        name, body = action.type, action.body.to_pybytes()
        if name in SESSION_ACTIONS:
            results = [self._session_actions.act(name, body, _call(context), context)]
            if name == CLOSE:
                call = _call(context)
                self._transactions.close_origin(call.session.id, call.user.name)
        else:
            call = _call(context)
            call.watch(context)
            results = self._act(self._front.seen_by(call.user), call, name, body, context)
        return iter([flight.Result(result) for result in results])

    def _act(
        self, front: Front, call: Call, name: str, body: bytes, context: flight.ServerCallContext
    ) -> list[bytes]:
        if name in _NOT_SERVED:
            raise Unimplemented(f"action {name} isn't served here: {_NOT_SERVED[name]}")
        if name == RENEW_ENDPOINT:
            raise Unimplemented("endpoints here have no expiration time to move; plan the statement again")
        if name not in _ACTIONS:
            raise InvalidStatement(f"there is no action {name[:80]!r}")
        if name in CANCEL_ACTIONS:
            return [cancel_action(name, body, self._running, front.handles, call.user.name)]
        if name == END_PIN:
            front.planner.pins.end(call.user.name, body.decode("utf-8", "replace"))
            return []
        request = unpack(body, f"action {name}")
        match request:
            case pb.ActionCreatePreparedStatementRequest():
                with self.activities.checking(call, request.query):
                    return [pack(self._prepare(front, call, request))]
            case pb.ActionClosePreparedStatementRequest():
                front.handles.close_prepared(request.prepared_statement_handle)
                return []
            case pb.ActionBeginTransactionRequest():
                transaction_id = self._transactions.begin(call.user.name, call.origin)
                return [pack(pb.ActionBeginTransactionResult(transaction_id=transaction_id))]
            case pb.ActionEndTransactionRequest():
                self._end_transaction(request, call, context)
                return []
        raise InvalidStatement(f"action {name} with a {request.DESCRIPTOR.name}")

    def _join(self, transaction_id: bytes, call: Call) -> None:
        """Make the call's statement part of a transaction; empty: of none. Raises `TransactionNotFound`."""
        if transaction_id:
            call.transaction = self._transactions.find(transaction_id, call.user.name)

    def _join_as(self, prepared: Prepared, call: Call) -> None:
        """Make the call's statement part of the transaction that its prepared statement belongs to."""
        if prepared.transaction_id:
            call.transaction = self._transactions.of_prepared(
                prepared.transaction_id, call.user.name, call.origin
            )

    def _end_transaction(self, request: Message, call: Call, context: flight.ServerCallContext) -> None:
        match request.action:
            case pb.ActionEndTransactionRequest.END_TRANSACTION_COMMIT:
                seqs = self._transactions.commit(request.transaction_id, call.user.name)
                if seqs:
                    context.add_trailer(SEQ_TRAILER, seq_text(seqs))
            case pb.ActionEndTransactionRequest.END_TRANSACTION_ROLLBACK:
                self._transactions.roll_back(request.transaction_id, call.user.name)
            case action:
                raise InvalidStatement(f"EndTransaction with action {action}: 1 commits, 2 rolls back")

    def _prepare(self, front: Front, call: Call, request: Message) -> Message:
        self._join(request.transaction_id, call)
        statement = front.planner.prepare(request.query, call)
        parameters = front.planner.parameter_schema(statement) if statement.parameter_keys else None
        result = pb.ActionCreatePreparedStatementResult(
            parameter_schema=_NO_COLUMNS if parameters is None else parameters.serialize().to_pybytes()
        )
        if not isinstance(statement, Write):
            result.is_update = False
            result.dataset_schema = front.planner.result_schema(statement, call).serialize().to_pybytes()
        elif not _asks_for_the_seq(call):
            result.is_update = True
            result.dataset_schema = _NO_COLUMNS
        # At the very end: what fails before leaves no handle.
        result.prepared_statement_handle = front.handles.prepare(
            statement, request.transaction_id, request.query
        )
        return result

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
        return list(_ACTIONS.items())


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


def _asks_for_the_seq(call: Call) -> bool:
    """Whether a write isn't announced as one, so that its client takes the query path and is told the seq.

    ADBC's driver shows no trailers: after the DoPut that an announced write leads to it knows a count alone.
    """
    return (call.header("user-agent") or "").startswith("ADBC")


def _info(
    descriptor: flight.FlightDescriptor, schema: pa.Schema, ticket: bytes, app_metadata: bytes
) -> flight.FlightInfo:
    # Without a location the client asks where it asked before, whatever stands between.
    endpoint = flight.FlightEndpoint(ticket, [])
    return flight.FlightInfo(schema, descriptor, [endpoint], -1, -1, False, app_metadata)
