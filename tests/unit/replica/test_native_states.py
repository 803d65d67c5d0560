"""`NativeStates`: one table after the other, within a budget, and how far it is."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from flight_replica.errors import Closed, Unavailable
from flight_replica.log.in_process import InProcessLogSource
from flight_replica.log.op_log import OpLog
from flight_replica.replica.native_states import NativeStates
from flight_replica.replica.replica import Replica
from flight_replica.replica.stats import DEFAULT_SETTINGS, ReplicaSettings
from flight_replica.state.native_build import StateProgress
from flight_replica.state.native_state import NativeState
from flight_replica.state.state import StateKind
from flight_replica.state.workspace import Workspace
from tests.bases import ID_V, LINEAGE, ParquetBase, SmallTable, put
from tests.faults import full_disk
from tests.processes import until

ROWS = 1_500_000


@contextmanager
def large(
    directory: Path, workspace: Workspace, name: str = "large", settings: ReplicaSettings = DEFAULT_SETTINGS
) -> Iterator[Replica]:
    """A table whose native state takes long enough to be looked at while it is made."""
    base = ParquetBase(directory / name, ID_V)
    ids = np.random.default_rng(7).permutation(ROWS)
    base.publish([(pa.table({"id": ids, "v": ids}), ())], 1)
    feed = OpLog(name, LINEAGE, ID_V, start=1, bytes_max=1 << 20, clock_us=lambda: 1)
    log = InProcessLogSource(feed)
    with closing(Replica.open(base, log, table=name, workspace=workspace, settings=settings)) as replica:
        yield replica


def test_progress_and_time_left_are_told_in_remark_and_log(
    tmp_path: Path, workspace: Workspace, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flight_replica.replica.native_states.TELL_SECONDS", 0.01)
    seen: list[StateProgress] = []
    remarks: set[str] = set()
    with caplog.at_level(logging.INFO), large(tmp_path, workspace) as replica, ThreadPoolExecutor(1) as other:
        assert replica.swaps.native_states.progress is None
        building = other.submit(replica.swaps.merge_on_apply)
        while not building.done():
            progress = replica.swaps.native_states.progress
            if progress is not None:
                seen.append(progress)
            remarks.add(replica.swaps.native_states.remark)
        building.result()
        assert replica.swaps.native_states.progress is None
        assert replica.state.kind is StateKind.MERGE_ON_APPLY
    shares = [at.share for at in seen]
    assert shares == sorted(shares) and shares[0] >= 0 and shares[-1] <= 1
    assert any(at.seconds_left is not None for at in seen)
    assert any("its native state is being made: " in remark for remark in remarks)
    assert "native state is being made table=large progress=" in caplog.text


def test_a_table_that_is_loaded_starves_neither_queries_nor_applies_of_another_one(
    tmp_path: Path, primary: SmallTable, workspace: Workspace
) -> None:
    with (
        large(tmp_path, workspace) as loaded,
        closing(Replica.open(primary.base, primary.log(), workspace=workspace)) as other,
        ThreadPoolExecutor(1) as builder,
    ):
        other.swaps.merge_on_apply()
        building = builder.submit(loaded.swaps.merge_on_apply)
        answers = 0
        while not building.done():
            primary.commit(put(1, answers))
            other.advance()
            was_building = loaded.swaps.native_states.progress is not None
            rows = other.query("SELECT v FROM t WHERE id + 0 = 1").read_all()
            assert rows.column("v").to_pylist() == [answers]
            answers += was_building and not building.done()
        building.result()
        assert answers >= 3, f"{answers} applies and answers while the other table was loaded"


def test_a_build_ends_with_its_replica(tmp_path: Path, workspace: Workspace) -> None:
    with large(tmp_path, workspace) as replica, ThreadPoolExecutor(1) as other:
        building = other.submit(replica.swaps.merge_on_apply)
        until(lambda: replica.swaps.native_states.progress is not None or building.done(), "it is made")
        replica.end_sources()
        with pytest.raises(Closed):
            building.result(60)
    assert not list((workspace.directory / "native").rglob("*.duckdb*"))


def test_one_table_waits_for_the_other_and_can_give_up(
    primary: SmallTable, workspace: Workspace, tmp_path: Path
) -> None:
    held, let_go = threading.Event(), threading.Event()

    def hold() -> None:
        with workspace.one_build(lambda: None):
            held.set()
            let_go.wait(60)

    with (
        closing(Replica.open(primary.base, primary.log(), workspace=workspace)) as first,
        closing(Replica.open(primary.base, primary.log(), table="u", workspace=workspace)) as second,
        ThreadPoolExecutor(3) as others,
    ):
        holding = others.submit(hold)
        held.wait(60)
        builds = [others.submit(replica.swaps.merge_on_apply) for replica in (first, second)]
        second.end_sources()
        with pytest.raises(Closed):
            builds[1].result(60)
        assert first.state.kind is StateKind.MERGE_ON_READ
        let_go.set()
        holding.result(60)
        builds[0].result(60)
        assert first.state.kind is StateKind.MERGE_ON_APPLY


def test_a_rebase_waits_neither_for_a_build_nor_for_its_turn(
    primary: SmallTable, workspace: Workspace
) -> None:
    """A log gap is mended at once; the native state is made afterwards."""
    with (
        closing(Replica.open(primary.base, primary.log(), table="u", workspace=workspace)) as replica,
        ThreadPoolExecutor(2) as others,
    ):
        with workspace.one_build(lambda: None):
            building = others.submit(replica.swaps.merge_on_apply)
            until(replica.swaps._swapping.locked, "it waits for its turn")
            primary.commit(put(7, 70))
            primary.flush()
            assert others.submit(replica.swaps.recover_from_log_gap).result(60) == primary.seq
        with pytest.raises(Closed, match="gives way to a base"):
            building.result(60)
        replica.swaps.merge_on_apply()
        assert replica.get(7) == {"id": 7, "v": 70}


def test_a_native_state_gives_way_to_one_made_of_the_newest_base_and_to_nothing_else(
    primary: SmallTable, workspace: Workspace
) -> None:
    with closing(Replica.open(primary.base, primary.log(), workspace=workspace)) as replica:
        replica.swaps.merge_on_apply()
        primary.commit(put(7, 70))
        primary.flush()
        made, swap = replica.swaps.native_states.build, replica._slot.swap
        seen: list[StateKind] = []

        def build(source, **how):  # type: ignore[no-untyped-def]
            primary.commit(put(8, 80))
            replica.advance()
            assert replica.get(8) == {"id": 8, "v": 80}  # by the old one
            return made(source, **how)

        def watch(state):  # type: ignore[no-untyped-def]
            seen.append(state.kind)
            swap(state)

        replica.swaps.native_states.build = build  # type: ignore[method-assign]
        replica._slot.swap = watch  # type: ignore[method-assign]
        assert replica.swaps.rebase_beside() == (4, 5)
        assert seen == [StateKind.MERGE_ON_APPLY]
        assert replica.stats.rebase_count == 1 and replica.base_version == primary.base.poll()
        assert replica.query("SELECT * FROM t ORDER BY id").read_all()["id"].to_pylist() == [1, 2, 3, 7, 8]
        assert not list((workspace.directory / "states").iterdir())
        assert len(list((workspace.directory / "native" / "t").glob("*.duckdb"))) == 1


def test_a_rebase_beside_a_native_state_that_cannot_be_written_goes_over_merge_on_read(
    primary: SmallTable, workspace: Workspace
) -> None:
    with closing(Replica.open(primary.base, primary.log(), workspace=workspace)) as replica:
        replica.swaps.merge_on_apply()
        assert isinstance(replica.state, NativeState)
        replica.state.can_be_written = False
        primary.commit(put(7, 70))
        primary.flush()
        assert replica.swaps.rebase_beside() == (4, 4)
        assert replica.state.kind is StateKind.MERGE_ON_READ


def test_a_rebase_beside_a_native_state_that_has_no_room_goes_over_merge_on_read(
    primary: SmallTable, workspace: Workspace
) -> None:
    with closing(Replica.open(primary.base, primary.log(), workspace=workspace)) as replica:
        replica.swaps.merge_on_apply()
        primary.commit(put(7, 70))
        primary.flush()
        primary.commit(put(8, 80))
        replica.advance()
        replica.swaps.native_states.why_not = lambda state: "no room"  # type: ignore[method-assign]
        assert replica.swaps.rebase_beside() == (4, 5)
        assert replica.state.kind is StateKind.MERGE_ON_READ
        assert replica.get(8) == {"id": 8, "v": 80}


def test_a_rebase_beside_a_native_state_gives_way_to_what_a_log_gap_needs(
    primary: SmallTable, workspace: Workspace
) -> None:
    with (
        closing(Replica.open(primary.base, primary.log(), workspace=workspace)) as replica,
        ThreadPoolExecutor(2) as others,
    ):
        replica.swaps.merge_on_apply()
        primary.commit(put(7, 70))
        primary.flush()
        with workspace.one_build(lambda: None):
            rebasing = others.submit(replica.swaps.rebase_beside)
            until(replica.swaps._swapping.locked, "it waits for its turn")
            assert others.submit(replica.swaps.recover_from_log_gap).result(60) == 4
        with pytest.raises(Closed, match="gives way to a base"):
            rebasing.result(60)
        assert replica.get(7) == {"id": 7, "v": 70}
        assert len(list((workspace.directory / "states").iterdir())) == 1


def test_a_base_that_another_rebase_has_just_taken_is_not_taken_again(
    primary: SmallTable, workspace: Workspace
) -> None:
    with closing(Replica.open(primary.base, primary.log(), workspace=workspace)) as replica:
        replica.swaps.merge_on_apply()
        primary.commit(put(7, 70))
        primary.flush()

        def rebase() -> None:
            primary.base.before_load = lambda: None
            replica.swaps.rebase_hotswap()

        primary.base.before_load = rebase
        replica.swaps.stand_on_newer_base()
        assert replica.stats.rebase_count == 1
        assert replica.base_version == primary.base.poll()


def test_a_table_beyond_the_budget_of_all_tables_stays_and_says_so(
    primary: SmallTable, workspace: Workspace, caplog: pytest.LogCaptureFixture
) -> None:
    with closing(Replica.open(primary.base, primary.log(), workspace=workspace)) as first:
        first.swaps.merge_on_apply()
        used = workspace.native_bytes(besides="another")
        assert used > 0 and workspace.native_bytes(besides="t") == 0
        tight = NativeStates("t", workspace, replace(DEFAULT_SETTINGS, native_disk_bytes_max=used - 1))
        assert not tight.wants(first.state, 0)
        assert not tight.wants(first.state, 0)
        assert tight.remark.startswith(f"its native state has outgrown the budget: it takes {used} bytes")
        assert caplog.text.count("native state beyond its budget table=t") == 1
        settings = replace(DEFAULT_SETTINGS, native_disk_bytes_max=used + 1)
        log = primary.log()
        with closing(
            Replica.open(primary.base, log, table="u", workspace=workspace, settings=settings)
        ) as second:
            assert not second.swaps.wants_merge_on_apply
            assert not second.swaps.wants_merge_on_apply
            told = second.swaps.native_states.remark
            assert told.startswith("stays on merge on read: its native copy may take")
            assert f"those of other tables take {used}, limit {used + 1} (native_disk_bytes_max)" in told
            assert caplog.text.count("no native state table=u") == 1


def test_what_the_history_lost_meanwhile_comes_out_of_the_log(
    primary: SmallTable, workspace: Workspace
) -> None:
    with closing(Replica.open(primary.base, primary.log(), workspace=workspace)) as replica:
        made = replica.swaps.native_states.build

        def build(source, **how):  # type: ignore[no-untyped-def]
            state = made(source, **how)
            for key in range(4, 10):
                primary.commit(put(key, key))
            replica.advance()
            replica.history.trim(8)
            return state

        replica.swaps.native_states.build = build  # type: ignore[method-assign]
        replica.swaps.merge_on_apply()
        assert replica.state.kind is StateKind.MERGE_ON_APPLY
        assert (replica.visible_seq, replica.get(5)) == (9, {"id": 5, "v": 5})


def test_a_long_log_of_writes_under_a_reader_is_a_reason_to_build_anew(
    primary: SmallTable, workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    with closing(Replica.open(primary.base, primary.log(), workspace=workspace)) as replica:
        replica.swaps.merge_on_apply()
        before = replica.state
        with replica.view() as view:
            primary.commit(*(put(key, key) for key in range(1000)))
            replica.advance()
            replica.settle()
            assert not replica.swaps.wants_merge_on_apply
            monkeypatch.setattr("flight_replica.replica.native_states.LOG_BYTES_MIN", 1000)
            assert replica.swaps.wants_merge_on_apply
            replica.swaps.merge_on_apply()
            assert len(list((workspace.directory / "native" / "t").glob("*.duckdb"))) == 2
            assert len(view.execute("SELECT * FROM t").read_all()) == 3
        assert replica.state is not before
        assert len(list((workspace.directory / "native" / "t").glob("*.duckdb"))) == 1


def test_a_replica_that_is_far_behind_takes_ops_before_it_is_built_anew(
    primary: SmallTable, workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flight_replica.replica.native_states.REBUILD_OPS_MIN", 10)
    with closing(Replica.open(primary.base, primary.log(), workspace=workspace)) as replica:
        replica.swaps.merge_on_apply()
        found = []
        for _ in range(4):
            primary.commit(*(put(1, value) for value in range(11)))
            replica.advance()
            states = replica.swaps.native_states
            found.append(tuple(states.wants(replica.state, missing) for missing in (0, 250_000, 250_001)))
        assert found == [(True, True, False)] * 3 + [(True, True, True)]


@pytest.mark.parametrize("time_share", [0, 1_000_000])
def test_a_state_is_built_anew_early_where_builds_have_taken_little_of_the_time(
    primary: SmallTable, workspace: Workspace, monkeypatch: pytest.MonkeyPatch, time_share: int
) -> None:
    monkeypatch.setattr("flight_replica.replica.native_states.REBUILD_OPS_MIN", 10)
    monkeypatch.setattr("flight_replica.replica.native_states.BUILD_TIME_SHARE", time_share)
    primary.commit(*(put(key, 0) for key in range(400)))
    primary.flush()
    is_soon = time_share == 0
    with closing(Replica.open(primary.base, primary.log(), workspace=workspace)) as replica:
        replica.swaps.merge_on_apply()
        states, found = replica.swaps.native_states, []
        for _ in range(2):
            for _ in range(20):  # a twentieth of the rows
                primary.commit(put(1, 1))
                replica.advance()
            found.append(states.wants(replica.state, 0))
        assert not states.wants(replica.state, 250_001)  # that come first
        primary.commit(*(put(1, value) for value in range(200)))
        replica.advance()
        assert (*found, states.wants(replica.state, 0)) == (False, is_soon, True)


def test_a_reader_of_a_state_that_was_replaced_needs_no_log_of_writes(
    primary: SmallTable, workspace: Workspace
) -> None:
    with closing(Replica.open(primary.base, primary.log(), workspace=workspace)) as replica:
        replica.swaps.merge_on_apply()
        primary.commit(*(put(key, key) for key in range(1000)))
        replica.advance()
        replica.settle()
        primary.commit(put(1, -1))
        replica.advance()
        with replica.view() as view:
            old = replica.pin()
            primary.commit(put(2, -2))
            replica.advance()
            assert isinstance(old, NativeState) and old.file.log_byte_count > 1000
            replica.swaps.merge_on_apply()
            assert old.file.log_byte_count == 0
            old.settle()  # as a reader does that has just pinned it
            rows = view.execute("SELECT * FROM t").read_all().to_pylist()
            assert {row["id"]: row["v"] for row in rows} == {**{key: key for key in range(1000)}, 1: -1}
            replica.release(old)
        assert replica.get(2) == {"id": 2, "v": -2}
        assert len(list((workspace.directory / "native" / "t").glob("*.duckdb"))) == 1


def test_a_state_that_cannot_be_written_gives_way_to_a_base(
    primary: SmallTable, workspace: Workspace
) -> None:
    """Nothing is wrong with its file, but what waits in memory has no room on the disk."""
    with closing(Replica.open(primary.base, primary.log(), workspace=workspace)) as replica:
        replica.swaps.merge_on_apply()
        primary.commit(put(5, 50))
        replica.advance()
        seq = replica.visible_seq
        with full_disk():
            with pytest.raises(Unavailable, match="can't be written to the native state"):
                replica.view()
            assert replica.get(5) == {"id": 5, "v": 50}
            assert replica.swaps.wants_examining
            replica.swaps.examine()
        assert replica.state.kind is StateKind.MERGE_ON_READ
        assert replica.visible_seq == seq
        assert replica.query("SELECT v FROM t WHERE id = 5").read_all()["v"].to_pylist() == [50]
        replica.swaps.merge_on_apply()  # once there is room
        assert replica.query("SELECT v FROM t WHERE id = 5").read_all()["v"].to_pylist() == [50]


def test_a_state_that_can_be_written_again_stays(primary: SmallTable, workspace: Workspace) -> None:
    with closing(Replica.open(primary.base, primary.log(), workspace=workspace)) as replica:
        replica.swaps.merge_on_apply()
        state = replica.state
        primary.commit(put(5, 50))
        replica.advance()
        with full_disk(), pytest.raises(Unavailable):
            replica.settle()
        replica.swaps.examine()
        assert replica.state is state and not replica.swaps.wants_examining
        assert replica.query("SELECT v FROM t WHERE id = 5").read_all()["v"].to_pylist() == [50]
