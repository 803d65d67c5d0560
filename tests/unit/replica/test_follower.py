"""`Follower`: what happens to a table by itself, with nobody calling `advance` or `rebase`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from uuid import UUID

import pyarrow as pa
import pytest

from flight_replica.errors import (
    BaseNotUsable,
    Closed,
    FeedError,
    LineageChanged,
    LogGap,
    TableNotFound,
    Unavailable,
)
from flight_replica.log.backoff import Backoff
from flight_replica.log.in_process import InProcessLogSource
from flight_replica.log.no_log import NoLog
from flight_replica.log.source import OpBatch, OpStream
from flight_replica.replica import follower as follower_module
from flight_replica.replica.follower import Follower
from flight_replica.replica.replica import Replica
from flight_replica.replica.stats import ReplicaSettings
from flight_replica.schema import Column
from flight_replica.state import recent_ops
from flight_replica.state.workspace import Workspace
from tests.bases import LINEAGE, FaultyLog, SmallTable, assert_same, delete, put, sorted_by_key
from tests.processes import until

SELDOM = ReplicaSettings(base_poll_seconds=3600)
# On merge on read alone: a native copy takes a newer base without a swap.
OFTEN = ReplicaSettings(base_poll_seconds=0.01, native_disk_bytes_max=0)


@contextmanager
def following(
    primary: SmallTable,
    workspace: Workspace,
    settings: ReplicaSettings = SELDOM,
    log: FaultyLog | None = None,
) -> Iterator[tuple[Replica, Follower, list[str]]]:
    """A replica, its follower, and every trouble that was told."""
    troubles: list[str] = []
    with closing(
        Replica.open(primary.base, log or primary.log(), workspace=workspace, settings=settings)
    ) as replica:
        follower = Follower(replica, troubles.append)
        follower.start()
        with closing(follower):
            yield replica, follower, troubles


def reach(replica: Replica, primary: SmallTable) -> None:
    """Wait for the primary's newest seq, and compare the table there."""
    until(lambda: replica.visible_seq == primary.seq, f"seq {primary.seq} is visible")
    found = sorted_by_key(replica.query("SELECT * FROM t").read_all(), replica.schema)
    assert_same(found, primary.rows_at(primary.seq))


def test_commits_appear_by_themselves_and_lag_is_proven(primary: SmallTable, workspace: Workspace) -> None:
    with following(primary, workspace) as (replica, _, troubles):
        primary.commit(put(4, 40), delete(1), parts=2)
        reach(replica, primary)
        primary.commit(put(5, 50))
        reach(replica, primary)
        until(lambda: replica.lag_us() >= 0, "the lag is known")
        assert troubles == []


def test_a_table_whose_freshness_nobody_knows_has_none_downstream_either(
    primary: SmallTable, workspace: Workspace
) -> None:
    nothing_comes = NoLog(LINEAGE, primary.schema)
    with closing(Replica.open(primary.base, nothing_comes, workspace=workspace)) as copy:
        log = InProcessLogSource(copy.history)
        with (
            closing(Replica.open(primary.base, log, workspace=workspace, settings=SELDOM)) as second,
            closing(Follower(second, lambda _: None)) as follower,
        ):
            follower.start()
            until(lambda: log.last_mark is not None, "a heartbeat came")
            heard_at = log.last_mark_at
            until(lambda: log.last_mark_at != heard_at, "the next one came, so the first was taken")
            assert (copy.lag_us(), second.lag_us()) == (-1, -1)


def test_a_newer_base_is_adopted(primary: SmallTable, workspace: Workspace) -> None:
    with following(primary, workspace, OFTEN) as (replica, _, _):
        primary.commit(put(4, 40))
        primary.flush()
        until(lambda: replica.stats.rebase_count == 1, "one hot swap")
        assert replica.base_seq == 4
        reach(replica, primary)


def test_a_long_tail_looks_for_a_newer_base_at_once(primary: SmallTable, workspace: Workspace) -> None:
    settings = ReplicaSettings(base_poll_seconds=3600, tail_bytes_max=100)
    with following(primary, workspace, settings) as (replica, _, _):
        primary.commit(*[put(key, key) for key in range(50)])
        primary.flush()
        primary.commit(put(1, 1))
        until(lambda: replica.base_seq == 53, "the base of seq 53 is adopted")
        reach(replica, primary)


