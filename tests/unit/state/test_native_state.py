"""`NativeState`: what it copies and what it applies come through bit for bit, and nothing of it is left.

That it shows the model's table under any history: property/test_replica_histories.py.
"""

from __future__ import annotations

import itertools
import re
from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import closing, contextmanager
from pathlib import Path
from random import Random

import duckdb
import numpy as np
import pyarrow as pa
import pytest

from flight_replica.errors import SchemaMismatch, Unavailable
from flight_replica.schema import Column, TableSchema
from flight_replica.state import native_state as native_module
from flight_replica.state.native_build import NativeBuild
from flight_replica.state.native_files import FILE_SETTINGS
from flight_replica.state.native_state import NativeState
from flight_replica.state.parquet_state import ParquetState
from flight_replica.state.workspace import Workspace
from tests.bases import ID_V, ParquetBase, assert_same, delete, op_batch, put, sorted_by_key
from tests.unit.state.test_parquet_state import EXAMPLES, NAN_BITS, NESTED, rows_of, table_of


@pytest.fixture
def workspace() -> Iterator[Workspace]:
    opened = Workspace()
    yield opened
    opened.close()


@contextmanager
def native_state(base: ParquetBase, workspace: Workspace) -> Iterator[NativeState]:
    """A native copy of `base`'s snapshot, the state that it was made of already closed."""
    number, directory = workspace.new_state()
    source = ParquetState(workspace.database, number, base.snapshot, directory)
    state = NativeBuild(
        workspace.database, workspace.new_number(), workspace.native_folder("t").new_file(), source
    ).run()
    source.close()
    try:
        yield state
    finally:
        state.close()


def base_of(schema: TableSchema, directory: Path, *columns: pa.Array) -> ParquetBase:
    base = ParquetBase(directory, schema)
    base.publish([(table_of(schema, *columns), ())], 1)
    return base


def test_columns_whose_names_differ_only_by_case_keep_their_values(
    workspace: Workspace, tmp_path: Path
) -> None:
    schema = TableSchema((Column("id", pa.int64(), False), Column("ID", pa.string())), ("id",))
    base = base_of(schema, tmp_path, pa.array([1, 2], pa.int64()), pa.array(["a", None]))
    with native_state(base, workspace) as state:
        assert [state.get([key]) for key in (1, 2)] == [{"id": 1, "ID": "a"}, {"id": 2, "ID": None}]


@pytest.mark.parametrize(("kind", "values"), [*EXAMPLES, *NESTED], ids=lambda v: str(v)[:40])
def test_a_value_comes_through_copy_apply_view_and_get(
    kind: pa.DataType, values: list[object], workspace: Workspace, tmp_path: Path
) -> None:
    schema = TableSchema((Column("id", pa.int64(), False), Column("x", kind)), ("id",))
    values = [*values, None]
    count = len(values)
    base = base_of(schema, tmp_path, pa.array(range(count), pa.int64()), pa.array(values, kind))
    with native_state(base, workspace) as state:
        puts = [(2 + n, *put(count + n, value, schema=schema)) for n, value in enumerate(values)]
        state.apply(op_batch(schema, puts), 9)
        expected = table_of(schema, pa.array(range(2 * count), pa.int64()), pa.array(values + values, kind))
        assert_same(rows_of(state, workspace.database), expected)
        for number, value in enumerate(values + values):
            for row in (state.get([number]), state._get_from_table([number])):  # in memory, and written
                assert row is not None and repr(row["x"]) == repr(pa.array([value], kind)[0].as_py())


