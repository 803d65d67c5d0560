"""The engine's types of values: their numbers in postcard rows, their names in JSON, their Arrow types."""

from __future__ import annotations

import pyarrow as pa

from flight_replica.errors import SchemaMismatch
from flight_replica.schema import Column

__all__ = ["BOOLEAN", "BYTES", "DOUBLE", "FLOAT", "INT32", "INT64", "TYPE_NAMES", "type_number"]

BOOLEAN = 0
INT32 = 1
INT64 = 2
FLOAT = 3
DOUBLE = 4
BYTES = 5
TYPE_NAMES = ("Boolean", "Int32", "Int64", "Float", "Double", "Bytes")

_NUMBERS = {
    pa.bool_(): BOOLEAN,
    pa.int32(): INT32,
    pa.int64(): INT64,
    pa.float32(): FLOAT,
    pa.float64(): DOUBLE,
    pa.binary(): BYTES,
}


def type_number(column: Column) -> int:
    """The number of the column's type. Raises `SchemaMismatch` for a type that the engine lacks."""
    number = BYTES if pa.types.is_fixed_size_binary(column.type) else _NUMBERS.get(column.type)
    if number is None:
        raise SchemaMismatch(f"column {column.name!r}: the engine has no type {column.type}")
    return number
