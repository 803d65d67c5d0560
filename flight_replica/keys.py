"""`KeyCodec`: key columns to `pk_bytes` and back, whole arrays at a time.

The byte order of the encoding is the value order, column by column, so key ranges are byte ranges.
Integers and decimals flip the sign bit of their big-endian form; floats flip it too, negative ones
flip every bit; text and binary escape 00 as 00 FF and end with 00 00. Source: CF 6 and MF 3.1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from flight_replica.errors import FeedError, LimitExceeded, SchemaMismatch
from flight_replica.schema import Column, TableSchema

__all__ = ["KeyCodec", "fixed_parts"]

ARRAY_BYTES_MAX = 2**31 - 1  # what the int32 offsets of one Arrow binary array reach

_Bytes = npt.NDArray[np.uint8]
_Places = npt.NDArray[np.int64]


class KeyCodec:
    """The key codec of one table. Immutable, safe to share between threads."""

    def __init__(self, schema: TableSchema) -> None:
        self._columns = schema.key_columns
        self._widths = tuple(_width(column.type) for column in self._columns)  # None: escaped
        is_integers = all(pa.types.is_integer(column.type) for column in self._columns)
        self._integers = tuple(map(_limits, self._columns)) if is_integers else None
        self._integers_width = sum(width for *_, width in self._integers or ())  # 0: not of integers alone

    def encode(self, columns: Sequence[pa.Array | pa.ChunkedArray]) -> pa.BinaryArray:
        """`pk_bytes` of each row; `columns` are the key columns in key order, of the schema's types.

        Raises `SchemaMismatch` for other types, nulls and NaN, `LimitExceeded` past 2 GiB of keys.
        """
        if len(columns) != len(self._columns):
            raise SchemaMismatch(f"the key has {len(self._columns)} columns, {len(columns)} were given")
        parts: list[pa.BinaryArray] = []
        fixed: list[_Bytes] = []  # neighbours of fixed width, shape (rows, width), joined by numpy
        for column, values in zip(self._columns, map(_in_one, columns), strict=True):
            _check_values(column, values)
            if _width(column.type) is not None:
                fixed.append(_encode_fixed(values))
                continue
            parts += [*_joined(fixed), _encode_escaped(values)]
            fixed = []
        parts += _joined(fixed)
        if len(parts) == 1:
            return parts[0]
        _check_size(sum(len(_bytes_of(part)[0]) for part in parts))
        return pc.binary_join_element_wise(*parts, b"")

    def encode_parts(self, batch: pa.RecordBatch) -> list[_Bytes | npt.NDArray[np.unsignedinteger]] | None:
        """What `encode_batch` joins, as `fixed_parts` has it; None where a part isn't of one width.

        Raises as it.
        """
        if None in self._widths:
            return None
        columns = [batch.column(_place(batch.schema, column.name)) for column in self._columns]
        for column, values in zip(self._columns, columns, strict=True):
            _check_values(column, values)
        return [_encode_numbers(values) for values in columns]

    def encode_batch(self, batch: pa.RecordBatch) -> pa.BinaryArray:
        """`pk_bytes` of each row of a batch that has the key columns under their names.

        Raises `SchemaMismatch` as `encode`, and for a name that is missing or there twice.
        """
        return self.encode([batch.column(_place(batch.schema, column.name)) for column in self._columns])

    def encode_row(self, values: Sequence[object]) -> bytes:
        """`pk_bytes` of one key, from the Python values that pyarrow has for the types.

        Raises `SchemaMismatch` for another number of values or a value that isn't of its type exactly.
        """
        if len(values) != len(self._columns):
            raise SchemaMismatch(f"the key has {len(self._columns)} columns, {len(values)} values were given")
        if self._integers is not None and (key := _encode_integers(values, self._integers)) is not None:
            return key
        columns = [_one_value(column, value) for column, value in zip(self._columns, values, strict=True)]
        encoded: bytes = self.encode(columns)[0].as_py()
        return encoded

    def decode(self, keys: pa.BinaryArray) -> list[pa.Array]:
        """The key columns, in key order. Raises `FeedError` for keys that `encode` can't have made."""
        reader = _KeyReader.of(keys)
        arrays = []
        for column, width in zip(self._columns, self._widths, strict=True):
            try:
                if width is None:
                    values = reader.take_escaped(column.type)
                else:
                    values = _decode_fixed(reader.take_fixed(width), column.type)
                values.validate(full=True)
                _check_values(column, values)
            except (pa.ArrowException, SchemaMismatch) as error:
                raise FeedError(f"malformed key, column {column.name!r} ({column.type}): {error}") from error
            arrays.append(values)
        reader.end()
        return arrays

    def check(self, keys: pa.BinaryArray) -> None:
        """Raise `FeedError` unless each key is one that `encode` makes."""
        # Integers are made of any bytes, if these are as many as they have to be.
        if not (self._integers_width and _are_all_of(self._integers_width, keys)):
            self.decode(keys)


