"""Recent ops: from memory and from files alike, whole commits, every reader's place."""

from __future__ import annotations

from pathlib import Path
from uuid import UUID

import numpy as np
import pytest

from flight_replica.beside.recent_ops import RecentOps
from flight_replica.errors import LogGap
from flight_replica.log.source import Op
from tests.bases import ID_V, op_batch

LINEAGE = UUID("11111111-2222-4333-8444-555555555555")


def recent_ops(directory: Path, start: int = 0, bytes_max: int = 1 << 20, memory_bytes: int = 1) -> RecentOps:
    """With so little memory that all but the newest commit is read from files."""
    return RecentOps(
        "t",
        LINEAGE,
        ID_V,
        directory,
        start=start,
        bytes_max=bytes_max,
        clock_us=lambda: 1,
        memory_bytes=memory_bytes,
    )


def append(recent: RecentOps, first: int, last: int) -> None:
    rows = [(seq, Op.INSERT, {"id": seq, "v": 0}) for seq in range(first, last + 1)]
    recent.append(op_batch(ID_V, rows), np.arange(first, last + 1, dtype=np.uint64), last)


@pytest.mark.parametrize("memory_bytes", [1, 1 << 20], ids=["from files", "from memory"])
@pytest.mark.parametrize("byte_limit", [1, 200, 1 << 20])
def test_from_any_seq_every_op_comes_once_and_commits_end_where_they_did(
    byte_limit: int, memory_bytes: int, tmp_path: Path
) -> None:
    recent = recent_ops(tmp_path, start=2, memory_bytes=memory_bytes)
    for first, last in ((3, 5), (6, 6), (10, 14)):  # 7 to 9 were never written
        append(recent, first, last)
    for since in range(2, 15):
        position, seqs, ends = since, [], []
        while position < 14:
            batch = recent.read(position, None, byte_limit, 0)
            assert batch.mark.after == position < batch.mark.through
            position = batch.mark.through
            seqs += batch.ops.column(0).to_pylist()
            ends.append(batch.mark.commit_through)
        assert seqs == [seq for seq in (3, 4, 5, 6, 10, 11, 12, 13, 14) if seq > since]
        assert set(ends) <= {0, 2, 5, 6, 14} and (since == 14 or ends[-1] == 14)
    recent.close()


def test_a_bound_inside_a_commit_names_the_commit_before(tmp_path: Path) -> None:
    recent = recent_ops(tmp_path)
    append(recent, 1, 3)
    append(recent, 4, 6)
    append(recent, 7, 7)
    mark = recent.read(0, 5, 1 << 20, 0).mark
    assert (mark.through, mark.commit_through) == (5, 3)
    recent.close()


def test_what_was_forgotten_is_a_gap(tmp_path: Path) -> None:
    recent = recent_ops(tmp_path, bytes_max=8_000)
    for seq in range(1, 101):
        append(recent, seq, seq)
    start = recent.excess(60)
    recent.trim(start)
    assert recent.start == start > 0
    assert recent.read(start, None, 1 << 20, 0).ops.column(0)[0].as_py() == start + 1
    with pytest.raises(LogGap):
        recent.read(start - 1, None, 1 << 20, 0)
    recent.close()


def test_the_first_op_after_a_seq_is_found_over_holes(tmp_path: Path) -> None:
    recent = recent_ops(tmp_path, start=5)
    append(recent, 8, 9)
    assert [recent.first_after(seq) for seq in (0, 5, 7, 8, 9)] == [8, 8, 8, 9, None]
    recent.close()


def test_reopened_it_goes_on_where_it_was(tmp_path: Path) -> None:
    recent = recent_ops(tmp_path, start=5)
    append(recent, 6, 8)
    recent.close()
    again = recent_ops(tmp_path, start=99)
    assert (again.start, again.end) == (5, 8)
    append(again, 9, 9)
    assert again.read(5, None, 1 << 20, 0).ops.num_rows == 4
    assert again.hashes(5, 9)[1].tolist() == [6, 7, 8, 9]
    again.close()
