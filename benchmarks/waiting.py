"""A Flight SQL client whose statements wait at the server for a seq: the least that tells when it came."""

from __future__ import annotations

import time
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
        _, _, rows = self._run(f"SELECT visible_seq FROM merutable_wait('{table}', {seq}, {WAIT_MS})", ())
        return int(rows.column(0)[0].as_py()), now_us()

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
        command = AnyMessage()
        command.Pack(flight_sql_pb2.CommandStatementQuery(query=sql), "type.googleapis.com")
        descriptor = flight.FlightDescriptor.for_command(command.SerializeToString())
        info = self._client.get_flight_info(descriptor, flight.FlightCallOptions(headers=list(headers)))
        answered_us = now_us()
        positions = feed_pb2.Positions.FromString(info.app_metadata)
        return positions, answered_us, self._client.do_get(info.endpoints[0].ticket).read_all()

    def __enter__(self) -> WaitingClient:
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self._client.close()


def now_us() -> int:
    return time.time_ns() // 1000
