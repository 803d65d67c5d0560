"""Rebases, hot swaps and recoveries: merutable format, 10.D to 10.F, with this replica's own rules.

Those are: visible_seq never goes back; where only an older state is to be had, `NotCaughtUp` says so and
the old state serves on; whatever fails leaves nothing behind (the `workspace` fixture looks for tables and
threads).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import wraps
from pathlib import Path

import pyarrow as pa
import pytest

from flight_replica.errors import BaseNotUsable, Closed, FeedError, LogGap, NotCaughtUp, TimedOut
from flight_replica.log.source import OpBatch
from flight_replica.replica.rebase import replay
from flight_replica.replica.replica import Replica
from flight_replica.replica.stats import Advanced, Recovered, ReplicaStats
from flight_replica.replica.swaps import StateSwaps
from flight_replica.schema import Column
from flight_replica.state.workspace import Workspace
from tests.bases import Fault, FaultyLog, SmallTable, assert_same, delete, put, sorted_by_key

Rebase = Callable[[Replica], object]


def of_swaps(way: Callable[[StateSwaps], object]) -> Rebase:
    @wraps(way)
    def rebase(replica: Replica) -> object:
        return way(replica.swaps)

    return rebase


SWAPS = [of_swaps(way) for way in (StateSwaps.rebase, StateSwaps.rebase_hotswap)]
RECOVER = of_swaps(StateSwaps.recover_from_log_gap)
ALL = [*SWAPS, of_swaps(StateSwaps.rebase_beside), RECOVER]
each_way = pytest.mark.parametrize("rebase", ALL, ids=lambda way: way.__name__)


@pytest.fixture
def log(primary: SmallTable) -> FaultyLog:
    return primary.log()


@pytest.fixture
def replica(primary: SmallTable, log: FaultyLog, workspace: Workspace) -> Iterator[Replica]:
    with closing(Replica.open(primary.base, log, workspace=workspace)) as replica:
        yield replica


@pytest.fixture
def forgetful(replica: Replica) -> Replica:
    """A replica whose own history can't help: it holds nothing that is visible."""
    publish = replica.history.publish

    def publish_and_trim(seq: int) -> None:
        publish(seq)
        replica.history.trim(seq)

    replica.history.publish = publish_and_trim  # type: ignore[method-assign]
    return replica


def rows_of(replica: Replica) -> pa.Table:
    return sorted_by_key(replica.query("SELECT * FROM t").read_all(), replica.schema)


def assert_at(replica: Replica, primary: SmallTable, seq: int) -> None:
    assert replica.visible_seq == seq
    assert_same(rows_of(replica), primary.rows_at(seq))


def state_folders(tmp_path: Path) -> int:
    return sum(1 for _ in (tmp_path / "data" / "states").iterdir())


# --- what a rebase brings -----------------------------------------------------------------------------


@pytest.mark.statement(46, 47, 48, 53, 70)
@each_way
def test_a_newer_base_and_the_ops_after_it_become_visible(
    rebase: Rebase, replica: Replica, primary: SmallTable, log: FaultyLog, tmp_path: Path
) -> None:
    primary.commit(put(4, 40), delete(1))
    primary.flush()
    primary.commit(put(5, 50))
    assert replica.get(4) is None and replica.base_seq == 3
    rebase(replica)
    assert (replica.base_seq, replica.visible_seq, replica.stats.tail_length) == (5, 6, 1)
    assert log.opened == [5]
    assert_at(replica, primary, 6)
    assert state_folders(tmp_path) == 1


@pytest.mark.statement(53, 70)
def test_results_say_where_the_new_state_stands(replica: Replica, primary: SmallTable) -> None:
    primary.commit(put(4, 40))
    primary.flush()
    primary.commit(put(5, 50))
    assert replica.swaps.rebase_hotswap() == (4, 5)
    assert replica.swaps.recover_from_log_gap() == replica.base_seq == 4


@pytest.mark.statement(49)
def test_a_rebase_without_a_newer_base_gives_the_same_view(replica: Replica, primary: SmallTable) -> None:
    primary.commit(put(4, 40))
    replica.advance()
    replica.swaps.rebase()
    assert replica.stats == ReplicaStats(4, 3, 1, 0, 0)
    assert_at(replica, primary, 4)


@pytest.mark.statement(50, 57, 58, 74)
def test_only_hot_swaps_are_counted(replica: Replica, primary: SmallTable) -> None:
    primary.commit(put(4, 40))
    primary.flush()
    replica.swaps.rebase()
    assert (replica.stats.rebase_count, replica.stats.last_rebase_warmup_millis) == (0, 0)
    primary.commit(put(5, 50))
    primary.flush()
    primary.base.before_load = lambda: threading.Event().wait(0.02)
    replica.swaps.rebase_hotswap()
    stats = replica.stats
    assert (stats.rebase_count, stats.tail_length, stats.base_seq) == (1, 0, 5)
    assert stats.last_rebase_warmup_millis >= 20


