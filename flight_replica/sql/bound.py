"""Bound values: from Arrow columns of any type to what DuckDB takes, without loss.

Numbers, nested values and fixed types keep the type they were bound with, so that a result's type doesn't
change with the value. A text is what SQL calls a literal: DuckDB reads it as whatever it stands beside.
"""

from __future__ import annotations

import datetime
from collections.abc import Callable
from decimal import Decimal
from uuid import UUID

import duckdb
import pyarrow as pa
import pyarrow.compute as pc

from flight_replica.errors import InvalidStatement, SchemaMismatch
from flight_replica.sql.types import DECIMAL_DIGITS_MAX, sql_type

__all__ = ["bound_values", "kind_of_value", "plain_value"]

# Types whose Python values DuckDB reads as just these by itself.
_PLAIN = frozenset(
    {"BOOLEAN", "DOUBLE", "VARCHAR", "BLOB", "UUID", "DATE", "TIME", "TIMESTAMP"}
    | {"TIMESTAMP_S", "TIMESTAMP_MS", "TIMESTAMP WITH TIME ZONE"}
)
# Types of whole numbers.
_WHOLE = frozenset(
    {"TINYINT", "SMALLINT", "INTEGER", "BIGINT", "UTINYINT", "USMALLINT", "UINTEGER", "UBIGINT"}
)


def bound_values(column: pa.ChunkedArray, target: str | None) -> list[object]:
    """One value a row, to bind. `target`: the parameter's DuckDB type, None where any value will do.

    Raises `InvalidStatement` for values that DuckDB has no type for.
    """
    try:
        column = _decoded(column)
        if pa.types.is_timestamp(column.type) or pa.types.is_time64(column.type):
            return _temporal(column, target)
        return _typed(column.to_pylist(), _type_of(column.type), target)
    except (ValueError, OverflowError, pa.ArrowException, duckdb.Error) as error:
        raise InvalidStatement(f"a parameter of type {column.type} can't be bound: {error}") from error


def kind_of_value(value: object) -> str:
    """The same for all values that DuckDB binds as one type."""
    return str(value.type) if isinstance(value, duckdb.Value) else f"a {type(value).__name__}"


def plain_value(value: object) -> object:
    """A bound value without its type, where that says no more than the value: a number's that is whole."""
    if isinstance(value, duckdb.Value) and str(value.type) in _WHOLE and type(value.object) is int:
        return value.object
    return value


def _decoded(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """The column without encodings and with the units that Python's values have."""
    types, kind = pa.types, column.type
    if types.is_dictionary(kind):
        return _decoded(column.cast(kind.value_type))
    if types.is_run_end_encoded(kind):
        return _decoded(
            pa.chunked_array([pc.run_end_decode(chunk) for chunk in column.chunks], kind.value_type)
        )
    if types.is_large_list(kind):
        return column.cast(pa.list_(kind.value_type))
    if types.is_list_view(kind) or types.is_large_list_view(kind):
        # Not by a cast: pyarrow 26.0.1 makes an array of it that is no valid one.
        return pa.chunked_array([pa.array(column.to_pylist(), pa.list_(kind.value_type))])
    if types.is_duration(kind):
        return column.cast(pa.duration("us"))
    if types.is_decimal256(kind):
        return column.cast(pa.decimal128(DECIMAL_DIGITS_MAX, kind.scale))
    if types.is_date64(kind):
        return column.cast(pa.date32())
    if isinstance(kind, pa.BaseExtensionType) and kind != pa.uuid():
        return _decoded(column.cast(kind.storage_type))
    return column


def _type_of(kind: pa.DataType) -> str | None:
    """The DuckDB type to bind with, None to leave it to DuckDB."""
    types = pa.types
    if types.is_float16(kind):
        return "FLOAT"
    if types.is_interval(kind):
        return "INTERVAL"
    if types.is_decimal(kind):
        return f"DECIMAL({max(kind.precision, kind.scale)},{kind.scale})" if kind.scale >= 0 else None
    try:
        return sql_type(kind)
    except SchemaMismatch:
        return None


def _temporal(column: pa.ChunkedArray, target: str | None) -> list[object]:
    """Times in µs as Python has them; finer ones, and those beyond its calendar, as text of their type."""
    kind = column.type
    is_time = pa.types.is_time64(kind)
    zone = None if is_time else kind.tz
    coarse = pa.time64("us") if is_time else pa.timestamp("us", zone)
    try:
        return _typed(column.cast(coarse).to_pylist(), "TIME" if is_time else "TIMESTAMP", target)
    except (ValueError, OverflowError, pa.ArrowException):
        name = "TIME" if is_time else "TIMESTAMPTZ" if zone is not None else "TIMESTAMP"
        exact = f"{name}_NS" if kind.unit == "ns" else name
        if zone is not None:
            column = column.cast(pa.timestamp(kind.unit, "UTC"))
        return [_value(text, exact) for text in column.cast(pa.string()).to_pylist()]


def _typed(values: list[object], name: str | None, target: str | None) -> list[object]:
    convert = _conversion(name, target)
    return [None if value is None else convert(value) for value in values]


def _conversion(name: str | None, target: str | None) -> Callable[[object], object]:
    """How a value of the type `name` is bound to a parameter of type `target`."""
    typed = _typed_conversion(name)
    if target == "VARCHAR" and name != "BLOB":
        # Else DuckDB would read the column's texts as numbers to compare them.
        return lambda value: _text(value) if _is_plain(value) else typed(value)
    if name == "VARCHAR" and target is not None:
        return lambda value: _value(value, target)
    return typed


def _typed_conversion(name: str | None) -> Callable[[object], object]:
    """How a value of the type `name` is bound as what it is."""
    if name is None or name in _PLAIN:
        return lambda value: value
    if name == "INTERVAL":
        return lambda value: _value(_interval_text(value), name)
    if name.startswith("DECIMAL"):
        return lambda value: _value(f"{value:f}", name)
    if name.startswith("MAP"):
        return lambda value: _value(dict(value), name)  # type: ignore[call-overload]
    return lambda value: _value(value, name)


def _value(value: object, name: str) -> object:
    return None if value is None else duckdb.Value(value, duckdb.sqltype(name))


def _is_plain(value: object) -> bool:
    """Whether its text is the same in every session; DuckDB casts the others."""
    if isinstance(value, datetime.datetime) and value.tzinfo is not None:
        return False
    return isinstance(value, str | int | float | Decimal | datetime.date | datetime.time | UUID)


def _text(value: object) -> object:
    """A plain value as SQL's cast to text writes it."""
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:f}" if isinstance(value, Decimal) else str(value)


def _interval_text(value: object) -> str:
    """An Arrow month_day_nano interval as DuckDB reads it, cut to µs."""
    assert isinstance(value, tuple), "an interval of another shape"
    months, days, nanoseconds = value
    return f"{months} months {days} days {nanoseconds // 1000} microseconds"
