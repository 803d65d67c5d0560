"""DoPut: bound parameters, updates and bulk ingestion."""

from __future__ import annotations

import copy
from collections.abc import Mapping

from google.protobuf.message import Message
from pyarrow import flight

from flight_replica._pb import flight_sql_pb2 as pb
from flight_replica.errors import InvalidStatement, ReadOnly
from flight_replica.flightsql.call import Call
from flight_replica.flightsql.checking import Write
from flight_replica.flightsql.limits import ServerLimits
from flight_replica.flightsql.observing import QueryKind
from flight_replica.flightsql.parameters import NO_PARAMETERS, read_bound, whole_stream
from flight_replica.flightsql.planning import Planner
from flight_replica.flightsql.service import IngestMode, Service, WriteResult
from flight_replica.flightsql.session_sql import SessionChange
from flight_replica.flightsql.statements import Handles
from flight_replica.flightsql.status import MIDDLEWARE, Unimplemented
from flight_replica.log.wire import encode_name
from flight_replica.sql.names import CATALOG, DB_SCHEMA
from flight_replica.sql.statement import fold

SEQ_TRAILER = "merutable-seq"

_Options = pb.CommandStatementIngest.TableDefinitionOptions
_MODES = {
    (_Options.TABLE_NOT_EXIST_OPTION_CREATE, _Options.TABLE_EXISTS_OPTION_FAIL): IngestMode.CREATE,
    (_Options.TABLE_NOT_EXIST_OPTION_FAIL, _Options.TABLE_EXISTS_OPTION_APPEND): IngestMode.APPEND,
    (_Options.TABLE_NOT_EXIST_OPTION_CREATE, _Options.TABLE_EXISTS_OPTION_REPLACE): IngestMode.REPLACE,
    (_Options.TABLE_NOT_EXIST_OPTION_CREATE, _Options.TABLE_EXISTS_OPTION_APPEND): IngestMode.CREATE_APPEND,
}


class Puts:
    """What a DoPut does. Thread-safe."""

    def __init__(self, service: Service, planner: Planner, handles: Handles, limits: ServerLimits) -> None:
        self._service = service
        self._planner = planner
        self._handles = handles
        self._limits = limits

    def over(self, service: Service, planner: Planner, handles: Handles) -> Puts:
        """The same with other parts, as another user has them."""
        other = copy.copy(self)
        other._service, other._planner, other._handles = service, planner, handles
        return other

    def put(
        self,
        command: Message,
        reader: flight.MetadataRecordBatchReader,
        context: flight.ServerCallContext,
    ) -> bytes:
        """Do it, and return the metadata of its PutResult. Says the seq of a write in a trailer."""
        match command:
            case pb.CommandPreparedStatementQuery():
                return self._bind(command.prepared_statement_handle, reader)
            case pb.CommandStatementUpdate():
                # ADBC sends no schema message here, so the reader can't be touched.
                return self._run(command.query, context)
            case pb.CommandPreparedStatementUpdate():
                result = self._update(command.prepared_statement_handle, reader, _call(context))
                return _written(result, context)
            case pb.CommandStatementIngest():
                return _written(self._ingest(command, reader, context), context)
        raise Unimplemented(f"DoPut of {command.DESCRIPTOR.name} isn't served here")

    def _bind(self, handle: bytes, reader: flight.MetadataRecordBatchReader) -> bytes:
        self._handles.prepared(handle)  # before anything is read
        self._handles.bind(handle, read_bound(reader, self._limits.bound_bytes_max))
        result = pb.DoPutPreparedStatementResult(prepared_statement_handle=handle)
        return bytes(result.SerializeToString())

    def _run(self, sql: str, context: flight.ServerCallContext) -> bytes:
        statement = self._planner.checks.check(sql)
        if isinstance(statement, SessionChange):
            _call(context).change_session(statement.values)
            return bytes(pb.DoPutUpdateResult(record_count=0).SerializeToString())
        if not isinstance(statement, Write):
            raise InvalidStatement("the statement changes nothing; run it as a query")
        return _written(self._planner.write(statement, _call(context)), context)

    def _update(self, handle: bytes, reader: flight.MetadataRecordBatchReader, call: Call) -> WriteResult:
        statement = self._handles.prepared(handle).statement
        if not isinstance(statement, Write):
            raise InvalidStatement("the prepared statement changes nothing; run it as a query")
        bound = (
            read_bound(reader, self._limits.bound_bytes_max) if statement.parameter_count else NO_PARAMETERS
        )
        return self._planner.write(statement, call, bound)

    def _ingest(
        self,
        command: Message,
        reader: flight.MetadataRecordBatchReader,
        context: flight.ServerCallContext,
    ) -> WriteResult:
        reason = self._service.read_only_reason
        if reason is not None:
            raise ReadOnly(f"bulk ingestion writes: {reason}")
        if command.transaction_id:
            raise Unimplemented("bulk ingestion commits by itself; leave its transaction_id out")
        if command.temporary:
            raise Unimplemented("temporary tables aren't served here")
        for name, stated, own in (
            ("catalog", command.catalog, CATALOG),
            ("schema", command.schema, DB_SCHEMA),
        ):
            if stated and fold(stated) != own:
                raise InvalidStatement(f"bulk ingestion: there is no {name} {stated!r}, only {own}")
        options = command.table_definition_options
        mode = _MODES.get((options.if_not_exist, options.if_exists))
        if mode is None:
            raise InvalidStatement(
                f"bulk ingestion: if_not_exist {options.if_not_exist} with if_exists {options.if_exists} "
                "is none of create, append, replace, create_append"
            )
        call = _call(context)
        done = self._service.ingest(command.table, mode, whole_stream(reader, context), call)
        return call.wrote(QueryKind.INGEST, done)


def seq_text(seqs: Mapping[str, int]) -> str:
    """The tables of a commit and its last seq in each, as the trailer has them: `orders=124,items=45`."""
    return ",".join(f"{encode_name(table)}={seq}" for table, seq in seqs.items())


def _call(context: flight.ServerCallContext) -> Call:
    call = context.get_middleware(MIDDLEWARE)
    assert isinstance(call, Call), "a call without its middleware"
    return call


def _written(result: WriteResult, context: flight.ServerCallContext) -> bytes:
    if result.seq is not None:
        context.add_trailer(SEQ_TRAILER, seq_text({result.table: result.seq}))
    return bytes(pb.DoPutUpdateResult(record_count=result.rows_affected).SerializeToString())
