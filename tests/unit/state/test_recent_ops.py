"""Ops that wait in memory: seen by key at once, by queries after `settle`, and never older than before."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pytest

from flight_replica.schema import Column, TableSchema
from flight_replica.state import native_state as native_state_module
from flight_replica.state import recent_ops
from flight_replica.state.native_state import NativeState
from flight_replica.state.op_rows import OpRows
from flight_replica.state.state import CountNow
from flight_replica.state.workspace import Workspace
from tests.bases import ID_V, delete, op_batch, put
from tests.unit.state.test_native_state import base_of, native_state


@pytest.fixture
def workspace() -> Iterator[Workspace]:
    opened = Workspace()
    yield opened
    opened.close()


@pytest.fixture
def state(workspace: Workspace, tmp_path: Path) -> Iterator[NativeState]:
    """Keys 0 to 9 of the value 0, at seq 1."""
    base = base_of(ID_V, tmp_path, pa.array(range(10), pa.int64()), pa.array([0] * 10, pa.int64()))
    with native_state(base, workspace) as made:
        yield made


def written(state: NativeState, workspace: Workspace, key: int) -> tuple[int, int | None]:
    """What a transaction sees without `settle`: the seq, and the value of `key`."""
    with transaction(workspace, state) as (seq, rows):
        return seq, rows.get(key)


@contextmanager
def transaction(workspace: Workspace, state: NativeState) -> Iterator[tuple[int, dict[int, int]]]:
    with workspace.session() as session:
        session.execute("BEGIN TRANSACTION READ ONLY")
        at = state.position(session)
        yield at.visible_seq, dict(session.execute(state.relation(at)).fetchall())


def test_a_few_ops_are_seen_by_key_before_the_table_has_them(
    state: NativeState, workspace: Workspace
) -> None:
    state.apply(op_batch(ID_V, [(2, *put(1, 7)), (3, *delete(2)), (4, *put(1, 8))]), 4, 99)
    assert (state.visible_seq, state.commit_time_us, state.ops_applied) == (4, 99, 3)
    assert (state.get([1]), state.get([2]), state.get([3])) == ({"id": 1, "v": 8}, None, {"id": 3, "v": 0})
    assert written(state, workspace, 1) == (1, 0)
    state.settle()
    assert written(state, workspace, 1) == (4, 8)
    assert written(state, workspace, 2) == (4, None)


def test_what_wait_too_many_are_written_with_all_that_waited(
    state: NativeState, workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recent_ops, "WAITING_OPS_MAX", 2)
    state.apply(op_batch(ID_V, [(2, *put(1, 7))]), 2)
    assert written(state, workspace, 1) == (1, 0)
    state.apply(op_batch(ID_V, [(3, *put(2, 8)), (4, *put(3, 9))]), 4)
    assert written(state, workspace, 1) == (4, 7)
    assert [state.get([key]) for key in (1, 2, 3)] == [{"id": n, "v": n + 6} for n in (1, 2, 3)]


def test_a_seq_without_ops_is_written_too(state: NativeState, workspace: Workspace) -> None:
    state.apply(op_batch(ID_V, []), 5, 77)
    state.settle()
    assert written(state, workspace, 1) == (5, 0)
    assert (state.visible_seq, state.commit_time_us) == (5, 77)


def test_what_is_written_is_kept_up_to_a_limit(state: NativeState, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recent_ops, "KEPT_OPS_MAX", 3)
    for seq in range(2, 12):
        state.apply(op_batch(ID_V, [(seq, *put(seq % 5, seq))]), seq)
        state.settle()
    found = {key for key in range(10) if state.key_now([key]).rows is not None}
    assert found == {9 % 5, 10 % 5, 11 % 5}
    expected = {key: max((seq for seq in range(2, 12) if seq % 5 == key), default=0) for key in range(10)}
    assert {key: (state.get([key]) or {})["v"] for key in range(10)} == expected


def test_a_key_is_looked_up_in_memory_and_in_the_table(
    state: NativeState, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recent_ops, "KEPT_OPS_MAX", 1)
    state.apply(op_batch(ID_V, [(2, *put(1, 7)), (3, *delete(2))]), 3, 99)
    for _ in range(2):
        for key, values in {1: [7], 2: [], 3: [0], 44: []}.items():
            found = state.look_up([key])
            assert found is not None and found.rows is not None
            assert (found.visible_seq, found.commit_time_us) == (3, 99)
            assert found.rows.to_pydict() == {"c0": [key] * len(values), "c1": values}
        assert state.count_now() == CountNow(3, 99, 9)  # and writes what waits


def test_what_may_have_happened_to_a_key_meanwhile_is_not_answered(
    state: NativeState, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recent_ops, "KEPT_OPS_MAX", 1)
    rows = state._lookup.rows

    def changing_rows(*arguments: Any) -> pa.Table:
        change()
        return rows(*arguments)

    monkeypatch.setattr(state, "_lookup", SimpleNamespace(rows=changing_rows))

    def put_it() -> None:
        state.apply(op_batch(ID_V, [(2, *put(1, 7))]), 2)

    def put_and_forget_it() -> None:
        state.apply(op_batch(ID_V, [(3, *put(3, 7))]), 3)
        state.settle()
        state.apply(op_batch(ID_V, [(4, *put(4, 7))]), 4)
        state.settle()

    def put_another() -> None:
        state.apply(op_batch(ID_V, [(5, *put(6, 7))]), 5)

    change = put_it
    assert state.look_up([1]) is None
    change = put_and_forget_it
    assert state.look_up([3]) is None
    change = put_another
    found = state.look_up([5])
    assert found is not None and found.visible_seq == 4


def test_no_reader_sees_a_key_older_than_another_was(
    state: NativeState, workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each commit gives all keys its seq as their value; by key and by query, nobody sees it go back."""
    monkeypatch.setattr(recent_ops, "WAITING_OPS_MAX", 25)  # of commits of 10 ops each, some wait
    monkeypatch.setattr(recent_ops, "KEPT_OPS_MAX", 30)
    is_over = threading.Event()

    def write() -> None:
        try:
            for seq in range(2, 100):
                if seq % 7 == 0:
                    state.settle()
                state.apply(op_batch(ID_V, [(seq, *put(key, seq)) for key in range(10)]), seq)
        finally:
            is_over.set()

    def read_keys() -> int:
        newest = looks = 0
        while not is_over.is_set():
            for key in range(10):
                row = state.get([key])
                assert row is not None and isinstance(row["v"], int)
                assert newest <= row["v"], f"key {key} is at {row['v']}, another was at {newest}"
                newest = row["v"]
            looks += 1
        return looks

    def look_up_keys() -> int:
        newest = looks = 0
        while not is_over.is_set():
            for key in range(10):
                seen = state.visible_seq
                found = state.look_up([key])
                if found is not None:
                    assert found.rows is not None and max(newest, seen) <= found.visible_seq
                    newest = found.visible_seq
                    assert found.rows["c1"].to_pylist() == [0 if newest == 1 else newest]
                    looks += 1
        return looks

    def count() -> int:
        newest = looks = 0
        while not is_over.is_set():
            seen = state.visible_seq
            found = state.count_now()
            if found is not None:
                assert max(newest, seen) <= found.visible_seq
                assert found.row_count == 10
                newest, looks = found.visible_seq, looks + 1
        return looks

    def read_all() -> int:
        newest = looks = 0
        while not is_over.is_set():
            seen = state.visible_seq
            state.settle()
            with transaction(workspace, state) as (seq, rows):
                assert max(newest, seen) <= seq
                assert set(rows.values()) == {0 if seq == 1 else seq}
            newest, looks = seq, looks + 1
        return looks

    with ThreadPoolExecutor(6) as threads:
        running = [threads.submit(task) for task in (read_keys, read_keys, look_up_keys, count, read_all)]
        threads.submit(write).result()
        assert all(task.result() for task in running)


