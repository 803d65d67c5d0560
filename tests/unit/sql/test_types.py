"""Arrow and DuckDB types, held against a real DuckDB."""

from __future__ import annotations

import struct
from collections.abc import Iterator

import duckdb
import pyarrow as pa
import pytest

from flight_replica.errors import SchemaMismatch
from flight_replica.sql.database import open_database
from flight_replica.sql.types import arrow_type_of, equal_key_sql, sql_type


@pytest.fixture(scope="module")
def connection() -> Iterator[duckdb.DuckDBPyConnection]:
    database = open_database()
    yield database
    database.close()


def described(connection: duckdb.DuckDBPyConnection, declared: str) -> str:
    """How DuckDB prints the type of a column that was declared so."""
    connection.execute(f"CREATE OR REPLACE TABLE t (x {declared})")
    ((_, printed, *_),) = connection.execute("DESCRIBE t").fetchall()
    return str(printed)


BOTH_WAYS = [
    pa.bool_(),
    pa.int8(),
    pa.int16(),
    pa.int32(),
    pa.int64(),
    pa.uint8(),
    pa.uint16(),
    pa.uint32(),
    pa.uint64(),
    pa.float32(),
    pa.float64(),
    pa.string(),
    pa.binary(),
    pa.uuid(),
    pa.date32(),
    pa.time64("us"),
    pa.timestamp("s"),
    pa.timestamp("ms"),
    pa.timestamp("us"),
    pa.timestamp("us", "UTC"),
    pa.decimal128(1, 0),
    pa.decimal128(10, 2),
    pa.decimal128(38, 38),
    pa.list_(pa.list_(pa.decimal128(4, 1))),
    pa.map_(pa.string(), pa.list_(pa.timestamp("us", "UTC"))),
    pa.struct([("a", pa.int32()), ('odd, "name")', pa.string()), ("select", pa.int8()), ("É", pa.uuid())]),
    pa.list_(pa.struct([("m", pa.map_(pa.int8(), pa.struct([("x y", pa.list_(pa.bool_()))])))])),
]


@pytest.mark.parametrize("kind", BOTH_WAYS, ids=str)
def test_a_column_made_for_a_type_is_read_as_that_type(
    connection: duckdb.DuckDBPyConnection, kind: pa.DataType
) -> None:
    printed = described(connection, sql_type(kind))
    found = arrow_type_of(printed)
    assert found == kind
    assert str(found) == str(kind)
    assert described(connection, printed) == printed


@pytest.mark.parametrize("kind", BOTH_WAYS, ids=str)
def test_arrow_data_of_a_type_has_its_sql_type(
    connection: duckdb.DuckDBPyConnection, kind: pa.DataType
) -> None:
    data = pa.table({"x": pa.nulls(1, kind)})
    connection.register("data", data)
    declared = described(connection, sql_type(kind))
    assert connection.execute("SELECT typeof(x) FROM data").fetchall() == [(declared,)]


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        (pa.binary(16), "BLOB"),
        (pa.time32("s"), "TIME"),
        (pa.time32("ms"), "TIME"),
        (pa.timestamp("s", "UTC"), "TIMESTAMP WITH TIME ZONE"),
        (pa.timestamp("ms", "Europe/Berlin"), "TIMESTAMP WITH TIME ZONE"),
        (pa.decimal256(38, 2), "DECIMAL(38,2)"),
    ],
    ids=str,
)
def test_types_that_duckdb_keeps_as_another(
    connection: duckdb.DuckDBPyConnection, kind: pa.DataType, expected: str
) -> None:
    assert sql_type(kind) == expected
    assert described(connection, sql_type(kind)) == expected