def _are_all_of(width: int, keys: pa.BinaryArray) -> bool:
    """Whether each of `keys` has so many bytes; False for none."""
    if keys.type != pa.binary() or keys.null_count or not len(keys):
        return False
    offsets = np.frombuffer(keys.buffers()[1], np.int32, len(keys) + 1, 4 * keys.offset)
    return bool((offsets[1:] - offsets[:-1] == width).all())


# --- what may be a key ------------------------------------------------------------------------------


def _check_values(column: Column, values: pa.Array) -> None:
    if values.type != column.type:
        raise SchemaMismatch(f"key column {column.name!r} is {column.type}, the data's is {values.type}")
    if values.null_count:
        raise SchemaMismatch(f"key column {column.name!r} has {values.null_count} nulls of {len(values)}")
    if pa.types.is_floating(values.type) and np.isnan(values.to_numpy()).any():
        raise SchemaMismatch(f"key column {column.name!r} has a NaN, which can't be in a key")


def _check_size(byte_count: int) -> None:
    if byte_count > ARRAY_BYTES_MAX:
        raise LimitExceeded(
            f"keys of {byte_count} bytes in one array, limit {ARRAY_BYTES_MAX} bytes: use smaller batches"
        )


def _in_one(values: pa.Array | pa.ChunkedArray) -> pa.Array:
    return values.combine_chunks() if isinstance(values, pa.ChunkedArray) else values


def _place(schema: pa.Schema, name: str) -> int:
    places: list[int] = schema.get_all_field_indices(name)
    if len(places) != 1:
        raise SchemaMismatch(f"key column {name!r} is there {len(places)} times in {schema.names}")
    return places[0]


def _one_value(column: Column, value: object) -> pa.Array:
    problem = f"key column {column.name!r} is {column.type}, the value is {type(value).__name__} {value!r}"
    if value is None:
        raise SchemaMismatch(problem)
    try:
        array = pa.array([value], column.type)
    except (pa.ArrowException, ValueError, TypeError, OverflowError) as error:
        raise SchemaMismatch(f"{problem} ({error})") from error
    # pyarrow is lenient: it makes 1 of 1.5, b"x" of "x" and a float32 of any double.
    found = array[0].as_py()
    is_other_type = isinstance(value, bool) is not isinstance(found, bool)
    if is_other_type or (found != value and value == value):  # a NaN is left to `encode`
        raise SchemaMismatch(problem)
    return array


def _limits(column: Column) -> tuple[int, int, int]:
    """The smallest and the largest value of an integer column, and its width in bytes."""
    limits = np.iinfo(column.type.to_pandas_dtype())
    return int(limits.min), int(limits.max), column.type.byte_width


def _encode_integers(values: Sequence[object], limits: Sequence[tuple[int, int, int]]) -> bytes | None:
    """As `encode_row`, of plain numbers within their limits; None for anything else."""
    parts = []
    for value, (smallest, largest, width) in zip(values, limits, strict=True):
        if type(value) is not int or not smallest <= value <= largest:
            return None
        parts.append((value - smallest).to_bytes(width, "big"))
    return b"".join(parts)


# --- parts of fixed width ---------------------------------------------------------------------------


def _width(kind: pa.DataType) -> int | None:
    """Bytes of a value in a key, None for escaped text and binary."""
    if pa.types.is_string(kind) or pa.types.is_binary(kind):
        return None
    if pa.types.is_boolean(kind):
        return 1
    if pa.types.is_decimal(kind):
        return 16 if kind.precision <= 38 else 32
    if pa.types.is_time(kind):
        return 8  # also time32
    if kind == pa.uuid():
        return 16
    return int(kind.byte_width)


def _encode_fixed(values: pa.Array) -> _Bytes:
    """Key parts of values that aren't null, shape (rows, width)."""
    parts = _encode_numbers(values)
    return parts if parts.ndim == 2 else _big_endian(parts)


