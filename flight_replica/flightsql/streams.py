"""Batches on their way out: of a size every client takes, of types every client reads."""

from __future__ import annotations

from collections.abc import Iterator

import pyarrow as pa

# What Flight SQL says of a column, in the metadata of its field.
PRECISION, SCALE = b"ARROW:FLIGHT:SQL:PRECISION", b"ARROW:FLIGHT:SQL:SCALE"

_TARGET_BYTES = 3 << 19  # of a batch out of DuckDB: Flight is at its fastest from 1 MiB on
_ROWS_MIN, _ROWS_MAX = 2048, 65_536  # DuckDB computes 2048 rows at a time
_GUESSED_BYTES = 16  # of a value whose type doesn't say


def plain_schema(schema: pa.Schema) -> pa.Schema:
    """The schema in which a result is sent: dictionaries (ENUM) as their values, views as plain text.

    Clients show a dictionary's index for its value, or fail at it; everything else stays as it is. Decimals
    say their precision and scale, which JDBC reads nowhere else.
    """
    return pa.schema([_described(field) for field in schema], schema.metadata)


def _described(field: pa.Field) -> pa.Field:
    kind = _plain(field.type)
    if not pa.types.is_decimal(kind):
        return field.with_type(kind)
    digits = {PRECISION: str(kind.precision), SCALE: str(kind.scale)}
    return field.with_type(kind).with_metadata({**(field.metadata or {}), **digits})


def _plain(kind: pa.DataType) -> pa.DataType:
    types = pa.types
    if types.is_dictionary(kind):
        return _plain(kind.value_type)
    if types.is_string_view(kind):
        return pa.string()
    if types.is_binary_view(kind):
        return pa.binary()
    if types.is_list(kind):
        return pa.list_(_plain_field(kind.value_field))
    if types.is_fixed_size_list(kind):
        return pa.list_(_plain_field(kind.value_field), kind.list_size)
    if types.is_map(kind):
        key, item = _plain(kind.key_type), _plain_field(kind.item_field)
        # A map without entries has keys of type null, which can be had from DuckDB but not made.
        return kind if (key, item) == (kind.key_type, kind.item_field) else pa.map_(key, item)
    if types.is_struct(kind):
        return pa.struct([_plain_field(field) for field in kind])
    return kind


def _plain_field(field: pa.Field) -> pa.Field:
    return field.with_type(_plain(field.type))


def fitted(batch: pa.RecordBatch, schema: pa.Schema) -> pa.RecordBatch:
    """The batch in a schema of the same columns that `plain_schema` made."""
    columns = [
        column if column.type == field.type else column.cast(field.type)
        for column, field in zip(batch.columns, schema, strict=True)
    ]
    return pa.RecordBatch.from_arrays(columns, schema=schema)


def batch_rows(schema: pa.Schema) -> int:
    """How many rows of this schema make 1 to 2 MiB, where texts are short."""
    width = sum(_bytes_of(field.type) for field in schema)
    return max(_ROWS_MIN, min(_ROWS_MAX, _TARGET_BYTES // max(width, 1)))


def _bytes_of(kind: pa.DataType) -> int:
    try:
        return max(1, int(kind.bit_width) // 8)
    except ValueError:  # no fixed width
        return _GUESSED_BYTES


def cut(batch: pa.RecordBatch, bytes_max: int) -> Iterator[pa.RecordBatch]:
    """Slices of at most `bytes_max` Arrow bytes, or of one row; in order, without a copy."""
    if batch.nbytes <= bytes_max or batch.num_rows <= 1:
        yield batch
        return
    pieces = -(-batch.nbytes // bytes_max)
    rows = max(1, batch.num_rows // pieces)
    if rows == batch.num_rows:
        rows -= 1
    for start in range(0, batch.num_rows, rows):
        piece = batch.slice(start, rows)
        # Rows differ in size: a piece may still be too large.
        yield from cut(piece, bytes_max)