@pytest.mark.parametrize(
    "kind",
    [
        pa.decimal256(39, 0),
        pa.timestamp("ns"),
        pa.timestamp("ns", "UTC"),
        pa.time64("ns"),
        pa.float16(),
        pa.large_string(),
        pa.struct([]),
        pa.struct([("", pa.int8())]),
        pa.struct([("a", pa.int8()), ("A", pa.int8())]),
        pa.list_(pa.duration("us")),
    ],
    ids=str,
)
def test_a_type_that_duckdb_lacks_is_refused(kind: pa.DataType) -> None:
    with pytest.raises(SchemaMismatch, match="DuckDB has no type for"):
        sql_type(kind)


@pytest.mark.parametrize(
    ("declared", "message"),
    [
        ("HUGEINT", r"HUGEINT .* use DECIMAL\(38, 0\)"),
        ("UHUGEINT", "UHUGEINT"),
        ("BIGNUM", "BIGNUM"),
        ("INTERVAL", "INTERVAL .* use BIGINT"),
        ("ENUM('a', ')')", "ENUM .* use VARCHAR"),
        ("BIT", "BIT .* use BLOB"),
        ("JSON", "JSON .* use VARCHAR"),
        ("VARIANT", "VARIANT can't be carried"),
        ("TIME_NS", "TIME_NS"),
        ("TIMETZ", "TIME WITH TIME ZONE"),
        ("TIMESTAMP_NS", "TIMESTAMP_NS .* use TIMESTAMP"),
        ("TIMESTAMPTZ_NS", "TIMESTAMPTZ_NS"),
        ("UNION(a INTEGER, b VARCHAR)", "UNION"),
        ("INTEGER[3]", "an array of fixed size"),
        ("INTEGER[3][]", "an array of fixed size"),
        ("STRUCT(a HUGEINT[])[]", "HUGEINT"),
        ("MAP(VARCHAR, INTERVAL)", "INTERVAL"),
    ],
)
def test_a_duckdb_type_that_cannot_be_carried_is_refused_by_name(
    connection: duckdb.DuckDBPyConnection, declared: str, message: str
) -> None:
    with pytest.raises(SchemaMismatch, match=message):
        arrow_type_of(described(connection, declared))


@pytest.mark.parametrize(
    "text", ["", "INTEGER ", "INTEGER]", "STRUCT()", "STRUCT(a)", "MAP(INTEGER)", "DECIMAL"]
)
def test_what_names_no_duckdb_type_is_refused(text: str) -> None:
    with pytest.raises(SchemaMismatch):
        arrow_type_of(text)


@pytest.mark.parametrize(("kind", "code"), [(pa.float32(), "<f"), (pa.float64(), "<d")], ids=str)
def test_floats_are_the_same_key_only_with_the_same_bits(
    connection: duckdb.DuckDBPyConnection, kind: pa.DataType, code: str
) -> None:
    values = [0.0, -0.0, 1.0, -1.0, float("inf"), float("-inf"), 1e-40]
    connection.register("floats", pa.table({"x": pa.array(values, kind)}))
    predicate = equal_key_sql("l.x", "r.x", kind)
    pairs = connection.execute(f"SELECT l.x, r.x, {predicate} FROM floats l, floats r").fetchall()
    assert len(pairs) == len(values) ** 2
    for left, right, is_same in pairs:
        assert is_same == (struct.pack(code, left) == struct.pack(code, right))


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        (pa.string(), ["a", "A", "a ", "", "é", "e\u0301", "a\0", "a\0b"]),
        (pa.binary(), [b"", b"\0", b"\0\0", b"a"]),
        (pa.bool_(), [True, False]),
        (pa.decimal128(5, 2), [-1, 0, 1]),
    ],
    ids=str,
)
def test_other_values_are_the_same_key_when_they_are_equal(
    connection: duckdb.DuckDBPyConnection, kind: pa.DataType, values: list[object]
) -> None:
    data = pa.table({"x": pa.array(values, kind), "n": range(len(values))})
    connection.register("others", data)
    predicate = equal_key_sql("l.x", "r.x", kind)
    pairs = connection.execute(f"SELECT l.n = r.n, {predicate} FROM others l, others r").fetchall()
    assert all(is_one == is_same for is_one, is_same in pairs)
