"""Flight SQL clients that hear of a seq without polling: statements that wait for it, and a followed feed."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import closing
from types import TracebackType

import pyarrow as pa
from google.protobuf.any_pb2 import Any as AnyMessage
from pyarrow import flight

from flight_replica._pb import feed_pb2, flight_sql_pb2

WAIT_MS = 120_000


class WaitingClient:
    """One connection. It asks nothing in vain: a statement is planned once its seq is visible."""

    def __init__(self, uri: str) -> None:
        self._client = flight.FlightClient(uri)

    def wait(self, table: str, seq: int) -> tuple[int, int]:
        """What the server says is visible once `table` is at `seq`, and when it said so (µs since 1970).

        No row of the table is read.
        """
        _, _, rows = self._run(f"SELECT * FROM merutable_wait('{table}', {seq}, {WAIT_MS})", ())
        return int(rows["visible_seq"][0].as_py()), now_us()

    def ask(self, sql: str, min_seq: int = 0) -> tuple[feed_pb2.TablePosition, int, pa.Table]:
        """The answer at `min_seq` or later: the position of its one table, when the plan was answered (µs
        since 1970), and the rows.
        """
        asked = {"merutable-min-seq": min_seq, "merutable-wait-timeout-ms": WAIT_MS} if min_seq else {}
        headers = tuple((name.encode(), str(value).encode()) for name, value in asked.items())
        positions, answered_us, rows = self._run(sql, headers)
        (position,) = positions.tables
        return position, answered_us, rows

    def _run(
        self, sql: str, headers: tuple[tuple[bytes, bytes], ...]
    ) -> tuple[feed_pb2.Positions, int, pa.Table]:
        options = flight.FlightCallOptions(headers=list(headers))
        info = self._client.get_flight_info(_statement(sql), options)
        answered_us = now_us()
        positions = feed_pb2.Positions.FromString(info.app_metadata)
        return positions, answered_us, self._client.do_get(info.endpoints[0].ticket).read_all()

    def __enter__(self) -> WaitingClient:
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self._client.close()


def follow(uri: str, table: str, since: int) -> Iterator[tuple[feed_pb2.FeedMark, int, pa.RecordBatch]]:
    """The table's feed at a server: each batch with its mark, and when it was here (µs since 1970)."""
    with closing(flight.FlightClient(uri)) as client:
        sql = f"SELECT * FROM merutable_changes('{table}', {since}, follow := true)"
        reader = client.do_get(client.get_flight_info(_statement(sql)).endpoints[0].ticket)
        try:
            while True:
                chunk = reader.read_chunk()
                yield feed_pb2.FeedMark.FromString(chunk.app_metadata.to_pybytes()), now_us(), chunk.data
        finally:
            reader.cancel()


def _statement(sql: str) -> flight.FlightDescriptor:
    command = AnyMessage()
    command.Pack(flight_sql_pb2.CommandStatementQuery(query=sql), "type.googleapis.com")
    return flight.FlightDescriptor.for_command(command.SerializeToString())


def now_us() -> int:
    return time.time_ns() // 1000
