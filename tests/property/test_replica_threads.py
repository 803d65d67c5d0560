"""One writer, one applier, one rebaser and several readers at once: every view is the model at its seq."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path

import pyarrow as pa
import pytest

from flight_replica.errors import LogGap, NotCaughtUp
from flight_replica.replica.replica import Replica
from flight_replica.schema import Column
from flight_replica.state.workspace import Workspace
from tests.bases import SmallTable, assert_same, delete, put, sorted_by_key

READERS = 3
KEYS = 40
BEHIND = (LogGap, NotCaughtUp)  # retention went by; the rebaser mends it


class Storm:
    """The threads of one run; the first error of any of them ends it."""

    def __init__(
        self, primary: SmallTable, replica: Replica, commits: int, seed: int, *, is_native: bool
    ) -> None:
        self.is_native = is_native
        self.primary = primary
        self.replica = replica
        self.commits = commits
        self.random = random.Random(seed)
        self.writing = threading.Lock()  # the model and the log are changed together
        self.is_over = threading.Event()
        self.looks = threading.Semaphore(0)  # at another seq: the writer doesn't outrun all readers
        self.errors: list[BaseException] = []
        self.first_schema = primary.schema
        self.seen: list[list[tuple[int, int, pa.Table]]] = [[] for _ in range(READERS)]

    def run(self) -> None:
        tasks: list[Callable[[], None]] = [self._write, self._apply, self._rebase]
        tasks += [lambda n=n: self._read(n) for n in range(READERS)]
        threads = [threading.Thread(target=self._guarded, args=[task]) for task in tasks]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if self.errors:
            raise self.errors[0]

    def _guarded(self, task: Callable[[], None]) -> None:
        try:
            task()
        except BaseException as error:
            self.errors.append(error)
            self.is_over.set()

    def _write(self) -> None:
        for number in range(self.commits):
            if self.is_over.is_set():
                return
            if number % 5 == 0:
                assert self.looks.acquire(timeout=60), "nobody reads"
            keys = self.random.sample(range(KEYS), self.random.randint(1, 6))
            with self.writing:
                schema = self.primary.schema
                rest = [number] * (len(schema.columns) - 1)
                changes = [put(k, *rest, schema=schema) if (k + number) % 4 else delete(k) for k in keys]
                self.primary.commit(*changes, parts=self.random.randint(1, 3))
                if number % 10 == 9:
                    self.primary.flush()
                if number % 25 == 24:  # the replica may have a gap now, which the base mends
                    self.primary.feed.trim(self.primary.base.snapshot.base_seq)
                if number == self.commits // 2:
                    self.primary.add_column(Column("w", pa.int64(), True, -1))
        self.is_over.set()

    def _apply(self) -> None:
        while not self.is_over.is_set():
            with suppress(*BEHIND):
                self.replica.advance()

    def _rebase(self) -> None:
        while not self.is_over.is_set():
            with suppress(*BEHIND):
                if self.is_native:
                    self.replica.swaps.merge_on_apply()
                    self.replica.swaps.rebase_beside()
                else:
                    self.replica.swaps.rebase_hotswap()

    def _read(self, number: int) -> None:
        seen = self.seen[number]
        while not self.is_over.is_set():
            with self.replica.view() as view:
                (position,) = view.positions
                rows = view.execute("SELECT * FROM t").read_all()
                again = view.execute("SELECT count(*) AS n FROM t").read_all()["n"][0].as_py()
            assert rows.num_rows == again
            if not seen or seen[-1][0] != position.visible_seq:
                self.looks.release()
            seen.append((position.visible_seq, position.base_seq, rows))


def check(storm: Storm) -> int:
    """Compare what each reader saw with the model; how many different seqs were seen."""
    schema, model = storm.primary.schema, storm.primary
    expected: dict[tuple[int, int], pa.Table] = {}
    for seen in storm.seen:
        seqs = [seq for seq, _, _ in seen]
        assert seqs == sorted(seqs), "a reader's seq went back"
        for seq, base_seq, rows in seen:
            assert base_seq <= seq and seq in model.commit_ends
            shape = schema if rows.num_columns == len(schema.columns) else storm.first_schema
            key = seq, rows.num_columns
            if key not in expected:
                expected[key] = model.rows_at(seq, shape)
            assert_same(sorted_by_key(rows, shape), expected[key])
    return len(expected)


def storm(tmp_path: Path, commits: int, seed: int, *, is_native: bool = False) -> int:
    primary = SmallTable(tmp_path / "base")
    workspace = Workspace(tmp_path / "data")
    with (
        closing(workspace),
        closing(Replica.open(primary.base, primary.log(), workspace=workspace)) as replica,
    ):
        run = Storm(primary, replica, commits, seed, is_native=is_native)
        run.run()
        replica.swaps.rebase()  # the newest base closes any gap that was left
        replica.advance()
        found = sorted_by_key(replica.query("SELECT * FROM t").read_all(), primary.schema)
        assert_same(found, primary.rows_at(primary.seq))
        assert replica._slot.retired_count == 0
        return check(run)


def test_readers_see_the_model_at_seqs_that_only_grow(tmp_path: Path) -> None:
    assert storm(tmp_path, commits=150, seed=1) > 3


def test_readers_see_the_model_while_native_states_are_built_one_after_the_other(tmp_path: Path) -> None:
    assert storm(tmp_path, commits=150, seed=2, is_native=True) > 1


@pytest.mark.long
@pytest.mark.parametrize("is_native", [False, True], ids=["merge on read", "native"])
@pytest.mark.parametrize("seed", range(20))
def test_readers_see_the_model_through_long_storms(tmp_path: Path, seed: int, is_native: bool) -> None:
    assert storm(tmp_path, commits=1000, seed=seed, is_native=is_native) > 10
