"""How fast do all rows leave a replica, against a server that hands out batches it has in memory?

Both are processes of their own, the client is ADBC, and they take turns. The other server knows just enough
of Flight SQL for ADBC, and sends the rows that the replica sent before, in batches of the same size.

Run: python -m benchmarks.bench_export [--rows N] [--repetitions N]
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pyarrow as pa
from pyarrow import flight

from benchmarks.record import record
from benchmarks.served import iceberg_orders, serving_orders
from flight_replica.client import connect

QUESTION = "How fast do all rows leave a replica, against a server that hands out batches it has in memory?"
SQL = "SELECT * FROM orders"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--repetitions", type=int, default=7)
    parser.add_argument("--hand-out", metavar="FILE", help="be the other server, of this IPC stream")
    options = parser.parse_args()
    if options.hand_out:
        _hand_out(options.hand_out)
        return
    replica: list[float] = []
    other: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        metadata = iceberg_orders(Path(folder), options.rows)
        with serving_orders(metadata, options.rows) as served:
            kept = Path(folder) / "rows.arrows"
            _keep(served.uri, kept)
            command = [sys.executable, "-m", "benchmarks.bench_export", "--hand-out", str(kept)]
            with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
                assert process.stdout is not None
                prebuilt = process.stdout.readline().strip()
                try:
                    for _ in range(options.repetitions):
                        replica.append(_rate(served.uri, options.rows))
                        other.append(_rate(prebuilt, options.rows))
                finally:
                    process.terminate()
    ratios = [one / two for one, two in zip(replica, other, strict=True)]
    record(
        "export",
        QUESTION,
        {
            "rows": options.rows,
            "query": SQL,
            "baseline": "the same batches out of memory, by pyarrow's Flight server",
            "repetitions": options.repetitions,
        },
        {"replica": replica, "prebuilt batches": other, "replica ÷ prebuilt batches": ratios},
        {"replica": "rows/s", "prebuilt batches": "rows/s", "replica ÷ prebuilt batches": "x"},
    )
    print(f"  {statistics.median(ratios):.2f} of the rate of prebuilt batches")


def _rate(uri: str, row_count: int) -> float:
    """Rows a second through ADBC; each batch is let go of."""
    with connect(uri) as connection, connection.cursor() as cursor:
        began = time.perf_counter()
        cursor.execute(SQL)
        count = sum(len(batch) for batch in cursor.fetch_record_batch())
        seconds = time.perf_counter() - began
    assert count == row_count, f"{count} rows came"
    return count / seconds


def _keep(uri: str, path: Path) -> None:
    with connect(uri) as connection, connection.cursor() as cursor:
        cursor.execute(SQL)
        reader = cursor.fetch_record_batch()
        with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, reader.schema) as writer:
            for batch in reader:
                writer.write_batch(batch)


class _Prebuilt(flight.FlightServerBase):  # type: ignore[misc]
    """Whatever statement is run, its answer is the same."""

    def __init__(self, path: str) -> None:
        super().__init__("grpc://127.0.0.1:0")
        with pa.memory_map(path) as file:
            self._table = pa.ipc.open_stream(file.read_buffer()).read_all()

    def get_flight_info(
        self, context: flight.ServerCallContext, descriptor: flight.FlightDescriptor
    ) -> flight.FlightInfo:
        if b"CommandStatementQuery" not in descriptor.command:
            raise NotImplementedError("only statements are answered here")
        endpoint = flight.FlightEndpoint(flight.Ticket(b"rows"), [])
        return flight.FlightInfo(self._table.schema, descriptor, [endpoint], len(self._table), -1)

    def do_get(self, context: flight.ServerCallContext, ticket: flight.Ticket) -> flight.FlightDataStream:
        return flight.RecordBatchStream(self._table)


def _hand_out(path: str) -> None:
    server = _Prebuilt(path)
    print(f"grpc://127.0.0.1:{server.port}", flush=True)
    server.serve()


if __name__ == "__main__":
    main()
