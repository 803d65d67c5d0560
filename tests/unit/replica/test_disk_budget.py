"""A native state that has outgrown its disk budget goes, without a gap and without going back."""

from __future__ import annotations

import logging
from contextlib import ExitStack, closing
from dataclasses import replace

import pytest

from flight_replica.errors import BaseNotUsable, NotCaughtUp
from flight_replica.replica.follower import Follower
from flight_replica.replica.replica import Replica
from flight_replica.replica.stats import ReplicaSettings
from flight_replica.replica.view import open_view
from flight_replica.state.state import StateKind
from flight_replica.state.workspace import Workspace
from tests.bases import SmallTable, assert_same, delete, put, sorted_by_key
from tests.processes import until

# A native file is larger than this from its start, a small table's Parquet files three times over are not.
OUTGROWN = ReplicaSettings(base_poll_seconds=0.01, native_disk_bytes_max=10_000)


def assert_right(replica: Replica, primary: SmallTable) -> None:
    found = sorted_by_key(replica.query("SELECT * FROM t").read_all(), replica.schema)
    assert_same(found, primary.rows_at(primary.seq))


def test_a_table_that_outgrows_its_budget_goes_back_to_merge_on_read_by_itself_and_stays(
    primary: SmallTable, workspace: Workspace, caplog: pytest.LogCaptureFixture
) -> None:
    with (
        caplog.at_level(logging.INFO),
        closing(Replica.open(primary.base, primary.log(), workspace=workspace, settings=OUTGROWN)) as replica,
        closing(Follower(replica, lambda _: None)) as follower,
    ):
        follower.start()
        until(lambda: "native state given back table=t" in caplog.text, "the native state goes")
        primary.commit(put(7, 70), delete(1))
        until(lambda: replica.visible_seq == primary.seq, "the commit is visible")
        until(lambda: "stays on merge on read" in replica.swaps.native_states.remark, "that it stays is told")
        follower.look_now()
        primary.commit(put(8, 80))
        until(lambda: replica.visible_seq == primary.seq, "the next commit is visible")
        assert replica.state.kind is StateKind.MERGE_ON_READ
        assert_right(replica, primary)
    assert caplog.text.count("native state built table=t") == 1
    assert caplog.text.count("native state beyond its budget table=t") == 1


def test_a_reader_keeps_what_it_reads_and_the_file_goes_after_it(
    primary: SmallTable, workspace: Workspace
) -> None:
    with closing(
        Replica.open(primary.base, primary.log(), workspace=workspace, settings=OUTGROWN)
    ) as replica:
        replica.swaps.merge_on_apply()
        seen = primary.commit(put(7, 70))
        replica.advance()
        with open_view(workspace, {"t": replica}) as view:
            primary.commit(put(7, 71))
            replica.advance()
            replica.swaps.keep_within_budget()
            assert replica.state.kind is StateKind.MERGE_ON_READ
            assert view.positions[0].visible_seq == seen
            assert view.execute("SELECT v FROM t WHERE id = 7").read_all()["v"].to_pylist() == [70]
            assert workspace.native_bytes(besides="another") > 0
        assert_right(replica, primary)
        assert workspace.native_bytes(besides="another") == 0


@pytest.mark.parametrize("error", [BaseNotUsable("no base now"), None], ids=["no base", "a gap"])
def test_the_native_state_serves_on_while_no_base_can_take_its_place(
    error: Exception | None, primary: SmallTable, workspace: Workspace
) -> None:
    with closing(
        Replica.open(primary.base, primary.log(), workspace=workspace, settings=OUTGROWN)
    ) as replica:
        replica.swaps.merge_on_apply()
        primary.commit(put(7, 70))
        replica.advance()
        primary.base.error = error
        if error is None:
            primary.feed.trim(primary.seq)
            replica.history.trim(primary.seq)
        with pytest.raises(BaseNotUsable if error is not None else NotCaughtUp):
            replica.swaps.keep_within_budget()
        assert replica.state.kind is StateKind.MERGE_ON_APPLY
        assert "outgrown the budget" in replica.swaps.native_states.remark
        primary.base.error = None
        primary.flush()
        replica.swaps.keep_within_budget()
        assert replica.state.kind is StateKind.MERGE_ON_READ
        assert_right(replica, primary)


def test_of_two_tables_only_as_many_go_as_have_to(primary: SmallTable, workspace: Workspace) -> None:
    with ExitStack() as closes:

        def opened(name: str, settings: ReplicaSettings) -> Replica:
            return closes.enter_context(
                closing(
                    Replica.open(
                        primary.base, primary.log(), table=name, workspace=workspace, settings=settings
                    )
                )
            )

        first = opened("t", OUTGROWN)
        first.swaps.merge_on_apply()
        enough_for_one = replace(OUTGROWN, native_disk_bytes_max=workspace.native_bytes(besides="u") + 8192)
        second = opened("u", enough_for_one)
        second.swaps.merge_on_apply()
        first.swaps.keep_within_budget()
        second.swaps.keep_within_budget()
        assert first.state.kind is StateKind.MERGE_ON_READ
        assert second.state.kind is StateKind.MERGE_ON_APPLY
