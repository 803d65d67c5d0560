"""`digest`: one number for a table's rows, to compare two servers by.

The sum mod 2⁶⁴ over the rows of xxh3-64(pk_bytes ‖ row bytes). Row bytes are the columns in table order,
each 00 for null, else 01 and the value as a key part; a list or map is its count in 4 bytes, big-endian,
then its elements (a map's: key, value) in the same way, a struct its fields. Source: CF 1.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from xxhash import xxh3_64_intdigest

from flight_replica.conform import conform
from flight_replica.keys import KeyCodec, fixed_parts
from flight_replica.schema import Column, TableSchema
from flight_replica.xxh3 import BLOCK_ROWS, even_parts, sum_of_hashes

_NULL, _VALUE = pa.scalar(b"\x00"), pa.scalar(b"\x01")
_NOTHING = pa.scalar(b"")
# The quiet NaN without payload, as a key part: its sign bit is flipped.
_NAN = {
    pa.float32(): pa.scalar(bytes.fromhex("ffc00000")),
    pa.float64(): pa.scalar(bytes.fromhex("fff8000000000000")),
}
# Thousands of short calls into numpy: threads that did it side by side would pass the GIL to and fro, and
# take twice as long as one after another (measured with two and three).
_one_at_a_time = threading.Lock()
_BATCH_ROWS = 65_536
_GROUP_ROWS_MIN = 512  # fewer rows that are null in the same columns aren't worth a group
_Rows = npt.NDArray[np.uint8]  # shape (rows, width)
_Parts = npt.NDArray[np.unsignedinteger]  # bytes, shape (rows, width), or numbers, shape (rows,)


@dataclass(frozen=True, slots=True)
class Digest:
    """Of the rows that were counted."""

    row_count: int
    value: int


def digest(
    batches: Iterable[pa.RecordBatch],
    schema: TableSchema,
    start: bytes | None = None,
    end: bytes | None = None,
) -> Digest:
    """The digest of the rows with `start <= pk_bytes < end` (None: no bound), in any order.

    Batches have the table's columns by name; they are cast to its types. Holds one batch at a time.
    Raises `SchemaMismatch` where a value doesn't fit.
    """
    codec = KeyCodec(schema)
    row_count = value = 0
    for batch in _small(batches):
        with _one_at_a_time:
            rows = conform(batch, schema)
            if start is not None or end is not None:
                rows = rows.filter(_inside(codec.encode_batch(rows), start, end))
            row_count += rows.num_rows
            value += _sum(codec, rows)
    return Digest(row_count, value % 2**64)


def row_hashes(rows: pa.RecordBatch, schema: TableSchema) -> list[tuple[bytes, int]]:
    """`pk_bytes` of each row, and what the row adds to the digest.

    Columns as for `digest`. Raises `SchemaMismatch` where a value doesn't fit.
    """
    with _one_at_a_time:
        conformed = conform(rows, schema)
        keys = KeyCodec(schema).encode_batch(conformed)
        joined = pc.binary_join_element_wise(keys, *map(encode_values, conformed.columns), _NOTHING)
        return list(zip(keys.to_pylist(), map(xxh3_64_intdigest, joined.to_pylist()), strict=True))


def _small(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """The same rows in batches that stay in the cache while they are worked on."""
    for batch in batches:
        for start, end in pairwise(even_parts(batch.num_rows, _BATCH_ROWS)):
            yield batch.slice(start, end - start)


def _inside(keys: pa.BinaryArray, start: bytes | None, end: bytes | None) -> pa.BooleanArray:
    found = pc.greater_equal(keys, pa.scalar(start or b""))
    return found if end is None else pc.and_(found, pc.less(keys, pa.scalar(end)))


def _sum(codec: KeyCodec, rows: pa.RecordBatch) -> int:
    """The sum of the rows' hashes, not reduced."""
    return sum(_sum_of_group(codec, *group) for group in _by_nulls(rows)) if rows.num_rows else 0


