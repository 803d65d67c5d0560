"""Rows in JSON, as early engines wrote them into the log, anew as postcard rows.

Nothing writes them any more, so they go one by one. Postcard rows are read in `row_values.py`.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterable, Mapping, Sequence

from flight_replica.beside.row_types import TYPE_NAMES

__all__ = ["POSTCARD", "json_fields", "postcard_row"]

POSTCARD = b"\x01"  # the first byte of a value that goes on as a postcard row


def json_fields(value: bytes) -> list[object]:
    """The fields of `{"fields": [{"Int64": 1}, null, …]}`. Raises ValueError."""
    try:
        document = json.loads(value, parse_constant=_no_number)
    except RecursionError as error:
        raise ValueError("JSON nested too deep") from error
    fields = document.get("fields") if isinstance(document, dict) else None
    if not isinstance(fields, list):
        raise ValueError("no list of fields")
    return fields


def _no_number(text: str) -> None:
    raise ValueError(f"{text} is no JSON")


def postcard_row(fields: Sequence[object]) -> bytes:
    """The fields, tagged as in JSON, as a postcard value. Raises ValueError and its like."""
    return b"".join([POSTCARD, _varint(len(fields)), *map(_encode_field, fields)])


def _encode_field(field: object) -> bytes:
    if field is None:
        return b"\0"
    if not isinstance(field, Mapping) or len(field) != 1:
        raise ValueError(f"a field {str(field)[:100]!r}")
    ((name, value),) = field.items()
    if name not in TYPE_NAMES:
        raise ValueError(f"a field of the unknown type {str(name)[:100]!r}")
    return bytes([1, TYPE_NAMES.index(name)]) + _encode_value(name, value)


def _encode_value(name: str, value: object) -> bytes:
    match name, value:
        case "Boolean", bool():
            return bytes([value])
        case "Int32", int() if not isinstance(value, bool) and -(1 << 31) <= value < 1 << 31:
            return _varint(value << 1 if value >= 0 else (-value << 1) - 1)
        case "Int64", int() if not isinstance(value, bool) and -(1 << 63) <= value < 1 << 63:
            return _varint(value << 1 if value >= 0 else (-value << 1) - 1)
        case "Float", int() | float() if not isinstance(value, bool):
            return struct.pack("<f", value)
        case "Double", int() | float() if not isinstance(value, bool):
            return struct.pack("<d", value)
        case "Bytes", bytes() | list():
            data = value if isinstance(value, bytes) else _bytes_of(value)
            return _varint(len(data)) + data
    raise ValueError(f"{str(value)[:100]!r} is no {name}")


def _bytes_of(numbers: Iterable[object]) -> bytes:
    if not all(type(number) is int for number in numbers):
        raise ValueError("bytes that aren't numbers")
    return bytes(numbers)  # type: ignore[arg-type]  # each was checked


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    out.append(number)
    return bytes(out)
