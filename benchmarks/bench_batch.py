"""Where does the processor time of a large batch go, as a native state takes it?

A native state of orders takes batches as a replica that is far behind hands them on: 60 % updates, 25 %
inserts, 15 % deletes. The parts are measured one after the other, though the newest op of each key is else
found while the delete runs. The baseline is the whole of it. In the end the table must be what the ops make
of it. What a whole replica takes beside this, for receiving, checking and joining, is in catch_up.json.

Run: python -m benchmarks.bench_batch [--rows N] [--ops N] [--repetitions N]
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from contextlib import closing
from functools import wraps
from pathlib import Path
from typing import ParamSpec, TypeVar

from benchmarks.counted_ops import WHOLE, CountedOps
from benchmarks.orders_table import SEED, orders_base
from benchmarks.record import record
from flight_replica.state import native_state
from flight_replica.state.native_build import NativeBuild
from flight_replica.state.native_state import NativeState
from flight_replica.state.parquet_state import ParquetState
from flight_replica.state.workspace import Workspace

QUESTION = "Where does the processor time of a large batch go, as a native state takes it?"
WHOLE_BATCH, NEWEST, DELETE, INSERT = "whole", "newest op of each key", "delete", "insert"
REST = "joining, position and commit"

P = ParamSpec("P")
T = TypeVar("T")
Samples = dict[str, list[float]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--ops", type=int, default=250_000, help="of a batch")
    parser.add_argument("--repetitions", type=int, default=8)
    options = parser.parse_args()
    samples: Samples = {part: [] for part in (WHOLE_BATCH, NEWEST, DELETE, INSERT, REST)}
    counted = CountedOps(options.rows)
    native_state.BESIDE_OPS_MIN = options.ops + 1  # one after the other
    with (
        tempfile.TemporaryDirectory() as folder,
        closing(Workspace()) as workspace,
        closing(_native(workspace, Path(folder), options.rows)) as state,
    ):
        for _ in range(options.repetitions + 1):
            _apply(state, counted, options.ops, samples)
        _check(state, workspace, counted)
    for values in samples.values():
        del values[0]  # the first batch finds everything cold
    samples["whole, a million ops"] = [seconds / options.ops * 1e6 for seconds in samples[WHOLE_BATCH]]
    data = {
        "rows": options.rows,
        "ops": f"batches of {options.ops}: 60 % updates, 25 % inserts, 15 % deletes",
        "baseline": "the whole batch",
        "repetitions": options.repetitions,
        "seed": SEED,
    }
    record("batch", QUESTION, data, samples, dict.fromkeys(samples, "s"))


def _native(workspace: Workspace, folder: Path, row_count: int) -> NativeState:
    number, directory = workspace.new_state()
    with closing(ParquetState(workspace.database, number, orders_base(folder, row_count), directory)) as base:
        file = workspace.native_folder("orders").new_file()
        return NativeBuild(workspace.database, workspace.new_number(), file, base).run()


def _apply(state: NativeState, counted: CountedOps, count: int, samples: Samples) -> None:
    ops = counted.ops(state.visible_seq, count)
    parts = dict.fromkeys((NEWEST, DELETE, INSERT), 0.0)
    plain = state._delete, state._insert, state._rows.with_lives
    state._delete = _timed(plain[0], parts, DELETE)  # type: ignore[method-assign]
    state._insert = _timed(plain[1], parts, INSERT)  # type: ignore[method-assign]
    state._rows.with_lives = _timed(plain[2], parts, NEWEST)  # type: ignore[method-assign]
    began = time.process_time()
    state.apply(ops, state.visible_seq + count)
    whole = time.process_time() - began
    state._delete, state._insert, state._rows.with_lives = plain  # type: ignore[method-assign]
    samples[WHOLE_BATCH].append(whole)
    samples[REST].append(whole - sum(parts.values()))
    for part, seconds in parts.items():
        samples[part].append(seconds)


def _timed(work: Callable[P, T], parts: dict[str, float], part: str) -> Callable[P, T]:
    """`work`, whose processor time, that of all threads, is added to its part."""

    @wraps(work)
    def timed(*arguments: P.args, **named: P.kwargs) -> T:
        began = time.process_time()
        try:
            return work(*arguments, **named)
        finally:
            parts[part] += time.process_time() - began

    return timed


def _check(state: NativeState, workspace: Workspace, counted: CountedOps) -> None:
    with closing(workspace.session()) as session:
        session.execute("BEGIN TRANSACTION READ ONLY")
        rows = state.relation(state.position(session))
        found = session.sql(f"WITH orders AS ({rows}) {WHOLE}").to_arrow_table().to_pydict()
    expected = counted.whole(state.visible_seq)
    assert found == expected, f"{found} at seq {state.visible_seq}, not {expected}"


if __name__ == "__main__":
    main()
