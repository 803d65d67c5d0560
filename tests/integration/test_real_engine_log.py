"""`EngineLog` beside the real engine: every acknowledged op is read once, in order, whatever the engine does.

Select with `-m engine`; the first run builds the program that drives the engine.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from flight_replica.beside.engine_log import EngineLog
from flight_replica.beside.log_file import WriteBatch
from flight_replica.beside.row_values import ops_of
from flight_replica.log.source import Op
from flight_replica.schema import TableSchema
from tests.engine.driver import Engine, Truth, Values, schema, until_true
from tests.engine.reading import values_of_batch

pytestmark = pytest.mark.engine

KINDS = ["id", "composite", "types"]
WAIT_SECONDS = 0.5


class Reader:
    """A thread that reads one log directory for as long as it is open."""

    def __init__(self, directory: Path) -> None:
        self.log = EngineLog(directory)
        self.batches: list[WriteBatch] = []
        self.error: Exception | None = None
        self._is_closed = threading.Event()
        self._thread = threading.Thread(target=self._read, name="log-reader")
        self._thread.start()

    def _read(self) -> None:
        try:
            while not self._is_closed.is_set():
                self.batches.extend(self.log.read_new())
                self.log.wait(WAIT_SECONDS)
        except Exception as error:  # shown by the test
            self.error = error

    def has_read(self, seq: int) -> Callable[[], bool]:
        def holds() -> bool:
            assert self.error is None, self.error
            return self.log.newest_seq >= seq

        return holds

    def close(self) -> None:
        self._is_closed.set()
        self.log.wake()
        self._thread.join()
        self.log.close()

    def ops(self, schema: TableSchema) -> Iterator[tuple[int, bytes, Values | None]]:
        """`seq, pk_bytes, values` of every op in the order it was read; None for a delete."""
        for first in range(0, len(self.batches), 1000):
            batch = ops_of(self.batches[first : first + 1000], schema)
            seqs, ops, keys = (column.to_pylist() for column in batch.columns[:3])
            rows = values_of_batch(batch.select(range(3, batch.num_columns)))
            for seq, op, key, row in zip(seqs, ops, keys, rows, strict=True):
                yield seq, key, None if op == Op.DELETE else row


@contextmanager
def reading(directory: Path) -> Iterator[Reader]:
    reader = Reader(directory)
    try:
        yield reader
    finally:
        reader.close()


def assert_read_once_in_order(reader: Reader, truth: Truth) -> None:
    assert reader.error is None, reader.error
    assert list(reader.ops(truth.schema)) == list(truth.ops())


@pytest.mark.parametrize("kind", KINDS)
def test_every_op_is_read_once_in_order_across_rotations_and_removals(kind: str, tmp_path: Path) -> None:
    truth = Truth(schema(kind))
    with (
        reading(tmp_path / "t" / "wal") as reader,
        Engine(tmp_path / "t", truth=truth, kind=kind, l0_compaction_trigger=2) as engine,
    ):
        last = engine.write(8000, rate=1000, keys=500, deletes=0.2, batch_max=20, flush_every=600)
        until_true(reader.has_read(last), f"seq {last}")

    assert_read_once_in_order(reader, truth)
    assert len({batch.file_number for batch in reader.batches}) > 10


def test_large_batches_and_values_that_span_blocks_are_read_whole(tmp_path: Path) -> None:
    truth = Truth(schema("id"))
    with reading(tmp_path / "t" / "wal") as reader, Engine(tmp_path / "t", truth=truth) as engine:
        last = engine.write(
            400, rate=200, keys=50, deletes=0.2, batch_max=40, value_bytes=9000, flush_every=120
        )
        until_true(reader.has_read(last), f"seq {last}")

    assert_read_once_in_order(reader, truth)


def test_every_acknowledged_op_is_read_once_although_the_engine_is_killed(tmp_path: Path) -> None:
    truth = Truth(schema("id"))
    with reading(tmp_path / "t" / "wal") as reader:
        for life in range(8):
            with Engine(tmp_path / "t", truth=truth, memtable_mb=1) as engine:
                is_enough = truth.has_grown(150)
                engine.start_writing(
                    rate=1000, keys=500, deletes=0.2, batch_max=9, flush_every=600, seed=life
                )
                until_true(is_enough, "150 commits")
                engine.kill()
        with Engine(tmp_path / "t", truth=truth) as engine:
            last = engine.write(10, keys=500)
            until_true(reader.has_read(last), f"seq {last}")

    assert_read_once_in_order(reader, truth)


def test_a_reader_that_comes_late_reads_all_that_is_still_in_the_log(tmp_path: Path) -> None:
    truth = Truth(schema("id"))
    with Engine(tmp_path / "t", truth=truth) as engine:
        engine.write(500, keys=100, batch_max=5)
        engine.do("flush")
        flushed = truth.last_seq
        last = engine.write(500, keys=100, batch_max=5, seed=2)
        with reading(tmp_path / "t" / "wal") as reader:
            until_true(reader.has_read(last), f"seq {last}")

    read = list(reader.ops(truth.schema))
    assert [seq for seq, _, _ in read] == list(range(flushed + 1, last + 1))
    assert read == list(truth.ops())[flushed:]
