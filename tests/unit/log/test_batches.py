"""`gathered`: large pieces stay as they came, small ones are joined."""

from __future__ import annotations

import pytest

from flight_replica.log.batches import concat, gathered
from tests.bases import ID_V, op_batch, put

OPS = op_batch(ID_V, [(seq, *put(seq, seq)) for seq in range(1, 41)])


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [
        ([], []),
        ([1], [1]),
        ([10, 12], [10, 12]),
        ([1, 2, 10, 3], [13, 3]),
        ([4, 6, 9, 1, 5], [10, 10, 5]),
    ],
    ids=str,
)
def test_small_pieces_are_joined_until_there_are_enough_rows(sizes: list[int], expected: list[int]) -> None:
    pieces = [OPS.slice(sum(sizes[:number]), size) for number, size in enumerate(sizes)]
    found = gathered(pieces, 10)
    assert list(map(len, found)) == expected
    assert concat(found, OPS.schema).equals(OPS.slice(0, sum(sizes)))