def _encode_numbers(values: pa.Array) -> _Bytes | npt.NDArray[np.unsignedinteger]:
    """As `_encode_fixed`, or where a part is a number's bytes, big-endian, these numbers, shape (rows,)."""
    kind = values.type
    if pa.types.is_boolean(kind):
        return _raw(values.cast(pa.uint8()))
    if pa.types.is_decimal(kind):
        wide = pa.decimal128 if kind.precision <= 38 else pa.decimal256
        little_endian = _raw(values.cast(wide(kind.precision, kind.scale)))
        return np.ascontiguousarray(_with_sign_flipped(little_endian[:, ::-1]))
    if kind == pa.uuid():
        return _raw(values.storage)
    if pa.types.is_fixed_size_binary(kind):
        return _raw(values)
    bits = _raw(values).view(f"<u{kind.byte_width}")[:, 0]
    if pa.types.is_time32(kind):
        bits = bits.astype(np.uint64)  # never negative
    if not pa.types.is_unsigned_integer(kind):
        sign = bits.dtype.type(1 << (8 * bits.itemsize - 1))
        bits = bits ^ (_float_mask(bits, sign) if pa.types.is_floating(kind) else sign)
    return bits


def fixed_parts(values: pa.Array) -> _Bytes | npt.NDArray[np.unsignedinteger] | None:
    """Key parts of values that aren't null, shape (rows, width); None where they aren't of one width.

    Shape (rows,): numbers whose bytes, big-endian, are the parts.
    """
    is_flat = not pa.types.is_nested(values.type)
    return _encode_numbers(values) if is_flat and _width(values.type) is not None else None


def _decode_fixed(parts: _Bytes, kind: pa.DataType) -> pa.Array:
    """The values of key parts, shape (rows, width). The caller validates them."""
    if pa.types.is_boolean(kind):
        if (parts > 1).any():
            raise pa.ArrowInvalid("a boolean is neither 00 nor 01")
        return pa.array(parts[:, 0] == 1)
    if pa.types.is_decimal(kind):
        wide = pa.decimal128 if kind.precision <= 38 else pa.decimal256
        return _array(_with_sign_flipped(parts)[:, ::-1], wide(kind.precision, kind.scale)).cast(kind)
    if kind == pa.uuid():
        return _array(parts, pa.binary(16)).cast(kind)
    if pa.types.is_fixed_size_binary(kind):
        return _array(parts, kind)
    bits = np.ascontiguousarray(parts).view(f">u{parts.shape[1]}")[:, 0].astype(f"<u{parts.shape[1]}")
    if not pa.types.is_unsigned_integer(kind):
        sign = bits.dtype.type(1 << (8 * bits.itemsize - 1))
        bits = bits ^ (_float_mask(~bits, sign) if pa.types.is_floating(kind) else sign)
    if pa.types.is_time32(kind):
        return pa.array(bits).cast(pa.uint32()).cast(pa.int32()).view(kind)
    return _array(bits.reshape(-1, 1).view(np.uint8), kind)


def _float_mask(
    bits: npt.NDArray[np.unsignedinteger], sign: np.unsignedinteger
) -> npt.NDArray[np.unsignedinteger]:
    """What to flip: every bit where the sign bit is set, else the sign bit alone."""
    signed = bits.view(f"<i{bits.itemsize}")
    mask: npt.NDArray[np.unsignedinteger] = (signed >> (8 * bits.itemsize - 1)).view(bits.dtype)
    mask |= sign
    return mask


def _with_sign_flipped(big_endian: _Bytes) -> _Bytes:
    flipped = big_endian.copy()
    flipped[:, 0] ^= 0x80
    return flipped


def _big_endian(bits: npt.NDArray[np.unsignedinteger]) -> _Bytes:
    return bits.astype(bits.dtype.newbyteorder(">")).view(np.uint8).reshape(len(bits), bits.itemsize)


def _raw(values: pa.Array) -> _Bytes:
    """The bytes of a fixed-width array's values as they lie in memory, shape (rows, width)."""
    width, data = values.type.byte_width, values.buffers()[1]
    if not len(values):
        return np.empty((0, width), np.uint8)
    start = values.offset * width
    return np.frombuffer(data, np.uint8, len(values) * width, start).reshape(-1, width)


def _array(raw: _Bytes, kind: pa.DataType) -> pa.Array:
    data = pa.py_buffer(np.ascontiguousarray(raw))
    return pa.Array.from_buffers(kind, len(raw), [None, data])


def _joined(fixed: Sequence[_Bytes]) -> list[pa.BinaryArray]:
    """Fixed parts side by side as one array of bytes; nothing for nothing."""
    if not fixed:
        return []
    raw = np.ascontiguousarray(fixed[0] if len(fixed) == 1 else np.concatenate(fixed, axis=1))
    _check_size(raw.size)
    offsets = np.arange(0, raw.size + 1, raw.shape[1], dtype=np.int32)
    buffers = [None, pa.py_buffer(offsets), pa.py_buffer(raw)]
    return [pa.Array.from_buffers(pa.binary(), len(raw), buffers)]


