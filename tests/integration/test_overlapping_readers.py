"""Two readers whose streams always overlap, while ops flow: what a native state takes stays bounded."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from flight_replica.keys import KeyCodec
from flight_replica.log.in_process import InProcessLogSource
from flight_replica.log.op_log import OpLog
from flight_replica.replica.published import Opening
from flight_replica.replica.replica import Replica
from flight_replica.replica.stats import ReplicaSettings
from flight_replica.replica.table import TableReplica, TableState
from flight_replica.state.workspace import Workspace
from tests.bases import ID_V, LINEAGE, ParquetBase
from tests.processes import until

ROWS = 300_000
BATCH = 10_000
OPS = 3_000_000  # six times as many as a native state is worn after
BYTES_MAX = 64 << 20  # of two files, one of them with rows of half a million ops, deleted ones too


def batches(count: int) -> Iterator[pa.RecordBatch]:
    """Updates of random keys: each row's value is the seq that set it last."""
    random = np.random.default_rng(3)
    codec = KeyCodec(ID_V)
    for first in range(2, 2 + count, BATCH):
        ids = pa.array(random.integers(0, ROWS, BATCH))
        seqs = np.arange(first, first + BATCH)
        labels = pa.array(["UPDATE"] * BATCH)
        columns = [pa.array(seqs, pa.uint64()), labels, codec.encode([ids]), ids, pa.array(seqs)]
        yield pa.RecordBatch.from_arrays(columns, schema=ID_V.feed_schema)


def native_bytes(directory: Path) -> int:
    found = 0
    for path in (directory / "data" / "native").rglob("*.duckdb*"):
        try:
            found += path.stat().st_size
        except FileNotFoundError:  # a file whose last reader has just gone
            continue
    return found


def read_on(replica: Replica, stop: threading.Event) -> int:
    """Streams, each of which begins before the one before it ends; how many."""
    count, seen = 0, 0
    view = replica.view()
    while not stop.is_set():
        seq = view.positions[0].visible_seq
        assert seq >= seen, "a reader went back"
        seen = seq
        stream = iter(view.execute("SELECT id, v FROM t"))
        first, following = next(stream), replica.view()
        rows = ids = 0
        for batch in itertools.chain([first], stream):
            rows += len(batch)
            ids += int(np.sum(batch.column(0).to_numpy()))
            assert int(np.max(batch.column(1).to_numpy(), initial=0)) <= seq
        assert (rows, ids) == (ROWS, ROWS * (ROWS - 1) // 2), "not the table at one seq"
        view.close()
        view, count = following, count + 1
    view.close()
    return count


@pytest.mark.long
def test_disk_stays_bounded_under_readers_that_always_overlap(tmp_path: Path) -> None:
    base = ParquetBase(tmp_path / "base", ID_V)
    base.publish([(pa.table({"id": np.arange(ROWS), "v": np.ones(ROWS, np.int64)}), ())], 1)
    feed = OpLog("t", LINEAGE, ID_V, start=1, bytes_max=256 << 20, clock_us=lambda: 1)

    def origin() -> Opening:
        return Opening(InProcessLogSource(feed), base, lambda: 1, 1)

    settings = ReplicaSettings(base_poll_seconds=0.1)
    stop = threading.Event()
    largest, latest = 0, 0.0
    with (
        closing(Workspace(tmp_path / "data")) as workspace,
        closing(TableReplica("t", origin, workspace, settings)) as table,
        ThreadPoolExecutor(2) as readers,
    ):
        until(lambda: table.state[0] is TableState.SERVING, "the table serves")
        reading = [readers.submit(read_on, table.replica, stop) for _ in range(2)]
        for ops in batches(OPS):
            seq = ops.column(0)[-1].as_py()
            began = time.monotonic()
            feed.append(ops, through=seq, commit_time_us=seq)
            until(lambda seq=seq: table.replica.visible_seq >= seq, f"seq {seq} is visible", 120.0)
            latest = max(latest, time.monotonic() - began)
            largest = max(largest, native_bytes(tmp_path))
        stop.set()
        counts = [future.result(120) for future in reading]
        until(lambda: len(list((tmp_path / "data" / "native").rglob("*.duckdb"))) == 1, "old files are gone")
    print(f"largest {largest >> 20} MiB, latest batch {latest:.2f} s, streams {counts}")
    assert min(counts) > 0
    assert largest < BYTES_MAX