@each_way
def test_an_added_column_comes_with_the_base_or_the_log(
    rebase: Rebase, replica: Replica, primary: SmallTable
) -> None:
    primary.add_column(Column("w", pa.int64(), True, 7))
    primary.commit(put(4, 40, 8, schema=primary.schema))
    rebase(replica)  # the base is still without it
    assert replica.schema == replica.history.schema == primary.schema
    assert_at(replica, primary, 4)
    primary.flush()
    primary.add_column(Column("x", pa.int64()))
    primary.commit(put(5, 50, 8, 9, schema=primary.schema))
    rebase(replica)
    assert_at(replica, primary, 5)


# --- reading meanwhile --------------------------------------------------------------------------------


def test_a_column_that_is_added_while_the_history_is_replayed_comes_with_it(
    replica: Replica, primary: SmallTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    history, read = primary.feed, primary.feed.read_received

    def read_after_a_change(since: int, byte_limit: int) -> OpBatch:
        if len(primary.schema.columns) == 2:
            primary.add_column(Column("w", pa.string(), default="new"))
            primary.commit(put(8, 80, "given", schema=primary.schema))
        return read(since, byte_limit)

    primary.commit(put(7, 70))
    monkeypatch.setattr(history, "read_received", read_after_a_change)
    replay(history, replica.state, 1 << 20)
    assert replica.get(7) == {"id": 7, "v": 70, "w": "new"}
    assert replica.get(8) == {"id": 8, "v": 80, "w": "given"}


@pytest.mark.statement(54, 55)
def test_the_old_state_serves_while_the_new_one_loads(replica: Replica, primary: SmallTable) -> None:
    primary.commit(put(4, 40))
    primary.flush()
    loading, go_on = threading.Event(), threading.Event()
    primary.base.before_load = lambda: (loading.set(), go_on.wait(10))
    swap = threading.Thread(target=replica.swaps.rebase_hotswap)
    swap.start()
    assert loading.wait(10)
    found: list[object] = []
    readers = [threading.Thread(target=lambda: found.append(replica.get(1))) for _ in range(5)]
    for reader in readers:
        reader.start()
    for reader in readers:
        reader.join()
    assert found == [{"id": 1, "v": 10}] * 5
    assert replica.base_seq == 3
    go_on.set()
    swap.join()
    assert replica.base_seq == 4


@pytest.mark.statement(56)
def test_a_reader_keeps_the_old_state_until_it_is_done(
    replica: Replica, primary: SmallTable, tmp_path: Path
) -> None:
    primary.commit(put(4, 40))
    replica.advance()
    view = replica.view()
    primary.commit(delete(1), put(4, 41))
    primary.flush()
    replica.swaps.rebase_hotswap()
    assert state_folders(tmp_path) == 2
    assert_same(sorted_by_key(view.execute("FROM t").read_all(), primary.schema), primary.rows_at(4))
    view.close()
    assert state_folders(tmp_path) == 1
    assert_at(replica, primary, 6)


def test_ops_applied_while_the_new_state_loads_are_in_it(replica: Replica, primary: SmallTable) -> None:
    primary.commit(put(4, 40))
    primary.flush()

    def advance_meanwhile() -> None:
        primary.commit(put(5, 50))
        replica.advance()

    primary.base.before_load = advance_meanwhile
    assert replica.swaps.rebase_hotswap() == (4, 5)
    assert_at(replica, primary, 5)


@pytest.mark.statement(62)
def test_a_continuous_writer_does_not_keep_a_hot_swap_from_ending(
    replica: Replica, primary: SmallTable
) -> None:
    for key in range(4, 51):
        primary.commit(put(key, key))
    primary.flush()
    stop = threading.Event()

    def write() -> None:
        while not stop.is_set():
            primary.commit(put(primary.seq, 0))

    writer = threading.Thread(target=write)
    writer.start()
    try:
        base_seq, visible_seq = replica.swaps.rebase_hotswap()
    finally:
        stop.set()
        writer.join()
    assert base_seq == replica.stats.base_seq == 50
    assert visible_seq >= base_seq
    assert replica.stats.rebase_count == 1
    assert_at(replica, primary, replica.visible_seq)


def test_two_rebases_at_once_leave_the_newer_base(replica: Replica, primary: SmallTable) -> None:
    primary.commit(put(4, 40))
    primary.flush()
    loading, go_on = threading.Event(), threading.Event()
    slow_snapshot = primary.base.snapshot

    def slow_once() -> None:
        primary.base.before_load = lambda: None
        loading.set()
        go_on.wait(10)

    primary.base.before_load = slow_once
    first = threading.Thread(target=replica.swaps.rebase_hotswap)
    first.start()
    assert loading.wait(10)
    second = threading.Thread(target=replica.swaps.rebase_hotswap)
    second.start()
    primary.commit(put(5, 50))
    primary.flush()
    assert primary.base.snapshot is not slow_snapshot
    go_on.set()
    first.join()
    second.join()
    assert (replica.base_seq, replica.stats.rebase_count) == (5, 2)


# --- gaps ---------------------------------------------------------------------------------------------


@pytest.mark.statement(69)
def test_a_gap_is_recovered_by_a_newer_base(replica: Replica, primary: SmallTable, log: FaultyLog) -> None:
    primary.commit(put(4, 40))
    primary.commit(delete(1))
    primary.flush()
    primary.feed.trim(5)  # the log no longer reaches back to seq 3
    assert replica.advance_or_recover() == Recovered(5)
    assert replica.stats == ReplicaStats(5, 5, 0, 1, replica.stats.last_rebase_warmup_millis)
    assert_at(replica, primary, 5)


@pytest.mark.statement(63)
def test_a_gap_behind_the_newer_base_is_tolerated_where_it_is_new_enough(
    replica: Replica, primary: SmallTable, log: FaultyLog
) -> None:
    primary.commit(put(4, 40))
    replica.advance()
    primary.flush()
    log.fault = Fault.GAP
    assert replica.swaps.rebase_hotswap() == (4, 4)


@pytest.mark.statement(52, 63, 67)
@pytest.mark.parametrize("rebase", [*ALL, Replica.advance_or_recover], ids=lambda way: way.__name__)
def test_a_state_older_than_the_served_one_is_refused(
    rebase: Rebase, forgetful: Replica, primary: SmallTable, log: FaultyLog, tmp_path: Path
) -> None:
    primary.commit(put(4, 40))
    primary.flush()
    primary.commit(put(5, 50))
    forgetful.advance()
    log.fault = Fault.GAP
    with pytest.raises(NotCaughtUp, match="serving seq 5, only seq 4 is to be had") as raised:
        rebase(forgetful)
    assert (raised.value.served_seq, raised.value.offered_seq) == (5, 4)
    assert forgetful.stats == ReplicaStats(5, 3, 2, 0, 0)
    assert_at(forgetful, primary, 5)
    assert state_folders(tmp_path) == 1


@pytest.mark.parametrize("rebase", SWAPS, ids=lambda way: way.__name__)
def test_the_replica_s_own_history_bridges_a_gap_between_base_and_log(
    rebase: Rebase, replica: Replica, primary: SmallTable, log: FaultyLog
) -> None:
    primary.commit(put(4, 40))
    primary.flush()
    primary.commit(put(5, 50))
    replica.advance()
    log.fault = Fault.GAP
    rebase(replica)
    assert (replica.base_seq, replica.visible_seq) == (4, 5)
    assert_at(replica, primary, 5)


@pytest.mark.statement(73)
@pytest.mark.parametrize("recover", [RECOVER, Replica.advance_or_recover], ids=lambda way: way.__name__)
def test_recovery_needs_a_newer_base_even_where_the_history_would_do(
    recover: Rebase, replica: Replica, primary: SmallTable, log: FaultyLog
) -> None:  # to come back to the same seq would be no recovery
    primary.commit(put(4, 40))
    replica.advance()
    log.fault = Fault.GAP
    with pytest.raises(NotCaughtUp) as raised:
        recover(replica)
    assert (raised.value.served_seq, raised.value.offered_seq) == (4, 3)
    assert replica.stats == ReplicaStats(4, 3, 1, 0, 0)


@pytest.mark.statement(73)
def test_a_replica_that_is_behind_again_and_again_counts_each_recovery(
    replica: Replica, primary: SmallTable
) -> None:
    for round_ in (1, 2, 3):
        primary.commit(put(round_, -round_))
        seq = primary.flush()
        primary.feed.trim(seq)
        assert replica.advance_or_recover() == Recovered(seq)
        assert replica.stats.rebase_count == round_
        assert_at(replica, primary, seq)
    assert replica.advance_or_recover() == Advanced()
    assert replica.stats.rebase_count == 3


# --- failures -----------------------------------------------------------------------------------------


@pytest.mark.statement(52, 64)
@each_way
def test_a_log_that_fails_leaves_the_old_state(
    rebase: Rebase, replica: Replica, primary: SmallTable, log: FaultyLog, tmp_path: Path
) -> None:
    primary.commit(put(4, 40))
    replica.advance()
    primary.flush()
    primary.commit(put(5, 50))
    primary.commit(put(6, 60))
    for fault in (Fault.ERROR_AT_OPEN, Fault.ERROR_AFTER_ONE):
        log.fault = fault
        with pytest.raises(FeedError, match="object-store blip"):
            rebase(replica)
    assert replica.stats == ReplicaStats(4, 3, 1, 0, 0)
    assert_at(replica, primary, 4)
    assert state_folders(tmp_path) == 1


@pytest.mark.statement(51, 65)
@each_way
def test_a_base_that_cannot_be_loaded_leaves_the_old_state(
    rebase: Rebase, replica: Replica, primary: SmallTable, tmp_path: Path
) -> None:
    primary.commit(put(4, 40))
    primary.flush()
    primary.base.error = BaseNotUsable("half written")
    with pytest.raises(BaseNotUsable, match="half written"):
        rebase(replica)
    primary.base.error = None
    primary.base.before_load = primary.base.remove_files
    with pytest.raises(BaseNotUsable, match="is gone"):
        rebase(replica)
    assert replica.stats == ReplicaStats(3, 3, 0, 0, 0)
    assert_at(replica, primary, 3)
    assert state_folders(tmp_path) == 1


@pytest.mark.statement(59)
def test_the_default_deadline_is_60_seconds_and_none_is_none(replica: Replica) -> None:
    assert replica.swaps.rebase_timeout_seconds == 60
    replica.swaps.rebase_timeout_seconds = None
    assert replica.swaps.rebase_timeout_seconds is None
    assert replica.swaps.rebase_hotswap() == (3, 3)


@pytest.mark.statement(60, 61)
@each_way
def test_a_log_that_says_nothing_costs_no_more_than_the_deadline(
    rebase: Rebase, replica: Replica, primary: SmallTable, log: FaultyLog, tmp_path: Path
) -> None:
    log.fault = Fault.HANG
    replica.swaps.rebase_timeout_seconds = 0.1
    began = time.monotonic()
    with pytest.raises(TimedOut, match=f"{rebase.__name__} timed out"):  # type: ignore[attr-defined]
        rebase(replica)
    assert time.monotonic() - began < 5
    assert replica.stats == ReplicaStats(3, 3, 0, 0, 0)
    assert_at(replica, primary, 3)
    log.fault = Fault.NONE
    replica.swaps.rebase_timeout_seconds = 60
    rebase(replica)


@pytest.mark.statement(66)
def test_the_deadline_covers_the_base_too_and_a_late_base_is_dropped(
    replica: Replica, primary: SmallTable, log: FaultyLog, tmp_path: Path
) -> None:
    go_on = threading.Event()
    primary.base.before_load = lambda: go_on.wait(10)
    log.fault = Fault.HANG  # a stream opened after the deadline must end too
    replica.swaps.rebase_timeout_seconds = 0.05
    with pytest.raises(TimedOut):
        replica.swaps.rebase_hotswap()
    go_on.set()
    for thread in threading.enumerate():
        if thread.name == "rebase_hotswap-t":
            thread.join(10)
            assert not thread.is_alive()
    assert state_folders(tmp_path) == 1


@pytest.mark.statement(66)
def test_the_deadline_does_not_cover_the_wait_for_the_swap(replica: Replica, primary: SmallTable) -> None:
    primary.commit(put(4, 40))
    primary.flush()
    replica.swaps.rebase_timeout_seconds = 2.0
    swapped: list[tuple[int, int]] = []
    loaded = threading.Event()
    primary.base.before_load = loaded.set
    swap = threading.Thread(target=lambda: swapped.append(replica.swaps.rebase_hotswap()))
    with replica.still():
        swap.start()
        assert loaded.wait(10)
        for thread in threading.enumerate():
            if thread.name == "rebase_hotswap-t":
                thread.join(10)
        swap.join(2.1)  # past the deadline
        assert swap.is_alive() and replica.base_seq == 3
    swap.join(10)
    assert swapped == [(4, 4)]


def test_closing_ends_a_rebase_under_way(primary: SmallTable, log: FaultyLog, workspace: Workspace) -> None:
    replica = Replica.open(primary.base, log, workspace=workspace)
    loading, go_on = threading.Event(), threading.Event()
    primary.base.before_load = lambda: (loading.set(), go_on.wait(10))
    raised: list[BaseException] = []

    def swap() -> None:
        try:
            replica.swaps.rebase_hotswap()
        except Closed as error:
            raised.append(error)

    thread = threading.Thread(target=swap)
    thread.start()
    assert loading.wait(10)
    replica.close()
    go_on.set()
    thread.join(10)
    assert len(raised) == 1


@pytest.mark.statement(14)
def test_a_gap_that_names_what_was_asked(replica: Replica, log: FaultyLog) -> None:
    log.fault = Fault.GAP
    with pytest.raises(LogGap, match="since 3, earliest available 1000: retention went by"):
        replica.advance()
