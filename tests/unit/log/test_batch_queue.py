"""`BatchQueue` and `ReadClock`: what waits between network and consumer, and when a read is dead."""

from __future__ import annotations

import threading

import pytest

from flight_replica.errors import FeedError
from flight_replica.log.backoff import Backoff, BackoffConfig
from flight_replica.log.batch_queue import BatchQueue
from flight_replica.log.feed_reader import ReadClock
from flight_replica.log.source import FeedMark
from tests.unit.log.op_lists import LINEAGE, op_batch, seqs_in


def mark(after: int, through: int, commit_through: int | None = None) -> FeedMark:
    end = through if commit_through is None else commit_through
    return FeedMark(LINEAGE, after, through, 0, 100, through, through, end)


def test_what_is_queued_is_taken_as_one_batch_with_one_mark() -> None:
    queue = BatchQueue(0, 1 << 20)
    turn = queue.renew()
    queue.put(turn, op_batch([1, 2]), mark(0, 2))
    queue.put(turn, op_batch([]), mark(2, 5, 2))
    queue.put(turn, op_batch([6]), mark(5, 6, 6))
    (batch,) = queue.take()
    assert seqs_in([batch]) == [1, 2, 6]
    assert batch.mark == mark(0, 6)
    assert queue.byte_count == 0 and queue.position == 6


def test_a_commit_without_its_end_is_left_behind_whole_ones_and_goes_with_its_rest() -> None:
    queue = BatchQueue(0, 1 << 20)
    turn = queue.renew()
    queue.put(turn, op_batch([1, 2]), mark(0, 2))
    queue.put(turn, op_batch([3]), mark(2, 3, 2))
    (whole,) = queue.take()
    assert seqs_in([whole]) == [1, 2] and whole.mark == mark(0, 2)
    assert queue.byte_count > 0 and queue.wait(0)
    queue.put(turn, op_batch([4]), mark(3, 4, 4))
    (rest,) = queue.take()
    assert seqs_in([rest]) == [3, 4] and rest.mark == mark(2, 4)


def test_a_commit_without_its_end_is_taken_where_nothing_else_is_there() -> None:
    queue = BatchQueue(0, 1 << 20)
    turn = queue.renew()
    queue.put(turn, op_batch([1]), mark(0, 1, 0))
    queue.put(turn, op_batch([2]), mark(1, 2, 0))
    (part,) = queue.take()
    assert seqs_in([part]) == [1, 2] and part.mark == mark(0, 2, 0)
    assert queue.byte_count == 0 and not queue.wait(0)


def test_large_batches_are_taken_together_as_they_came(monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = op_batch([1, 2]), op_batch([3, 4])
    monkeypatch.setattr("flight_replica.log.batch_queue.JOINED_BYTES", first.nbytes)
    queue = BatchQueue(0, 1 << 20)
    turn = queue.renew()
    queue.put(turn, first, mark(0, 2))
    queue.put(turn, second, mark(2, 4))
    queue.put(turn, op_batch([]), mark(4, 5))
    taken = queue.take()
    assert taken[0].ops is first and taken[1].ops is second
    assert [(batch.mark, batch.is_more_ready) for batch in taken] == [(mark(0, 2), True), (mark(2, 5), False)]


def test_a_full_queue_holds_the_producer_until_the_consumer_takes() -> None:
    queue = BatchQueue(0, 1)
    turn = queue.renew()
    assert queue.put(turn, op_batch([1]), mark(0, 1))
    producer = threading.Thread(target=lambda: queue.put(turn, op_batch([2]), mark(1, 2)))
    producer.start()
    assert not queue.wait(0) or queue.position == 1
    (first,) = queue.take()
    producer.join(5)
    (second,) = queue.take()
    assert (seqs_in([first]), seqs_in([second])) == ([1], [2])


@pytest.mark.parametrize("ending", ["renew", "close"])
def test_a_producer_whose_turn_is_over_stops_waiting_and_puts_nothing(ending: str) -> None:
    queue = BatchQueue(0, 1)
    turn = queue.renew()
    queue.put(turn, op_batch([1]), mark(0, 1))
    results: list[bool] = []
    producer = threading.Thread(target=lambda: results.append(queue.put(turn, op_batch([2]), mark(1, 2))))
    producer.start()
    getattr(queue, ending)()
    producer.join(5)
    assert results == [False] and queue.position == 1


def test_an_error_comes_after_what_is_queued() -> None:
    queue = BatchQueue(0, 1 << 20)
    turn = queue.renew()
    queue.put(turn, op_batch([1]), mark(0, 1))
    queue.end(turn, FeedError("broken"))
    (batch,) = queue.take()
    assert seqs_in([batch]) == [1]
    with pytest.raises(FeedError, match="broken"):
        queue.take()


def test_the_end_of_a_stale_producer_is_ignored() -> None:
    queue = BatchQueue(0, 1 << 20)
    stale = queue.renew()
    queue.renew()
    queue.end(stale, FeedError("late"))
    assert not queue.wait(0)


def test_a_read_is_dead_after_two_heartbeats_the_minimum_or_four_times_the_slowest_batch() -> None:
    now = [0.0]
    clock = ReadClock(lambda: now[0], stall_seconds_min=2.0)
    assert clock.limit_seconds == 2.0
    clock.begin()
    now[0] = 0.75
    assert clock.remaining_seconds() == 1.25
    assert clock.arrived(heartbeat_ms=500) == 0.75
    assert clock.limit_seconds == 3.0
    clock.arrived(heartbeat_ms=4000)
    assert clock.limit_seconds == 8.0


def test_only_time_in_a_read_counts() -> None:
    now = [0.0]
    clock = ReadClock(lambda: now[0], stall_seconds_min=2.0)
    clock.begin()
    clock.arrived()
    now[0] = 100.0
    assert clock.remaining_seconds() == 2.0


def test_delays_double_up_to_their_limit_and_begin_again_after_a_success() -> None:
    backoff = Backoff(BackoffConfig(first_seconds=0.05, max_seconds=0.3), draw=lambda: 0.5)
    assert [backoff.next_seconds() for _ in range(5)] == [0.025, 0.05, 0.1, 0.15, 0.15]
    backoff.reset()
    assert backoff.next_seconds() == 0.025
