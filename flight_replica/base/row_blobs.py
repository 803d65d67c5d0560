"""The row blobs of dual files: how many fields each row was written with, and whether they say the same.

The engine reads a row from its blob, a replica from the typed columns beside it, which hold the same values,
but for rows that are older than the newest columns: there the blob is short, and the typed columns hold
zeros. Pages have no checksums, so the two are compared. Source: merutable format, section 5.4.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from flight_replica.errors import BaseError

_VARINT_BYTES_MAX = 3  # 2^21 columns
_INT_BYTES_MAX = 10  # of a varint of 64 bits
_NULL, _PRESENT = 0, 1
_BOOL, _INT32, _INT64, _FLOAT, _DOUBLE, _BYTES = range(6)  # kinds of a field's value

_Bytes = npt.NDArray[np.uint8]
_Rows = npt.NDArray[np.int64]


def field_counts(blobs: pa.BinaryArray, name: str) -> npt.NDArray[np.int64]:
    """The number of fields that each blob of file `name` begins with; 0 for an empty blob.

    Raises `BaseError` for a blob that ends within its number, or one that no table can have.
    """
    if blobs.null_count:
        raise BaseError(f"file {name}: {blobs.null_count} row blobs are null")
    data, offsets = _parts(blobs)
    starts, ends = offsets[:-1], offsets[1:]
    counts = np.zeros(len(blobs), np.int64)
    pending = np.flatnonzero(starts < ends)
    for byte in range(_VARINT_BYTES_MAX):  # by byte, not by row
        places = starts[pending] + byte
        if (places >= ends[pending]).any():
            raise BaseError(f"file {name}: a row blob ends within its number of fields")
        digits = data[places].astype(np.int64)
        counts[pending] |= (digits & 0x7F) << (7 * byte)
        pending = pending[digits >= 0x80]
        if not len(pending):
            return counts
    raise BaseError(f"file {name}: a row blob has more than {2 ** (7 * _VARINT_BYTES_MAX)} fields")


def disagreeing(blobs: pa.BinaryArray, columns: Sequence[pa.Array], counts: _Rows) -> _Rows:
    """Rows whose blob isn't the encoding of their values: of as many columns as `counts` says it has.

    Columns are in the order of the table and of the engine's types. Nothing is decoded: what the blob must
    be is compared with what it is, byte by byte of all rows at once.
    """
    walk = _Walk(blobs)
    everyone = np.arange(len(blobs))
    walk.varint(everyone, counts.astype(np.uint64))
    for number, column in enumerate(columns):
        has_field = counts > number
        is_valid = column.is_valid().to_numpy(zero_copy_only=False)
        walk.byte(np.flatnonzero(has_field & ~is_valid), _NULL)
        rows = np.flatnonzero(has_field & is_valid)
        walk.byte(rows, _PRESENT)
        kind, expect = _field(column.type)
        walk.byte(rows, kind)
        expect(walk, rows, column.take(pa.array(rows)))
    return walk.wrong()


class _Walk:
    """A place in each blob, which moves on by what is expected there."""

    def __init__(self, blobs: pa.BinaryArray) -> None:
        data, offsets = _parts(blobs)
        self._data = np.append(data, np.zeros(1, np.uint8))  # for places behind the last blob
        self._at, self._ends = offsets[:-1].copy(), offsets[1:]
        self._is_right = np.ones(len(blobs), np.bool_)

    def byte(self, rows: _Rows, expected: _Bytes | int) -> None:
        found = self._data[np.minimum(self._at[rows], len(self._data) - 1)]
        self._is_right[rows] &= found == expected
        self._at[rows] += 1

    def varint(self, rows: _Rows, numbers: npt.NDArray[np.uint64]) -> None:
        for _ in range(_INT_BYTES_MAX):
            rest = numbers >> np.uint64(7)
            more = np.where(rest > 0, 0x80, 0).astype(np.uint8)
            self.byte(rows, (numbers & np.uint64(0x7F)).astype(np.uint8) | more)
            rows, numbers = rows[rest > 0], rest[rest > 0]
            if not len(rows):
                return

    def matrix(self, rows: _Rows, expected: _Bytes) -> None:
        """As many bytes of each row as `expected` has columns."""
        for byte in range(expected.shape[1]):
            self.byte(rows, expected[:, byte])

    def strings(self, rows: _Rows, values: pa.BinaryArray) -> None:
        data, offsets = _parts(values)
        sizes = np.diff(offsets)
        self.varint(rows, sizes.astype(np.uint64))
        places = np.repeat(self._at[rows] - (offsets[:-1] - offsets[0]), sizes) + np.arange(sizes.sum())
        is_same = self._data[np.minimum(places, len(self._data) - 1)] == data[offsets[0] : offsets[-1]]
        self._is_right[np.repeat(rows, sizes)[~is_same]] = False
        self._at[rows] += sizes

    def wrong(self) -> _Rows:
        return np.flatnonzero(~self._is_right | (self._at != self._ends))


_Expect = Callable[[_Walk, _Rows, pa.Array], None]


def _field(kind: pa.DataType) -> tuple[int, _Expect]:
    """A type's number in blobs, and how its values are expected there."""
    if pa.types.is_boolean(kind):
        return _BOOL, lambda walk, rows, values: walk.byte(
            rows, values.cast(pa.uint8()).to_numpy(zero_copy_only=False)
        )
    if pa.types.is_integer(kind):
        return (_INT32 if kind == pa.int32() else _INT64), _expect_integers
    if pa.types.is_floating(kind):
        return (_FLOAT if kind == pa.float32() else _DOUBLE), _expect_floats
    return _BYTES, lambda walk, rows, values: walk.strings(rows, pc.cast(values, pa.binary()))


def _expect_integers(walk: _Walk, rows: _Rows, values: pa.Array) -> None:
    numbers = values.to_numpy().astype(np.int64)
    walk.varint(rows, ((numbers << 1) ^ (numbers >> 63)).view(np.uint64))  # zigzag


def _expect_floats(walk: _Walk, rows: _Rows, values: pa.Array) -> None:
    bits = np.ascontiguousarray(values.to_numpy())
    walk.matrix(rows, bits.view(np.uint8).reshape(len(bits), bits.itemsize))


def _parts(values: pa.BinaryArray) -> tuple[_Bytes, _Rows]:
    """(all bytes, where each value begins and the last one ends)."""
    _, offset_buffer, data_buffer = values.buffers()
    if not len(values):
        return np.empty(0, np.uint8), np.zeros(1, np.int64)
    offsets = np.frombuffer(offset_buffer, np.int32)[values.offset :][: len(values) + 1].astype(np.int64)
    return np.frombuffer(data_buffer or b"", np.uint8), offsets