@pytest.mark.parametrize(("kind", "values"), EXAMPLES, ids=lambda v: str(v)[:40])
def test_a_key_of_each_type_is_replaced_and_deleted(
    kind: pa.DataType, values: list[object], workspace: Workspace, tmp_path: Path
) -> None:
    schema = TableSchema((Column("k", kind, False), Column("v", pa.int64())), ("k",))
    keys = pa.array(values, kind)
    base = base_of(schema, tmp_path, keys, pa.array(range(len(values)), pa.int64()))
    with native_state(base, workspace) as state:
        puts = [(2 + n, *put(key, 100 + n, schema=schema)) for n, key in enumerate(values[1:])]
        last = (90, *delete(values[0], schema=schema))
        state.apply(op_batch(schema, [*puts, last], is_bare_delete=True), 90)
        expected = table_of(schema, keys[1:], pa.array(range(100, 99 + len(values)), pa.int64()))
        assert_same(rows_of(state, workspace.database), sorted_by_key(expected, schema))
        assert state.get([values[0]]) is None
        assert state._get_from_table([values[0]]) is None


_NAMES: dict[str, pa.DataType] = {
    "small": pa.int8(), "number": pa.int64(), "name": pa.string(), "code": pa.binary(), "part": pa.float64()
}  # fmt: skip
_PARTS: dict[str, list[object]] = {
    "small": [-1, 1],
    "number": [1, 2**40],
    "name": ["", "a"],
    "code": [b"", b"\x00"],
    "part": [0.0, -0.0],
}