# --- escaped parts ----------------------------------------------------------------------------------


def _encode_escaped(values: pa.Array) -> pa.BinaryArray:
    data, _ = _bytes_of(values)
    raw = values.cast(pa.binary())
    zero_count = len(data) - int(np.count_nonzero(data))
    _check_size(len(data) + zero_count + 2 * len(values))
    if zero_count:
        raw = pc.replace_substring(raw, pattern=b"\x00", replacement=b"\x00\xff")
    return pc.binary_join_element_wise(raw, b"", b"\x00\x00")  # raw, the terminator, nothing


def _bytes_of(values: pa.Array) -> tuple[_Bytes, _Places]:
    """The bytes of a binary or string array and where in them each value starts, then the end."""
    _, offsets, data = values.buffers()
    if not len(values):
        return np.empty(0, np.uint8), np.zeros(1, np.int64)
    starts = np.frombuffer(offsets, np.int32, len(values) + 1, 4 * values.offset).astype(np.int64)
    first, end = int(starts[0]), int(starts[-1])
    if first == end:
        return np.empty(0, np.uint8), starts - first
    return np.frombuffer(data, np.uint8, end - first, first), starts - first


@dataclass(slots=True)
class _KeyReader:
    """Takes the parts of many keys off their fronts, all rows at once."""

    data: _Bytes
    at: _Places  # per row: where its next part starts
    ends: _Places

    @classmethod
    def of(cls, keys: pa.BinaryArray) -> _KeyReader:
        if keys.type != pa.binary() or keys.null_count:
            raise FeedError(f"malformed keys: {keys.null_count} nulls in an array of {keys.type}")
        data, offsets = _bytes_of(keys)
        return cls(data, offsets[:-1], offsets[1:])

    def take_fixed(self, width: int) -> _Bytes:
        """The next `width` bytes of each key, shape (rows, width)."""
        self._refuse_where(self.at + width > self.ends, "it ends early")
        if not len(self.at):
            return np.empty((0, width), np.uint8)
        start, count = int(self.at[0]), len(self.at)
        is_dense = bool((np.diff(self.at) == width).all())
        if is_dense:  # the key is this part alone
            parts = self.data[start : start + count * width].reshape(count, width)
        else:
            parts = np.lib.stride_tricks.sliding_window_view(self.data, width)[self.at]
        self.at = self.at + width
        return parts

    def take_escaped(self, kind: pa.DataType) -> pa.Array:
        """The next text or binary of each key, unescaped."""
        stops = self._terminators()
        is_kept = self._inside(self.at, stops)
        zeros = np.flatnonzero(self.data[:-1] == 0)
        escaped = zeros[is_kept[zeros] & (self.data[zeros + 1] == 0xFF)]
        is_kept[escaped + 1] = False
        kept_before = np.concatenate(([0], np.cumsum(is_kept)))
        offsets = np.append(kept_before[self.at], kept_before[-1]).astype(np.int32)
        buffers = [None, pa.py_buffer(offsets), pa.py_buffer(self.data[is_kept])]
        self.at = stops + 2
        return pa.Array.from_buffers(kind, len(stops), buffers)

    def end(self) -> None:
        self._refuse_where(self.at != self.ends, "bytes are left over")

    def _terminators(self) -> _Places:
        """Per row: the first 00 of its next part that isn't followed by FF; 00 has to follow it."""
        zeros = np.flatnonzero(self.data == 0)
        following = np.append(self.data[1:], np.uint8(0))[zeros]
        candidates = np.append(zeros[following != 0xFF], len(self.data))
        stops = candidates[np.searchsorted(candidates, self.at)]
        self._refuse_where(stops + 1 >= self.ends, "a text isn't terminated")
        self._refuse_where(self.data[stops + 1] != 0, "00 stands before neither 00 nor FF")
        return stops

    def _inside(self, starts: _Places, stops: _Places) -> npt.NDArray[np.bool_]:
        """Per byte: whether it lies in one of the ranges, which ascend and don't overlap."""
        steps = np.zeros(len(self.data) + 1, np.int8)
        steps[starts] += 1
        steps[stops] -= 1  # an empty range adds and subtracts in one place
        return np.cumsum(steps[:-1], dtype=np.int8).astype(np.bool_)

    def _refuse_where(self, is_bad: npt.NDArray[np.bool_], reason: str) -> None:
        if is_bad.any():
            row = int(np.argmax(is_bad))
            raise FeedError(f"malformed key in row {row}, {self._key(row)}: {reason}")

    def _key(self, row: int) -> str:
        """The start of a part that is bad, in hex."""
        return bytes(self.data[self.at[row] : self.ends[row]][:64]).hex() or "empty"
