"""How many ops a second does each kind of state take, by the size of the batch and what was applied before?

Run: python -m benchmarks.bench_apply [--rows N] [--repetitions N]
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa

from benchmarks.orders_table import SEED, orders_base, random_ops
from benchmarks.record import record
from flight_replica.base.source import BaseSnapshot
from flight_replica.state.native_build import NativeBuild
from flight_replica.state.parquet_state import ParquetState
from flight_replica.state.state import ReplicaState, StateKind
from flight_replica.state.workspace import Workspace

QUESTION = "How many ops a second does each kind of state take, by the batch and what was applied before?"
BATCHES = (10, 1_000, 10_000, 100_000)
BEFORE = (0, 500_000)
KINDS = tuple(StateKind)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--repetitions", type=int, default=15)
    options = parser.parse_args()
    samples: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        snapshot = orders_base(Path(folder), options.rows)
        for before in BEFORE:
            for size in BATCHES:
                for kind in KINDS:
                    name = f"{kind}, batches of {size} after {before} ops"
                    samples[name] = _measure(kind, snapshot, before, size, options.repetitions)
    record(
        "apply",
        QUESTION,
        {
            "base_rows": options.rows,
            "ops": "9 puts to 1 delete, random keys of the base",
            "baseline": "merge on read; and nothing applied before",
            "repetitions": options.repetitions,
            "seed": SEED,
        },
        samples,
        dict.fromkeys(samples, "ops/s"),
    )


def _measure(
    kind: StateKind, snapshot: BaseSnapshot, before: int, size: int, repetitions: int
) -> list[float]:
    random = np.random.default_rng(SEED)
    workspace = Workspace()
    number, directory = workspace.new_state()
    merged = ParquetState(workspace.database, number, snapshot, directory)
    state: ReplicaState = merged
    if kind is StateKind.MERGE_ON_APPLY:
        file = workspace.native_folder("t").new_file()
        state = NativeBuild(workspace.database, workspace.new_number(), file, merged).run()
        merged.close()

    def more(count: int) -> pa.RecordBatch:
        return random_ops(snapshot.schema, state.visible_seq, count, snapshot.row_count, random)

    if before:
        _apply(state, more(before))
    found = []
    for _ in range(repetitions):
        ops = more(size)
        began = time.perf_counter()
        _apply(state, ops)
        found.append(size / (time.perf_counter() - began))
    _check(state, ops.slice(size - 1))
    state.close()
    workspace.close()
    return found


def _apply(state: ReplicaState, ops: pa.RecordBatch) -> None:
    """Until they are written."""
    state.apply(ops, ops.column(0)[-1].as_py())
    state.settle()


def _check(state: ReplicaState, op: pa.RecordBatch) -> None:
    """The state shows what the last op says."""
    values = dict(zip(op.schema.names, (column[0].as_py() for column in op.columns), strict=True))
    row = state.get([values["id"]])
    expected = None if values["op"] == "DELETE" else values["amount"]
    assert (row and row["amount"]) == expected, f"the state shows {row}, the last op is {values}"


if __name__ == "__main__":
    main()
