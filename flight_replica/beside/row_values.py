"""Rows as the engine writes them into its log, to Arrow columns, whole batches at a time.

A value is empty, or 01 and a postcard row (a count of fields, then per field null or type and value), or
a row in JSON as early engines wrote it. Postcard rows are decoded column by column with numpy, the rows of
a call at once (a handful of ordinary ones by `few_rows.py`); the few others are first written anew as
postcard rows.

A row may have fewer fields than the schema: it is older than the last columns. These hold the column's
initial default (null without one), as in the table's files, where the engine reads such a row that way
(s07b c3). The engine's own memtable and feed say null until the flush, and so change their mind; a base
and a feed that disagreed about a row wouldn't add up to the table.
Source: merutable format, sections 5.4, 9.1 and 13.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from flight_replica.beside import few_rows
from flight_replica.beside.json_rows import POSTCARD, json_fields, postcard_row
from flight_replica.beside.log_file import LogRecord, WriteBatch
from flight_replica.beside.row_types import TYPE_NAMES, type_number
from flight_replica.errors import DamagedLog, LimitExceeded, SchemaMismatch
from flight_replica.keys import ARRAY_BYTES_MAX, KeyCodec
from flight_replica.log.source import Op
from flight_replica.schema import Column, TableSchema

__all__ = ["field_count", "ops_of"]

_Bytes = npt.NDArray[np.uint8]
_Places = npt.NDArray[np.int64]
_Flags = npt.NDArray[np.bool_]

VARINT_BYTES_MAX = 10
_REACH = np.arange(VARINT_BYTES_MAX)
_SHIFTS = (7 * _REACH).astype(np.uint64)
_PADDING = bytes(2 * VARINT_BYTES_MAX)  # so that a look behind the last row stays in the buffer
_OP_NAMES = pa.array([Op.INSERT.value, Op.DELETE.value])


def ops_of(batches: Sequence[WriteBatch], schema: TableSchema) -> pa.RecordBatch:
    """The batches' ops in the shape of `schema.feed_schema`, in log order. Every put is an INSERT.

    Columns that a row is too short for hold their initial default; a delete without pre-image has
    nulls. `schema` has the engine's types; showing bytes as text is another's task.
    Raises `DamagedLog` for a value that no engine writes, with file, offset, seq and column, and
    `SchemaMismatch` for a row that isn't of this schema: one with more fields was written after a
    column was added (`field_count`). `LimitExceeded` past 2 GiB of values.
    """
    records = [record for batch in batches for record in _with_own_pre_images(batch.records)]
    seqs = _seqs(batches)
    is_delete = [record.op is Op.DELETE for record in records]
    head = [
        pa.array(seqs),
        _OP_NAMES.take(pa.array(is_delete, pa.bool_()).cast(pa.int8())),
        pa.array([record.pk_bytes for record in records], pa.binary()),
    ]
    columns = _columns_of_few(records, schema)
    if columns is None:
        rows = _Rows(batches, records, seqs, schema)
        columns = [rows.take(column) for column in schema.columns]
        rows.end()
    return pa.RecordBatch.from_arrays([*head, *columns], schema=schema.feed_schema)


def _seqs(batches: Sequence[WriteBatch]) -> npt.NDArray[np.uint64]:
    counts = np.array([len(batch.records) for batch in batches], np.int64)
    before = (np.cumsum(counts) - counts).astype(np.uint64)  # batch -> rows in front of it
    first = np.array([batch.first_seq for batch in batches], np.uint64)
    return np.repeat(first - before, counts) + np.arange(counts.sum(), dtype=np.uint64)


def _columns_of_few(records: Sequence[LogRecord], schema: TableSchema) -> list[pa.Array] | None:
    """None where there are more than a few, or one that isn't ordinary: a put without row is not."""
    if not 0 < len(records) <= few_rows.FEW_ROWS:
        return None
    if not all(record.value or record.op is Op.DELETE for record in records):
        return None
    return few_rows.columns_of_few([record.value for record in records], _field_types(schema))


@lru_cache(maxsize=256)
def _field_types(schema: TableSchema) -> tuple[few_rows.FieldType, ...]:
    return tuple(
        few_rows.field_type(type_number(column), column.type, column.default) for column in schema.columns
    )


def _with_own_pre_images(records: Sequence[LogRecord]) -> Sequence[LogRecord]:
    """The records of one batch; a delete has the row of a put before it in the batch, as the engine's feed
    shows it. The log doesn't: the engine takes pre-images down before the batch."""
    if len(records) == 1 or len({record.op for record in records}) == 1:
        return records
    found: list[LogRecord] = []
    value_by_key: dict[bytes, bytes] = {}  # pk_bytes -> row, of keys that this batch has put
    for record in records:
        if record.op is not Op.DELETE:
            value_by_key[record.pk_bytes] = record.value
        elif (value := value_by_key.pop(record.pk_bytes, None)) is not None:
            record = record._replace(value=value)
        found.append(record)
    return found


