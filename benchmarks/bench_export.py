"""How fast do all rows leave a replica, against a server that hands out batches it has in memory?

Both are processes of their own, the client is ADBC, and they take turns. The other server knows just enough
of Flight SQL for ADBC, and sends the rows that the replica sent before, in batches of the same size.

Processor seconds, of server and client together, say what limits it where the cores are few: what the replica
needs beyond the other server is DuckDB's scan and its conversion to Arrow, which is measured by itself too.
Two cores are busy all the time then. A thread that reads two batches ahead of the one that sends them was
tried by hand and gained nothing, 0.69 s against 0.70 s (the other server 0.40 s): DuckDB works ahead anyway.

Run: python -m benchmarks.bench_export [--rows N] [--repetitions N]
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import duckdb
import pyarrow as pa
from pyarrow import flight

from benchmarks.record import record
from benchmarks.served import Served, iceberg_orders, serving_orders
from flight_replica.client import connect

_REPLICA, _OTHER, _DUCKDB = "replica", "prebuilt batches", "DuckDB alone, to Arrow"
_UNITS = {
    _REPLICA: "rows/s",
    _OTHER: "rows/s",
    f"{_REPLICA} ÷ {_OTHER}": "x",
    f"{_REPLICA}: processor": "s",
    f"{_OTHER}: processor": "s",
    f"{_DUCKDB}: processor": "s",
}
QUESTION = "How fast do all rows leave a replica, against a server that hands out batches it has in memory?"
SQL = "SELECT * FROM orders"
_BATCH_ROWS = 18_724  # as the replica makes them for this table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--repetitions", type=int, default=7)
    parser.add_argument("--hand-out", metavar="FILE", help="be the other server, of this IPC stream")
    options = parser.parse_args()
    if options.hand_out:
        _hand_out(options.hand_out)
        return
    samples: dict[str, list[float]] = {name: [] for name in _UNITS}
    with tempfile.TemporaryDirectory() as folder:
        metadata = iceberg_orders(Path(folder), options.rows)
        with serving_orders(metadata, options.rows) as served:
            kept = Path(folder) / "rows.arrows"
            _keep(served.uri, kept)
            command = [sys.executable, "-m", "benchmarks.bench_export", "--hand-out", str(kept)]
            with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
                assert process.stdout is not None
                prebuilt = Served(process.stdout.readline().strip(), process.pid)
                try:
                    for _ in range(options.repetitions):
                        for name, server in ((_REPLICA, served), (_OTHER, prebuilt)):
                            rate, used = _rate(server, options.rows)
                            samples[name].append(rate)
                            samples[f"{name}: processor"].append(used)
                finally:
                    process.terminate()
            samples[f"{_DUCKDB}: processor"] = _alone(kept, Path(folder), options.repetitions)
    rates = zip(samples[_REPLICA], samples[_OTHER], strict=True)
    samples[f"{_REPLICA} ÷ {_OTHER}"] = [one / two for one, two in rates]
    record(
        "export",
        QUESTION,
        {
            "rows": options.rows,
            "query": SQL,
            "baseline": "the same batches out of memory, by pyarrow's Flight server",
            "repetitions": options.repetitions,
        },
        samples,
        _UNITS,
    )


def _rate(server: Served, row_count: int) -> tuple[float, float]:
    """Rows a second through ADBC, each batch is let go of; and processor seconds of both sides."""
    with connect(server.uri) as connection, connection.cursor() as cursor:
        used = server.processor_seconds + time.process_time()
        began = time.perf_counter()
        cursor.execute(SQL)
        count = sum(len(batch) for batch in cursor.fetch_record_batch())
        seconds = time.perf_counter() - began
    assert count == row_count, f"{count} rows came"
    return count / seconds, server.processor_seconds + time.process_time() - used


def _alone(rows: Path, folder: Path, repetitions: int) -> list[float]:
    """Processor seconds in which DuckDB scans such a table and makes Arrow of it, for nobody."""
    used = []
    with duckdb.connect(str(folder / "alone.duckdb")) as session:
        with pa.memory_map(str(rows)) as file:
            session.register("sent", pa.ipc.open_stream(file))
            session.execute("CREATE TABLE orders AS SELECT * FROM sent")
            session.unregister("sent")
        session.execute("CHECKPOINT")
        session.execute("SET preserve_insertion_order = false")
        for _ in range(repetitions):
            began = time.process_time()
            for _batch in session.sql(SQL).to_arrow_reader(_BATCH_ROWS):
                pass
            used.append(time.process_time() - began)
    return used


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
