"""New ops, the same ones again, and seqs that were given out twice."""

from __future__ import annotations

import numpy as np
import pytest

from flight_replica.beside.log_file import LogRecord, WriteBatch
from flight_replica.beside.log_ops import SeqsReused, decoded, hashes_of, new_batches
from flight_replica.beside.op_segments import Hashes
from flight_replica.errors import SchemaMismatch
from flight_replica.log.source import Op
from tests.bases import ID_V
from tests.log_writing import int_key, row


def batch(first: int, last: int, value: int = 0, file_number: int = 1) -> WriteBatch:
    records = tuple(LogRecord(Op.INSERT, int_key(s), row(s, value)) for s in range(first, last + 1))
    return WriteBatch(first, records, file_number, 0)


class Stored:
    """Hashes of what was read before, by seq."""

    def __init__(self, *batches: WriteBatch) -> None:
        self.seqs = np.concatenate([np.arange(b.first_seq, b.last_seq + 1, dtype=np.uint64) for b in batches])
        self.hashes = hashes_of(batches)

    def __call__(self, since: int, through: int) -> tuple[Hashes, Hashes]:
        inside = (self.seqs > since) & (self.seqs <= through)
        return self.seqs[inside], self.hashes[inside]


def seqs(batches: list[WriteBatch]) -> list[tuple[int, int]]:
    return [(b.first_seq, b.last_seq) for b in batches]


def test_what_follows_is_new_and_holes_stay_holes() -> None:
    stored = Stored(batch(1, 5))
    assert seqs(new_batches([batch(6, 7), batch(9, 9)], 0, 5, stored, may_be_older=False)) == [(6, 7), (9, 9)]


def test_the_same_ops_again_are_none_however_they_are_grouped() -> None:
    stored = Stored(batch(1, 5))
    again = [batch(1, 2), batch(3, 3), batch(4, 7), batch(6, 6), batch(8, 8)]
    assert seqs(new_batches(again, 0, 5, stored, may_be_older=True)) == [(6, 7), (8, 8)]


@pytest.mark.parametrize(
    "again",
    [
        [batch(5, 5, value=1)],
        [batch(3, 9, value=1)],
        [batch(6, 8), batch(7, 7, value=1)],
        [batch(6, 6), batch(5, 7, value=1)],
    ],
)
def test_other_bytes_under_a_seq_are_told(again: list[WriteBatch]) -> None:
    with pytest.raises(SeqsReused, match="is another op in log 1"):
        new_batches(again, 0, 5, Stored(batch(1, 5)), may_be_older=True)


def test_a_seq_that_can_no_more_be_compared_is_reused_unless_the_log_is_read_again() -> None:
    stored = Stored(batch(4, 5))
    assert new_batches([batch(2, 3)], 3, 5, stored, may_be_older=True) == []
    with pytest.raises(SeqsReused, match="seq 2"):
        new_batches([batch(2, 3)], 3, 5, stored, may_be_older=False)


def test_rows_wider_than_the_schema_are_left_to_wait() -> None:
    wide = WriteBatch(4, (LogRecord(Op.INSERT, int_key(4), row(4, 0, 0)),), 1, 0)
    ops, count = decoded([batch(1, 1), batch(2, 2), batch(3, 3), wide], ID_V)
    assert 1 <= count <= 3 and ops.num_rows == count
    with pytest.raises(SchemaMismatch):
        decoded([wide, batch(5, 5)], ID_V)
