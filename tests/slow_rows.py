"""The engine's rows decoded one by one: what `flight_replica/beside/row_values.py` is held against."""

from __future__ import annotations

import json
import math
import struct
from typing import Any

import pyarrow as pa

from flight_replica.schema import Column, TableSchema


class BadRow(Exception):
    """No engine writes this."""


def slow_row(value: bytes, schema: TableSchema, key: bytes) -> list[object]:
    """The row of a put of one Int64 key column, in table order. Raises `BadRow`."""
    if not value:
        fields: list[object] = [struct.unpack(">Q", key)[0] - (1 << 63)]
    elif value[0] == 1:
        fields = _Reader(value[1:]).row(schema)
    else:
        fields = _from_json(value, schema)
    return fields + [column.default for column in schema.columns[len(fields) :]]


class _Reader:
    def __init__(self, data: bytes) -> None:
        self.data = data

    def take(self, count: int) -> bytes:
        if count > len(self.data):
            raise BadRow("cut off")
        taken, self.data = self.data[:count], self.data[count:]
        return taken

    def varint(self) -> int:
        number = 0
        for place in range(10):
            (byte,) = self.take(1)
            number |= (byte & 127) << 7 * place
            if byte < 128:
                break
        else:
            raise BadRow("too long")
        if number >= 1 << 64:
            raise BadRow("too large")
        return number

    def row(self, schema: TableSchema) -> list[object]:
        count = self.varint()
        if count > len(schema.columns):
            raise BadRow("too many fields")
        fields = [self.field(column) for column in schema.columns[:count]]
        if self.data:
            raise BadRow("bytes left over")
        return fields

    def field(self, column: Column) -> object:
        (tag,) = self.take(1)
        if tag == 0:
            return None
        if tag != 1:
            raise BadRow("tag")
        kind = _number(column.type)
        if self.take(1)[0] != kind:
            raise BadRow("type")
        match kind:
            case 0:
                (flag,) = self.take(1)
                if flag > 1:
                    raise BadRow("flag")
                return bool(flag)
            case 1 | 2:
                number = self.varint()
                if kind == 1 and number >= 1 << 32:
                    raise BadRow("too large")
                return number >> 1 if number % 2 == 0 else -(number >> 1) - 1
            case 3:
                return struct.unpack("<f", self.take(4))[0]
            case 4:
                return struct.unpack("<d", self.take(8))[0]
        return _sized(self.take(self.varint()), column)


def _number(kind: pa.DataType) -> int:
    order = [pa.bool_(), pa.int32(), pa.int64(), pa.float32(), pa.float64()]
    return order.index(kind) if kind in order else 5


def _sized(value: bytes, column: Column) -> bytes:
    if pa.types.is_fixed_size_binary(column.type) and len(value) != column.type.byte_width:
        raise BadRow("width")
    return value


def _from_json(value: bytes, schema: TableSchema) -> list[object]:
    def refused(text: str) -> Any:
        raise BadRow(text)

    try:
        fields = json.loads(value, parse_constant=refused)["fields"]
        if not isinstance(fields, list) or len(fields) > len(schema.columns):
            raise BadRow("fields")
        return [_json_field(field, column) for field, column in zip(fields, schema.columns, strict=False)]
    except (
        ValueError,
        KeyError,
        TypeError,
        AttributeError,
        IndexError,
        OverflowError,
        struct.error,
    ) as error:
        raise BadRow(str(error)) from error


def _json_field(field: Any, column: Column) -> object:
    if field is None:
        return None
    if not isinstance(field, dict):
        raise BadRow("field")
    ((name, value),) = field.items()
    if name != ["Boolean", "Int32", "Int64", "Float", "Double", "Bytes"][_number(column.type)]:
        raise BadRow("type")
    match name:
        case "Boolean":
            if not isinstance(value, bool):
                raise BadRow("flag")
            return value
        case "Int32" | "Int64":
            bits = 31 if name == "Int32" else 63
            if type(value) is not int or not -(1 << bits) <= value < 1 << bits:
                raise BadRow("number")
            return value
        case "Float" | "Double":
            if type(value) not in (int, float):
                raise BadRow("float")
            code = "<f" if name == "Float" else "<d"
            found = struct.unpack(code, struct.pack(code, value))[0]
            return found if math.isfinite(found) or isinstance(value, float) else refuse()
    if not isinstance(value, list) or not all(type(byte) is int for byte in value):
        raise BadRow("bytes")
    return _sized(bytes(value), column)


def refuse() -> object:
    raise BadRow("not finite")