def field_count(value: bytes) -> int:
    """How many columns the row had when it was written, 0 for an empty one.

    Raises ValueError for what is no row.
    """
    if not value:
        return 0
    if value[:1] != POSTCARD:
        return len(json_fields(value))
    count = shift = 0
    for byte in value[1 : 1 + VARINT_BYTES_MAX]:
        count |= (byte & 127) << shift
        shift += 7
        if byte < 128:
            return count
    raise ValueError("a row without a count of fields")


class _Rows:
    """The rows of one call. `take` gives the columns, in table order; `end` checks that nothing is left."""

    def __init__(
        self,
        batches: Sequence[WriteBatch],
        records: Sequence[LogRecord],
        seqs: npt.NDArray[np.uint64],
        schema: TableSchema,
    ) -> None:
        self._batches = batches
        self._records = records
        self._seqs = seqs
        self._schema = schema
        values = [self._as_postcard(row, record) for row, record in enumerate(records)]
        self._is_bare = np.fromiter((not value for value in values), np.bool_, len(values))
        lengths = np.fromiter(map(len, values), np.int64, len(values))
        size = int(lengths.sum())
        if size + len(_PADDING) > ARRAY_BYTES_MAX:
            raise LimitExceeded(f"log rows of {size} bytes at once, limit {ARRAY_BYTES_MAX} bytes")
        self._blob = b"".join([*values, _PADDING])
        self._bytes: _Bytes = np.frombuffer(self._blob, np.uint8)
        self._ends: _Places = np.cumsum(lengths)
        self._at: _Places = self._ends - lengths  # row -> where its next field starts
        self._column_number = 0
        self._fields = self._field_counts()

    def take(self, column: Column) -> pa.Array:
        """The next column, nullable."""
        is_there = self._fields > self._column_number
        self._column_number += 1
        self._refuse(is_there & (self._at >= self._ends), column, "the row is cut off")
        tags = self._bytes[self._at]
        self._refuse(is_there & (tags > 1), column, "a field that is neither null nor a value")
        is_value = is_there & (tags == 1)
        self._at = self._at + is_there
        number = type_number(column)
        self._refuse_other_kinds(is_value & (self._bytes[self._at] != number), column)
        self._at = self._at + is_value
        values = self._take_values(column, is_value)
        self._refuse(self._at > self._ends, column, "the row is cut off")
        is_missing = ~is_there & ~self._is_bare
        if column.default is not None and np.count_nonzero(is_missing):
            values = pc.if_else(pa.array(is_missing), pa.scalar(column.default, column.type), values)
        return values

    def end(self) -> None:
        self._refuse(self._at != self._ends, None, "bytes are left behind the row's last field")

    def _as_postcard(self, row: int, record: LogRecord) -> bytes:
        """The value as it is, unless it isn't a postcard row. Empty: a delete without pre-image."""
        value = record.value
        if value[:1] == POSTCARD or (not value and record.op is Op.DELETE):
            return value
        try:
            fields = json_fields(value) if value else self._key_fields(record.pk_bytes)
            return postcard_row(fields)
        except (ValueError, struct.error, OverflowError) as error:
            raise self._damage(row, None, f"neither a postcard row nor one in JSON ({error})") from error

    def _key_fields(self, pk_bytes: bytes) -> list[object]:
        """The fields of an empty put: its key, and what the other columns start with."""
        keys = KeyCodec(self._schema).decode(pa.array([pk_bytes], pa.binary()))
        by_name = {name: key[0].as_py() for name, key in zip(self._schema.primary_key, keys, strict=True)}
        values = [by_name.get(column.name, column.default) for column in self._schema.columns]
        return [
            None if value is None else {TYPE_NAMES[type_number(column)]: value}
            for column, value in zip(self._schema.columns, values, strict=True)
        ]

    def _field_counts(self) -> _Places:
        is_row = ~self._is_bare
        self._at = self._at + is_row  # the first byte said that it is a postcard row
        counts = self._take_varints(is_row, None)
        self._refuse(self._at > self._ends, None, "the row is cut off")
        limit = len(self._schema.columns)
        if (counts > limit).any():
            row = int((counts > limit).argmax())
            raise SchemaMismatch(
                f"{self._place(row)}: a row of {counts[row]} fields, the schema has {limit} columns: "
                "it was written after a column was added"
            )
        return counts.astype(np.int64)

    def _take_values(self, column: Column, is_value: _Flags) -> pa.Array:
        kind = column.type
        if pa.types.is_binary(kind) or pa.types.is_fixed_size_binary(kind):
            return self._take_bytes(column, is_value)
        if pa.types.is_boolean(kind):
            flags = self._take_fixed(is_value, 1)[:, 0]
            self._refuse(is_value & (flags > 1), column, "a boolean that is neither 0 nor 1")
            return pa.array(flags == 1, mask=~is_value)
        if pa.types.is_floating(kind):
            width = kind.byte_width
            floats = self._take_fixed(is_value, width).view(f"<f{width}")[:, 0]
            return pa.array(floats, kind, mask=~is_value)
        numbers = self._take_varints(is_value, column)
        if pa.types.is_int32(kind):
            self._refuse(numbers >= 1 << 32, column, "an Int32 of more than 32 bits")
        half = (numbers >> np.uint64(1)).view(np.int64)
        signed = half ^ -(numbers & np.uint64(1)).view(np.int64)  # zigzag
        return pa.array(signed.astype(kind.to_pandas_dtype()), kind, mask=~is_value)

    def _take_fixed(self, is_value: _Flags, width: int) -> _Bytes:
        """`width` bytes of each row; those without a value hold something else."""
        taken: _Bytes = self._bytes[self._at[:, None] + _REACH[:width]]
        self._at = self._at + np.where(is_value, width, 0)
        return taken

    def _take_bytes(self, column: Column, is_value: _Flags) -> pa.Array:
        sizes = self._take_varints(is_value, column)
        left = np.maximum(self._ends - self._at, 0)
        self._refuse(sizes > left.astype(np.uint64), column, "the row is cut off")
        starts, stops = self._at, self._at + sizes.astype(np.int64)
        self._at = stops
        # One binary array over the whole buffer: value, what is between, value, …; the values are taken.
        offsets = np.stack([starts, stops], axis=1).astype(np.int32).reshape(-1)
        buffers = [None, pa.py_buffer(offsets), pa.py_buffer(self._blob)]
        parts = pa.Array.from_buffers(pa.binary(), max(len(offsets) - 1, 0), buffers)
        values = parts.take(pa.array(2 * np.arange(len(starts)), mask=~is_value))
        if pa.types.is_binary(column.type):
            return values
        width = column.type.byte_width
        self._refuse(is_value & (sizes != width), column, f"bytes that aren't {width} long")
        return values.cast(column.type)

    def _take_varints(self, is_value: _Flags, column: Column | None) -> npt.NDArray[np.uint64]:
        """The LEB128 number at each row's place; 0 where `is_value` is false."""
        first = self._bytes[self._at]
        if not np.count_nonzero(is_value & (first > 127)):
            self._at = self._at + is_value
            return np.where(is_value, first, 0).astype(np.uint64)
        window = self._bytes[self._at[:, None] + _REACH]
        last = np.argmax(window < 128, axis=1)
        is_long = (window > 127).all(axis=1) | ((last == 9) & (window[:, 9] > 1))
        self._refuse(is_value & is_long, column, "a number of more than 64 bits")
        kept = np.where((last[:, None] >= _REACH) & is_value[:, None], window & 127, 0)
        self._at = self._at + np.where(is_value, last + 1, 0)
        numbers: npt.NDArray[np.uint64] = np.bitwise_or.reduce(kept.astype(np.uint64) << _SHIFTS, axis=1)
        return numbers

    def _refuse(self, is_wrong: _Flags, column: Column | None, reason: str) -> None:
        if np.count_nonzero(is_wrong):  # several times faster than any() for few rows
            raise self._damage(int(is_wrong.argmax()), column, reason)

    def _refuse_other_kinds(self, is_wrong: _Flags, column: Column) -> None:
        if not np.count_nonzero(is_wrong):
            return
        row = int(is_wrong.argmax())
        found = int(self._bytes[self._at[row]])
        if self._at[row] >= self._ends[row]:
            raise self._damage(row, column, "the row is cut off")
        if found >= len(TYPE_NAMES):
            raise self._damage(row, column, f"a value of the unknown type {found}")
        raise SchemaMismatch(
            f"{self._place(row)}, column {column.name!r}: a value of type {TYPE_NAMES[found]}, "
            f"the column is {TYPE_NAMES[type_number(column)]}"
        )

    def _damage(self, row: int, column: Column | None, reason: str) -> DamagedLog:
        batch = self._batches[self._batch_of(row)]
        what = "" if column is None else f", column {column.name!r}"
        return DamagedLog(
            f"{batch.file_number:06}.wal",
            batch.offset,
            f"seq {self._seqs[row]}, key {self._records[row].pk_bytes.hex()[:64]}{what}: {reason}",
        )

    def _place(self, row: int) -> str:
        batch = self._batches[self._batch_of(row)]
        return f"log {batch.file_number:06}.wal, offset {batch.offset}: seq {self._seqs[row]}"

    def _batch_of(self, row: int) -> int:
        ends = np.cumsum([len(batch.records) for batch in self._batches])
        return int(np.searchsorted(ends, row, "right"))
