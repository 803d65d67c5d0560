"""SQL types as ODBC and JDBC describe them: GetXdbcTypeInfo, and the metadata of a table's columns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa

from flight_replica.arrow_types import type_name
from flight_replica.errors import SchemaMismatch
from flight_replica.flightsql.streams import PRECISION, SCALE
from flight_replica.schema import Column
from flight_replica.sql.names import CATALOG, DB_SCHEMA
from flight_replica.sql.types import DECIMAL_DIGITS_MAX, arrow_type_of, sql_type

__all__ = ["SCHEMA", "described", "reply", "sql_type_name"]

_NULLABLE, _SEARCHABLE_FULL, _SEARCHABLE_BASIC = 1, 3, 2

SCHEMA = pa.schema(
    [
        pa.field("type_name", pa.string(), False),
        pa.field("data_type", pa.int32(), False),
        pa.field("column_size", pa.int32()),
        pa.field("literal_prefix", pa.string()),
        pa.field("literal_suffix", pa.string()),
        pa.field("create_params", pa.list_(pa.field("item", pa.string(), False))),
        pa.field("nullable", pa.int32(), False),
        pa.field("case_sensitive", pa.bool_(), False),
        pa.field("searchable", pa.int32(), False),
        pa.field("unsigned_attribute", pa.bool_()),
        pa.field("fixed_prec_scale", pa.bool_(), False),
        pa.field("auto_increment", pa.bool_()),
        pa.field("local_type_name", pa.string()),
        pa.field("minimum_scale", pa.int32()),
        pa.field("maximum_scale", pa.int32()),
        pa.field("sql_data_type", pa.int32(), False),
        pa.field("datetime_subcode", pa.int32()),
        pa.field("num_prec_radix", pa.int32()),
        pa.field("interval_precision", pa.int32()),
    ]
)


@dataclass(frozen=True, slots=True)
class _Type:
    """One type. `code` and `sql_code` are XdbcDataType's; sizes in decimal digits, or characters."""

    code: int
    size: int | None = None
    scale: int | None = None  # the largest
    quotes: tuple[str, str] | None = None  # around a literal
    radix: int | None = None  # 10 for numbers: their sizes are decimal digits
    is_unsigned: bool | None = None  # None for what is no number
    subcode: int | None = None  # XdbcDatetimeSubcode

    @property
    def sql_code(self) -> int:
        """9 is what all dates and times are together; the subcode tells them apart."""
        return self.code if self.subcode is None else 9


_QUOTED = ("'", "'")


def _integer(code: int, digits: int, *, is_unsigned: bool = False) -> _Type:
    return _Type(code, digits, 0, radix=10, is_unsigned=is_unsigned)


# An unsigned type has the code of the signed one that holds it; there is none for 64 bits but a decimal's.
_TYPES = {
    "BOOLEAN": _Type(-7, 1),
    "TINYINT": _integer(-6, 3),
    "SMALLINT": _integer(5, 5),
    "INTEGER": _integer(4, 10),
    "BIGINT": _integer(-5, 19),
    "UTINYINT": _integer(5, 3, is_unsigned=True),
    "USMALLINT": _integer(4, 5, is_unsigned=True),
    "UINTEGER": _integer(-5, 10, is_unsigned=True),
    "UBIGINT": _integer(2, 20, is_unsigned=True),
    "DECIMAL": _Type(3, DECIMAL_DIGITS_MAX, DECIMAL_DIGITS_MAX, radix=10, is_unsigned=False),
    "FLOAT": _Type(7, 7, radix=10, is_unsigned=False),
    "DOUBLE": _Type(8, 15, radix=10, is_unsigned=False),
    "VARCHAR": _Type(12, quotes=_QUOTED),
    "UUID": _Type(1, 36, quotes=_QUOTED),
    "BLOB": _Type(-3, quotes=("'", "'::BLOB")),
    "DATE": _Type(91, 10, quotes=("DATE '", "'"), subcode=1),
    "TIME": _Type(92, 15, 6, quotes=("TIME '", "'"), subcode=2),
    "TIMESTAMP": _Type(93, 26, 6, quotes=("TIMESTAMP '", "'"), subcode=3),
    "TIMESTAMP_S": _Type(93, 19, 0, quotes=("'", "'::TIMESTAMP_S"), subcode=3),
    "TIMESTAMP_MS": _Type(93, 23, 3, quotes=("'", "'::TIMESTAMP_MS"), subcode=3),
    "TIMESTAMP WITH TIME ZONE": _Type(93, 32, 6, quotes=("TIMESTAMPTZ '", "'"), subcode=5),
}
_CREATE_PARAMS = {"DECIMAL": ["precision", "scale"]}


