"""`Waiters` and `wait_for`: who is resumed, and when. No timings: benchmarks/bench_waiters.py has those."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial

import pytest

from flight_replica.errors import Closed, Unavailable
from flight_replica.position import Demand
from flight_replica.replica.replica import Replica
from flight_replica.replica.waiters import Gate, Waiters
from flight_replica.replica.waits import wait_for
from flight_replica.state.workspace import Workspace
from tests.bases import FaultyLog, SmallTable, put
from tests.processes import until


class Ending:
    """Something that a test ends."""

    def __init__(self) -> None:
        self.is_ended = False
        self._interrupts: list[Callable[[], None]] = []

    def check(self) -> None:
        assert not self.is_ended

    def on_end(self, interrupt: Callable[[], None]) -> None:
        self._interrupts.append(interrupt)

    def end(self) -> None:
        self.is_ended = True
        for interrupt in self._interrupts:
            interrupt()


class SteppedLog(FaultyLog):
    """A log whose clock offset is what a test says."""

    offset_us: int | None = None

    @property
    def clock_offset_us(self) -> int | None:
        return self.offset_us

    @property
    def clock_error_us(self) -> int | None:
        return 0


# --- who is resumed ---------------------------------------------------------------------------------


def test_a_publication_resumes_exactly_those_who_wait_for_it_or_less() -> None:
    waiters, resumed = Waiters(), list[int]()
    for seq in (7, 3, 5, 5, 9):
        waiters.until_seq(seq, partial(resumed.append, seq))
    waiters.publish(2)
    assert resumed == []
    waiters.publish(5)
    assert (resumed, len(waiters)) == ([3, 5, 5], 2)
    waiters.publish(100)
    assert (resumed, len(waiters)) == ([3, 5, 5, 7, 9], 0)


def test_who_comes_late_is_resumed_at_once() -> None:
    waiters, resumed = Waiters(), list[int]()
    waiters.publish(5)
    waiters.publish(4)
    waiters.until_seq(5, partial(resumed.append, 5))
    waiters.until_seq(6, partial(resumed.append, 6))
    assert resumed == [5]


def test_who_leaves_is_not_resumed_and_leaves_nothing() -> None:
    waiters, resumed = Waiters(), list[str]()
    one = waiters.until_seq(5, partial(resumed.append, "one"))
    waiters.until_seq(5, partial(resumed.append, "two"))
    aged = waiters.until_lag(1000, partial(resumed.append, "aged"))
    waiters.leave(one)
    waiters.leave(one)
    waiters.leave(aged)
    assert len(waiters) == 1
    waiters.publish(5)
    waiters.prove(0)
    waiters.leave(one)
    assert resumed == ["two"]


def test_a_proof_resumes_those_to_whom_the_lag_is_enough() -> None:
    waiters, resumed = Waiters(), list[int]()
    for lag_us in (1_000, 50_000, 3_000):
        waiters.until_lag(lag_us, partial(resumed.append, lag_us))
    waiters.prove(60_000)
    assert resumed == []
    waiters.prove(3_000)
    assert resumed == [50_000, 3_000]
    waiters.prove(1_001)
    assert resumed == [50_000, 3_000]
    waiters.prove(1_000)
    assert (resumed[-1], len(waiters)) == (1_000, 0)


def test_closing_resumes_everybody_then_and_later() -> None:
    waiters, resumed = Waiters(), list[int]()
    waiters.until_seq(5, partial(resumed.append, 1))
    waiters.until_lag(5, partial(resumed.append, 2))
    waiters.close()
    waiters.until_seq(9, partial(resumed.append, 3))
    waiters.until_lag(9, partial(resumed.append, 4))
    assert (resumed, len(waiters)) == ([1, 2, 3, 4], 0)


def test_ten_thousand_waiters_at_random_seqs_are_each_resumed_once_by_the_publication_due() -> None:
    waiters = Waiters()
    resumed_at: dict[int, int] = {}  # waiter -> seq published then
    current = [0]
    seqs = [(number * 7919) % 10_007 + 1 for number in range(10_000)]

    def resume(number: int) -> None:
        assert number not in resumed_at
        resumed_at[number] = current[0]

    for number, seq in enumerate(seqs):
        waiters.until_seq(seq, partial(resume, number))
    for published in range(0, 10_051, 50):
        current[0] = published
        waiters.publish(published)
    assert [resumed_at[number] for number in range(10_000)] == [-(-seq // 50) * 50 for seq in seqs]


def test_a_gate_opened_before_and_more_than_once_lets_one_pass() -> None:
    gate = Gate()
    gate.open()
    gate.open()
    assert gate.wait(10)
    assert not gate.wait(0)


# --- waiting for a replica --------------------------------------------------------------------------


@pytest.fixture
def log(primary: SmallTable) -> SteppedLog:
    return SteppedLog(primary.log()._feed)


@pytest.fixture
def replica(primary: SmallTable, log: SteppedLog, workspace: Workspace) -> Iterator[Replica]:
    with closing(Replica.open(primary.base, log, workspace=workspace)) as found:
        yield found


def _far() -> float:
    return time.monotonic() + 60


class Waiting:
    """A thread in `wait_for`; what it raised, if anything."""

    def __init__(self, replica: Replica, demand: Demand) -> None:
        self.ending = Ending()
        self.error: Exception | None = None
        self._arguments = (replica, demand)
        self._thread = threading.Thread(target=self._run)
        self._thread.start()
        until(lambda: len(replica.waiters) == 1 or not self._thread.is_alive(), "it waits")

    def _run(self) -> None:
        try:
            wait_for(*self._arguments, _far(), self.ending)
        except Exception as error:
            self.error = error

    def over(self) -> None:
        self._thread.join(30)
        assert not self._thread.is_alive()


def test_a_wait_for_a_seq_ends_when_it_is_applied(primary: SmallTable, replica: Replica) -> None:
    waiting = Waiting(replica, Demand("t", min_seq=5))
    primary.commit(put(4, 40))
    replica.advance()
    assert len(replica.waiters) == 1
    primary.commit(put(5, 50))
    replica.advance()
    waiting.over()
    assert (waiting.error, replica.visible_seq, len(replica.waiters)) == (None, 5, 0)


def test_a_wait_for_a_seq_ends_when_a_newer_base_brings_it(primary: SmallTable, replica: Replica) -> None:
    waiting = Waiting(replica, Demand("t", min_seq=5))
    primary.commit(put(4, 40), put(5, 50))
    primary.flush()
    replica.swaps.rebase()
    waiting.over()
    assert (waiting.error, replica.visible_seq) == (None, 5)


def test_a_wait_ends_with_whom_it_is_for(replica: Replica) -> None:
    waiting = Waiting(replica, Demand("t", min_seq=99))
    waiting.ending.end()
    waiting.over()
    assert (waiting.error, len(replica.waiters)) == (None, 0)


def test_a_wait_ends_when_the_time_is_up(replica: Replica) -> None:
    wait_for(replica, Demand("t", min_seq=99), time.monotonic() + 0.01, Ending())
    assert (replica.visible_seq, len(replica.waiters)) == (3, 0)


def test_a_wait_ends_when_the_replica_is_closed(replica: Replica) -> None:
    waiting = Waiting(replica, Demand("t", min_seq=99))
    replica.close()
    waiting.over()
    assert isinstance(waiting.error, Closed)


def test_an_age_is_refused_at_once_while_the_origins_clock_is_not_known(replica: Replica) -> None:
    with pytest.raises(
        Unavailable, match=r"'t': max_staleness_ms 50 .*offset to the origin's clock isn't known"
    ):
        wait_for(replica, Demand("t", max_staleness_ms=50), _far(), Ending())


def test_contact_alone_proves_no_age_an_applied_caught_up_mark_does(
    primary: SmallTable, log: SteppedLog, replica: Replica
) -> None:
    # By this clock every mark of the log was sent a second before now.
    sent_us = primary.log()._feed.read(3, 3, 1).mark.sent_time_us
    log.offset_us = sent_us + 1_000_000 - int(time.monotonic() * 1_000_000)
    waiting = Waiting(replica, Demand("t", max_staleness_ms=60_000))
    assert replica.lag_us() == -1  # it has a base, and could be asked; nothing says how old that is
    primary.commit(put(4, 40))
    replica.advance()
    waiting.over()
    assert waiting.error is None
    assert Demand("t", max_staleness_ms=60_000).is_met_by(replica.describe())
    assert not Demand("t", max_staleness_ms=900).is_met_by(replica.describe())


def test_a_proof_that_is_too_old_lets_nobody_pass(
    primary: SmallTable, log: SteppedLog, replica: Replica
) -> None:
    sent_us = primary.log()._feed.read(3, 3, 1).mark.sent_time_us
    log.offset_us = sent_us + 3_600_000_000 - int(time.monotonic() * 1_000_000)
    waiting = Waiting(replica, Demand("t", max_staleness_ms=1000))
    primary.commit(put(4, 40))
    replica.advance()
    assert len(replica.waiters) == 1
    log.offset_us -= 3_600_000_000
    primary.commit(put(5, 50))
    replica.advance()
    waiting.over()
    assert waiting.error is None
