"""What do scans cost while ops flow in, and what do ops cost while somebody scans?

A native state has taken a tenth as many ops as it has rows. One thread applies more at a steady rate, in
batches as they are due; another runs the queries. The ops are made before, as a primary makes its own: to
make up rows for a few ops takes several times as long as to apply them. The baseline is the pure scan of the
same Parquet files while nothing flows, in turns. Afterwards the flow goes as fast as it can, with a scanning
reader beside it and without.

Run: python -m benchmarks.bench_flow [--rows N] [--rate OPS] [--seconds S] [--repetitions N]
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa

from benchmarks.bench_scan import QUERIES
from benchmarks.counted_ops import CountedOps
from benchmarks.orders_table import SEED, orders_base
from benchmarks.record import record
from flight_replica.base.source import BaseSnapshot
from flight_replica.state.native_build import NativeBuild
from flight_replica.state.native_state import NativeState
from flight_replica.state.parquet_state import ParquetState
from flight_replica.state.workspace import Workspace

QUESTION = "What do scans cost while ops flow in, and what do ops cost while somebody scans?"
SCANS = ("sum", "group by")
BATCH_MAX = 250_000  # ops of a batch when the flow goes as fast as it can
_SECONDS_MORE = 10.0  # for which ops are made: the last query of a window ends after it


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--rate", type=int, default=10_000, help="ops a second")
    parser.add_argument("--seconds", type=float, default=4.0, help="of each window")
    parser.add_argument("--repetitions", type=int, default=5)
    options = parser.parse_args()
    samples: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        snapshot = orders_base(Path(folder), options.rows)
        workspace = Workspace()
        number, directory = workspace.new_state()
        merged = ParquetState(workspace.database, number, snapshot, directory)
        file = workspace.native_folder("t").new_file()
        native = NativeBuild(workspace.database, workspace.new_number(), file, merged).run()
        snapshot = merged.snapshot  # whose files the database may read
        flow = _Flow(native, snapshot)
        for _ in range(0, options.rows // 10, BATCH_MAX):
            flow.apply(min(BATCH_MAX, options.rows // 10))
        for _ in range(options.repetitions):
            for name, seconds in _scans(workspace, native, snapshot, flow, options).items():
                samples.setdefault(name, []).append(seconds)
        for _ in range(options.repetitions):
            for name, is_scanned in (("apply alone", False), ("apply while one client scans", True)):
                rate = _fastest(workspace, native, flow, options.seconds, is_scanned=is_scanned)
                samples.setdefault(name, []).append(rate)
        native.close()
        merged.close()
        workspace.close()
    for query in SCANS:
        pairs = zip(samples[f"{query}: while ops flow"], samples[f"{query}: pure scan"], strict=True)
        samples[f"{query}: while ops flow ÷ pure scan"] = [one / two for one, two in pairs]
    units = {name: "ops/s" if "apply" in name else "x" if "÷" in name else "s" for name in samples}
    data = {
        "rows": options.rows,
        "ops_before": options.rows // 10,
        "ops_per_second": options.rate,
        "baseline": "read_parquet over the same files while nothing flows, in turns",
        "seconds": options.seconds,
        "repetitions": options.repetitions,
        "batch_max": BATCH_MAX,
        "seed": SEED,
    }
    record("flow", QUESTION, data, samples, units)


class _Flow:
    """Ops for one state, one after the other: 60 % updates, 25 % inserts, 15 % deletes."""

    def __init__(self, native: NativeState, snapshot: BaseSnapshot) -> None:
        self._native = native
        self._ops = CountedOps(snapshot.row_count)
        self._random = np.random.default_rng(SEED)

    def apply(self, count: int) -> float:
        """Apply `count` ops more; the seconds that it took, without making them up."""
        return self._apply(self._next(count))

    def _next(self, count: int) -> pa.RecordBatch:
        return self._ops.ops(self._native.visible_seq, count, self._random)

    def _apply(self, ops: pa.RecordBatch) -> float:
        began = time.perf_counter()
        self._native.apply(ops, ops.column(0)[-1].as_py())
        return time.perf_counter() - began

    @contextmanager
    def running(self, rate: int, seconds: float) -> Iterator[None]:
        """Ops flow at `rate` a second while the block runs, about `seconds`, as many at once as are due."""
        stop = threading.Event()
        ops = self._next(int(rate * (seconds + _SECONDS_MORE)))

        def run() -> None:
            began, done = time.perf_counter(), 0
            while not stop.wait(0.002):
                due = int((time.perf_counter() - began) * rate)
                if due > done:
                    self._apply(ops.take(np.arange(done, due)))  # in memory of their own, as they come
                    done = due

        with ThreadPoolExecutor(1, "flow") as thread:
            flowing = thread.submit(run)
            try:
                yield
            finally:
                stop.set()
            flowing.result()


def _scans(
    workspace: Workspace,
    native: NativeState,
    snapshot: BaseSnapshot,
    flow: _Flow,
    options: argparse.Namespace,
) -> dict[str, float]:
    """Median seconds of each scan, of the files alone and of the state while ops flow."""
    paths = ", ".join(f"'{file.path}'" for file in snapshot.files)
    found = {}
    for query in SCANS:
        pure = QUERIES[query].replace("FROM orders", f"FROM read_parquet([{paths}]) orders")
        with workspace.session() as session:
            found[f"{query}: pure scan"] = _median(lambda s=session, q=pure: _run(s, q), options.seconds)
        with flow.running(options.rate, options.seconds):
            found[f"{query}: while ops flow"] = _median(
                lambda q=query: _query(workspace, native, QUERIES[q]), options.seconds
            )
    return found


def _median(run: Callable[[], None], seconds: float) -> float:
    found, until = [], time.perf_counter() + seconds
    while time.perf_counter() < until:
        began = time.perf_counter()
        run()
        found.append(time.perf_counter() - began)
    return statistics.median(found)


def _run(session: duckdb.DuckDBPyConnection, sql: str) -> None:
    session.sql(sql).to_arrow_table()


def _query(workspace: Workspace, native: NativeState, sql: str) -> None:
    """As a view does it: one transaction that reads the position and then the rows."""
    native.settle()
    with workspace.session() as session:
        session.execute("BEGIN TRANSACTION READ ONLY")
        relation = native.relation(native.position(session))
        _run(session, sql.replace("FROM orders", f"FROM ({relation}) orders"))


def _fastest(
    workspace: Workspace, native: NativeState, flow: _Flow, seconds: float, *, is_scanned: bool
) -> float:
    """Ops a second in the largest batches, with or without somebody who scans all the while."""
    stop = threading.Event()

    def scan() -> None:
        while not stop.is_set():
            _query(workspace, native, QUERIES["group by"])

    thread = threading.Thread(target=scan, name="scan")
    if is_scanned:
        thread.start()
    spent, count, until = 0.0, 0, time.perf_counter() + seconds
    while time.perf_counter() < until or not count:
        spent += flow.apply(BATCH_MAX)
        count += BATCH_MAX
    stop.set()
    if is_scanned:
        thread.join()
    return count / spent


if __name__ == "__main__":
    main()
