"""How long after kill -9 does a replica give its first right answer, and what does it read again?

A primary holds the demo's orders; a replica with a data folder has applied updates of a tenth of them to its
native state. It is killed and started again; the time runs from the start of the process to the first answer
that has what the primary has. The baseline is a replica that starts with an empty folder.

Run: python -m benchmarks.bench_restart [--rows N] [--repetitions N]
"""

from __future__ import annotations

import argparse
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

import adbc_driver_flightsql.dbapi as flightsql
import duckdb
import numpy as np
import pyarrow as pa

from benchmarks.orders_table import SEED
from benchmarks.record import record
from benchmarks.served import LISTEN, running
from flight_replica.client import position_of, query
from flight_replica.demo_orders import orders
from flight_replica.errors import Unavailable

QUESTION = "How long after kill -9 until the first right answer, and what is read again?"
WAIT_SECONDS = 900.0
_CHUNK_ROWS = 200_000  # a message of ADBC is at most 16 MiB
_UNITS = {
    "kept": "s",
    "kept: processor": "s",
    "afresh": "s",
    "afresh: processor": "s",
    "ops read again": "ops",
}
_SUM = "SELECT count(*) AS rows, sum(id) AS ids, sum(id) FILTER (note = 'again') AS updated FROM orders"
_SEQ = re.compile(r"native state reopened table=orders visible_seq=(\d+)")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--repetitions", type=int, default=7)
    options = parser.parse_args()
    samples: dict[str, list[float]] = {name: [] for name in _UNITS}
    with tempfile.TemporaryDirectory() as folder:
        stored = ("--data", f"{folder}/primary", "--base-seconds", "2")
        with running("primary", *LISTEN, *stored) as primary:
            _fill(primary.uri, options.rows)
            served = ["serve", "--primary", primary.uri, *LISTEN, "--data"]
            with running(*served, f"{folder}/kept", until="native state built") as first:
                with flightsql.connect(primary.uri, autocommit=True) as connection:
                    cursor = connection.cursor()
                    cursor.execute("UPDATE orders SET note = 'again' WHERE id % 10 = 3")
                    cursor.fetchall()
                    cursor.close()
                right = query(primary.uri, _SUM)
                _until_right(first.uri, right)
                os.kill(first.pid, signal.SIGKILL)
            for number in range(options.repetitions):
                for name, data in (("kept", "kept"), ("afresh", f"afresh-{number}")):
                    seconds, used, again = _start([*served, f"{folder}/{data}"], right)
                    samples[name].append(seconds)
                    samples[f"{name}: processor"].append(used)
                    if name == "kept":
                        samples["ops read again"].append(again)
    assert set(samples["ops read again"]) == {0.0}, "nothing that is there is read again"
    record(
        "restart",
        QUESTION,
        {
            "rows": options.rows,
            "ops": options.rows // 10,
            "time": "from the start of the process to the first answer that has all",
            "baseline": "a replica that starts with an empty folder, on merge on read",
            "repetitions": options.repetitions,
            "seed": SEED,
        },
        samples,
        _UNITS,
    )


def _fill(uri: str, row_count: int) -> None:
    random = np.random.default_rng(SEED)
    with flightsql.connect(uri, autocommit=True) as connection, connection.cursor() as cursor:
        cursor.execute(
            "CREATE TABLE orders (id BIGINT PRIMARY KEY, "
            + ", ".join(f"{name} {kind}" for name, kind in _columns()[1:])
            + ")"
        )
        cursor.fetchall()
        for first in range(0, row_count, _CHUNK_ROWS):
            ids = np.arange(first, min(first + _CHUNK_ROWS, row_count))
            cursor.adbc_ingest("orders", pa.Table.from_batches([orders(ids, random)]), mode="append")
    _until(lambda: query(uri, _SUM)["rows"][0].as_py() == row_count, "the primary has all rows")
    listed = "SELECT base_seq FROM merutable_tables()"
    _until(lambda: query(uri, listed)["base_seq"][0].as_py() == row_count, "its base is published")


def _columns() -> list[tuple[str, str]]:
    """Names and SQL types of the orders' columns."""
    with duckdb.connect() as session:
        session.register("orders", orders(np.arange(1), np.random.default_rng(SEED)))
        described = session.execute("DESCRIBE orders").fetchall()
    return [(str(name), str(kind)) for name, kind, *_ in described]


def _start(command: list[str], right: pa.Table) -> tuple[float, float, float]:
    """Seconds until the first right answer, those of the processor, ops that were read again."""
    began = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-m", "flight_replica", *command],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None and process.stderr is not None
    lines: list[str] = []
    watcher = threading.Thread(target=lambda: lines.extend(process.stderr or ()), daemon=True)
    watcher.start()
    try:
        uri = process.stdout.readline().strip().removeprefix("listening on ")
        _until_right(uri, right)
        seconds, used = time.perf_counter() - began, _processor_seconds(process.pid)
        listed = query(uri, "SELECT low_water FROM merutable_tables()")["low_water"][0].as_py()
    finally:
        process.kill()
        process.wait()
        watcher.join()
        process.stdout.close()
        process.stderr.close()
    told = _SEQ.search("".join(lines))
    return seconds, used, float(int(told[1]) - listed) if told else -1.0


def _processor_seconds(pid: int) -> float:
    """What a process has used of all cores so far (Linux): it says more than the clock on a busy machine."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _until_right(uri: str, right: pa.Table) -> None:
    def is_right() -> bool:
        found = query(uri, _SUM)
        assert position_of(found), "an answer has a position"
        return found.to_pydict() == right.to_pydict()

    _until(is_right, "the right answer is there")


def _until(holds: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + WAIT_SECONDS
    while time.monotonic() < deadline:
        try:
            if holds():
                return
        except Unavailable:  # not served yet
            pass
        time.sleep(0.005)
    raise TimeoutError(f"not within {WAIT_SECONDS:.0f} s: {what}")


if __name__ == "__main__":
    main()