def test_a_count_is_not_older_than_what_a_query_has_just_seen(
    state: NativeState, workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Queries see a large batch a moment before it is known here: who counts then waits for that moment."""
    monkeypatch.setattr(recent_ops, "WAITING_OPS_MAX", 0)
    overtaken = recent_ops.RecentOps.overtaken
    counts: list[Future[CountNow | None]] = []
    with ThreadPoolExecutor(1) as other:

        @contextmanager
        def seen_meanwhile(self: recent_ops.RecentOps, through: int, commit_time_us: int) -> Iterator[None]:
            with overtaken(self, through, commit_time_us):
                yield
                assert written(state, workspace, 11) == (2, 7)
                counts.append(other.submit(state.count_now))
                wait(counts, 0.2)  # it has to wait itself; if it doesn't, it gets far enough

        monkeypatch.setattr(recent_ops.RecentOps, "overtaken", seen_meanwhile)
        state.apply(op_batch(ID_V, [(2, *put(11, 7))]), 2, 99)
        assert counts[0].result() in (None, CountNow(2, 99, 11))
    assert state.count_now() == CountNow(2, 99, 11)


def test_ops_that_wait_while_a_column_is_added_are_written_with_its_default(
    state: NativeState, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever has them written meanwhile finds the table with the column, or without it."""
    wider = TableSchema((*ID_V.columns, Column("w", pa.int64(), default=42)), ("id",))
    state.apply(op_batch(ID_V, [(2, *put(5, 5))]), 2)
    with ThreadPoolExecutor(1) as other:

        def op_rows(schema: TableSchema) -> OpRows:
            settled = other.submit(state.settle)
            wait([settled], 0.1)  # it has to wait itself; if it doesn't, it gets far enough
            begun.append(settled)
            return OpRows(schema)

        begun: list[Future[None]] = []
        monkeypatch.setattr(native_state_module, "OpRows", op_rows)
        state.add_columns(wider)
        (settled,) = begun
        settled.result()
    assert state._get_from_table([5]) == {"id": 5, "v": 5, "w": 42}
    assert state.get([5]) == {"id": 5, "v": 5, "w": 42}


def test_a_later_process_finds_no_base_that_is_newer_than_the_rows(
    state: NativeState, workspace: Workspace
) -> None:
    state.apply(op_batch(ID_V, [(2, *put(1, 7))]), 2)
    state.stand_on(2, 9)
    assert written(state, workspace, 1) == (2, 7)
