"""Ops that wait in memory: seen by key at once, by queries after `settle`, and never older than before."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pytest

from flight_replica.schema import Column, TableSchema
from flight_replica.state import native_state as native_state_module
from flight_replica.state import recent_ops
from flight_replica.state.native_state import NativeState
from flight_replica.state.op_rows import OpRows
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

    with ThreadPoolExecutor(4) as threads:
        running = [threads.submit(task) for task in (read_keys, read_keys, read_all)]
        threads.submit(write).result()
        assert all(task.result() for task in running)


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
