"""How fast is a replica with its tail applied, against Flight SQL servers that stand on static Parquet?

The peers are Sail (`pysail`) and ROAPI (`roapi`), each as it is installed, over the very same files, which
ROAPI reads into memory as it starts; the replica follows a primary that was filled with the same rows, and
has taken a million ops since. By these its native state is due to be built anew, which is waited for, a
minute or two. Each is a process of its own, asked by ADBC, one query at a time, in turns.
Before the ops every answer is compared with DuckDB's over the files. What a peer can't run, or answers
otherwise, is listed as such and has no ratio.

Run: make bench-peers, or python -m benchmarks.bench_peers [--rows N] [--ops N] [--repetitions N]
"""

from __future__ import annotations

import argparse
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from decimal import Decimal
from pathlib import Path

import adbc_driver_flightsql.dbapi as flightsql
import adbc_driver_manager
import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.orders_table import SEED
from benchmarks.record import record
from benchmarks.served import LISTEN, Served, running
from flight_replica.client import connect, query
from flight_replica.demo_orders import CREATE, Orders, orders
from flight_replica.replica.native_states import worn_ops

QUESTION = "How fast is a replica with its tail applied, against Flight SQL servers on static Parquet?"
OURS, PEERS = "flight-replica", ("sail", "roapi")
CUSTOMERS = 50_000
START_SECONDS = 60.0
PYTHON_ROWS_MAX = 150_000  # that are compared value by value; more would take minutes
_FILE_ROWS = 1_000_000
_INGEST_ROWS = 250_000

# In words that all three take; each gives rows in any order, `{…}` are keys of the table.
QUERIES = {
    "count": "SELECT count(*) AS n FROM orders",
    "count, filtered": "SELECT count(*) AS n FROM orders WHERE status = 'paid' AND amount > 25000",
    "sum": "SELECT sum(amount) AS s FROM orders",
    "group by, few groups": "SELECT country, status, sum(amount) AS s, count(*) AS n FROM orders "
    "GROUP BY country, status",
    "group by, many groups": "SELECT customer, sum(amount) AS s FROM orders GROUP BY customer",
    "distinct": "SELECT count(DISTINCT customer) AS n FROM orders WHERE country = 'DE'",
    "filter": "SELECT id, amount FROM orders WHERE amount BETWEEN 25000 AND 25010",
    "top n": "SELECT id, amount FROM orders ORDER BY amount DESC, id LIMIT 20",
    "join": "SELECT c.segment, sum(o.amount) AS s FROM orders o JOIN customers c ON o.customer = c.id "
    "GROUP BY c.segment",
    "window": "SELECT id, rank() OVER (PARTITION BY country ORDER BY amount DESC, id) AS r FROM orders "
    "WHERE id BETWEEN {low} AND {high}",
    "point": "SELECT * FROM orders WHERE id = {low}",
    "range of 1 %": "SELECT sum(amount) AS s FROM orders WHERE id BETWEEN {low} AND {high}",
    "narrow export": "SELECT id, amount FROM orders",
    "wide export": "SELECT * FROM orders WHERE id < {tenth}",
}

