"""`CommitBuffer`: whatever way a commit is cut into batches, it is handed on whole, once."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest

from flight_replica.errors import LimitExceeded
from flight_replica.log.batches import pieces_of, seqs_of
from flight_replica.log.source import FeedMark, OpBatch
from flight_replica.replica.commits import CommitBuffer
from tests.bases import ID_V, LINEAGE, op_batch, put


def batch(after: int, through: int, commit_through: int, *seqs: int) -> OpBatch:
    mark = FeedMark(LINEAGE, after, through, 0, through, through * 10, 0, commit_through)
    return OpBatch(op_batch(ID_V, [(seq, *put(seq, seq)) for seq in seqs]), mark)


def take(buffer: CommitBuffer, given: OpBatch) -> tuple[list[int], int, int] | None:
    """(seqs, through, commit_time_us) of what the batch ends."""
    commits = buffer.add(given)
    if commits is None:
        return None
    seqs = [seq for ops in pieces_of(commits.ops) for seq in seqs_of(ops).tolist()]
    return seqs, commits.through, commits.commit_time_us


def test_a_whole_commit_goes_on_at_once() -> None:
    assert take(CommitBuffer(1 << 20, 0), batch(0, 2, 2, 1, 2)) == ([1, 2], 2, 20)


def test_a_commit_over_several_batches_goes_on_with_its_end() -> None:
    buffer = CommitBuffer(1 << 20, 0)
    assert take(buffer, batch(0, 1, 0, 1)) is None
    assert take(buffer, batch(1, 1, 0)) is None  # a heartbeat inside the commit
    assert take(buffer, batch(1, 2, 0, 2)) is None
    assert take(buffer, batch(2, 3, 3, 3)) == ([1, 2, 3], 3, 30)


def test_what_follows_the_newest_end_waits() -> None:
    buffer = CommitBuffer(1 << 20, 0)
    assert take(buffer, batch(0, 3, 2, 1, 2, 3)) == ([1, 2], 2, 0)  # the mark's time is that of op 3
    assert take(buffer, batch(3, 4, 4, 4)) == ([3, 4], 4, 40)


def test_a_heartbeat_can_tell_that_a_commit_has_ended() -> None:
    buffer = CommitBuffer(1 << 20, 0)
    assert take(buffer, batch(0, 2, 0, 1, 2)) is None
    assert take(buffer, batch(2, 2, 2)) == ([1, 2], 2, 20)


def test_seqs_without_ops_move_the_end_on() -> None:
    buffer = CommitBuffer(1 << 20, 5)
    assert take(buffer, batch(5, 9, 9)) == ([], 9, 90)


def test_an_end_known_already_is_nothing_new() -> None:
    buffer = CommitBuffer(1 << 20, 5)
    assert take(buffer, batch(5, 5, 5)) is None


@pytest.mark.parametrize("cuts", list(itertools.combinations(range(1, 6), 2)))
def test_every_cut_of_two_commits_gives_each_op_once(cuts: tuple[int, int]) -> None:
    buffer = CommitBuffer(1 << 20, 0)
    found: list[int] = []
    for after, through in itertools.pairwise([0, *cuts, 6]):
        end = max(e for e in (0, 3, 6) if e <= through)
        taken = take(buffer, batch(after, through, end, *range(after + 1, through + 1)))
        if taken is not None:
            found += taken[0]
            assert found == list(range(1, taken[1] + 1))
    assert found == [1, 2, 3, 4, 5, 6]


def test_restart_forgets_what_waits() -> None:
    buffer = CommitBuffer(1 << 20, 0)
    assert take(buffer, batch(0, 2, 0, 1, 2)) is None
    buffer.restart(0)
    assert take(buffer, batch(0, 3, 3, 1, 2, 3)) == ([1, 2, 3], 3, 30)


def test_a_commit_beyond_the_limit_is_refused() -> None:
    buffer = CommitBuffer(100, 0)
    with pytest.raises(LimitExceeded, match="limit 100 bytes"):
        buffer.add(batch(0, 50, 0, *range(1, 51)))


def test_commits_that_are_ready_together_are_handed_on_together_and_not_joined() -> None:
    buffer = CommitBuffer(1 << 20, 0)
    for after in (0, 2):
        first = batch(after, after + 2, after + 2, after + 1, after + 2)
        assert buffer.add(replace(first, is_more_ready=True)) is None
    commits = buffer.add(batch(4, 6, 5, 5, 6))
    assert commits is not None and (commits.through, commits.ops.num_rows) == (5, 5)
    assert len(pieces_of(commits.ops)) == 3
    assert take(buffer, batch(6, 7, 7, 7)) == ([6, 7], 7, 70)


def test_whole_commits_that_wait_for_more_count_for_no_limit() -> None:
    one = batch(0, 50, 50, *range(1, 51))
    buffer = CommitBuffer(one.ops.nbytes + 1, 0)
    assert buffer.add(replace(one, is_more_ready=True)) is None
    assert buffer.add(replace(batch(50, 100, 100, *range(51, 101)), is_more_ready=True)) is None
    assert take(buffer, batch(100, 101, 100, 101)) == (list(range(1, 101)), 100, 1000)
