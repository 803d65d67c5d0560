"""`ParquetState`: every value comes through bit for bit, from base files and from the tail alike."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from contextlib import nullcontext
from decimal import Decimal
from pathlib import Path
from uuid import UUID

import duckdb
import numpy as np
import pyarrow as pa
import pytest

from flight_replica.errors import BaseError, BaseNotUsable, SchemaMismatch
from flight_replica.log.source import Op
from flight_replica.schema import Column, TableSchema
from flight_replica.sql.database import open_database
from flight_replica.state.parquet_state import ParquetState
from flight_replica.state.state import ReplicaState
from tests.bases import ID_V, ParquetBase, assert_same, delete, op_batch, put, sorted_by_key

NEW_YORK = "America/New_York"
MIDNIGHT = dt.datetime(2024, 3, 10, 7, 30, 0, 123456, dt.UTC)
EXAMPLES: list[tuple[pa.DataType, list[object]]] = [
    (pa.bool_(), [True, False]),
    *((t, [-(2 ** (t.bit_width - 1)), 2 ** (t.bit_width - 1) - 1, 0]) for t in
      (pa.int8(), pa.int16(), pa.int32(), pa.int64())),
    *((t, [0, 2**t.bit_width - 1]) for t in (pa.uint8(), pa.uint16(), pa.uint32(), pa.uint64())),
    (pa.float32(), [0.0, -0.0, float("inf"), 1.5, 2.0**-149]),
    (pa.float64(), [0.0, -0.0, float("-inf"), 0.1, 5e-324]),
    (pa.decimal128(38, 10), [Decimal("-9999999999999999999999999999.9999999999"), Decimal("0.0000000001")]),
    (pa.decimal128(4, 2), [Decimal("-99.99"), Decimal("0.01")]),
    (pa.string(), ["", "a\x00b", "ß𝄞", "x" * 5000]),
    (pa.binary(), [b"", b"\x00\xff", bytes(range(256))]),
    (pa.binary(4), [b"\x00\x01\xfe\xff", b"abcd"]),
    (pa.date32(), [dt.date(1, 1, 1), dt.date(9999, 12, 31)]),
    (pa.time32("s"), [dt.time(0), dt.time(23, 59, 59)]),
    (pa.time32("ms"), [dt.time(23, 59, 59, 999000)]),
    (pa.time64("us"), [dt.time(23, 59, 59, 999999)]),
    (pa.timestamp("s"), [dt.datetime(1969, 12, 31, 23, 59, 59)]),
    (pa.timestamp("ms"), [dt.datetime(2024, 3, 10, 2, 30, 0, 1000)]),
    (pa.timestamp("us"), [dt.datetime(2024, 3, 10, 2, 30, 0, 1)]),
    (pa.timestamp("s", "UTC"), [MIDNIGHT.replace(microsecond=0)]),
    (pa.timestamp("ms", NEW_YORK), [MIDNIGHT.replace(microsecond=123000)]),
    (pa.timestamp("us", NEW_YORK), [MIDNIGHT]),
    (pa.uuid(), [UUID(int=0), UUID(int=2**128 - 1), UUID("5a1c6a52-33c0-4b7d-9d7f-1f4b1d2f9e01")]),
]  # fmt: skip
NESTED: list[tuple[pa.DataType, list[object]]] = [
    (pa.list_(pa.int32()), [[], [1, None, 3]]),
    (pa.list_(pa.list_(pa.int64())), [[[1], None, []]]),
    (pa.struct([("a", pa.int8()), ("b c", pa.list_(pa.string()))]), [{"a": 1, "b c": ["x", None]}]),
    (pa.map_(pa.string(), pa.decimal128(9, 2)), [[], [("k", Decimal("1.10")), ("l", None)]]),
    (pa.list_(pa.binary(3)), [[b"abc", None]]),
    (pa.list_(pa.time32("ms")), [[dt.time(1, 2, 3, 4000)]]),
    (pa.list_(pa.timestamp("ms", NEW_YORK)), [[MIDNIGHT.replace(microsecond=0)]]),
]
NAN_BITS = [0x7FF8000000000000, 0xFFF8000000000000, 0x7FF8000000000123, 0x7FF0000000000001]


@pytest.fixture
def database(tmp_path: Path) -> Iterator[duckdb.DuckDBPyConnection]:
    connection = open_database(readable=[tmp_path])
    yield connection
    connection.close()


@pytest.fixture
def base(tmp_path: Path) -> ParquetBase:
    return ParquetBase(tmp_path / "base", ID_V)


def state_of(base: ParquetBase, database: duckdb.DuckDBPyConnection, tmp_path: Path) -> ParquetState:
    return ParquetState(database, 1, base.snapshot, tmp_path / "state")


def rows_of(state: ReplicaState, database: duckdb.DuckDBPyConnection) -> pa.Table:
    """All rows, as many as the state counts."""
    state.settle()
    session = database.cursor()
    session.execute("BEGIN TRANSACTION READ ONLY")
    position = state.position(session)
    found = session.sql(state.relation(position)).to_arrow_table()
    assert state.count_rows(position, session) == len(found)
    session.close()
    return sorted_by_key(found, state.schema)


def table_of(schema: TableSchema, *columns: pa.Array) -> pa.Table:
    return pa.Table.from_arrays(
        list(columns), schema=pa.schema([pa.field(c.name, c.type) for c in schema.columns])
    )


def rows(*pairs: tuple[int, int | None]) -> pa.Table:
    return pa.table({"id": pa.array([p[0] for p in pairs], pa.int64()),
                     "v": pa.array([p[1] for p in pairs], pa.int64())})  # fmt: skip


# --- values -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "values"), [*EXAMPLES, *NESTED], ids=lambda v: str(v)[:40])
def test_a_value_comes_through_base_tail_view_and_get(
    kind: pa.DataType, values: list[object], database: duckdb.DuckDBPyConnection, tmp_path: Path
) -> None:
    schema = TableSchema((Column("id", pa.int64(), False), Column("x", kind)), ("id",))
    values = [*values, None]
    count = len(values)
    base = ParquetBase(tmp_path / "base", schema)
    in_base = table_of(schema, pa.array(range(count), pa.int64()), pa.array(values, kind))
    base.publish([(in_base, ())], 1)
    state = state_of(base, database, tmp_path)
    state.apply(
        op_batch(schema, [(2 + n, *put(count + n, v, schema=schema)) for n, v in enumerate(values)]), 9
    )

    all_keys = pa.array(range(2 * count), pa.int64())
    assert_same(rows_of(state, database), table_of(schema, all_keys, pa.array(values + values, kind)))
    for number, value in enumerate(values + values):
        row = state.get([number])
        assert row is not None
        assert repr(row["x"]) == repr(pa.array([value], kind)[0].as_py())  # −0.0 isn't 0.0 here


@pytest.mark.parametrize(("kind", "values"), EXAMPLES, ids=lambda v: str(v)[:40])
def test_a_key_of_each_type_hides_the_base_row(
    kind: pa.DataType, values: list[object], database: duckdb.DuckDBPyConnection, tmp_path: Path
) -> None:
    schema = TableSchema((Column("k", kind, False), Column("v", pa.int64())), ("k",))
    base = ParquetBase(tmp_path / "base", schema)
    keys = pa.array(values, kind)
    base.publish([(table_of(schema, keys, pa.array(range(len(values)), pa.int64())), ())], 1)
    state = state_of(base, database, tmp_path)
    changes = [(2 + n, *put(key, 100 + n, schema=schema)) for n, key in enumerate(values[1:])]
    state.apply(
        op_batch(schema, [*changes, (90, *delete(values[0], schema=schema))], is_bare_delete=True), 90
    )
    expected = table_of(schema, keys[1:], pa.array(range(100, 99 + len(values)), pa.int64()))
    assert_same(rows_of(state, database), sorted_by_key(expected, schema))
    assert state.get([values[0]]) is None
    assert [state.get([key]) for key in values[1:]] == [
        {"k": key, "v": 100 + n} for n, key in enumerate(values[1:])
    ]


def test_nan_keeps_its_bits_in_base_and_tail(database: duckdb.DuckDBPyConnection, tmp_path: Path) -> None:
    schema = TableSchema((Column("id", pa.int64(), False), Column("x", pa.float64())), ("id",))
    nans = pa.array(np.array(NAN_BITS, np.uint64).view(np.float64))
    base = ParquetBase(tmp_path / "base", schema)
    base.publish([(table_of(schema, pa.array(range(4), pa.int64()), nans), ())], 1)
    state = state_of(base, database, tmp_path)
    ops = op_batch(schema, [(2 + n, *put(4 + n, None, schema=schema)) for n in range(4)])
    state.apply(ops.set_column(4, schema.feed_schema.field(4), nans), 5)
    found = rows_of(state, database)["x"].to_numpy().view(np.uint64)
    assert found.tolist() == NAN_BITS + NAN_BITS


def test_uuids_inside_lists_come_through(database: duckdb.DuckDBPyConnection, tmp_path: Path) -> None:
    schema = TableSchema((Column("id", pa.int64(), False), Column("x", pa.list_(pa.uuid()))), ("id",))
    lists = pa.ListArray.from_arrays([0, 2, 3], pa.array([UUID(int=1), None, UUID(int=3)], pa.uuid()))
    base = ParquetBase(tmp_path / "base", schema)
    base.publish([(table_of(schema, pa.array([0, 1]), lists.cast(pa.list_(pa.uuid()))), ())], 1)
    state = state_of(base, database, tmp_path)
    ops = op_batch(schema, [(2 + n, *put(2 + n, None, schema=schema)) for n in range(2)])
    state.apply(ops.set_column(4, schema.feed_schema.field(4), lists.cast(pa.list_(pa.uuid()))), 3)
    assert rows_of(state, database)["x"].to_pylist() == 2 * [[UUID(int=1), None], [UUID(int=3)]]
    assert state.get([3]) == {"id": 3, "x": [UUID(int=3)]}


@pytest.mark.statement(122)
def test_minus_zero_and_zero_are_two_keys_in_base_and_tail(
    database: duckdb.DuckDBPyConnection, tmp_path: Path
) -> None:
    schema = TableSchema((Column("k", pa.float64(), False), Column("v", pa.int64())), ("k",))
    base = ParquetBase(tmp_path / "base", schema)
    base.publish([(table_of(schema, pa.array([-0.0, 0.0]), pa.array([1, 2])), ())], 1)
    state = state_of(base, database, tmp_path)
    state.apply(op_batch(schema, [(2, *put(0.0, 20, schema=schema))]), 2)
    assert_same(rows_of(state, database), table_of(schema, pa.array([-0.0, 0.0]), pa.array([1, 20])))
    state.apply(op_batch(schema, [(3, *delete(-0.0, schema=schema))]), 3)
    assert (state.get([-0.0]), state.get([0.0])) == (None, {"k": 0.0, "v": 20})
    assert state.tail_bytes > 0 and state.ops_applied == 2


def test_composite_keys_are_compared_part_by_part(
    database: duckdb.DuckDBPyConnection, tmp_path: Path
) -> None:
    columns = (Column("v", pa.int64()), Column("b", pa.string(), False), Column("a", pa.int32(), False))
    schema = TableSchema(columns, ("a", "b"))
    base = ParquetBase(tmp_path / "base", schema)
    names, numbers = pa.array(["x", "y", "x"]), pa.array([1, 1, 2], pa.int32())
    base.publish([(table_of(schema, pa.array([0, 1, 2]), names, numbers), ())], 1)
    state = state_of(base, database, tmp_path)
    state.apply(op_batch(schema, [(2, Op.UPDATE, {"v": 9, "b": "y", "a": 1})]), 2)
    state.apply(op_batch(schema, [(3, Op.DELETE, {"b": "x", "a": 2})], is_bare_delete=True), 3)
    expected = table_of(schema, pa.array([0, 9]), pa.array(["x", "y"]), pa.array([1, 1], pa.int32()))
    assert_same(rows_of(state, database), expected)
    assert state.get([1, "y"]) == {"v": 9, "b": "y", "a": 1}


# --- columns ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "names",
    [
        ("id", "ID", "Id"),
        ("seq", "op", "pk_bytes"),
        ("c1", "c0", "dead"),
        ("file_row_number", "file_index", "filename"),
        ('a"b', "", "n"),
        ("f", "p0", "d"),
        ("rowid", "t", "b"),
    ],
)
def test_column_names_of_every_kind_come_through(
    names: tuple[str, str, str], database: duckdb.DuckDBPyConnection, tmp_path: Path
) -> None:
    names = tuple(name or "ünïcödé €" for name in names)  # type: ignore[assignment]
    columns = tuple(Column(name, pa.int64(), n > 0) for n, name in enumerate(names))
    schema = TableSchema(columns, (names[0],))
    base = ParquetBase(tmp_path / "base", schema)
    stored = table_of(schema, *(pa.array([n, n + 10, n + 20], pa.int64()) for n in range(3)))
    base.publish([(stored, [1])], 1)
    state = state_of(base, database, tmp_path)
    state.apply(op_batch(schema, [(2, *put(5, 6, 7, schema=schema))]), 2)
    found = rows_of(state, database)
    assert found.to_pylist() == [
        dict(zip(names, row, strict=True)) for row in [(0, 1, 2), (5, 6, 7), (20, 21, 22)]
    ]
    assert state.get([20]) == dict(zip(names, (20, 21, 22), strict=True))


def test_files_of_different_layouts_are_one_table(
    base: ParquetBase, database: duckdb.DuckDBPyConnection, tmp_path: Path
) -> None:
    schema = TableSchema((*ID_V.columns, Column("w", pa.string(), True, "old")), ("id",))
    turned = pa.table({"w": ["new"], "extra": [0], "id": [3], "v": pa.array([30], pa.int32())})
    files = [(rows((1, 10), (9, 90)), [1]), (turned, ()), (rows((2, 20)), ()), (rows((4, None), (8, 8)), [1])]
    base.publish(files, 5, schema)
    state = state_of(base, database, tmp_path)
    ids, values = pa.array([1, 2, 3, 4]), pa.array([10, 20, 30, None])
    assert_same(
        rows_of(state, database), table_of(schema, ids, values, pa.array(["old", "old", "new", "old"]))
    )


@pytest.mark.statement(117)
def test_an_added_column_has_its_default_in_base_and_tail(
    base: ParquetBase, database: duckdb.DuckDBPyConnection, tmp_path: Path
) -> None:
    base.publish([(rows((1, 10)), ())], 1)
    state = state_of(base, database, tmp_path)
    state.apply(op_batch(ID_V, [(2, *put(2, 20))]), 2)
    wider = TableSchema((*ID_V.columns, Column("w", pa.float64(), True, -0.0)), ("id",))
    state.add_columns(wider)
    state.apply(op_batch(wider, [(3, *put(3, 30, 0.0, schema=wider))]), 3)
    state.apply(op_batch(ID_V, [(4, *put(4, 40))]), 4)
    ids, values = pa.array([1, 2, 3, 4]), pa.array([10, 20, 30, 40])
    assert_same(rows_of(state, database), table_of(wider, ids, values, pa.array([-0.0, -0.0, 0.0, -0.0])))


def test_a_transaction_opened_before_a_column_was_added_goes_on_without_it(
    base: ParquetBase, database: duckdb.DuckDBPyConnection, tmp_path: Path
) -> None:
    base.publish([(rows((1, 10)), ())], 1)
    state = state_of(base, database, tmp_path)
    state.apply(op_batch(ID_V, [(2, *put(2, 20))]), 2)
    session = database.cursor()
    session.execute("BEGIN TRANSACTION READ ONLY")
    position = state.position(session)
    wider = TableSchema((*ID_V.columns, Column("w", pa.int64(), True, 7)), ("id",))
    state.add_columns(wider)
    state.apply(op_batch(wider, [(3, *put(1, 11, 12, schema=wider))]), 3)
    found = session.sql(state.relation(position)).to_arrow_table()
    assert (position.visible_seq, position.column_count) == (2, 2)
    assert_same(sorted_by_key(found, ID_V), rows((1, 10), (2, 20)))
    session.close()


# --- life -------------------------------------------------------------------------------------------


def leftovers(database: duckdb.DuckDBPyConnection, directory: Path) -> list[object]:
    tables = database.execute("SELECT table_name FROM duckdb_tables()").fetchall()
    return [*tables, *directory.rglob("*.parquet")]


def test_position_and_time_are_the_base_s_until_an_op_comes(
    base: ParquetBase, database: duckdb.DuckDBPyConnection, tmp_path: Path
) -> None:
    base.publish([(rows((1, 10)), ())], 5, commit_time_us=50)
    state = state_of(base, database, tmp_path)
    assert (state.base_seq, state.visible_seq, state.commit_time_us) == (5, 5, 50)
    state.apply(op_batch(ID_V, [(7, *put(2, 20))]), 8)
    position = state.position(database)
    assert (state.base_seq, state.visible_seq, state.commit_time_us) == (5, 8, 0)  # 0: when isn't known
    assert (position.visible_seq, position.commit_time_us, position.tail_rows) == (8, 0, 1)


def test_a_state_needs_its_owner_s_files_no_longer(
    base: ParquetBase, database: duckdb.DuckDBPyConnection, tmp_path: Path
) -> None:
    base.publish([(rows((1, 10)), ())], 1)
    state = state_of(base, database, tmp_path)
    base.remove_files()
    assert_same(rows_of(state, database), rows((1, 10)))


def test_close_leaves_no_tables_and_no_files(
    base: ParquetBase, database: duckdb.DuckDBPyConnection, tmp_path: Path
) -> None:
    base.publish([(rows((1, 10), (2, 20)), [0])], 1)
    state = state_of(base, database, tmp_path)
    assert len(leftovers(database, tmp_path / "state")) == 5
    state.close()
    assert leftovers(database, tmp_path / "state") == []


def test_a_state_that_cannot_be_made_leaves_no_tables_and_no_files(
    base: ParquetBase, database: duckdb.DuckDBPyConnection, tmp_path: Path
) -> None:
    base.publish([(rows((1, 10), (2, 20)), [0]), (rows((3, 30)), ())], 1)
    Path(base.snapshot.files[1].path).unlink()
    with pytest.raises(BaseNotUsable):
        state_of(base, database, tmp_path)
    assert leftovers(database, tmp_path / "state") == []

    too_wide = TableSchema((*ID_V.columns, Column("d", pa.decimal256(76, 3))), ("id",))
    base.publish([(rows((1, 10), (2, 20)), [0])], 2, too_wide)
    with pytest.raises(SchemaMismatch):
        state_of(base, database, tmp_path)
    assert leftovers(database, tmp_path / "state") == []


@pytest.mark.statement(40)
def test_a_key_that_does_not_fit_is_refused_before_any_lookup(
    base: ParquetBase, database: duckdb.DuckDBPyConnection, tmp_path: Path
) -> None:
    state = state_of(base, database, tmp_path)
    for key in ([], [1, 2], ["x"], [None]):
        with pytest.raises(SchemaMismatch):
            state.get(key)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ([1.0, 2.0, 1.0], r"several rows have the key \(x\) 1\.0"),
        ([1.0, None], r"a row has no value in its key \(x\)"),
        ([1.0, float("nan")], r"a row has no value in its key \(x\)"),
        ([0.0, -0.0, 1.5], None),
    ],
)
def test_a_key_that_is_stated_is_held_against_the_rows(
    keys: list[float | None], message: str | None, database: duckdb.DuckDBPyConnection, tmp_path: Path
) -> None:
    schema = TableSchema((Column("x", pa.float64(), False), Column("v", pa.int64())), ("x",))
    base = ParquetBase(tmp_path, schema)
    rows = pa.table({"x": pa.array(keys, pa.float64()), "v": range(len(keys))})
    base.publish([(rows, ())], 1)
    state = ParquetState(database, 1, base.snapshot, tmp_path / "own")
    with pytest.raises(BaseError, match=message) if message is not None else nullcontext():
        state.check_key()
    state.close()


@pytest.mark.parametrize(
    ("condition", "ids"),
    [
        ("isnan(x)", [1]),
        ("NOT isnan(x)", [0, 2]),
        ("x > 8", [1]),
        ("x = 'nan'::DOUBLE", [1]),
        ("x <> 7", [0, 1]),
        ("f = 'nan'::FLOAT", [2]),
        ("isnan(s.y)", [0]),
        ("s.y > 100", [0]),
        ("l[1] > 100", [2]),
    ],
)
def test_filters_find_nan_in_base_files_whose_statistics_leave_it_out(
    condition: str, ids: list[int], database: duckdb.DuckDBPyConnection, tmp_path: Path
) -> None:
    nan = float("nan")
    pair = pa.struct([("y", pa.float64())])
    schema = TableSchema(
        (
            Column("id", pa.int64(), False),
            Column("x", pa.float64()),
            Column("f", pa.float32()),
            Column("s", pair),
            Column("l", pa.list_(pa.float64())),
        ),
        ("id",),
    )
    rows = pa.table(
        [
            pa.array([0, 1, 2]),
            pa.array([1.0, nan, 7.0]),
            pa.array([1.0, 2.0, nan], pa.float32()),
            pa.array([{"y": nan}, {"y": 1.0}, {"y": 2.0}], pair),
            pa.array([[1.0], [2.0], [nan]]),
        ],
        schema=schema.arrow_schema,
    )
    base = ParquetBase(tmp_path, schema)
    base.publish([(rows, ())], 1)
    state = ParquetState(database, 1, base.snapshot, tmp_path / "own")
    session = database.cursor()
    relation = state.relation(state.position(session))
    found = session.sql(f"SELECT id FROM ({relation}) WHERE {condition} ORDER BY id").fetchall()
    session.close()
    state.close()
    assert [row[0] for row in found] == ids
