"""`FlightSqlServer`: a `Service` on a port. Thin: each RPC finds its command and hands it on.

Commands: commands.py. Queries: planning.py, plans.py, statements.py. Writes: writes.py. Catalog:
catalog.py. Vanished clients and deadlines: calls.py. Errors: status.py.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator

import pyarrow as pa
from google.protobuf.message import Message
from pyarrow import flight

from flight_replica._pb import flight_sql_pb2 as pb
from flight_replica.errors import InvalidStatement
from flight_replica.flightsql import catalog
from flight_replica.flightsql.calls import MIDDLEWARE, Call, Calls
from flight_replica.flightsql.commands import pack, unpack
from flight_replica.flightsql.limits import DEFAULT_LIMITS, ServerLimits
from flight_replica.flightsql.parameters import NO_PARAMETERS
from flight_replica.flightsql.planning import Planner, Query
from flight_replica.flightsql.plans import WRITE_SCHEMA, Plan
from flight_replica.flightsql.service import Service
from flight_replica.flightsql.statements import Statements
from flight_replica.flightsql.status import Unimplemented, boundary, guarded_stream
from flight_replica.flightsql.writes import Puts

logger = logging.getLogger(__name__)

CLOSE_SECONDS = 10.0  # how long `close` waits for calls whose clients neither read nor go

_ACTIONS = {
    "CreatePreparedStatement": "Checks a statement and gives it a handle.",
    "ClosePreparedStatement": "Forgets the handle of a prepared statement.",
}
_NOT_SERVED = frozenset(
    {"BeginTransaction", "EndTransaction", "BeginSavepoint", "EndSavepoint", "CreatePreparedSubstraitPlan"}
    | {"CancelQuery", "CancelFlightInfo", "RenewFlightEndpoint"}
    | {"SetSessionOptions", "GetSessionOptions", "CloseSession"}
)


class NoAuthentication(flight.ServerAuthHandler):  # type: ignore[misc]
    """Lets everybody in, with user and password or without: pyarrow refuses a handshake otherwise."""

    def authenticate(self, outgoing: object, incoming: object) -> None:
        """Nothing is asked."""

    def is_valid(self, token: bytes) -> bytes:
        return b""


class FlightSqlServer(flight.FlightServerBase):  # type: ignore[misc]
    """Serves from creation to `close`. Doesn't own the service. Any number of calls at once."""

    def __init__(self, service: Service, host: str, port: int, limits: ServerLimits = DEFAULT_LIMITS) -> None:
        """`port` 0: a free one, see `.port`. Raises OSError when the address can't be used."""
        # Calls can arrive as soon as the base class is initialised.
        self._service = service
        self._limits = limits
        self._statements = Statements(limits)
        self._planner = Planner(service, limits)
        self._puts = Puts(service, self._planner, self._statements, limits)
        self._calls = Calls(housekeeping=self._statements.expire)
        try:
            super().__init__(
                flight.Location.for_grpc_tcp(host, port),
                auth_handler=NoAuthentication(),
                middleware={MIDDLEWARE: self._calls},
            )
        except BaseException:
            self._calls.close()
            raise

    def close(self) -> None:
        """End every stream with UNAVAILABLE, then the server. Idempotent.

        A client that doesn't take what is sent can hold its call open; after `CLOSE_SECONDS` it is left.
        """
        self._calls.end_all()
        ending = threading.Thread(target=self.shutdown, name="flight-shutdown", daemon=True)
        ending.start()
        ending.join(CLOSE_SECONDS)
        if ending.is_alive():
            logger.warning("server closed with calls left open seconds=%g", CLOSE_SECONDS)
        self._calls.close()
        self._statements.close()

    # --- queries ----------------------------------------------------------------------------------

    @boundary
    def get_flight_info(
        self, context: flight.ServerCallContext, descriptor: flight.FlightDescriptor
    ) -> flight.FlightInfo:
        command = _command(descriptor)
        call = _call(context)
        call.watch(context)
        plan = self._plan(command, call)
        if plan is None:
            return _info(descriptor, catalog.schema_of(command), descriptor.command, b"")
        ticket = pack(pb.TicketStatementQuery(statement_handle=self._statements.keep(plan)))
        return _info(descriptor, plan.schema, ticket, plan.app_metadata)

    def _plan(self, command: Message, call: Call) -> Plan | None:
        """The plan of a statement, None for a catalog command."""
        match command:
            case pb.CommandStatementQuery():
                _check_no_transaction(command)
                return self._planner.plan(self._planner.check(command.query), NO_PARAMETERS, call)
            case pb.CommandPreparedStatementQuery():
                prepared = self._statements.prepared(command.prepared_statement_handle)
                return self._planner.plan(prepared.statement, prepared.bound, call)
        return None

    @boundary
    def get_schema(
        self, context: flight.ServerCallContext, descriptor: flight.FlightDescriptor
    ) -> flight.SchemaResult:
        command = _command(descriptor)
        match command:
            case pb.CommandStatementQuery():
                _check_no_transaction(command)
                statement = self._planner.check(command.query)
            case pb.CommandPreparedStatementQuery():
                statement = self._statements.prepared(command.prepared_statement_handle).statement
            case _:
                return flight.SchemaResult(catalog.schema_of(command))
        if not isinstance(statement, Query):
            return flight.SchemaResult(WRITE_SCHEMA)
        schema = self._planner.result_schema(statement)
        if schema is None:
            raise InvalidStatement("the result's schema depends on parameters that aren't bound")
        return flight.SchemaResult(schema)

    @boundary
    def do_get(self, context: flight.ServerCallContext, ticket: flight.Ticket) -> flight.FlightDataStream:
        command = unpack(ticket.ticket, "the ticket")
        if not isinstance(command, pb.TicketStatementQuery):
            catalog.schema_of(command)
            return flight.RecordBatchStream(catalog.reply(command, self._service, self._limits))
        call = _call(context)
        plan = self._statements.fetch(command.statement_handle)
        call.watch(context)
        # The query runs inside the generator: a client can cancel only once it has the schema.
        return flight.GeneratorStream(plan.schema, guarded_stream(plan.batches(call), "do_get"))

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
        _check_no_transaction(command)
        writer.write(pa.py_buffer(self._puts.put(command, reader, context)))

    @boundary
    def do_action(self, context: flight.ServerCallContext, action: flight.Action) -> Iterator[flight.Result]:
        return iter([flight.Result(body) for body in self._act(action.type, action.body.to_pybytes())])

    def _act(self, name: str, body: bytes) -> list[bytes]:
        if name in _NOT_SERVED:
            raise Unimplemented(
                f"action {name} isn't served here; each statement is a transaction of its own"
            )
        if name not in _ACTIONS:
            raise InvalidStatement(f"there is no action {name[:80]!r}")
        request = unpack(body, f"action {name}")
        match request:
            case pb.ActionCreatePreparedStatementRequest():
                return [pack(self._prepare(request))]
            case pb.ActionClosePreparedStatementRequest():
                self._statements.close_prepared(request.prepared_statement_handle)
                return []
        raise InvalidStatement(f"action {name} with a {request.DESCRIPTOR.name}")

    def _prepare(self, request: Message) -> Message:
        _check_no_transaction(request)
        statement = self._planner.check(request.query)
        parameters = pa.schema([(str(n + 1), pa.null()) for n in range(statement.parameter_count)])
        result = pb.ActionCreatePreparedStatementResult(
            prepared_statement_handle=self._statements.prepare(statement),
            parameter_schema=parameters.serialize().to_pybytes(),
        )
        # A write is announced by neither field: ADBC then takes the query path, where it gets the seq
        # (with is_update it would send a DoPut and see a count alone), and JDBC runs an update.
        if isinstance(statement, Query):
            result.is_update = False
            schema = self._planner.result_schema(statement)
            if schema is not None:
                result.dataset_schema = schema.serialize().to_pybytes()
        return result

    def list_actions(self, context: flight.ServerCallContext) -> list[tuple[str, str]]:
        return list(_ACTIONS.items())


def _command(descriptor: flight.FlightDescriptor) -> Message:
    if descriptor.descriptor_type != flight.DescriptorType.CMD:
        raise InvalidStatement("the descriptor names a path; Flight SQL takes commands")
    return unpack(descriptor.command, "the command")


def _call(context: flight.ServerCallContext) -> Call:
    call = context.get_middleware(MIDDLEWARE)
    assert isinstance(call, Call), "a call without its middleware"
    return call


def _info(
    descriptor: flight.FlightDescriptor, schema: pa.Schema, ticket: bytes, app_metadata: bytes
) -> flight.FlightInfo:
    # Without a location the client asks where it asked before, whatever stands between.
    endpoint = flight.FlightEndpoint(ticket, [])
    return flight.FlightInfo(schema, descriptor, [endpoint], -1, -1, False, app_metadata)


def _check_no_transaction(command: Message) -> None:
    if "transaction_id" in command.DESCRIPTOR.fields_by_name and command.HasField("transaction_id"):
        raise Unimplemented("transactions aren't served here; each statement is one of its own")
