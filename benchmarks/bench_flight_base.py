"""How long does a base over Flight take, against a plain ADBC fetch of the same rows?

The server is a replica in a process of its own that serves an Iceberg table natively; this process is what
fetches. Both ways take turns. A base over Flight is more than a fetch: it is written to Parquet, counted
while it comes, and counted once more by the server, which shares the machine here.

Run: python -m benchmarks.bench_flight_base [--rows N] [--repetitions N]
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from contextlib import ExitStack, closing
from pathlib import Path

import numpy as np
import pyarrow as pa
from pyiceberg import types as ice
from pyiceberg.catalog.sql import SqlCatalog
from pyiceberg.schema import Schema

from benchmarks.record import record
from benchmarks.served import LISTEN, running
from flight_replica.base.flight import FlightBase
from flight_replica.client import query
from flight_replica.log.feed_client import Endpoint

QUESTION = "How long does a base over Flight take, against a plain ADBC fetch of the same rows?"
SEED = 7
_FILE_ROWS = 1_000_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--repetitions", type=int, default=7)
    options = parser.parse_args()
    fetched: list[float] = []
    based: list[float] = []
    fetch_cpu: list[float] = []
    base_cpu: list[float] = []
    loads: list[float] = []
    with ExitStack() as held:
        folder = Path(held.enter_context(tempfile.TemporaryDirectory()))
        metadata = _iceberg_table(folder, options.rows)
        stated = (f"--base=t=iceberg:{metadata}", "--key=t=id", f"--base-seq=t={options.rows}")
        served = held.enter_context(running("serve", *LISTEN, *stated, until="native state built"))
        uri, pid = served.uri, served.pid
        for number in range(options.repetitions):
            loads.append(os.getloadavg()[0])
            began = _cpu_seconds(pid)
            fetched.append(_adbc_seconds(uri, options.rows))
            between = _cpu_seconds(pid)
            based.append(_base_seconds(uri, folder / f"base{number}", options.rows))
            fetch_cpu.append(between - began)
            base_cpu.append(_cpu_seconds(pid) - between)
    ratios = [base / fetch for base, fetch in zip(based, fetched, strict=True)]
    record(
        "flight_base",
        QUESTION,
        {
            "rows": options.rows,
            "columns": "id BIGINT (key), customer INTEGER, amount DOUBLE, at TIMESTAMP",
            "baseline": "SELECT * by ADBC into one Arrow table, in turns with the base",
            "repetitions": options.repetitions,
            "seed": SEED,
            "load_averages": loads,
        },
        {
            "ADBC fetch": fetched,
            "base over Flight": based,
            "ratio": ratios,
            "ADBC fetch: CPU of both sides": fetch_cpu,
            "base over Flight: CPU of both sides": base_cpu,
        },
        {
            "ADBC fetch": "s",
            "base over Flight": "s",
            "ratio": "x",
            "ADBC fetch: CPU of both sides": "s",
            "base over Flight: CPU of both sides": "s",
        },
    )
    print(f"  base over Flight: {statistics.median(ratios):.2f}x the ADBC fetch")


def _adbc_seconds(uri: str, row_count: int) -> float:
    began = time.perf_counter()
    rows = query(uri, "SELECT * FROM t")
    seconds = time.perf_counter() - began
    assert len(rows) == row_count, f"{len(rows)} rows came"
    return seconds


def _base_seconds(uri: str, directory: Path, row_count: int) -> float:
    with closing(FlightBase(Endpoint(uri), "t", directory)) as base:
        began = time.perf_counter()
        snapshot = base.load()
        seconds = time.perf_counter() - began
        assert snapshot.row_count == row_count, f"{snapshot.row_count} rows came"
    return seconds


def _cpu_seconds(pid: int) -> float:
    """Of this process and the server so far (Linux)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    ticks = int(fields[11]) + int(fields[12])  # user and system time
    return time.process_time() + ticks / os.sysconf("SC_CLK_TCK")


def _iceberg_table(folder: Path, row_count: int) -> str:
    """Its metadata file."""
    random = np.random.default_rng(SEED)
    columns = (
        ice.NestedField(1, "id", ice.LongType(), required=True),
        ice.NestedField(2, "customer", ice.IntegerType()),
        ice.NestedField(3, "amount", ice.DoubleType()),
        ice.NestedField(4, "at", ice.TimestampType()),
    )
    with closing(SqlCatalog("c", uri=f"sqlite:///{folder}/catalog.db", warehouse=str(folder))) as catalog:
        catalog.create_namespace("n")
        table = catalog.create_table("n.t", Schema(*columns))
        for first in range(0, row_count, _FILE_ROWS):
            ids = np.arange(first, min(first + _FILE_ROWS, row_count))
            times = random.integers(0, 2**50, len(ids))
            rows = [
                pa.array(ids),
                pa.array(random.integers(0, 100_000, len(ids)).astype(np.int32)),
                pa.array(random.random(len(ids)) * 1000),
                pa.array(times).cast(pa.timestamp("us")),
            ]
            table.append(pa.Table.from_arrays(rows, schema=table.schema().as_arrow()))
        return str(table.metadata_location)


if __name__ == "__main__":
    main()
