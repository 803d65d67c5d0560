"""`conform`: data brought to a table's types, without loss or not at all."""

from __future__ import annotations

from functools import lru_cache
from uuid import UUID

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from flight_replica.errors import SchemaMismatch
from flight_replica.schema import Column, TableSchema


def conform(data: pa.RecordBatch, schema: TableSchema) -> pa.RecordBatch:
    """The table's columns of `data`, matched by name, in table order, with exactly the table's types.

    Columns that `data` lacks hold their default or null; those that the table lacks are left out.
    Casts keep every value (a NaN's bits and the sign of zero too). Raises `SchemaMismatch`, with the
    first value that doesn't fit, and for nulls in a column that is NOT NULL.
    """
    columns = [_conform_column(data, column) for column in schema.columns]
    return pa.RecordBatch.from_arrays(columns, schema=schema.arrow_schema)


def _conform_column(data: pa.RecordBatch, column: Column) -> pa.Array:
    found = data.schema.get_all_field_indices(column.name)
    if len(found) > 1:
        raise SchemaMismatch(f"column {column.name!r}: the data has {len(found)} columns of this name")
    if found:
        values = _cast_column(data.column(found[0]), column)
    else:
        values = _repeat(column.default, column.type, data.num_rows)
    if values.null_count and not column.nullable:
        raise SchemaMismatch(
            f"column {column.name!r} is NOT NULL, {values.null_count} of its values are null"
        )
    return values


def _repeat(value: object, kind: pa.DataType, count: int) -> pa.Array:
    if value is None:
        return pa.nulls(count, kind)
    return pa.array([value], kind).take(pa.repeat(0, count))  # `pa.repeat` knows no extension types


def _cast_column(values: pa.Array, column: Column) -> pa.Array:
    if not can_become(values.type, column.type):
        raise SchemaMismatch(f"column {column.name!r} is {column.type}, the data's is {values.type}")
    try:
        return _cast(values, column.type)
    except pa.ArrowException as error:
        offender = _first_offender(values, column.type)
        raise SchemaMismatch(
            f"column {column.name!r} is {column.type}, the data's is {values.type} and "
            f"its value {_shown(values, offender)} in row {offender} doesn't fit ({error})"
        ) from error


def _cast(values: pa.Array, kind: pa.DataType) -> pa.Array:
    """Raises `pa.ArrowException` when a value would change."""
    if values.type == kind:
        return values
    if kind == pa.uuid() and _is_text(values.type):
        return _uuids_from_text(values.cast(pa.string()))
    if pa.types.is_nested(values.type) and values.type != kind:
        return _cast_nested(values, kind)
    return values.cast(kind)


def _cast_nested(values: pa.Array, kind: pa.DataType) -> pa.Array:
    """Children by `_cast`, since pyarrow reads no UUIDs in text and casts elements that aren't in a slice."""
    if pa.types.is_large_list(values.type):
        values = values.cast(pa.list_(values.type.value_field))
    values = values.take(pa.array(np.arange(len(values))))  # a copy without hidden elements
    if pa.types.is_struct(kind):
        children = [_cast(v, field.type) for v, field in zip(values.flatten(), kind, strict=True)]
        return pa.Array.from_buffers(kind, len(values), values.buffers()[:1], children=children)
    if pa.types.is_map(kind):
        pairs = [_cast(values.keys, kind.key_type), _cast(values.items, kind.item_type)]
        children = [pa.StructArray.from_arrays(pairs, fields=[kind.key_field, kind.item_field])]
    else:
        children = [_cast(values.values, kind.value_type)]
    return pa.Array.from_buffers(kind, len(values), values.buffers()[:2], children=children)


def _shown(values: pa.Array, row: int) -> str:
    try:
        text = repr(values[row].as_py())
    except (ValueError, OverflowError):  # a time that Python can't say
        text = " ".join(str(values.slice(row, 1)).split())
    return text[:100]


