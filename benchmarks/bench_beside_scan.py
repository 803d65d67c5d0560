"""What do small queries pay for a long scan that runs beside them?

The server is a replica in a process of its own with its native state built. One client asks for random rows
by key, another runs a query over the whole table that takes long, again and again; each is a process. The
baseline is the small queries alone, in turns. What the scan pays is told, too.

Run: python -m benchmarks.bench_beside_scan [--rows N] [--seconds S] [--repetitions N]
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa

from benchmarks.orders_table import SEED
from benchmarks.record import record
from benchmarks.served import iceberg_orders, serving_orders
from flight_replica.client import connect, query

QUESTION = "What do small queries pay for a long scan that runs beside them?"
LONG = (
    "SELECT country, status, count(DISTINCT customer) AS customers, sum(amount) AS amount, "
    "count(DISTINCT updated_at) AS moments FROM orders GROUP BY country, status ORDER BY country, status"
)
SMALL = "SELECT * FROM orders WHERE id = {key}"
ALONE, BESIDE = "small query alone", "small query beside a long scan"
SCAN_ALONE, SCAN_BESIDE = "long scan alone", "long scan beside small queries"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--seconds", type=float, default=8.0, help="of each turn")
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--client", nargs=2, metavar=("KIND", "URI"), help="be a client: small or long")
    options = parser.parse_args()
    if options.client:
        kind, uri = options.client
        print(json.dumps({"small": _ask, "long": _scan}[kind](uri, options.rows, options.seconds)))
        return
    samples: dict[str, list[float]] = {name: [] for name in (ALONE, BESIDE, SCAN_ALONE, SCAN_BESIDE)}
    ratios: dict[str, list[float]] = {"p50": [], "p99": []}
    with tempfile.TemporaryDirectory() as folder:
        metadata = iceberg_orders(Path(folder), options.rows)
        with serving_orders(metadata, options.rows) as served:
            _check(served.uri, folder)
            for _ in range(options.repetitions):
                (alone,) = _run(served.uri, options, "small")
                small, scans = _run(served.uri, options, "small", "long")
                (scans_alone,) = _run(served.uri, options, "long")
                for name, found in (
                    (ALONE, alone),
                    (BESIDE, small),
                    (SCAN_ALONE, scans_alone),
                    (SCAN_BESIDE, scans),
                ):
                    samples[name] += found
                ratios["p50"].append(statistics.median(small) / statistics.median(alone))
                ratios["p99"].append(float(np.quantile(small, 0.99) / np.quantile(alone, 0.99)))
    units = dict.fromkeys(samples, "s")
    samples |= {f"small query, {kind}: beside a long scan ÷ alone": found for kind, found in ratios.items()}
    units |= {name: "x" for name in samples if "÷" in name}
    data = {
        "rows": options.rows,
        "small": SMALL,
        "long": LONG,
        "baseline": "each of them alone, in turns",
        "seconds": options.seconds,
        "repetitions": options.repetitions,
        "seed": SEED,
    }
    record("beside_scan", QUESTION, data, samples, units)


def _check(uri: str, folder: str) -> None:
    """The long scan's answer is DuckDB's over the files."""
    with duckdb.connect() as connection:
        files = f"{folder}/**/*.parquet"
        connection.execute(f"CREATE VIEW orders AS FROM read_parquet('{files}', hive_partitioning = false)")
        expected: pa.Table = connection.sql(LONG).to_arrow_table()
    assert query(uri, LONG).to_pydict() == expected.to_pydict(), "the long scan's answer is another"


def _run(uri: str, options: argparse.Namespace, *kinds: str) -> list[list[float]]:
    """Seconds of each query of these clients at once."""
    running = []
    for kind in kinds:
        command = [sys.executable, "-m", "benchmarks.bench_beside_scan", "--client", kind, uri]
        command += [f"--rows={options.rows}", f"--seconds={options.seconds}"]
        running.append(subprocess.Popen(command, stdout=subprocess.PIPE, text=True))
    return [json.loads(process.communicate(timeout=options.seconds + 120)[0]) for process in running]


def _ask(uri: str, row_count: int, seconds: float) -> list[float]:
    random, found = np.random.default_rng(SEED), []
    with connect(uri) as connection, connection.cursor() as cursor:
        until = time.perf_counter() + seconds
        while time.perf_counter() < until:
            key = int(random.integers(0, row_count))
            began = time.perf_counter()
            cursor.execute(SMALL.format(key=key))
            rows = cursor.fetch_arrow_table()
            found.append(time.perf_counter() - began)
            assert rows["id"].to_pylist() == [key], f"asked for {key}, got {rows['id']}"
    return found


def _scan(uri: str, row_count: int, seconds: float) -> list[float]:
    found = []
    with connect(uri) as connection, connection.cursor() as cursor:
        until = time.perf_counter() + seconds
        while time.perf_counter() < until:
            began = time.perf_counter()
            cursor.execute(LONG)
            rows = cursor.fetch_arrow_table()
            found.append(time.perf_counter() - began)
            assert len(rows), "no group"
    return found


if __name__ == "__main__":
    main()
