"""The least that a server in Python pays for a small query: it answers every statement with the same row.

The calls are those of a client that prepares, executes and closes a statement; nothing is parsed, checked or
run. So its latency is that of Flight, gRPC and the client alone.

Run: python -m benchmarks.constant_server
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pyarrow as pa
from pyarrow import flight

from flight_replica._pb import flight_sql_pb2 as pb
from flight_replica.demo_orders import orders
from flight_replica.flightsql import catalog
from flight_replica.flightsql.commands import pack, unpack

_HANDLE = b"constant"


class ConstantServer(flight.FlightServerBase):  # type: ignore[misc]
    """Serves from creation on."""

    def __init__(self) -> None:
        self._row = orders(np.arange(1), np.random.default_rng(7))
        self._prepared = pack(
            pb.ActionCreatePreparedStatementResult(
                prepared_statement_handle=_HANDLE,
                dataset_schema=self._row.schema.serialize().to_pybytes(),
                parameter_schema=pa.schema([]).serialize().to_pybytes(),
            )
        )
        self._ticket = pack(pb.TicketStatementQuery(statement_handle=_HANDLE))
        super().__init__("grpc://127.0.0.1:0")

    def do_action(self, context: flight.ServerCallContext, action: flight.Action) -> Iterator[flight.Result]:
        unpack(action.body.to_pybytes(), "the action")
        is_prepare = action.type == "CreatePreparedStatement"
        return iter([flight.Result(self._prepared)] if is_prepare else [])

    def get_flight_info(
        self, context: flight.ServerCallContext, descriptor: flight.FlightDescriptor
    ) -> flight.FlightInfo:
        command = unpack(descriptor.command, "the command")
        if isinstance(command, pb.CommandPreparedStatementQuery):
            schema, ticket = self._row.schema, self._ticket
        else:  # what a driver asks of the server when it connects
            schema, ticket = catalog.schema_of(command), descriptor.command
        return flight.FlightInfo(schema, descriptor, [flight.FlightEndpoint(ticket, [])], -1, -1)

    def do_get(self, context: flight.ServerCallContext, ticket: flight.Ticket) -> flight.FlightDataStream:
        command = unpack(ticket.ticket, "the ticket")
        if isinstance(command, pb.TicketStatementQuery):
            return flight.GeneratorStream(self._row.schema, iter([self._row]))
        return flight.RecordBatchStream(catalog.schema_of(command).empty_table())


def main() -> None:
    server = ConstantServer()
    print(f"listening on grpc://127.0.0.1:{server.port}", flush=True)
    server.serve()


if __name__ == "__main__":
    main()
