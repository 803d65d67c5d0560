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

    def ask(self, sql: str, min_seq: int = 0) -> tuple[feed_pb2.TablePosition, int, pa.Table]:
        """The answer at `min_seq` or later: the position of its one table, when the plan was answered (µs
        since 1970), and the rows.
        """
        command = AnyMessage()
        command.Pack(flight_sql_pb2.CommandStatementQuery(query=sql), "type.googleapis.com")
        headers = [
            (b"merutable-min-seq", str(min_seq).encode()),
            (b"merutable-wait-timeout-ms", str(WAIT_MS).encode()),
        ]
        waiting = flight.FlightCallOptions(headers=headers if min_seq else [])
        descriptor = flight.FlightDescriptor.for_command(command.SerializeToString())
        info = self._client.get_flight_info(descriptor, waiting)
        answered_us = now_us()
        (position,) = feed_pb2.Positions.FromString(info.app_metadata).tables
        return position, answered_us, self._client.do_get(info.endpoints[0].ticket).read_all()

    def __enter__(self) -> WaitingClient:
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self._client.close()


def now_us() -> int:
    return time.time_ns() // 1000
