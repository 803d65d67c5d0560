"""A Flight SQL client of bare pyarrow, which sees what ADBC hides."""

from __future__ import annotations

import time
from collections.abc import Callable

import pyarrow as pa
from google.protobuf.message import Message
from pyarrow import flight

from flight_replica._pb import flight_sql_pb2 as pb
from flight_replica.flightsql.commands import pack, unpack


def descriptor(message: Message) -> flight.FlightDescriptor:
    return flight.FlightDescriptor.for_command(pack(message))


def wait_until(condition: Callable[[], bool], seconds: float = 5.0) -> float:
    """How long it took. Fails when it took longer than `seconds`."""
    began = time.monotonic()
    while not condition():
        assert time.monotonic() - began < seconds, "the condition never came true"
        time.sleep(0.005)
    return time.monotonic() - began


class RawClient:
    def __init__(self, client: flight.FlightClient) -> None:
        self.client = client

    def info(self, sql: str, **headers: str) -> flight.FlightInfo:
        return self.command(pb.CommandStatementQuery(query=sql), **headers)

    def command(self, message: Message, **headers: str) -> flight.FlightInfo:
        return self.client.get_flight_info(descriptor(message), _options(headers))

    def open(self, info: flight.FlightInfo) -> flight.FlightStreamReader:
        (endpoint,) = info.endpoints
        assert endpoint.locations == []
        return self.client.do_get(endpoint.ticket)

    def rows(self, sql: str, **headers: str) -> pa.Table:
        return self.open(self.info(sql, **headers)).read_all()

    def reply(self, message: Message) -> pa.Table:
        info = self.command(message)
        table = self.open(info).read_all()
        assert table.schema.equals(info.schema)
        return table

    def act(self, name: str, message: Message) -> list[bytes]:
        return [result.body.to_pybytes() for result in self.client.do_action((name, pack(message)))]

    def begin(self) -> bytes:
        """The id of a new transaction."""
        (result,) = self.act("BeginTransaction", pb.ActionBeginTransactionRequest())
        found = unpack(result, "the action's result")
        assert isinstance(found, pb.ActionBeginTransactionResult)
        return bytes(found.transaction_id)

    def rows_in(self, transaction_id: bytes, sql: str, **headers: str) -> list[dict[str, object]]:
        """The rows of a statement of a transaction."""
        command = pb.CommandStatementQuery(query=sql, transaction_id=transaction_id)
        rows: list[dict[str, object]] = self.open(self.command(command, **headers)).read_all().to_pylist()
        return rows

    def commit(self, transaction_id: bytes) -> None:
        self.end_transaction(transaction_id, pb.ActionEndTransactionRequest.END_TRANSACTION_COMMIT)

    def roll_back(self, transaction_id: bytes) -> None:
        self.end_transaction(transaction_id, pb.ActionEndTransactionRequest.END_TRANSACTION_ROLLBACK)

    def end_transaction(self, transaction_id: bytes, action: int) -> None:
        request = pb.ActionEndTransactionRequest(transaction_id=transaction_id, action=action)
        assert self.act("EndTransaction", request) == []


def _options(headers: dict[str, str]) -> flight.FlightCallOptions:
    pairs = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    return flight.FlightCallOptions(headers=pairs)
