"""Decoder of 32-bit roaring bitmaps in their portable form, for bytes that nobody vouches for.

Its own, since it has to stay within memory: a few kilobytes of run containers can stand for billions of
positions, so what lies past `limit` is never spread out. Source: RoaringFormatSpec, "Standard 32-bit
Roaring Bitmap".
"""

from __future__ import annotations

import struct

import numpy as np
import numpy.typing as npt

_NO_RUNS, _RUNS = 12346, 12347  # cookies
_OFFSETS_FROM = 4  # containers from which on a bitmap with runs has an offset header
_ARRAY_MAX = 4096  # values of an array container; more are a bitset
_BITSET_BYTES = 8192
_CONTAINER_BITS = 16

Positions = npt.NDArray[np.int64]


class BadBitmap(ValueError):
    """The bytes are no roaring bitmap; the message says where."""


def decode_roaring(data: bytes, limit: int) -> tuple[Positions, int]:
    """(sorted values below `limit`, how many bytes the bitmap took). Raises `BadBitmap`."""
    reader = _Reader(data)
    cookie = reader.number("<I", "cookie")
    is_run = np.zeros(0, np.bool_)
    if cookie == _NO_RUNS:
        container_count = reader.number("<I", "number of containers")
    elif cookie & 0xFFFF == _RUNS:
        container_count = (cookie >> 16) + 1
        flags = np.frombuffer(reader.take((container_count + 7) // 8, "run flags"), np.uint8)
        is_run = np.unpackbits(flags, bitorder="little")[:container_count].astype(np.bool_)
    else:
        raise BadBitmap(f"cookie {cookie}, expected {_NO_RUNS} or {_RUNS}")
    if container_count > 1 << _CONTAINER_BITS:
        raise BadBitmap(f"{container_count} containers, at most {1 << _CONTAINER_BITS}")
    header = np.frombuffer(reader.take(4 * container_count, "container headers"), "<u2").astype(np.int64)
    keys, cardinalities = header[0::2], header[1::2] + 1
    if (np.diff(keys) <= 0).any():
        raise BadBitmap("container keys don't ascend")
    if not len(is_run) or container_count >= _OFFSETS_FROM:
        reader.take(4 * container_count, "offsets")  # containers follow one another all the same
    parts = [np.empty(0, np.int64)]
    for number, (key, cardinality) in enumerate(zip(keys.tolist(), cardinalities.tolist(), strict=True)):
        first = key << _CONTAINER_BITS
        if len(is_run) and is_run[number]:
            values = _run_container(reader, limit - first)
        elif cardinality <= _ARRAY_MAX:
            values = np.frombuffer(reader.take(2 * cardinality, "array container"), "<u2").astype(np.int64)
            if (np.diff(values) <= 0).any():
                raise BadBitmap("values of an array container don't ascend")
        else:
            bits = np.frombuffer(reader.take(_BITSET_BYTES, "bitset container"), np.uint8)
            values = np.flatnonzero(np.unpackbits(bits, bitorder="little"))
            if len(values) != cardinality:
                raise BadBitmap(f"bitset container of {len(values)} values, its header says {cardinality}")
        parts.append(first + values[values < limit - first])
    return np.concatenate(parts), reader.position


def _run_container(reader: _Reader, limit: int) -> Positions:
    """The values below `limit`, which count from the container's first."""
    run_count = reader.number("<H", "number of runs")
    runs = np.frombuffer(reader.take(4 * run_count, "run container"), "<u2").astype(np.int64)
    starts, lasts = runs[0::2], runs[0::2] + runs[1::2]
    if (starts[1:] <= lasts[:-1]).any() or (lasts >= 1 << _CONTAINER_BITS).any():
        raise BadBitmap("runs overlap or leave their container")
    lengths = lasts - starts + 1
    ends = np.cumsum(lengths)  # at most 2^16, since runs don't overlap
    count = int(ends[-1]) if len(ends) else 0
    values: Positions = np.arange(count) + np.repeat(starts - (ends - lengths), lengths)
    return values[values < limit]


class _Reader:
    def __init__(self, data: bytes) -> None:
        self._data = data
        self.position = 0

    def take(self, size: int, what: str) -> bytes:
        taken = self._data[self.position : self.position + size]
        if len(taken) < size:
            raise BadBitmap(f"ends within its {what}: {size} bytes needed at {self.position}")
        self.position += size
        return taken

    def number(self, layout: str, what: str) -> int:
        (value,) = struct.unpack(layout, self.take(struct.calcsize(layout), what))
        return int(value)
