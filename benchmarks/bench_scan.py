"""What does a query cost on each kind of state, against the pure scan of the same Parquet files?

Run: python -m benchmarks.bench_scan [--rows N] [--ops 0,10000,100000] [--repetitions N]
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa

from benchmarks.orders_table import SEED, orders_base, random_ops
from benchmarks.record import record
from flight_replica.base.source import BaseSnapshot
from flight_replica.sql.plain_count import plain_count
from flight_replica.sql.statement import tree_of
from flight_replica.state.native_build import NativeBuild
from flight_replica.state.parquet_state import ParquetState
from flight_replica.state.state import ReplicaState
from flight_replica.state.workspace import Workspace

QUESTION = "What does a query cost on each kind of state, against the pure scan of the same Parquet files?"
Samples = dict[str, list[float]]
Text = Callable[[str], str]  # a query over `orders` -> what is run
QUERIES = {
    "count": "SELECT count(*) FROM orders",
    "sum": "SELECT sum(amount) FROM orders",
    "group by": "SELECT country, status, sum(amount) FROM orders GROUP BY ALL",
    "1 % range": "SELECT sum(amount) FROM orders WHERE id BETWEEN {low} AND {high}",
    "point": "SELECT * FROM orders WHERE id = {low}",
    "rows out": "SELECT * FROM orders WHERE id BETWEEN {low} AND {low} + {out}",
}
KINDS = ("merge on read", "merge on read, by joins", "merge on apply", "merge on apply, rebuilt")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--ops", default="0,10000,1000000", help="ops applied over the base, one run each")
    parser.add_argument("--repetitions", type=int, default=9)
    options = parser.parse_args()
    samples: Samples = {}
    with tempfile.TemporaryDirectory() as folder:
        snapshot = orders_base(Path(folder), options.rows)
        for count in map(int, options.ops.split(",")):
            samples |= _measure(snapshot, count, options.repetitions)
    record(
        "scan",
        QUESTION,
        {
            "base_rows": options.rows,
            "baseline": "read_parquet over the same files, in the same database and run, in turns",
            "by joins": "merge on read without the bitmaps of docs/decisions/0012",
            "rebuilt": "the native table made anew out of the one that took the ops, as happens by itself",
            "rows_out": options.rows // 10,
            "repetitions": options.repetitions,
            "seed": SEED,
        },
        samples,
        dict.fromkeys(samples, "s"),
    )
    for series, values in samples.items():
        query, _, kind = series.partition(": ")
        if kind in KINDS:
            baseline = samples[f"{query}: pure scan"]
            print(f"  {series}: {statistics.median(values) / statistics.median(baseline):.2f}x the pure scan")


def _measure(snapshot: BaseSnapshot, op_count: int, repetitions: int) -> Samples:
    """Seconds of each query on the kinds of state, and on the files alone."""
    workspace = Workspace()
    number, directory = workspace.new_state()
    merged = ParquetState(workspace.database, number, snapshot, directory)
    native = NativeBuild(
        workspace.database, workspace.new_number(), workspace.native_folder("t").new_file(), merged
    ).run()
    if op_count:
        random = np.random.default_rng(SEED)
        ops = random_ops(snapshot.schema, snapshot.base_seq, op_count, snapshot.row_count, random)
        for state in (merged, native):
            state.apply(ops, ops.column(0)[-1].as_py())
            state.settle()
    file = workspace.native_folder("t").new_file()
    rebuilt = NativeBuild(workspace.database, workspace.new_number(), file, native).run()
    session = workspace.session()
    session.execute("BEGIN TRANSACTION READ ONLY")
    paths = ", ".join(f"'{file.path}'" for file in merged.snapshot.files)
    states = dict(zip(KINDS, (merged, merged, native, rebuilt), strict=True))
    texts: dict[str, Text] = {
        kind: _text_of(session, state, is_joined="joins" in kind) for kind, state in states.items()
    }
    texts["pure scan"] = lambda sql: _over(sql, f"read_parquet([{paths}])")
    found: Samples = {}
    low, high = snapshot.row_count // 2, snapshot.row_count // 2 + snapshot.row_count // 100
    for name, sql in QUERIES.items():
        text = sql.format(low=low, high=high, out=snapshot.row_count // 10)
        times = _times(session, text, texts, repetitions, is_same=op_count == 0)
        found |= {f"{name}, {op_count} ops: {kind}": seconds for kind, seconds in times.items()}
    session.close()
    for state in {merged, native, rebuilt}:
        state.close()
    workspace.close()
    return found


def _over(sql: str, relation: str) -> str:
    return sql.replace("FROM orders", f"FROM {relation} orders")


def _text_of(session: duckdb.DuckDBPyConnection, state: ReplicaState, *, is_joined: bool) -> Text:
    """How a view runs a query on a state; a plain count by the counter, where the state has one.

    `is_joined`: by joins alone, as files are merged whose keys don't ascend.
    """
    position = state.position(session)
    own_session = None if is_joined else lambda: session
    relation = state.relation(position, own_session=own_session)
    while (now := state.relation(position, own_session=own_session)) != relation:
        relation = now  # files are learnt a few at a time
    count = plain_count(tree_of(QUERIES["count"]), ["orders"])
    assert count is not None, "the plain count isn't one"

    def text(sql: str) -> str:
        is_counted = sql == QUERIES["count"] and not is_joined
        row_count = state.count_rows(state.position(session), session) if is_counted else None
        return _over(sql, f"({relation})") if row_count is None else count.answer(row_count)

    return text


def _times(
    session: duckdb.DuckDBPyConnection,
    sql: str,
    texts: dict[str, Text],
    repetitions: int,
    is_same: bool,
) -> Samples:
    """Seconds by kind, in turns. Both states must agree, and with the files where nothing is applied."""
    answers = {kind: _rows(session, text(sql)) for kind, text in texts.items()}
    assert all(answers[kind] == answers["merge on read"] for kind in KINDS), f"{sql}: the states differ"
    assert not is_same or answers["merge on read"] == answers["pure scan"], f"{sql}: the merge differs"
    times: Samples = {kind: [] for kind in texts}
    for _ in range(repetitions):
        for kind, text in texts.items():
            began = time.perf_counter()
            session.sql(text(sql)).to_arrow_table()
            times[kind].append(time.perf_counter() - began)
    return times


def _rows(session: duckdb.DuckDBPyConnection, sql: str) -> pa.Table:
    """The answer in one order."""
    found = session.sql(sql).to_arrow_table()
    return found.sort_by([(name, "ascending") for name in found.schema.names[:2]])


if __name__ == "__main__":
    main()
