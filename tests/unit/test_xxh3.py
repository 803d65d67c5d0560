"""Hashes of many rows at once against the library, at every length."""

from __future__ import annotations

import numpy as np
import pytest
from xxhash import xxh3_64_intdigest

from flight_replica.xxh3 import sum_of_hashes


def rows(count: int, width: int, seed: int = 0) -> np.ndarray[tuple[int, int], np.dtype[np.uint8]]:
    return np.random.default_rng(seed).integers(0, 256, (count, width), np.uint8)


@pytest.mark.parametrize("width", range(1, 300))
def test_rows_of_any_length_hash_as_the_library_has_it(width: int) -> None:
    for row in (rows(1, width), np.zeros((1, width), np.uint8), np.full((1, width), 255, np.uint8)):
        assert sum_of_hashes(row) == xxh3_64_intdigest(row.tobytes())


def test_many_rows_add_up_beyond_64_bits() -> None:
    found = rows(40_000, 40)
    assert sum_of_hashes(found) == sum(xxh3_64_intdigest(row.tobytes()) for row in found)


def test_no_rows_are_nothing() -> None:
    assert sum_of_hashes(np.empty((0, 40), np.uint8)) == 0
