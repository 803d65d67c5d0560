"""A few postcard rows to Arrow columns, one by one.

For up to some thirty rows that is faster than whole columns at a time (`row_values.py`: numpy costs 60 µs a
column however few rows there are, a row here 10 µs), and a log that is read live gives few at once. It knows
ordinary rows only: whatever else there is, damage included, is left to `row_values.py`, which says what
it is.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import NamedTuple

import pyarrow as pa

from flight_replica.beside.row_types import BOOLEAN, BYTES, DOUBLE, FLOAT, INT32, INT64

__all__ = ["FEW_ROWS", "FieldType", "columns_of_few", "field_type"]

FEW_ROWS = 32

_BITS = {FLOAT: (struct.Struct("<i"), pa.int32()), DOUBLE: (struct.Struct("<q"), pa.int64())}


class _NotOrdinary(Exception):
    pass


class FieldType(NamedTuple):
    """What a column's fields are like."""

    number: int
    width: int | None  # bytes of each value; None: any number
    type: pa.DataType
    default: object  # what a row that is too short for the column holds; floats as the integer of their bits


def field_type(number: int, kind: pa.DataType, default: object) -> FieldType:
    """Floats go by their bits, so that every NaN stays what it is."""
    if number in _BITS and default is not None:
        code = struct.Struct("<f" if number == FLOAT else "<d")
        default = _BITS[number][0].unpack(code.pack(default))[0]
    width = kind.byte_width if pa.types.is_fixed_size_binary(kind) else None
    return FieldType(number, width, kind, default)


def columns_of_few(values: Sequence[bytes], fields: Sequence[FieldType]) -> list[pa.Array] | None:
    """The columns of these rows, an empty value being all null; None unless all are ordinary."""
    try:
        rows = [_row(value, fields) if value else [None] * len(fields) for value in values]
    except (IndexError, struct.error, _NotOrdinary):
        return None
    return [
        _array(list(column), field) for column, field in zip(zip(*rows, strict=True), fields, strict=True)
    ]


def _row(value: bytes, fields: Sequence[FieldType]) -> list[object]:
    marker, count = value[0], value[1]
    if marker != 1 or count > min(len(fields), 127):
        raise _NotOrdinary
    row: list[object] = []
    at = 2
    for number, width, _, _ in fields[:count]:
        if value[at] == 0:
            row.append(None)
            at += 1
            continue
        if value[at] != 1 or value[at + 1] != number:
            raise _NotOrdinary
        at += 2
        if number in (INT32, INT64):
            zigzag, at = _varint(value, at)
            if number == INT32 and zigzag >> 32:
                raise _NotOrdinary
            row.append(-(zigzag >> 1) - 1 if zigzag & 1 else zigzag >> 1)
        elif number == BYTES:
            size, at = _varint(value, at)
            row.append(value[at : at + size])
            at += size
            if at > len(value) or width not in (None, size):
                raise _NotOrdinary
        elif number == BOOLEAN:
            if value[at] > 1:
                raise _NotOrdinary
            row.append(value[at] == 1)
            at += 1
        else:
            code, _ = _BITS[number]
            row += code.unpack_from(value, at)
            at += code.size
    if at != len(value):
        raise _NotOrdinary
    row += [field.default for field in fields[count:]]
    return row


def _varint(value: bytes, at: int) -> tuple[int, int]:
    number = value[at]
    at += 1
    if number < 128:
        return number, at
    number &= 127
    for shift in range(7, 70, 7):
        byte = value[at]
        at += 1
        number |= (byte & 127) << shift
        if byte < 128 and not number >> 64:
            return number, at
    raise _NotOrdinary


def _array(values: list[object], field: FieldType) -> pa.Array:
    if field.number in _BITS:
        return pa.array(values, _BITS[field.number][1]).view(field.type)
    return pa.array(values, field.type)
