"""When a replica asks for a base that is fetched on demand: for a gap, for a tail without end, else never."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager

import pytest

from flight_replica.base.on_demand import OnDemandBase
from flight_replica.base.source import BaseSnapshot
from flight_replica.errors import BaseNotUsable
from flight_replica.replica.follower import Follower
from flight_replica.replica.replica import Replica
from flight_replica.replica.stats import Advanced, Recovered, ReplicaSettings
from flight_replica.state.state import StateKind
from flight_replica.state.workspace import Workspace
from tests.bases import Fault, SmallTable, assert_same, put, sorted_by_key
from tests.processes import until

NEVER_NATIVE = ReplicaSettings(base_poll_seconds=0.01, tail_bytes_max=1000, native_disk_bytes_max=0)


class FetchedBase:
    """As a base over Flight: the table's newest seq when it is fetched, kept until a newer one is wanted."""

    progress = remark = ""

    def __init__(self, primary: SmallTable) -> None:
        self._primary = primary
        self._kept: BaseSnapshot | None = None
        self.wanted: list[int] = []
        self.fetch_count = 0
        self.is_closed = False

    def poll(self) -> int | None:
        return None if self._kept is None else max(self._kept.base_seq, *self.wanted, 0)

    def load(self) -> BaseSnapshot:
        wanted = max(self.wanted, default=0)
        if self._kept is None or self._kept.base_seq < wanted:
            if self._primary.seq < wanted:
                raise BaseNotUsable(f"at seq {self._primary.seq}, needed is {wanted}")
            self._primary.flush()
            self._kept = self._primary.base.snapshot
            self.fetch_count += 1
        return self._kept

    def resume(self) -> None:
        self.is_resumed = True

    def want(self, seq: int) -> None:
        self.wanted.append(seq)

    def close(self) -> None:
        self.is_closed = True


@contextmanager
def following(
    base: FetchedBase, primary: SmallTable, workspace: Workspace, settings: ReplicaSettings
) -> Iterator[Replica]:
    with closing(Replica.open(base, primary.log(), workspace=workspace, settings=settings)) as replica:
        follower = Follower(replica, lambda trouble: None)
        follower.start()
        with closing(follower):
            yield replica


def assert_shows(replica: Replica, primary: SmallTable) -> None:
    until(lambda: replica.visible_seq == primary.seq, f"seq {primary.seq} is visible")
    found = sorted_by_key(replica.query("SELECT * FROM t").read_all(), replica.schema)
    assert_same(found, primary.rows_at(primary.seq))


def test_the_fake_is_such_a_base(primary: SmallTable) -> None:
    assert isinstance(FetchedBase(primary), OnDemandBase)


def test_a_tail_beyond_its_budget_wants_a_newer_base_once(primary: SmallTable, workspace: Workspace) -> None:
    base = FetchedBase(primary)
    with following(base, primary, workspace, NEVER_NATIVE) as replica:
        first = replica.base_seq
        primary.commit(*[put(key, key) for key in range(100)])
        until(lambda: replica.base_seq > first, "a newer base is adopted")
        assert_shows(replica, primary)
        assert base.wanted[0] == first + 1
        assert base.fetch_count == 2
        assert replica.state.tail_bytes <= NEVER_NATIVE.tail_bytes_max
    assert base.is_closed


def test_a_native_table_folds_its_ops_and_wants_nothing(primary: SmallTable, workspace: Workspace) -> None:
    base = FetchedBase(primary)
    settings = ReplicaSettings(base_poll_seconds=0.01, tail_bytes_max=1000)
    with following(base, primary, workspace, settings) as replica:
        until(lambda: replica.state.kind is StateKind.MERGE_ON_APPLY, "a native state is built")
        for start in range(0, 500, 100):
            primary.commit(*[put(key, key) for key in range(start, start + 100)])
        assert_shows(replica, primary)
        assert (base.wanted, base.fetch_count) == ([], 1)


def test_a_gap_wants_a_base_that_the_log_still_reaches(primary: SmallTable, workspace: Workspace) -> None:
    base, log = FetchedBase(primary), primary.log()
    with closing(Replica.open(base, log, workspace=workspace)) as replica:
        assert replica.advance_or_recover() == Advanced()
        primary.commit(*[put(key, -key) for key in range(10)])
        log.fault, log.gap_low_water = Fault.GAP, 10
        outcome = replica.advance_or_recover()
        assert outcome == Recovered(primary.seq)
        assert base.wanted == [10]
        assert_shows(replica, primary)


def test_a_gap_that_nothing_is_new_enough_for_fetches_nothing(
    primary: SmallTable, workspace: Workspace
) -> None:
    base, log = FetchedBase(primary), primary.log()
    with closing(Replica.open(base, log, workspace=workspace)) as replica:
        log.fault, log.gap_low_water = Fault.GAP, 1000
        for _ in range(3):
            with pytest.raises(BaseNotUsable, match="needed is 1000"):
                replica.advance_or_recover()
        assert base.fetch_count == 1
        assert replica.query("SELECT count(*) FROM t").read_all().column(0).to_pylist() == [3]