def test_a_base_that_fails_is_tried_again(primary: SmallTable, workspace: Workspace) -> None:
    with following(primary, workspace, OFTEN) as (replica, _, _):
        primary.base.error = BaseNotUsable("half written")
        primary.commit(put(4, 40))
        primary.flush()
        reach(replica, primary)
        assert replica.base_seq == 3
        until(lambda: replica.measures.rebase_failures.count > 0, "the failure is counted")
        primary.base.error = None
        until(lambda: replica.base_seq == 4, "the base of seq 4 is adopted")


def test_a_gap_is_mended_by_the_newer_base(primary: SmallTable, workspace: Workspace) -> None:
    log = primary.log()
    with closing(Replica.open(primary.base, log, workspace=workspace, settings=SELDOM)) as replica:
        primary.commit(put(4, 40))
        primary.commit(delete(1))
        primary.flush()
        primary.feed.trim(5)
        with closing(Follower(replica, lambda _: None)) as follower:
            follower.start()
            reach(replica, primary)
            assert replica.base_seq == 5
            until(lambda: replica.measures.gap_recoveries.count == 1, "one gap was mended")
            assert replica.measures.log_gaps.count == 1
            assert replica.measures.rebase_seconds.read().counts[-1] == 1


def test_a_gap_without_a_newer_base_serves_on_says_so_and_waits(
    primary: SmallTable, workspace: Workspace
) -> None:
    log, troubles = primary.log(), list[str]()
    with closing(Replica.open(primary.base, log, workspace=workspace, settings=SELDOM)) as replica:
        primary.commit(put(4, 40))
        primary.commit(put(5, 50))
        primary.feed.trim(5)
        with closing(Follower(replica, troubles.append)) as follower:
            follower.start()
            until(lambda: bool(troubles), "trouble is told")
            assert "log gap: requested since 3, earliest available 5" in troubles[0]
            assert (replica.visible_seq, replica.get(1)) == (3, {"id": 1, "v": 10})
            primary.flush()
            reach(replica, primary)
            primary.commit(put(6, 60))
            reach(replica, primary)
            until(lambda: troubles[-1] == "", "all is well again")
            assert set(troubles[:-1]) == {troubles[0]}  # said once, not at each attempt


def test_an_unexpected_error_in_a_recovery_does_not_end_following(
    primary: SmallTable, workspace: Workspace
) -> None:
    log, troubles = primary.log(), list[str]()
    with closing(Replica.open(primary.base, log, workspace=workspace, settings=SELDOM)) as replica:
        primary.commit(put(4, 40))
        primary.feed.trim(4)
        primary.base.error = OSError("disk on fire")
        with closing(Follower(replica, troubles.append)) as follower:
            follower.start()
            until(lambda: any("disk on fire" in trouble for trouble in troubles), "the reason is told")
            primary.base.error = None
            primary.flush()
            reach(replica, primary)


def test_an_added_column_appears_while_following(primary: SmallTable, workspace: Workspace) -> None:
    with following(primary, workspace) as (replica, _, _):
        primary.commit(put(4, 40))
        primary.add_column(Column("w", pa.string(), True, "old"))
        primary.commit(put(5, 50, "new", schema=primary.schema))
        reach(replica, primary)
        assert replica.schema == replica.history.schema == primary.schema


class Unsteady(FaultyLog):
    """A source whose `follow` raises, once each, what is in `raises`."""

    def __init__(self, primary: SmallTable, *raises: Exception) -> None:
        super().__init__(primary.feed)
        self.raises = list(raises)

    def follow(self, since: int) -> OpStream:
        if self.raises:
            raise self.raises.pop(0)
        return super().follow(since)


def test_a_feed_that_fails_is_followed_again(primary: SmallTable, workspace: Workspace) -> None:
    log = Unsteady(primary, FeedError("seq 5 after 7"), OSError("no route"))
    with following(primary, workspace, log=log) as (replica, _, troubles):
        primary.commit(put(4, 40))
        reach(replica, primary)
        until(lambda: troubles[-1:] == [""], "all is well again")
        assert troubles == ["following failed: seq 5 after 7", "following failed: no route", ""]