def _first_offender(values: pa.Array, kind: pa.DataType) -> int:
    """The row of the first value that can't be cast, by halving."""
    low, high = 0, len(values)  # rows below `low` can be cast, those below `high` can't
    while high - low > 1:
        middle = (low + high) // 2
        try:
            _cast(values.slice(low, middle - low), kind)
            low = middle
        except pa.ArrowException:
            high = middle
    return low


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def _is_bytes(kind: pa.DataType) -> bool:
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_binary_view(kind))


@lru_cache(maxsize=4096)
def can_become(source: pa.DataType, target: pa.DataType) -> bool:
    """Whether values of one type may be cast to another, which keeps what they mean; the cast checks each."""
    types = pa.types
    if source == target or types.is_null(source):
        return True
    if types.is_dictionary(source):
        return can_become(source.value_type, target)
    if types.is_integer(source):
        return bool(types.is_integer(target) or types.is_floating(target))
    if types.is_floating(source):
        return bool(types.is_float32(source) and types.is_float64(target))
    if types.is_decimal(source):
        return bool(types.is_decimal(target) or types.is_integer(target))
    if types.is_timestamp(source):
        return bool(types.is_timestamp(target)) and (source.tz is None) == (target.tz is None)
    if types.is_time(source):
        return bool(types.is_time(target))
    if _is_text(source) or _is_bytes(source):
        is_raw = _is_bytes(source) and types.is_fixed_size_binary(target)
        return bool(types.is_string(target) or types.is_binary(target) or target == pa.uuid() or is_raw)
    if types.is_fixed_size_binary(source):
        return bool(types.is_binary(target) or (target == pa.uuid() and source.byte_width == 16))
    if source == pa.uuid():
        return bool(types.is_binary(target) or target == pa.binary(16))
    return _is_nested_cast_permitted(source, target)


def _is_nested_cast_permitted(source: pa.DataType, target: pa.DataType) -> bool:
    """List views are left out: pyarrow 26 casts them to empty lists."""
    types = pa.types
    if types.is_list(target):
        is_list = types.is_list(source) or types.is_large_list(source)
        return is_list and can_become(source.value_type, target.value_type)
    if types.is_map(target):
        pairs = (
            [(source.key_type, target.key_type), (source.item_type, target.item_type)]
            if types.is_map(source)
            else []
        )
        return bool(pairs) and all(can_become(*pair) for pair in pairs)
    if types.is_struct(source) and types.is_struct(target):
        # Arrow fills a field that the source lacks with nulls, so the names have to be the same.
        is_same = [field.name for field in source] == [field.name for field in target]
        return is_same and all(can_become(s.type, t.type) for s, t in zip(source, target, strict=True))
    return False


_NIBBLES = np.full(256, 255, np.uint8)  # ASCII hex digit -> its value, 255 for any other byte
_NIBBLES[np.frombuffer(b"0123456789abcdef", np.uint8)] = np.arange(16)
_NIBBLES[np.frombuffer(b"ABCDEF", np.uint8)] = np.arange(10, 16)
_DASHES = [8, 13, 18, 23]


def _uuids_from_text(texts: pa.StringArray) -> pa.Array:
    """DuckDB hands out UUIDs as dashed text. Raises `pa.ArrowInvalid`."""
    filled = pc.fill_null(texts, str(UUID(int=0))).cast(pa.binary())
    signs = filled.cast(pa.binary(36))  # refuses any other length
    matrix = np.frombuffer(signs.buffers()[1], np.uint8).reshape(-1, 36)[signs.offset :][: len(signs)]
    nibbles = np.delete(_NIBBLES[matrix], _DASHES, axis=1)
    if (matrix[:, _DASHES] != ord("-")).any() or (nibbles == 255).any():
        raise pa.ArrowInvalid("not the dashed text of a UUID")
    raw = np.ascontiguousarray(nibbles[:, 0::2] << 4 | nibbles[:, 1::2])
    storage = pa.Array.from_buffers(pa.binary(16), len(texts), [None, pa.py_buffer(raw)])
    if texts.null_count:
        storage = pc.if_else(pc.is_valid(texts), storage, pa.scalar(None, pa.binary(16)))
    return storage.cast(pa.uuid())
