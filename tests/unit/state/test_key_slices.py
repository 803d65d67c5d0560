"""A native state that is built anew in slices of its key has the same rows, in key order."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from random import Random

import pyarrow as pa
import pytest

from flight_replica.schema import Column, TableSchema
from flight_replica.state import key_slices
from flight_replica.state.native_build import NativeBuild
from flight_replica.state.native_state import NativeState
from flight_replica.state.workspace import Workspace
from tests.bases import assert_same, delete, op_batch, put
from tests.unit.state.test_native_state import base_of, native_state
from tests.unit.state.test_parquet_state import EXAMPLES, rows_of


@pytest.fixture
def workspace() -> Iterator[Workspace]:
    opened = Workspace()
    yield opened
    opened.close()


@pytest.fixture(autouse=True)
def small_slices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(key_slices, "SLICE_ROWS", 2)
    monkeypatch.setattr(key_slices, "SAMPLE_ROWS", 1)


def slices_of(state: NativeState, workspace: Workspace) -> list[str]:
    with closing(workspace.session()) as session:
        return key_slices.key_slices(session, state.table, state.schema, state.row_count)


def check_built_anew(state: NativeState, workspace: Workspace) -> None:
    """Built anew it has the rows of `state`, and as they lie they are in the order of the key."""
    file = workspace.native_folder("t").new_file()
    anew = NativeBuild(workspace.database, workspace.new_number(), file, state).run()
    with closing(anew):
        assert_same(rows_of(anew, workspace.database), rows_of(state, workspace.database))
        assert anew.row_count == state.row_count
        key = ", ".join(f"c{state.schema.names.index(name)}" for name in state.schema.primary_key)
        with closing(workspace.session()) as session:
            lying = session.sql(f"SELECT {key} FROM {anew.table} ORDER BY rowid").to_arrow_table()
            ordered = session.sql(f"SELECT {key} FROM {anew.table} ORDER BY {key}, rowid").to_arrow_table()
        assert lying.equals(ordered)


@pytest.mark.parametrize(("kind", "values"), EXAMPLES, ids=lambda v: str(v)[:40])
def test_slices_by_keys_of_each_type_have_every_row_in_order(
    kind: pa.DataType, values: list[object], workspace: Workspace, tmp_path: Path
) -> None:
    schema = TableSchema((Column("v", pa.int64()), Column("k", kind, False)), ("k",))
    numbers = pa.array(range(len(values)), pa.int64())
    base = base_of(schema, tmp_path, numbers, pa.array(values, kind))
    with native_state(base, workspace) as state:
        changes = [(2 + n, *put(100 + n, key, schema=schema)) for n, key in enumerate(values[::2])]
        state.apply(op_batch(schema, changes), 90)
        state.settle()
        assert len(slices_of(state, workspace)) >= (2 if len(values) > 2 else 1)
        check_built_anew(state, workspace)


PAIR = TableSchema(
    (Column("a", pa.string(), False), Column("b", pa.int32(), False), Column("v", pa.int64())), ("a", "b")
)


def test_rows_that_share_the_first_column_are_in_one_slice(workspace: Workspace, tmp_path: Path) -> None:
    random = Random(7)
    texts = ["", "a", "a\0", "ß" * 70, "ß" * 70 + "x", "ß" * 64, "o'clock", "\\x41", "z"]
    keys = [(text, number) for text in texts for number in range(random.randrange(1, 9))]
    random.shuffle(keys)
    columns = [
        pa.array(part, column.type)
        for part, column in zip(zip(*keys, strict=True), PAIR.columns, strict=False)
    ]
    base = base_of(PAIR, tmp_path, *columns, pa.array(range(len(keys)), pa.int64()))
    with native_state(base, workspace) as state:
        changes = [
            delete(*key, schema=PAIR) if random.random() < 0.4 else put(*key, -1, schema=PAIR)
            for key in random.sample(keys, len(keys) // 2)
        ]
        state.apply(op_batch(PAIR, [(2 + n, *op) for n, op in enumerate(changes)]), 90)
        state.settle()
        slices = slices_of(state, workspace)
        assert 3 < len(slices) <= len(texts)
        with closing(workspace.session()) as session:
            counts = [
                session.execute(f"SELECT count(*) FROM {state.table} WHERE {condition}").fetchall()[0][0]
                for condition in slices
            ]
        assert sum(counts) == state.row_count
        check_built_anew(state, workspace)


def test_there_are_only_so_many_slices(workspace: Workspace, tmp_path: Path) -> None:
    count = 1000
    schema = TableSchema((Column("id", pa.int64(), False), Column("v", pa.int64())), ("id",))
    ids = pa.array(range(count), pa.int64())
    with native_state(base_of(schema, tmp_path, ids, ids), workspace) as state:
        assert len(slices_of(state, workspace)) == key_slices.SLICES_MAX
        check_built_anew(state, workspace)


def test_a_table_of_no_more_rows_than_a_slice_is_not_cut(workspace: Workspace, tmp_path: Path) -> None:
    schema = TableSchema((Column("id", pa.int64(), False), Column("v", pa.int64())), ("id",))
    base = base_of(schema, tmp_path, pa.array([1, 2], pa.int64()), pa.array([1, 2], pa.int64()))
    with native_state(base, workspace) as state:
        assert slices_of(state, workspace) == ["true"]
        state.apply(op_batch(schema, [(2, *delete(1)), (3, *delete(2))]), 3)
        state.settle()
        assert slices_of(state, workspace) == ["true"]
        check_built_anew(state, workspace)
