"""What does a small query cost through ADBC, and how many a second do eight clients get, against one?

The server is a replica in a process of its own with its native state built; each client is a process, too,
and asks for random rows by key, one after the other. One client and eight take turns.

Run: python -m benchmarks.bench_small_queries [--rows N] [--seconds S] [--repetitions N]
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

import numpy as np

from benchmarks.orders_table import SEED
from benchmarks.record import record
from benchmarks.served import iceberg_orders, serving_orders
from flight_replica.client import connect

QUESTION = "What does a small query cost through ADBC, and how many do eight clients get, against one?"
CLIENTS = (1, 8)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--client", metavar="URI", help="be a client, and print its latencies")
    options = parser.parse_args()
    if options.client:
        print(json.dumps(_ask(options.client, options.rows, options.seconds)))
        return
    latencies: dict[int, list[float]] = {count: [] for count in CLIENTS}
    rates: dict[int, list[float]] = {count: [] for count in CLIENTS}
    with tempfile.TemporaryDirectory() as folder:
        metadata = iceberg_orders(Path(folder), options.rows)
        with serving_orders(metadata, options.rows) as served:
            for _ in range(options.repetitions):
                for count in CLIENTS:
                    found = _clients(served.uri, count, options.rows, options.seconds)
                    latencies[count] += found
                    rates[count].append(len(found) / options.seconds)
    samples = {f"{count} clients: latency": latencies[count] for count in CLIENTS}
    samples |= {f"{count} clients: requests a second": rates[count] for count in CLIENTS}
    samples["8 clients ÷ 1 client: requests a second"] = [
        many / one for many, one in zip(rates[8], rates[1], strict=True)
    ]
    samples["8 clients: p99 ÷ p50"] = [
        float(np.quantile(latencies[8], 0.99)) / statistics.median(latencies[8])
    ]
    units = {name: "s" if "latency" in name else "1/s" for name in samples}
    units |= {name: "x" for name in samples if "÷" in name}
    record(
        "small_queries",
        QUESTION,
        {
            "rows": options.rows,
            "query": "SELECT * FROM orders WHERE id = N",
            "baseline": "one client, in turns with eight",
            "repetitions": options.repetitions,
            "seconds": options.seconds,
        },
        samples,
        units,
    )


def _clients(uri: str, count: int, row_count: int, seconds: float) -> list[float]:
    """The latencies, in seconds, that `count` client processes saw."""
    command = [sys.executable, "-m", "benchmarks.bench_small_queries", "--client", uri]
    command += [f"--rows={row_count}", f"--seconds={seconds}"]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(count)]
    found: list[float] = []
    for process in running:
        out, _ = process.communicate(timeout=seconds + 120)
        found += json.loads(out)
    return found


def _ask(uri: str, row_count: int, seconds: float) -> list[float]:
    random = np.random.default_rng(SEED)
    found = []
    with connect(uri) as connection, connection.cursor() as cursor:
        until = time.perf_counter() + seconds
        while time.perf_counter() < until:
            key = int(random.integers(0, row_count))
            began = time.perf_counter()
            cursor.execute(f"SELECT * FROM orders WHERE id = {key}")
            rows = cursor.fetch_arrow_table()
            found.append(time.perf_counter() - began)
            assert rows["id"].to_pylist() == [key], f"asked for {key}, got {rows['id']}"
    return found


if __name__ == "__main__":
    main()