def reply(data_type: int | None) -> pa.Table:
    """The types with this XdbcDataType, all for None; in the order of code and name."""
    rows = [
        _row(name, kind)
        for name, kind in sorted(_TYPES.items(), key=lambda item: (item[1].code, item[0]))
        if data_type is None or kind.code == data_type
    ]
    return pa.Table.from_pylist(rows, SCHEMA).combine_chunks()


def _row(name: str, kind: _Type) -> dict[str, object]:
    prefix, suffix = kind.quotes or (None, None)
    return {
        "type_name": name,
        "data_type": kind.code,
        "column_size": kind.size,
        "literal_prefix": prefix,
        "literal_suffix": suffix,
        "create_params": _CREATE_PARAMS.get(name),
        "nullable": _NULLABLE,
        "case_sensitive": name == "VARCHAR",
        "searchable": _SEARCHABLE_FULL if name == "VARCHAR" else _SEARCHABLE_BASIC,
        "unsigned_attribute": kind.is_unsigned,
        "fixed_prec_scale": False,
        "auto_increment": False if kind.is_unsigned is not None else None,
        "local_type_name": name,
        "minimum_scale": 0 if kind.scale is not None else None,
        "maximum_scale": kind.scale,
        "sql_data_type": kind.sql_code,
        "datetime_subcode": kind.subcode,
        "num_prec_radix": kind.radix,
    }


def sql_type_name(kind: pa.DataType) -> str:
    """The type as SQL here writes it; Arrow's name where SQL has none."""
    try:
        return sql_type(kind)
    except SchemaMismatch:
        return type_name(kind)


def described(table: str, columns: Sequence[Column], keys: Sequence[str], *, is_read_only: bool) -> pa.Schema:
    """The Arrow schema that a table's rows have in a result, with what Flight SQL says about columns in
    the metadata of its fields."""
    return pa.schema(
        [
            pa.field(column.name, _in_results(column.type), column.nullable).with_metadata(
                _metadata(table, column, keys, is_read_only)
            )
            for column in columns
        ]
    )


def _in_results(kind: pa.DataType) -> pa.DataType:
    """The type in which DuckDB hands a column of this type out: a UUID as text, times in microseconds."""
    if kind == pa.uuid():
        return pa.string()
    try:
        return arrow_type_of(sql_type(kind))
    except SchemaMismatch:
        return kind


def _metadata(table: str, column: Column, keys: Sequence[str], is_read_only: bool) -> dict[bytes, str]:
    name = sql_type_name(column.type)
    said = {
        "CATALOG_NAME": CATALOG,
        "SCHEMA_NAME": DB_SCHEMA,
        "DB_SCHEMA_NAME": DB_SCHEMA,  # as the protocol's text calls it
        "TABLE_NAME": table,
        "TYPE_NAME": name,
        "REMARKS": "primary key" if column.name in keys else "",
        "IS_AUTO_INCREMENT": "0",
        "IS_CASE_SENSITIVE": "1" if name == "VARCHAR" else "0",
        "IS_READ_ONLY": "1" if is_read_only else "0",
        "IS_SEARCHABLE": "1",
    }
    return {b"ARROW:FLIGHT:SQL:" + key.encode(): value for key, value in said.items()} | _digits(
        column.type, name
    )


def _digits(kind: pa.DataType, name: str) -> dict[bytes, str]:
    """Precision and scale, for types that have them."""
    if pa.types.is_decimal(kind):
        size, scale = kind.precision, kind.scale
    else:
        known = _TYPES.get(name)
        size, scale = (known.size, known.scale) if known is not None else (None, None)
    found = {PRECISION: size, SCALE: scale}
    return {key: str(value) for key, value in found.items() if value is not None}
