"""The roaring decoder: what the reference writes is read, and nothing else costs more than its limit."""

from __future__ import annotations

import struct
import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyroaring import BitMap

from flight_replica.base.roaring import BadBitmap, decode_roaring

RANGES = st.lists(st.tuples(st.integers(0, 400_000), st.integers(1, 9_000)), max_size=6)


@given(st.lists(st.integers(0, 2**32 - 1), max_size=50), RANGES, st.booleans())
def test_what_the_reference_writes_is_read(
    values: list[int], ranges: list[tuple[int, int]], has_runs: bool
) -> None:
    bitmap = BitMap(values)
    for start, length in ranges:
        bitmap.add_range(start, start + length)
    if has_runs:
        bitmap.run_optimize()
    data = bitmap.serialize()
    found, size = decode_roaring(data + b"more", 2**32)
    assert np.array_equal(found, np.asarray(bitmap.to_array()).astype(np.int64))
    assert size == len(data)
    limited, _ = decode_roaring(data, 70_000)
    assert np.array_equal(limited, found[found < 70_000])


def test_runs_past_the_limit_are_never_spread_out() -> None:
    """100 kilobytes that stand for half a billion positions."""
    containers = 1 << 13
    keys = np.arange(containers, dtype="<u2")
    header = np.stack([keys, np.full(containers, 65_535, "<u2")], axis=1).tobytes()
    run = struct.pack("<HHH", 1, 0, 65_535)
    offsets = bytes(4 * containers)
    data = (
        struct.pack("<I", 12_347 | (containers - 1) << 16)
        + b"\xff" * (containers // 8)
        + header
        + offsets
        + run * containers
    )
    tracemalloc.start()
    found, _ = decode_roaring(data, 100_000)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert np.array_equal(found, np.arange(100_000))
    assert peak < 32 << 20


ARRAY = struct.pack("<IIHHI", 12_346, 1, 0, 2, 16)  # one container of three values under key 0


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "ends within its cookie"),
        (b"\0\0\0\0", "cookie 0, expected 12346 or 12347"),
        (struct.pack("<I", 12_346), "ends within its number of containers"),
        (struct.pack("<II", 12_346, 65_537), "65537 containers, at most 65536"),
        (struct.pack("<II", 12_346, 9), "ends within its container headers"),
        (struct.pack("<IIHHHH", 12_346, 2, 1, 0, 1, 0), "container keys don't ascend"),
        (struct.pack("<IIHH", 12_346, 1, 0, 0), "ends within its offsets"),
        (ARRAY + b"\1\0\2\0", "ends within its array container"),
        (ARRAY + b"\2\0\1\0\3\0", "values of an array container don't ascend"),
        (struct.pack("<IIHHI", 12_346, 1, 0, 4_096, 16) + bytes(8_192), "bitset container of 0 values"),
        (struct.pack("<IBHHHHHHH", 12_347, 1, 0, 5, 2, 0, 5, 3, 2), "runs overlap"),
        (struct.pack("<IBHHHHH", 12_347, 1, 0, 5, 1, 65_535, 1), "leave their container"),
    ],
)
def test_what_is_no_bitmap_is_refused_with_its_place(data: bytes, message: str) -> None:
    with pytest.raises(BadBitmap, match=message):
        decode_roaring(data, 2**32)