@pytest.mark.parametrize(
    "key",
    [
        ("name", "number"),
        ("number", "name"),
        ("small", "number"),
        ("small", "code"),
        ("name", "code"),
        ("number", "part"),
        ("part",),
        ("part", "name"),
        ("name",),
        ("small", "name", "number"),
    ],
    ids=" ".join,
)
@pytest.mark.parametrize("beside_ops_min", [0, native_module.BESIDE_OPS_MIN])
def test_only_the_very_key_is_replaced_where_parts_of_others_are_the_same(
    key: tuple[str, ...],
    beside_ops_min: int,
    workspace: Workspace,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(native_module, "BESIDE_OPS_MIN", beside_ops_min)
    schema = TableSchema((*(Column(n, _NAMES[n], False) for n in key), Column("v", pa.int64())), key)
    keys = list(itertools.product(*(_PARTS[name] for name in key)))
    columns = [
        pa.array(list(values), _NAMES[n]) for n, values in zip(key, zip(*keys, strict=True), strict=True)
    ]
    base = base_of(schema, tmp_path, *columns, pa.array(range(len(keys)), pa.int64()))
    with native_state(base, workspace) as state:
        for number, (first, last) in enumerate([(0, 1), (1, 3), (len(keys) - 1, len(keys))]):
            seq = 10 * (number + 1)
            puts = [put(*key, value, schema=schema) for value in (-2, -1) for key in keys[first:last]]
            state.apply(op_batch(schema, [(seq + n, *change) for n, change in enumerate(puts)]), seq + 9)
        values = [-1 if n in (0, 1, 2, len(keys) - 1) else n for n in range(len(keys))]
        expected = table_of(schema, *columns, pa.array(values, pa.int64()))
        assert_same(rows_of(state, workspace.database), sorted_by_key(expected, schema))
        state.apply(op_batch(schema, [(90, *delete(*keys[0], schema=schema))]), 90)
        assert_same(rows_of(state, workspace.database), sorted_by_key(expected.slice(1), schema))


def test_nan_keeps_its_bits(workspace: Workspace, tmp_path: Path) -> None:
    schema = TableSchema((Column("id", pa.int64(), False), Column("x", pa.float64())), ("id",))
    nans = pa.array(np.array(NAN_BITS, np.uint64).view(np.float64))
    with native_state(base_of(schema, tmp_path, pa.array(range(4), pa.int64()), nans), workspace) as state:
        ops = op_batch(schema, [(2 + n, *put(4 + n, None, schema=schema)) for n in range(4)])
        state.apply(ops.set_column(4, schema.feed_schema.field(4), nans), 5)
        found = rows_of(state, workspace.database)["x"].to_numpy().view(np.uint64)
        assert found.tolist() == NAN_BITS + NAN_BITS


def test_rows_are_in_key_order_whatever_the_files_order(workspace: Workspace, tmp_path: Path) -> None:
    base = base_of(ID_V, tmp_path, pa.array([5, 1, 3], pa.int64()), pa.array([50, 10, 30], pa.int64()))
    with native_state(base, workspace) as state:
        session = workspace.session()
        stored = session.execute(f"SELECT id FROM ({state.relation(state.position(session))})").fetchall()
        session.close()
        assert stored == [(1,), (3,), (5,)]


@pytest.mark.statement(20, 21, 25)
def test_the_newest_op_of_a_key_counts_and_old_ops_are_nothing_new(
    workspace: Workspace, tmp_path: Path
) -> None:
    base = base_of(ID_V, tmp_path, pa.array([1], pa.int64()), pa.array([10], pa.int64()))
    with native_state(base, workspace) as state:
        state.apply(op_batch(ID_V, [(2, *put(2, 20)), (3, *delete(2)), (4, *put(2, 22))]), 4, 777)
        state.apply(op_batch(ID_V, [(3, *delete(2))]), 4, 1)
        assert (state.get([2]), state.visible_seq, state.commit_time_us) == ({"id": 2, "v": 22}, 4, 777)
        assert state.ops_since_copied == 3


@pytest.mark.statement(117)
def test_an_added_column_has_its_default_in_old_rows(workspace: Workspace, tmp_path: Path) -> None:
    base = base_of(ID_V, tmp_path, pa.array([1], pa.int64()), pa.array([10], pa.int64()))
    wider = TableSchema(
        (*ID_V.columns, Column("w", pa.string(), True, "old"), Column("n", pa.int8())), ("id",)
    )
    with native_state(base, workspace) as state:
        before = workspace.session()
        before.execute("BEGIN TRANSACTION READ ONLY")
        at = state.position(before)
        state.add_columns(wider)
        state.apply(op_batch(wider, [(2, *put(2, 20, "new", 7, schema=wider))]), 2)
        state.apply(op_batch(ID_V, [(3, *put(3, 30))]), 3)  # an op from before the column
        assert state.get([1]) == {"id": 1, "v": 10, "w": "old", "n": None}
        assert state.get([2]) == {"id": 2, "v": 20, "w": "new", "n": 7}
        assert state.get([3]) == {"id": 3, "v": 30, "w": "old", "n": None}
        assert before.sql(state.relation(at)).fetchall() == [(1, 10)]
        before.close()


def test_a_batch_that_fails_changes_nothing(workspace: Workspace, tmp_path: Path) -> None:
    base = base_of(ID_V, tmp_path, pa.array([1], pa.int64()), pa.array([10], pa.int64()))
    unknown = TableSchema((*ID_V.columns, Column("x", pa.int8())), ("id",))
    with native_state(base, workspace) as state:
        with pytest.raises(SchemaMismatch, match="column 'x'"):
            state.apply(op_batch(unknown, [(2, *put(1, 11, 1, schema=unknown))]), 2)
        assert (state.get([1]), state.visible_seq, state.ops_applied) == ({"id": 1, "v": 10}, 1, 0)


def test_a_state_that_cannot_be_copied_leaves_nothing(workspace: Workspace, tmp_path: Path) -> None:
    base = base_of(ID_V, tmp_path, pa.array([1], pa.int64()), pa.array([10], pa.int64()))
    number, directory = workspace.new_state()
    source = ParquetState(workspace.database, number, base.snapshot, directory)
    for file in directory.iterdir():
        file.unlink()
    file = workspace.native_folder("t").new_file()
    with pytest.raises(duckdb.Error):
        NativeBuild(workspace.database, workspace.new_number(), file, source).run()
    assert not file.path.exists()
    source.close()
    assert workspace.database.execute("SELECT count(*) FROM duckdb_tables()").fetchall() == [(0,)]


def test_rows_are_counted_as_ops_come_whatever_they_do(workspace: Workspace, tmp_path: Path) -> None:
    base = base_of(ID_V, tmp_path, pa.array([1, 2, 3], pa.int64()), pa.array([1, 2, 3], pa.int64()))
    batches = [
        ([put(1, 5)], 3),
        ([put(4, 5), put(4, 6)], 4),
        ([delete(2), delete(9)], 3),
        ([put(7, 1), delete(7)], 3),
        ([delete(3), put(3, 8)], 3),
        ([delete(1), delete(3), delete(4)], 0),
    ]
    with native_state(base, workspace) as state:
        assert state.row_count == 3
        seq = 1
        for ops, count in batches:
            batch = op_batch(ID_V, [(seq + number, *op) for number, op in enumerate(ops, 1)])
            seq += len(ops)
            state.apply(batch, seq)
            assert len(rows_of(state, workspace.database)) == state.row_count == count


def test_a_batch_that_fails_leaves_the_count(workspace: Workspace, tmp_path: Path) -> None:
    base = base_of(ID_V, tmp_path, pa.array([1], pa.int64()), pa.array([10], pa.int64()))
    with native_state(base, workspace) as state:
        with workspace.session() as other:
            other.execute(f"BEGIN; DELETE FROM {state._database}.position")
            state.apply(op_batch(ID_V, [(2, *put(2, 2))]), 2)
            with pytest.raises(Unavailable, match=r"can't be written to the native state: .*[Cc]onflict"):
                state.settle()
            assert state.row_count == 1
            other.execute("ROLLBACK")
        assert len(rows_of(state, workspace.database)) == state.row_count == 2


def test_rows_are_counted_while_ops_are_applied(workspace: Workspace, tmp_path: Path) -> None:
    base = base_of(ID_V, tmp_path, pa.array([1], pa.int64()), pa.array([10], pa.int64()))
    with native_state(base, workspace) as state, ThreadPoolExecutor(1) as other:

        def apply_many() -> None:
            for seq in range(2, 202):
                state.apply(op_batch(ID_V, [(seq, *put(1, seq))]), seq)
                state.settle()

        applied = other.submit(apply_many)
        counts = {state.row_count}
        while wait([applied], timeout=0.001).not_done:  # without a pause it takes the other's turns
            counts.add(state.row_count)
        applied.result()
        assert counts == {1}


def test_close_leaves_no_database_and_no_file(workspace: Workspace, tmp_path: Path) -> None:
    base = base_of(ID_V, tmp_path, pa.array([1], pa.int64()), pa.array([10], pa.int64()))
    with native_state(base, workspace):
        pass
    names = workspace.database.execute("SELECT database_name FROM duckdb_databases()").fetchall()
    assert not [name for (name,) in names if name.startswith("native")]
    assert not list((workspace.directory / "native").rglob("*.duckdb*"))


def test_a_point_query_reads_one_row_group(workspace: Workspace, tmp_path: Path) -> None:
    ids = pa.array(range(300_000), pa.int64())
    with native_state(base_of(ID_V, tmp_path, ids, ids), workspace) as state:
        state.apply(op_batch(ID_V, [(2, *put(5, 0)), (3, *delete(290_000))]), 3)
        state.settle()
        with closing(workspace.session()) as session:
            sql = f"SELECT * FROM ({state.relation(state.position(session))}) WHERE id = 150000"
            (plan,) = session.execute(f"EXPLAIN ANALYZE {sql}").fetchall()
            read, of_all = re.findall(r"Row Groups Scanned: (\d+) / (\d+)", plan[1])[0]
    assert (int(read), int(of_all) > 2) == (1, True)


def test_a_checkpoint_leaves_row_groups_with_deleted_rows_as_they_lie(
    workspace: Workspace, tmp_path: Path
) -> None:
    """To write them anew takes seconds of a large table, and commits wait; it is built anew as a whole."""
    ids = pa.array(range(250_000), pa.int64())  # three row groups; what stays would fit into two
    with native_state(base_of(ID_V, tmp_path, ids, ids), workspace) as state:
        lie = (
            "SELECT row_group_id, column_id, block_id, block_offset "
            f"FROM pragma_storage_info('{state._database}.rows') ORDER BY ALL"
        )
        before = state._connection.execute(lie).fetchall()
        ops = op_batch(ID_V, [(2, *delete(key)) for key in range(10_000)], is_bare_delete=True)
        state.apply(ops, 2)
        state.settle()
        state._connection.execute(f"CHECKPOINT {state._database}")
        assert state._connection.execute(lie).fetchall() == before
        assert state.row_count == 240_000


def test_the_log_of_writes_goes_into_the_file_under_readers_that_always_overlap(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each goes on reading its own moment, whatever was written since: ops, or the name of a base."""
    settings = (*FILE_SETTINGS, "SET GLOBAL checkpoint_threshold = '64KiB'")
    monkeypatch.setattr("flight_replica.state.workspace.FILE_SETTINGS", settings)
    ids, random = pa.array(range(5000), pa.int64()), Random(7)
    model = {key: key for key in range(5000)}
    views: deque[tuple[duckdb.DuckDBPyConnection, dict[int, int]]] = deque()
    log_sizes = []
    with (
        closing(Workspace()) as workspace,
        native_state(base_of(ID_V, tmp_path, ids, ids), workspace) as state,
    ):
        for seq in range(2, 22):
            puts = {random.randrange(6000): seq for _ in range(400)}
            deletes = [key for key in (random.randrange(6000) for _ in range(100)) if key not in puts]
            model = {key: v for key, v in (model | puts).items() if key not in deletes}
            ops = [*(put(*row) for row in puts.items()), *(delete(key) for key in deletes)]
            state.apply(op_batch(ID_V, [(seq, *op) for op in ops]), seq)
            state.stand_on(seq, seq)
            session = workspace.session()
            session.execute("BEGIN TRANSACTION READ ONLY")
            views.append((session, model))
            _assert_shows(state, views[-1])
            if len(views) > 5:
                _assert_shows(state, views[0])
                views.popleft()[0].close()
            log_sizes.append(state.file.log_byte_count)
        assert max(log_sizes) < 96 << 10 and log_sizes != sorted(log_sizes)
        while views:
            _assert_shows(state, views[0])
            views.popleft()[0].close()


def _assert_shows(state: NativeState, view: tuple[duckdb.DuckDBPyConnection, dict[int, int]]) -> None:
    """The session's transaction sees these rows."""
    session, rows = view
    position = state.position(session)
    assert position.row_count == len(rows)
    found = session.sql(state.relation(position)).to_arrow_table().to_pydict()
    assert dict(zip(found["id"], found["v"], strict=True)) == rows


@pytest.mark.parametrize("kind", [pa.int64(), pa.string()])
def test_ops_in_several_batches_are_applied_as_if_they_were_one(
    kind: pa.DataType, workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(native_module, "BESIDE_OPS_MIN", 4)
    monkeypatch.setattr(native_module, "PIECE_OPS", 2)
    schema = TableSchema((Column("k", kind, False), Column("v", pa.int64())), ("k",))
    one, two, three, four = pa.array([1, 2, 3, 4]).cast(kind).to_pylist()
    keys = pa.array([one, two, three], kind)
    base = base_of(schema, tmp_path, keys, pa.array([0, 0, 0], pa.int64()))
    batches = [
        [(3, *put(one, 13, schema=schema)), (4, *put(two, 14, schema=schema))],
        [(5, *delete(one, schema=schema)), (6, *put(two, 16, schema=schema))],
        [(7, *put(one, 17, schema=schema)), (8, *delete(three, schema=schema))],
    ]
    with native_state(base, workspace) as state:
        state.apply(op_batch(schema, [(2, *put(four, 12, schema=schema))]), 2)  # waits in memory
        pieces = [op_batch(schema, batch, is_bare_delete=True) for batch in batches]
        state.apply(pa.Table.from_batches(pieces), 8)
        expected = table_of(schema, pa.array([one, two, four], kind), pa.array([17, 16, 12], pa.int64()))
        assert_same(rows_of(state, workspace.database), expected)
        assert (state.row_count, state.visible_seq, state.ops_applied) == (3, 8, 7)
        state.apply(pa.Table.from_batches(pieces), 8)  # nothing of it is new
        assert_same(rows_of(state, workspace.database), expected)
