"""Bound values of every Arrow type arrive in DuckDB as what they are."""

from __future__ import annotations

from datetime import date, datetime, time, timedelta
from decimal import Decimal
from uuid import UUID

import duckdb
import pyarrow as pa
import pytest

from flight_replica.errors import InvalidStatement
from flight_replica.sql.bound import bound_values
from flight_replica.sql.database import open_database

NOON = datetime(2020, 2, 3, 12)
NOON_NS = 1_580_731_200_000_000_000


@pytest.fixture(scope="module")
def session() -> duckdb.DuckDBPyConnection:
    return open_database()


def bound(session: duckdb.DuckDBPyConnection, values: pa.Array, target: str | None = None) -> tuple[str, str]:
    """Type and text of the first value as DuckDB sees it."""
    parameter = bound_values(pa.chunked_array([values]), target)[0]
    kind, text = session.execute("SELECT typeof($1), $1::VARCHAR", [parameter]).fetchall()[0]
    return kind, text


@pytest.mark.parametrize(
    ("values", "kind", "text"),
    [
        (pa.array([-5], pa.int8()), "TINYINT", "-5"),
        (pa.array([-5], pa.int16()), "SMALLINT", "-5"),
        (pa.array([-5], pa.int32()), "INTEGER", "-5"),
        (pa.array([-5], pa.int64()), "BIGINT", "-5"),
        (pa.array([5], pa.uint8()), "UTINYINT", "5"),
        (pa.array([5], pa.uint16()), "USMALLINT", "5"),
        (pa.array([5], pa.uint32()), "UINTEGER", "5"),
        (pa.array([2**64 - 1], pa.uint64()), "UBIGINT", "18446744073709551615"),
        (pa.array([1.5], pa.float16()), "FLOAT", "1.5"),
        (pa.array([0.25], pa.float32()), "FLOAT", "0.25"),
        (pa.array([0.1], pa.float64()), "DOUBLE", "0.1"),
        (pa.array([float("nan")]), "DOUBLE", "nan"),
        (pa.array([True]), "BOOLEAN", "true"),
        (pa.array([[1, 2]], pa.list_view(pa.int32())), "INTEGER[]", "[1, 2]"),
        (pa.array([[1, 2]], pa.large_list_view(pa.int64())), "BIGINT[]", "[1, 2]"),
        (pa.array(["é"], pa.large_string()), "VARCHAR", "é"),
        (pa.array(["é"], pa.string_view()), "VARCHAR", "é"),
        (pa.array(["a", "b"]).dictionary_encode(), "VARCHAR", "a"),
        (pa.array([b"ab"], pa.large_binary()), "BLOB", "ab"),
        (pa.array([b"ab"], pa.binary(2)), "BLOB", "ab"),
        (pa.array([UUID(int=5)], pa.uuid()), "UUID", "00000000-0000-0000-0000-000000000005"),
        (pa.array([Decimal("1.5")], pa.decimal128(9, 3)), "DECIMAL(9,3)", "1.500"),
        (pa.array([Decimal("-1.5")], pa.decimal256(60, 3)), "DECIMAL(38,3)", "-1.500"),
        (pa.array([Decimal(7)], pa.decimal32(5, 0)), "DECIMAL(5,0)", "7"),
        (pa.array([date(1066, 10, 14)]), "DATE", "1066-10-14"),
        (pa.array([date(2020, 2, 3)], pa.date64()), "DATE", "2020-02-03"),
        (pa.array([time(1, 2, 3)], pa.time32("s")), "TIME", "01:02:03"),
        (pa.array([time(1, 2, 3, 4000)], pa.time32("ms")), "TIME", "01:02:03.004"),
        (pa.array([time(1, 2, 3, 4)], pa.time64("us")), "TIME", "01:02:03.000004"),
        (pa.array([5], pa.time64("ns")), "TIME_NS", "00:00:00.000000005"),
        (pa.array([NOON], pa.timestamp("s")), "TIMESTAMP", "2020-02-03 12:00:00"),
        (pa.array([NOON], pa.timestamp("ms")), "TIMESTAMP", "2020-02-03 12:00:00"),
        (pa.array([NOON], pa.timestamp("ns")), "TIMESTAMP", "2020-02-03 12:00:00"),
        (pa.array([NOON_NS + 1], pa.timestamp("ns")), "TIMESTAMP_NS", "2020-02-03 12:00:00.000000001"),
        (
            pa.array([NOON], pa.timestamp("ms", "Europe/Berlin")),
            "TIMESTAMP WITH TIME ZONE",
            "2020-02-03 12:00:00+00",
        ),
        (pa.array([253_402_300_800_000_000], pa.timestamp("us")), "TIMESTAMP", "10000-01-01 00:00:00"),
        (
            pa.array([timedelta(days=1, microseconds=5)], pa.duration("ns")),
            "INTERVAL",
            "1 day 00:00:00.000005",
        ),
        (pa.array([pa.MonthDayNano([14, 2, 3000])]), "INTERVAL", "1 year 2 months 2 days 00:00:00.000003"),
        (pa.array([[1, None]], pa.list_(pa.int16())), "SMALLINT[]", "[1, NULL]"),
        (pa.array([[1]], pa.large_list(pa.int16())), "SMALLINT[]", "[1]"),
        (pa.array([{"a": 1, "b": "x"}]), "STRUCT(a BIGINT, b VARCHAR)", "{'a': 1, 'b': x}"),
        (pa.array([[("k", 1)]], pa.map_(pa.string(), pa.int32())), "MAP(VARCHAR, INTEGER)", "{k=1}"),
        (pa.array(["{}"], pa.json_()), "VARCHAR", "{}"),
    ],
    ids=lambda value: str(value.type) if isinstance(value, pa.Array) else None,
)
def test_a_value_keeps_its_type(
    session: duckdb.DuckDBPyConnection, values: pa.Array, kind: str, text: str
) -> None:
    assert bound(session, values) == (kind, text)


