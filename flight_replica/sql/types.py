"""Arrow types as DuckDB types and back, and when DuckDB's values are the same key.

`sql_type` names the type of a column that holds a table's values exactly; `arrow_type_of` reads the
names that DuckDB prints (DESCRIBE, typeof) where a table is made by DDL. The two aren't inverse where
DuckDB has one type for several: fixed binary is BLOB, time32 is TIME, a zoned timestamp is in µs, UTC.
"""

from __future__ import annotations

import re

import pyarrow as pa

from flight_replica.arrow_types import NESTING_MAX, type_name
from flight_replica.errors import SchemaMismatch
from flight_replica.sql.database import quote

__all__ = ["arrow_type_of", "equal_key_sql", "sql_type"]

DECIMAL_DIGITS_MAX = 38  # of DuckDB's DECIMAL

# One line a DuckDB type: its name and the Arrow type of a column made with it.
_TYPES: dict[str, pa.DataType] = {
    "BOOLEAN": pa.bool_(),
    "TINYINT": pa.int8(),
    "SMALLINT": pa.int16(),
    "INTEGER": pa.int32(),
    "BIGINT": pa.int64(),
    "UTINYINT": pa.uint8(),
    "USMALLINT": pa.uint16(),
    "UINTEGER": pa.uint32(),
    "UBIGINT": pa.uint64(),
    "FLOAT": pa.float32(),
    "DOUBLE": pa.float64(),
    "VARCHAR": pa.string(),
    "BLOB": pa.binary(),
    "UUID": pa.uuid(),
    "DATE": pa.date32(),
    "TIME": pa.time64("us"),
    "TIMESTAMP_S": pa.timestamp("s"),
    "TIMESTAMP_MS": pa.timestamp("ms"),
    "TIMESTAMP": pa.timestamp("us"),
    "TIMESTAMP WITH TIME ZONE": pa.timestamp("us", "UTC"),
}
_NAMES = {kind: name for name, kind in _TYPES.items()}

# What to use instead of types that neither the feed nor Iceberg carries exactly.
_INSTEAD = {
    "HUGEINT": "DECIMAL(38, 0)",
    "UHUGEINT": "DECIMAL(38, 0)",
    "BIGNUM": "DECIMAL(38, 0)",
    "TIMESTAMP_NS": "TIMESTAMP",
    "TIMESTAMPTZ_NS": "TIMESTAMPTZ",
    "TIME_NS": "TIME",
    "TIME WITH TIME ZONE": "TIME",
    "INTERVAL": "BIGINT",
    "ENUM": "VARCHAR",
    "JSON": "VARCHAR",
    "BIT": "BLOB",
    "UNION": "STRUCT",
    "TUPLE": "STRUCT",
}

_WORDS = re.compile(r"[A-Z]\w*(?: [A-Z]\w*)*", re.ASCII)
_DIGITS = re.compile(r"\((\d+), ?(\d+)\)", re.ASCII)
_NAME = re.compile(r'"((?:[^"]|"")+)"|([^\W\d]\w*)')


def sql_type(t: pa.DataType) -> str:
    """The DuckDB type of a column of type `t`. Raises `SchemaMismatch` where DuckDB has none for it."""
    if (name := _NAMES.get(t)) is not None:
        return name
    if pa.types.is_fixed_size_binary(t):
        return "BLOB"
    if pa.types.is_time32(t):
        return "TIME"
    if pa.types.is_timestamp(t) and t.tz is not None and t.unit != "ns":
        return "TIMESTAMP WITH TIME ZONE"
    if pa.types.is_decimal(t) and t.precision <= DECIMAL_DIGITS_MAX:
        return f"DECIMAL({t.precision},{t.scale})"
    if pa.types.is_list(t):
        return f"{sql_type(t.value_type)}[]"
    if pa.types.is_map(t):
        return f"MAP({sql_type(t.key_type)}, {sql_type(t.item_type)})"
    if pa.types.is_struct(t) and _are_field_names([field.name for field in t]):
        return f"STRUCT({', '.join(f'{quote(field.name)} {sql_type(field.type)}' for field in t)})"
    raise SchemaMismatch(f"DuckDB has no type for {_name(t)}")


def _are_field_names(names: list[str]) -> bool:
    """DuckDB tells field names apart without regard to case, and has no empty ones."""
    return all(names) and len({name.lower() for name in names}) == len(names) > 0


def _name(t: pa.DataType) -> str:
    try:
        return type_name(t)
    except SchemaMismatch:
        return str(t)


def arrow_type_of(sql_type_text: str) -> pa.DataType:
    """The Arrow type of a column that DuckDB prints with this type.

    Raises `SchemaMismatch` for types whose values can't be carried exactly, with the one to use instead.
    """
    reader = _TypeReader(sql_type_text)
    kind = reader.type_()
    reader.end()
    return kind


class _TypeReader:
    """Reads one printed type from left to right."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._depth = 0

    def type_(self) -> pa.DataType:
        self._depth += 1
        if self._depth > NESTING_MAX:
            raise SchemaMismatch(f"type {self._text[:200]}: more than {NESTING_MAX} levels of nesting")
        kind = self._base()
        while self._has("[]"):
            kind = pa.list_(kind)
        if self._has("["):
            raise SchemaMismatch(f"type {self._text}: an array of fixed size can't be carried, use a list")
        self._depth -= 1
        return kind

    def end(self) -> None:
        if self._at != len(self._text):
            self._refuse()

    def _base(self) -> pa.DataType:
        words = _WORDS.match(self._text, self._at)
        name = words[0] if words else ""
        self._at += len(name)
        match name:
            case "STRUCT":
                return pa.struct(self._fields())
            case "MAP":
                self._skip("(")
                key = self.type_()
                self._skip(", ")
                value = self.type_()
                self._skip(")")
                return pa.map_(key, value)
            case "DECIMAL":
                return self._decimal()
        return _TYPES[name] if name in _TYPES else self._refuse(name)

    def _decimal(self) -> pa.DataType:
        digits = _DIGITS.match(self._text, self._at)
        if digits is None or int(digits[1]) > DECIMAL_DIGITS_MAX:
            return self._refuse()
        self._at = digits.end()
        return pa.decimal128(int(digits[1]), int(digits[2]))

    def _fields(self) -> list[pa.Field]:
        self._skip("(")
        fields = [self._field()]
        while self._has(", "):
            fields.append(self._field())
        self._skip(")")
        return fields

    def _field(self) -> pa.Field:
        name = _NAME.match(self._text, self._at)
        if name is None:
            return self._refuse()
        self._at = name.end()
        self._skip(" ")
        return pa.field(name[2] or name[1].replace('""', '"'), self.type_())

    def _has(self, sign: str) -> bool:
        is_there = self._text.startswith(sign, self._at)
        self._at += len(sign) * is_there
        return is_there

    def _skip(self, sign: str) -> None:
        if not self._has(sign):
            self._refuse()

    def _refuse(self, name: str = "") -> pa.DataType:
        instead = f", use {_INSTEAD[name]}" if name in _INSTEAD else ""
        raise SchemaMismatch(f"type {self._text[:200]}: {name or 'this'} can't be carried exactly{instead}")


def equal_key_sql(left: str, right: str, t: pa.DataType) -> str:
    """SQL that is true exactly when two non-null key values of type `t` have the same key bytes.

    DuckDB says −0.0 = 0.0, keys don't.
    """
    if pa.types.is_floating(t):
        return f"({left} = {right} AND signbit({left}) = signbit({right}))"
    return f"({left} = {right})"