Samples = dict[str, list[float]]
Connections = Mapping[str, flightsql.Connection]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--ops", type=int, default=1_000_000)
    parser.add_argument("--repetitions", type=int, default=9)
    options = parser.parse_args()
    low = options.rows // 2
    keys = {"low": low, "high": low + options.rows // 100, "tenth": options.rows // 10}
    queries = {name: sql.format(**keys) for name, sql in QUERIES.items()}
    failures: dict[str, str] = {}
    with ExitStack() as held:
        folder = Path(held.enter_context(tempfile.TemporaryDirectory()))
        _write_files(folder, options.rows)
        primary = held.enter_context(running("primary", "--data", str(folder / "primary"), *LISTEN)).uri
        _fill(primary, folder)
        built = ("serve", "--primary", primary, *LISTEN)
        replica = held.enter_context(running(*built, until="native state built table=orders"))
        connections = {OURS: held.enter_context(connect(replica.uri))}
        for peer, start in (("sail", _sail), ("roapi", _roapi)):
            connections[peer] = held.enter_context(start(folder))
        _check(connections, queries, folder, failures)
        _change(primary, replica.uri, options.rows, options.ops)
        if options.ops > worn_ops(options.rows, is_early=True):
            _wait_until_built_anew(replica)
        samples = _measure(connections, queries, failures, options.repetitions)
    ratios = {}
    for name in queries:
        for peer in PEERS:
            ours, theirs = samples[f"{name}: {OURS}"], samples.get(f"{name}: {peer}")
            if theirs is not None:
                ratios[f"{name}: {OURS} ÷ {peer}"] = [a / b for a, b in zip(ours, theirs, strict=True)]
    units = dict.fromkeys(samples, "s") | dict.fromkeys(ratios, "x")
    data = {
        "rows": options.rows,
        "ops_applied_to_ours": options.ops,
        "baseline": "each peer on the Parquet files that the primary was filled from, in turns",
        "repetitions": options.repetitions,
        "failures": failures,
        "seed": SEED,
    }
    record("peers", QUESTION, data, samples | ratios, units)
    for name, values in ratios.items():
        print(f"  {name}: {statistics.median(values):.2f}")


def _measure(
    connections: Connections, queries: Mapping[str, str], failures: Mapping[str, str], repetitions: int
) -> Samples:
    """Another one is first in each turn, as the first query after a large answer takes longer."""
    samples: Samples = {}
    servers = deque(connections.items())
    for _ in range(repetitions):
        for name, sql in queries.items():
            servers.rotate()
            for server, connection in servers:
                if f"{name}: {server}" not in failures:
                    began = time.perf_counter()
                    _ask(connection, sql)
                    samples.setdefault(f"{name}: {server}", []).append(time.perf_counter() - began)
    return samples


def _ask(connection: flightsql.Connection, sql: str) -> pa.Table:
    with connection.cursor() as cursor:
        cursor.execute(sql)
        return cursor.fetch_arrow_table()


def _check(
    connections: Connections, queries: Mapping[str, str], folder: Path, failures: dict[str, str]
) -> None:
    """Hold every answer against DuckDB's over the files; what a peer doesn't answer so goes to `failures`."""
    with duckdb.connect() as connection:
        for table in ("orders", "customers"):
            connection.execute(f"CREATE VIEW {table} AS FROM read_parquet('{folder}/{table}/*.parquet')")
        for name, sql in queries.items():
            expected = connection.sql(sql).to_arrow_table()
            for server, asked in connections.items():
                try:
                    found = _ask(asked, sql)
                except adbc_driver_manager.Error as error:
                    if server == OURS:
                        raise
                    failures[f"{name}: {server}"] = str(error).splitlines()[0][:200]
                    continue
                if not _are_same(found, expected):
                    text = "answers otherwise than DuckDB over the files"
                    assert server != OURS, f"{name}: {server} {text}"
                    failures[f"{name}: {server}"] = text


def _are_same(found: pa.Table, expected: pa.Table) -> bool:
    """Whether both have the same rows, in any order; the names of columns don't count."""
    if len(found) != len(expected) or found.num_columns != expected.num_columns:
        return False
    if len(found) <= PYTHON_ROWS_MAX:
        return _rows(found) == _rows(expected)
    with duckdb.connect() as connection:
        connection.register("found", found)
        connection.register("expected", expected)
        others = connection.sql("SELECT count(*) FROM (FROM found EXCEPT ALL FROM expected)").fetchall()
    return bool(others == [(0,)])


def _rows(table: pa.Table) -> list[tuple[object, ...]]:
    """The rows in one order, whatever kinds of numbers they are in."""
    columns = [column.to_pylist() for column in table.columns]
    return sorted((tuple(map(_plain, row)) for row in zip(*columns, strict=True)), key=repr)


def _plain(value: object) -> object:
    return Decimal(value).normalize() if isinstance(value, int | Decimal) else value


# --- the servers ------------------------------------------------------------------------------------


def _write_files(folder: Path, row_count: int) -> None:
    random = np.random.default_rng(SEED)
    (folder / "orders").mkdir()
    (folder / "customers").mkdir()
    for first in range(0, row_count, _FILE_ROWS):
        rows = orders(np.arange(first, min(first + _FILE_ROWS, row_count)), random)
        pq.write_table(
            pa.Table.from_batches([rows]), folder / "orders" / f"{first:09}.parquet", compression="zstd"
        )
    segments = pa.array(["home", "office", "public", "trade"]).take(
        pa.array(random.integers(0, 4, CUSTOMERS))
    )
    ids = pa.array(np.arange(CUSTOMERS), pa.int32())
    pq.write_table(pa.table({"id": ids, "segment": segments}), folder / "customers" / "0.parquet")


def _fill(primary: str, folder: Path) -> None:
    with connect(primary) as connection, connection.cursor() as cursor:
        for sql in (CREATE, "CREATE TABLE customers (id INTEGER PRIMARY KEY, segment VARCHAR)"):
            cursor.execute(sql)
            cursor.fetchall()
        for table in ("orders", "customers"):
            for path in sorted((folder / table).glob("*.parquet")):
                for batch in pq.ParquetFile(path).iter_batches(_INGEST_ROWS):
                    cursor.adbc_ingest(table, batch, mode="append")


def _change(primary: str, replica: str, row_count: int, op_count: int) -> None:
    """Let the primary take `op_count` random ops, and the replica apply them."""
    steps = Orders(row_count, SEED)
    with connect(primary) as connection, connection.cursor() as cursor:
        for first in range(0, op_count, _INGEST_ROWS):
            step = steps.step(min(_INGEST_ROWS, op_count - first))
            cursor.adbc_ingest("orders", step.puts, mode="append")
            keys = pa.table({"id": pa.array(step.deletes, pa.int64())})
            for part in range(0, len(keys), 5000):
                listed = ", ".join(map(str, keys.column(0).slice(part, 5000).to_pylist()))
                cursor.execute(f"DELETE FROM orders WHERE id IN ({listed})")
                cursor.fetchall()
    sql = "SELECT count(*) AS n, sum(amount) AS s FROM orders"
    expected, deadline = query(primary, sql), time.monotonic() + 120
    while query(replica, sql) != expected:
        assert time.monotonic() < deadline, "the replica doesn't catch up"
        time.sleep(0.1)


def _wait_until_built_anew(replica: Served) -> None:
    deadline = time.monotonic() + 600
    while replica.native_states_built("orders") < 2:
        assert time.monotonic() < deadline, "the native state isn't built anew"
        time.sleep(0.5)


@contextmanager
def _sail(folder: Path) -> Iterator[flightsql.Connection]:
    port = _free_port()
    with _peer("sail", "flight", "server", "--port", str(port)), _answering(port) as connection:
        for table in ("orders", "customers"):
            _ask(connection, f"CREATE TABLE {table} USING parquet LOCATION '{folder / table}'")
        yield connection


@contextmanager
def _roapi(folder: Path) -> Iterator[flightsql.Connection]:
    port = _free_port()
    others = ("-a", f"127.0.0.1:{_free_port()}", "-p", f"127.0.0.1:{_free_port()}")
    tables = [f"-t={table}={folder / table},format=parquet" for table in ("orders", "customers")]
    with (
        _peer("roapi", *others, "--addr-flight-sql", f"127.0.0.1:{port}", *tables),
        _answering(port) as connection,
    ):
        yield connection


@contextmanager
def _peer(name: str, *arguments: str) -> Iterator[None]:
    program = Path(sys.executable).parent / name
    found = str(program) if program.exists() else shutil.which(name)
    if found is None:
        raise SystemExit(f"{name} isn't installed: make bench-peers installs it")
    process = subprocess.Popen([found, *arguments], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield
    finally:
        process.terminate()
        process.wait(30)


@contextmanager
def _answering(port: int) -> Iterator[flightsql.Connection]:
    """A connection to a server that is starting."""
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            with socket.create_connection(("127.0.0.1", port), timeout=1):
                break
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.2)
    with connect(f"grpc://127.0.0.1:{port}") as connection:
        yield connection


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


if __name__ == "__main__":
    main()