def _by_nulls(rows: pa.RecordBatch) -> Iterator[tuple[pa.RecordBatch, tuple[bool, ...]]]:
    """The rows in groups that are null in the same columns, and in which: their values lie side by side then.

    All in one group, with the nulls left as they are, where there would be too many.
    """
    some = [number for number, column in enumerate(rows.columns) if column.null_count]
    none = (False,) * rows.num_columns
    if not some or len(some) > 63:
        yield rows, none
        return
    codes = np.zeros(rows.num_rows, np.int64)
    for bit, number in enumerate(some):
        codes |= rows.column(number).is_null().to_numpy(zero_copy_only=False).astype(np.int64) << bit
    found = np.unique(codes)
    if len(found) > max(1, rows.num_rows // _GROUP_ROWS_MIN):
        yield rows, none
        return
    for code in found.tolist():
        chosen = pa.array(np.flatnonzero(codes == code))
        is_null = tuple(
            number in some and bool(code >> some.index(number) & 1) for number in range(rows.num_columns)
        )
        yield rows.take(chosen), is_null


def _sum_of_group(codec: KeyCodec, rows: pa.RecordBatch, is_null: tuple[bool, ...]) -> int:
    count = rows.num_rows
    pieces: list[pa.BinaryArray] = []
    run: list[_Parts] = []  # neighbours of fixed width

    def end_run() -> None:
        if run:
            pieces.append(_as_binary(_side_by_side(run)))
            run.clear()

    if (key_parts := codec.encode_parts(rows)) is not None:
        run += key_parts
    else:
        keys = codec.encode_batch(rows)
        if (parts := _fixed_keys(keys)) is not None:
            run.append(parts)
        else:
            pieces.append(keys)
    for column, is_null_column in zip(rows.columns, is_null, strict=True):
        if is_null_column:
            run.append(np.zeros((count, 1), np.uint8))
        elif (parts := _fixed_values(column)) is not None:
            run += [np.ones((count, 1), np.uint8), parts]
        else:
            end_run()
            pieces.append(encode_values(column))
    if not pieces:
        return sum(  # by blocks, which stay in the cache until they are hashed
            sum_of_hashes(_side_by_side([parts[start:end] for parts in run], _rows_of_thread))
            for start, end in pairwise(even_parts(count, BLOCK_ROWS))
        )
    end_run()
    joined = pc.binary_join_element_wise(*pieces, _NOTHING)
    # One call a row, of a C function over C-made bytes: about 5 M rows/s.
    return sum(map(xxh3_64_intdigest, joined.to_pylist()))


def _fixed_keys(keys: pa.BinaryArray) -> _Parts | None:
    """Keys of one length, shape (rows, length), or (rows,) as numbers; None where they differ."""
    _, offsets, data = keys.buffers()
    starts = np.frombuffer(offsets, np.int32, len(keys) + 1, 4 * keys.offset)
    width = int(starts[1]) - int(starts[0])
    if not (np.diff(starts) == width).all():
        return None
    if width in (2, 4, 8):
        return np.frombuffer(data, f">u{width}", len(keys), int(starts[0]))
    return np.frombuffer(data, np.uint8, len(keys) * width, int(starts[0])).reshape(len(keys), width)


def _fixed_values(values: pa.Array) -> _Parts | None:
    """Values without nulls as key parts, as `fixed_parts` gives them; None for others."""
    parts = fixed_parts(values) if not values.null_count else None
    if parts is not None and values.type in _NAN and (is_nan := np.isnan(values.to_numpy())).any():
        parts[is_nan] = int.from_bytes(_NAN[values.type].as_py())
    return parts


class _RowsOfThread(threading.local):
    """Room that a thread uses again and again: to get a MiB anew each time costs more than to fill it."""

    room = np.empty(0, np.uint8)

    def of(self, count: int, width: int) -> _Rows:
        if len(self.room) < count * width:
            self.room = np.empty(count * width, np.uint8)
        return self.room[: count * width].reshape(count, width)


_rows_of_thread = _RowsOfThread()


def _side_by_side(run: list[_Parts], room: _RowsOfThread | None = None) -> _Rows:
    """The parts of each row one after another, in `room`, if there is one, until it is used again.

    A number's bytes are written big-endian.
    """
    widths = [parts.itemsize if parts.ndim == 1 else parts.shape[1] for parts in run]
    shape = len(run[0]), sum(widths)
    rows = np.empty(shape, np.uint8) if room is None else room.of(*shape)
    at = 0
    for parts, width in zip(run, widths, strict=True):
        if parts.ndim == 1:
            np.ndarray((len(rows),), f">u{width}", rows, at, (rows.strides[0],))[:] = parts
        else:
            rows[:, at : at + width] = parts
        at += width
    return rows


def _as_binary(rows: _Rows) -> pa.BinaryArray:
    offsets = np.arange(len(rows) + 1, dtype=np.int32) * np.int32(rows.shape[1])
    return pa.Array.from_buffers(pa.binary(), len(rows), [None, pa.py_buffer(offsets), pa.py_buffer(rows)])


def encode_values(values: pa.Array) -> pa.BinaryArray:
    """Each value as in a digest: 00 for null, else 01 and its bytes."""
    if not values.null_count:
        return pc.binary_join_element_wise(_VALUE, _encode(values), _NOTHING)
    is_valid = values.is_valid()
    found = pc.binary_join_element_wise(_VALUE, _encode(values.filter(is_valid)), _NOTHING)
    # Where row i is valid, its value is as many places down as there are valid rows before it.
    places = np.cumsum(is_valid.to_numpy(zero_copy_only=False)) - 1
    indices = pa.array(places, mask=~is_valid.to_numpy(zero_copy_only=False))
    return pc.fill_null(found.take(indices), _NULL)


def _encode(values: pa.Array) -> pa.BinaryArray:
    """The bytes of values that aren't null."""
    kind = values.type
    if pa.types.is_struct(kind):
        return pc.binary_join_element_wise(*map(encode_values, values.flatten()), _NOTHING)
    if pa.types.is_list(kind):
        return _encode_lists(values, encode_values(values.flatten()))
    if pa.types.is_map(kind):
        entries = _entries(values)
        keys, items = encode_values(entries.field(0)), encode_values(entries.field(1))
        return _encode_lists(values, pc.binary_join_element_wise(keys, items, _NOTHING))
    if kind in _NAN:
        return _encode_floats(values)
    return _encode_part(values)


def _entries(maps: pa.MapArray) -> pa.StructArray:
    """The entries that an array of maps shows, which may be a slice of what it holds."""
    first, last = maps.offsets[0].as_py(), maps.offsets[-1].as_py()
    return pa.StructArray.from_arrays([maps.keys, maps.items], ["key", "value"]).slice(first, last - first)


def _encode_lists(lists: pa.Array, elements: pa.BinaryArray) -> pa.BinaryArray:
    """Count and elements of each list; `elements` are those of all lists, encoded, in order."""
    offsets = np.asarray(lists.offsets).astype(np.int64)
    counts = np.diff(offsets).astype(">u4")
    heads = pa.Array.from_buffers(pa.binary(4), len(lists), [None, pa.py_buffer(counts.tobytes())])
    # Encoded elements lie side by side, so those of one list are one piece of their bytes.
    _, starts, data = elements.buffers()
    bounds = np.frombuffer(starts, np.int32, len(elements) + 1, 4 * elements.offset)
    pieces = np.ascontiguousarray(bounds[offsets - offsets[0]])
    bodies = pa.Array.from_buffers(pa.binary(), len(lists), [None, pa.py_buffer(pieces), data])
    return pc.binary_join_element_wise(heads.cast(pa.binary()), bodies, _NOTHING)


def _encode_floats(values: pa.Array) -> pa.BinaryArray:
    is_nan = pc.is_nan(values)
    parts = _encode_part(pc.if_else(is_nan, pa.scalar(0.0, values.type), values))
    return pc.if_else(is_nan, _NAN[values.type], parts)


def _encode_part(values: pa.Array) -> pa.BinaryArray:
    """Each value as a key of its own."""
    column = Column("value", values.type, nullable=False)
    return KeyCodec(TableSchema((column,), ("value",))).encode([values])
