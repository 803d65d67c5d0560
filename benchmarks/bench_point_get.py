"""How long does a point get take in the replica's own process, of a key just written and of any other?

`Replica.get` of a replica with its native state, after a million ops. Recent keys are those of the newest
10 000 ops, the others random ones of the whole table. The baseline is the same row by SQL in the process, in
turns. Every row is compared with what the ops made of it.

Run: python -m benchmarks.bench_point_get [--rows N] [--ops N] [--gets N]
"""

from __future__ import annotations

import argparse
import tempfile
import time
from contextlib import ExitStack, closing
from pathlib import Path

import numpy as np

from benchmarks.counted_ops import ONE, CountedOps
from benchmarks.orders_table import LINEAGE, SEED, orders_base
from benchmarks.record import record
from flight_replica.base.source import BaseSnapshot
from flight_replica.log.in_process import InProcessLogSource
from flight_replica.log.op_log import OpLog
from flight_replica.replica.replica import Replica
from flight_replica.state.workspace import Workspace

QUESTION = "How long does a point get take in the process, of a key just written and of any other?"
RECENT_OPS = 10_000
RECENT_BATCH_OPS = 500  # as they come when nothing is behind
BATCH_OPS = 50_000
COLUMNS = ("customer", "note", "updated_at")


class _Base:
    """A `BaseSource` of one snapshot."""

    def __init__(self, snapshot: BaseSnapshot) -> None:
        self._snapshot = snapshot

    def poll(self) -> int | None:
        return self._snapshot.version

    def load(self) -> BaseSnapshot:
        return self._snapshot


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--ops", type=int, default=1_000_000)
    parser.add_argument("--gets", type=int, default=3000, help="of each kind")
    options = parser.parse_args()
    ops, random = CountedOps(options.rows), np.random.default_rng(SEED)
    with ExitStack() as parts:
        folder = Path(parts.enter_context(tempfile.TemporaryDirectory()))
        snapshot = orders_base(folder, options.rows)
        feed = OpLog(
            "orders",
            LINEAGE,
            snapshot.schema,
            start=options.rows,
            bytes_max=1 << 30,
            clock_us=lambda: time.time_ns() // 1000,
        )
        log = InProcessLogSource(feed, clock_us=lambda: time.time_ns() // 1000)
        workspace = parts.enter_context(closing(Workspace(folder / "replica")))
        replica = Replica.open(_Base(snapshot), log, table="orders", workspace=workspace)
        parts.enter_context(closing(replica))
        replica.swaps.merge_on_apply()
        recent: list[int] = []
        while (at := feed.newest_seq) < options.rows + options.ops:
            left = options.rows + options.ops - at
            count = min(BATCH_OPS, left - RECENT_OPS) if left > RECENT_OPS else RECENT_BATCH_OPS
            batch = ops.ops(at, count, random)
            feed.append(batch, through=at + count, commit_time_us=1)
            replica.advance()
            recent += batch.column("id").to_pylist() if left <= RECENT_OPS else []
        samples = _measure(replica, ops, random.permutation(np.array(recent)), options.gets, random)
    data = {
        "rows": options.rows,
        "ops": options.ops,
        "recent": f"keys of the newest {RECENT_OPS} ops, which came {RECENT_BATCH_OPS} at once",
        "baseline": "the row by SQL in the same process, in turns",
        "gets": options.gets,
        "seed": SEED,
    }
    record("point_get", QUESTION, data, samples, dict.fromkeys(samples, "µs"))


def _measure(
    replica: Replica,
    ops: CountedOps,
    recent: np.ndarray[tuple[int], np.dtype[np.int64]],
    count: int,
    random: np.random.Generator,
) -> dict[str, list[float]]:
    """µs of each."""
    samples: dict[str, list[float]] = {"recent key": [], "any key": [], "any key by SQL": []}
    for number in range(count):
        keys = {
            "recent key": int(recent[number % len(recent)]),
            "any key": int(random.integers(0, ops.base_rows)),
        }
        for name, key in keys.items():
            began = time.perf_counter()
            row = replica.get(key)
            samples[name].append((time.perf_counter() - began) * 1e6)
            found = {column: [row[column]] if row is not None else [] for column in COLUMNS}
            assert ops.is_right(key, replica.visible_seq, found), f"key {key}: {row}"
        sql = ONE.format(key=keys["any key"])
        began = time.perf_counter()
        rows = replica.query(sql).read_all()
        samples["any key by SQL"].append((time.perf_counter() - began) * 1e6)
        assert ops.is_right(keys["any key"], replica.visible_seq, rows.to_pydict()), sql
    return samples


if __name__ == "__main__":
    main()