@pytest.mark.parametrize(
    "reason",
    [TableNotFound("dropped"), LogGap(3, None, "another lineage", UUID(int=7))],
    ids=lambda reason: type(reason).__name__,
)
def test_what_is_beyond_the_lineage_ends_following(
    reason: Exception, primary: SmallTable, workspace: Workspace
) -> None:
    with following(primary, workspace, log=Unsteady(primary, reason)) as (replica, follower, _):
        assert follower.ended.wait(10)
        assert follower.end_reason is reason
        assert replica.get(1) == {"id": 1, "v": 10}  # until its owner decides


def test_a_gap_of_this_lineage_does_not_end_following(primary: SmallTable, workspace: Workspace) -> None:
    log = Unsteady(primary, LogGap(3, 4, "a hiccup", LINEAGE))
    with following(primary, workspace, log=log) as (replica, _, _):
        primary.commit(put(4, 40))
        reach(replica, primary)


def test_a_base_of_another_lineage_ends_following(primary: SmallTable, workspace: Workspace) -> None:
    with following(primary, workspace, OFTEN) as (_, follower, _):
        primary.base.lineage = UUID(int=7)
        primary.flush()
        assert follower.ended.wait(10)
        assert isinstance(follower.end_reason, LineageChanged)


def test_a_dropped_feed_ends_following(primary: SmallTable, workspace: Workspace) -> None:
    with following(primary, workspace) as (_, follower, _):
        primary.feed.drop()
        assert follower.ended.wait(10)
        assert isinstance(follower.end_reason, TableNotFound)


def test_close_ends_following(primary: SmallTable, workspace: Workspace) -> None:
    with following(primary, workspace) as (_, follower, _):
        pass
    assert isinstance(follower.end_reason, Closed)


def test_what_waits_in_memory_is_written_before_so_much_waits_that_ops_would_wait_for_it(
    primary: SmallTable, workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(follower_module, "FOLD_SECONDS", 3600)
    monkeypatch.setattr(recent_ops, "WAITING_OPS_MAX", 4)
    with following(primary, workspace) as (replica, _, _):
        replica.swaps.merge_on_apply()
        primary.commit(put(1, 10))
        primary.commit(put(2, 20))
        until(lambda: replica.visible_seq == primary.seq, "both are visible")
        until(lambda: not replica.state.is_settling_due, "both are written")
        reach(replica, primary)


def test_that_the_newest_rows_cannot_be_written_is_told_until_they_are(
    primary: SmallTable, workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Queries are refused meanwhile, so whoever asks for the table's state has to hear of it."""
    monkeypatch.setattr(follower_module, "FOLD_SECONDS", 0.01)
    is_full = [True]

    def settle() -> None:
        if is_full:
            raise Unavailable("the newest rows can't be written")

    with following(primary, workspace) as (replica, _, troubles):
        monkeypatch.setattr(replica, "settle", settle)
        until(lambda: troubles == ["the newest rows can't be written"], "the trouble is told")
        is_full.clear()
        until(lambda: troubles[-1] == "", "that it is over is told")


def test_parts_of_a_commit_that_fails_do_not_make_it_try_without_pause(
    primary: SmallTable, workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    resets: list[int] = []

    class NotedBackoff(Backoff):
        def reset(self) -> None:
            resets.append(primary.seq)
            super().reset()

    receive = Replica.receive

    def receive_parts(replica: Replica, batch: OpBatch) -> None:
        if batch.mark.commit_through == primary.seq > replica.visible_seq and is_full:
            raise FeedError("the disk is full")
        receive(replica, batch)

    is_full = [True]
    monkeypatch.setattr(follower_module, "Backoff", NotedBackoff)
    monkeypatch.setattr(Replica, "receive", receive_parts)
    with following(primary, workspace, log=primary.log(batch_size=1)) as (replica, _, troubles):
        primary.commit(put(4, 40), put(5, 50), parts=2)
        until(lambda: troubles.count("following failed: the disk is full") > 2, "it has failed three times")
        assert "" in troubles, "no part came between"
        assert resets == []
        is_full.clear()
        reach(replica, primary)
        until(lambda: bool(resets), "that it goes on is noted")