@pytest.mark.parametrize(
    ("values", "target", "kind", "text"),
    [
        (pa.array([5]), "VARCHAR", "VARCHAR", "5"),
        (pa.array([True]), "VARCHAR", "VARCHAR", "true"),
        (pa.array([Decimal("1.50")]), "VARCHAR", "VARCHAR", "1.50"),
        (pa.array([NOON]), "VARCHAR", "VARCHAR", "2020-02-03 12:00:00"),
        # written by DuckDB, as they are without a parameter
        (
            pa.array([NOON], pa.timestamp("us", "+01:00")),
            "VARCHAR",
            "TIMESTAMP WITH TIME ZONE",
            "2020-02-03 12:00:00+00",
        ),
        (pa.array([pa.MonthDayNano([1, 2, 0])]), "VARCHAR", "INTERVAL", "1 month 2 days"),
        (
            pa.array([[("k", 1)]], pa.map_(pa.string(), pa.int32())),
            "VARCHAR",
            "MAP(VARCHAR, INTEGER)",
            "{k=1}",
        ),
        (pa.array(["5"]), "INTEGER", "INTEGER", "5"),
        (pa.array(["2020-02-03"]), "DATE", "DATE", "2020-02-03"),
        (pa.array(["1 day"]), "INTERVAL", "INTERVAL", "1 day"),
        (pa.array(["00000000-0000-0000-0000-000000000005"]), "UUID", "UUID", str(UUID(int=5))),
        (pa.array([1.5]), "INTEGER", "DOUBLE", "1.5"),  # a number is never rounded
        (pa.array([NOON]), "DATE", "TIMESTAMP", "2020-02-03 12:00:00"),
    ],
)
def test_texts_and_other_values_are_cast_to_each_other_and_numbers_stay(
    session: duckdb.DuckDBPyConnection, values: pa.Array, target: str, kind: str, text: str
) -> None:
    assert bound(session, values, target) == (kind, text)


@pytest.mark.parametrize(
    "kind", [pa.null(), pa.int64(), pa.string(), pa.timestamp("ns"), pa.list_(pa.int8())]
)
def test_a_null_is_a_null_of_whatever_type(kind: pa.DataType) -> None:
    column = pa.chunked_array([pa.nulls(2, kind)])
    assert bound_values(column, None) == bound_values(column, "VARCHAR") == [None, None]


def test_a_value_that_no_type_of_duckdb_holds_is_refused_with_its_type() -> None:
    column = pa.chunked_array([pa.array([Decimal(10) ** 50], pa.decimal256(60, 0))])
    with pytest.raises(InvalidStatement, match=r"decimal256\(60, 0\)"):
        bound_values(column, None)
