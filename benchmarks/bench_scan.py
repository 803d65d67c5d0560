"""What does the merge on read cost a query, against the pure scan of the same Parquet files?

Run: python -m benchmarks.bench_scan [--rows N] [--tails 0,10000,100000] [--repetitions N]
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import duckdb
import numpy as np

from benchmarks.orders_table import SEED, orders_base, random_ops
from benchmarks.record import record
from flight_replica.state.parquet_state import ParquetState
from flight_replica.state.workspace import Workspace

QUESTION = "What does the merge on read cost a query, against the pure scan of the same Parquet files?"
QUERIES = {
    "count": "SELECT count(*) FROM orders",
    "sum": "SELECT sum(amount) FROM orders",
    "group by": "SELECT country, status, sum(amount) FROM orders GROUP BY ALL",
    "1 % range": "SELECT sum(amount) FROM orders WHERE id BETWEEN {low} AND {high}",
    "point": "SELECT * FROM orders WHERE id = {low}",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--tails", default="0,10000,100000", help="ops in the tail, one run each")
    parser.add_argument("--repetitions", type=int, default=15)
    options = parser.parse_args()
    samples: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        snapshot = orders_base(Path(folder), options.rows)
        workspace = Workspace()
        for tail in map(int, options.tails.split(",")):
            number, directory = workspace.new_state()
            state = ParquetState(workspace.database, number, snapshot, directory)
            if tail:
                ops = random_ops(
                    snapshot.schema, state.visible_seq, tail, options.rows, np.random.default_rng(SEED)
                )
                state.apply(ops, ops.column(0)[-1].as_py())
            for name, sql in QUERIES.items():
                text = sql.format(low=options.rows // 2, high=options.rows // 2 + options.rows // 100)
                merged, pure = _compare(workspace, state, text, options.repetitions)
                samples[f"{name}, tail of {tail}: merged"] = merged
                samples[f"{name}, tail of {tail}: pure scan"] = pure
            state.close()
        workspace.close()
    record(
        "scan",
        QUESTION,
        {
            "base_rows": options.rows,
            "baseline": "read_parquet over the same files, in the same database and run, in turns",
            "repetitions": options.repetitions,
            "seed": SEED,
        },
        samples,
        dict.fromkeys(samples, "s"),
    )
    for series, values in samples.items():
        if series.endswith("merged"):
            baseline = samples[series.replace("merged", "pure scan")]
            print(f"  {series}: {statistics.median(values) / statistics.median(baseline):.1f}x the pure scan")


def _compare(
    workspace: Workspace, state: ParquetState, sql: str, repetitions: int
) -> tuple[list[float], list[float]]:
    session = workspace.session()
    session.execute("BEGIN TRANSACTION READ ONLY")
    merged = f"({state.relation(state.position(session))}) orders"
    paths = ", ".join(f"'{file.path}'" for file in state.snapshot.files)
    pure = f"read_parquet([{paths}]) orders"
    if state.ops_applied == 0:
        assert _rows(session, sql, merged) == _rows(session, sql, pure), f"{sql}: the merge gives other rows"
    times: tuple[list[float], list[float]] = ([], [])
    for _ in range(repetitions):
        for relation, found in zip((merged, pure), times, strict=True):
            began = time.perf_counter()
            _rows(session, sql, relation)
            found.append(time.perf_counter() - began)
    session.close()
    return times


def _rows(session: duckdb.DuckDBPyConnection, sql: str, relation: str) -> list[tuple[object, ...]]:
    return sorted(session.execute(sql.replace("FROM orders", f"FROM {relation}")).fetchall(), key=repr)


if __name__ == "__main__":
    main()
