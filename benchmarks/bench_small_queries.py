"""What does a small query cost through ADBC, in which way of asking, and how many do eight clients get?

The server is a replica in a process of its own with its native state built; each client is a process, too,
and asks for random rows by key, one after the other. The ways take turns:

- text: each statement is another text, which the driver prepares, executes and closes (four calls)
- prepared once: one prepared statement, executed again and again with another parameter
- prepared each time: the same statement with a parameter, prepared for each execution
- not prepared: each statement is another text, which is executed at once (two calls)
- constants: as text, from a server that answers with a constant (constant_server.py); it is the floor

What keeping DuckDB's plan of a prepared statement would save, which the server doesn't do, is measured in
DuckDB alone: the same query by EXECUTE and by its text.

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
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

import adbc_driver_flightsql.dbapi as adbc
import duckdb
import numpy as np
import pyarrow as pa

from benchmarks.orders_table import SEED
from benchmarks.record import record
from benchmarks.served import Served, iceberg_orders, running, serving_orders
from flight_replica.client import connect

QUESTION = (
    "What does a small query cost through ADBC, in which way of asking, and how many do eight clients get?"
)
TEXT = "SELECT * FROM orders WHERE id = "
KEPT_QUERIES = 300
KEPT_ROWS = 1_000_000
Ask = Callable[[int], pa.Table]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--client", metavar="URI", help="be a client, and print its latencies")
    parser.add_argument("--way", choices=WAYS, default="text")
    parser.add_argument("--seed", type=int, default=SEED)
    options = parser.parse_args()
    if options.client:
        print(json.dumps(_ask(options.client, options.rows, options.seconds, options.way, options.seed)))
        return
    samples: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as folder, ExitStack() as servers:
        metadata = iceberg_orders(Path(folder), options.rows)
        replica = servers.enter_context(serving_orders(metadata, options.rows))
        constants = servers.enter_context(running(module="benchmarks.constant_server"))
        for _ in range(options.repetitions):
            one = _measure(samples, "1 clients", replica, 1, "text", options)
            eight = _measure(samples, "8 clients", replica, 8, "text", options)
            samples.setdefault("8 clients ÷ 1 client: requests a second", []).append(eight / one)
            for way in ("prepared once", "prepared each time", "not prepared"):
                _measure(samples, way, replica, 1, way, options)
            _measure(samples, "constants", constants, 1, "text", options)
            _kept_plan(samples)
    samples["8 clients: p99 ÷ p50"] = [_quantile(samples["8 clients: latency"], 0.99)]
    samples["8 clients: p99 ÷ p50"][0] /= statistics.median(samples["8 clients: latency"])
    samples["1 clients: p99"] = [_quantile(samples["1 clients: latency"], 0.99)]
    record(
        "small_queries",
        QUESTION,
        {
            "rows": options.rows,
            "query": f"{TEXT}N",
            "baseline": "one client that sends texts, in turns with the others",
            "kept plan": f"DuckDB alone, {KEPT_ROWS} rows, processor time",
            "repetitions": options.repetitions,
            "seconds": options.seconds,
        },
        samples,
        {name: _unit(name) for name in samples},
    )


def _quantile(values: list[float], share: float) -> float:
    return float(np.quantile(values, share))


def _unit(series: str) -> str:
    if "÷" in series:
        return "x"
    return "1/s" if series.endswith("requests a second") else "s"


def _measure(
    samples: dict[str, list[float]],
    name: str,
    served: Served,
    count: int,
    way: str,
    options: argparse.Namespace,
) -> float:
    """Let clients ask for some seconds, and note what they saw; their requests a second."""
    before = served.processor_seconds
    found = _clients(served.uri, count, way, options)
    used = served.processor_seconds - before
    samples.setdefault(f"{name}: latency", []).extend(found)
    samples.setdefault(f"{name}: the server's processor time a query", []).append(used / len(found))
    rate = len(found) / float(options.seconds)
    samples.setdefault(f"{name}: requests a second", []).append(rate)
    return rate


def _clients(uri: str, count: int, way: str, options: argparse.Namespace) -> list[float]:
    """The latencies, in seconds, that `count` client processes saw."""
    command = [sys.executable, "-m", "benchmarks.bench_small_queries", "--client", uri, "--way", way]
    command += [f"--rows={options.rows}", f"--seconds={options.seconds}"]
    clients = [
        subprocess.Popen([*command, f"--seed={SEED + number}"], stdout=subprocess.PIPE, text=True)
        for number in range(count)
    ]
    found: list[float] = []
    for process in clients:
        out, _ = process.communicate(timeout=options.seconds + 120)
        found += json.loads(out)
    return found


# --- one client ---------------------------------------------------------------------------------------------


def _ask(uri: str, row_count: int, seconds: float, way: str, seed: int) -> list[float]:
    random = np.random.default_rng(seed)
    found = []
    with connect(uri) as connection, WAYS[way](connection) as ask:
        until = time.perf_counter() + seconds
        while time.perf_counter() < until:
            key = int(random.integers(0, row_count))
            began = time.perf_counter()
            rows = ask(key)
            found.append(time.perf_counter() - began)
            # The server of constants always has key 0.
            assert rows["id"].to_pylist() in ([key], [0]), f"asked for {key}, got {rows['id']}"
    return found


@contextmanager
def _text(connection: adbc.Connection) -> Iterator[Ask]:
    with connection.cursor() as cursor:

        def ask(key: int) -> pa.Table:
            cursor.execute(f"{TEXT}{key}")
            return cursor.fetch_arrow_table()

        yield ask


@contextmanager
def _prepared_once(connection: adbc.Connection) -> Iterator[Ask]:
    with connection.cursor() as cursor:

        def ask(key: int) -> pa.Table:
            cursor.execute(f"{TEXT}?", (key,))
            return cursor.fetch_arrow_table()

        yield ask


@contextmanager
def _prepared_each_time(connection: adbc.Connection) -> Iterator[Ask]:
    def ask(key: int) -> pa.Table:
        with connection.cursor() as cursor:
            cursor.execute(f"{TEXT}?", (key,))
            return cursor.fetch_arrow_table()

    yield ask


@contextmanager
def _not_prepared(connection: adbc.Connection) -> Iterator[Ask]:
    with connection.cursor() as cursor:
        statement = cursor.adbc_statement

        def ask(key: int) -> pa.Table:
            statement.set_sql_query(f"{TEXT}{key}")
            stream, _ = statement.execute_query()
            return pa.RecordBatchReader._import_from_c(stream.address).read_all()

        yield ask


WAYS = {
    "text": _text,
    "prepared once": _prepared_once,
    "prepared each time": _prepared_each_time,
    "not prepared": _not_prepared,
}


# --- a kept plan --------------------------------------------------------------------------------------------


def _kept_plan(samples: dict[str, list[float]]) -> None:
    """Processor time of one point query in DuckDB, planned from its text and as a kept plan."""
    with closing(duckdb.connect()) as database:
        run = database.execute
        run(f"CREATE TABLE orders AS SELECT i AS id, i % 1000 AS customer FROM range({KEPT_ROWS}) r(i)")
        run(f"PREPARE kept AS {TEXT}$1")
        for name, text in (("planned each time", TEXT + "{}"), ("kept plan", "EXECUTE kept({})")):
            texts = [text.format(key) for key in range(0, KEPT_ROWS, KEPT_ROWS // KEPT_QUERIES)]
            run(texts[0]).fetchall()
            began = time.process_time()
            for key, sql in enumerate(texts):
                rows = run(sql).fetchall()
                assert rows[0][0] == key * (KEPT_ROWS // KEPT_QUERIES), f"{sql} gave {rows}"
            used = (time.process_time() - began) / len(texts)
            samples.setdefault(f"DuckDB alone, {name}: processor time a query", []).append(used)


if __name__ == "__main__":
    main()
