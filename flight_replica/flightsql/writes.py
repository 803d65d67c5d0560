"""DoPut: bound parameters, updates and bulk ingestion."""

from __future__ import annotations

from google.protobuf.message import Message
from pyarrow import flight

from flight_replica._pb import flight_sql_pb2 as pb
from flight_replica.errors import InvalidStatement, ReadOnly
from flight_replica.flightsql.limits import ServerLimits
from flight_replica.flightsql.parameters import NO_PARAMETERS, read_bound, whole_stream
from flight_replica.flightsql.planning import Planner, Write
from flight_replica.flightsql.service import IngestMode, Service, WriteResult
from flight_replica.flightsql.statements import Statements
from flight_replica.flightsql.status import Unimplemented
from flight_replica.log.wire import encode_name

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

    def __init__(
        self, service: Service, planner: Planner, statements: Statements, limits: ServerLimits
    ) -> None:
        self._service = service
        self._planner = planner
        self._statements = statements
        self._limits = limits

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
                return _written(self._planner.write(self._write(command.query)), context)
            case pb.CommandPreparedStatementUpdate():
                return _written(self._update(command.prepared_statement_handle, reader), context)
            case pb.CommandStatementIngest():
                return _written(self._ingest(command, reader, context), context)
        raise Unimplemented(f"DoPut of {command.DESCRIPTOR.name} isn't served here")

    def _bind(self, handle: bytes, reader: flight.MetadataRecordBatchReader) -> bytes:
        prepared = self._statements.prepared(handle)
        prepared.bound = read_bound(reader, self._limits.bound_bytes_max)
        result = pb.DoPutPreparedStatementResult(prepared_statement_handle=handle)
        return bytes(result.SerializeToString())

    def _write(self, sql: str) -> Write:
        statement = self._planner.check(sql)
        if not isinstance(statement, Write):
            raise InvalidStatement("the statement changes nothing; run it as a query")
        return statement

    def _update(self, handle: bytes, reader: flight.MetadataRecordBatchReader) -> WriteResult:
        statement = self._statements.prepared(handle).statement
        if not isinstance(statement, Write):
            raise InvalidStatement("the prepared statement changes nothing; run it as a query")
        bound = (
            read_bound(reader, self._limits.bound_bytes_max) if statement.parameter_count else NO_PARAMETERS
        )
        return self._planner.write(statement, bound)

    def _ingest(
        self,
        command: Message,
        reader: flight.MetadataRecordBatchReader,
        context: flight.ServerCallContext,
    ) -> WriteResult:
        reason = self._service.read_only_reason
        if reason is not None:
            raise ReadOnly(f"bulk ingestion writes: {reason}")
        if command.temporary:
            raise Unimplemented("temporary tables aren't served here")
        options = command.table_definition_options
        mode = _MODES.get((options.if_not_exist, options.if_exists))
        if mode is None:
            raise InvalidStatement(
                f"bulk ingestion: if_not_exist {options.if_not_exist} with if_exists {options.if_exists} "
                "is none of create, append, replace, create_append"
            )
        return self._service.ingest(command.table, mode, whole_stream(reader, context))


def _written(result: WriteResult, context: flight.ServerCallContext) -> bytes:
    context.add_trailer(SEQ_TRAILER, f"{encode_name(result.table)}={result.seq}")
    return bytes(pb.DoPutUpdateResult(record_count=result.rows_affected).SerializeToString())
