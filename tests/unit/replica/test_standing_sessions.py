"""Sessions that go on from view to view: the same tables, newer rows, and nothing of the statement before."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path

import pyarrow as pa
import pytest

from flight_replica.errors import InvalidStatement
from flight_replica.replica.replica import Replica
from flight_replica.replica.view import open_view
from flight_replica.schema import Column
from flight_replica.sql.standing_sessions import IDLE_MAX
from flight_replica.sql.view import View
from flight_replica.state.workspace import Workspace
from tests.bases import SmallTable, assert_same, delete, put, sorted_by_key


@pytest.fixture
def replica(primary: SmallTable, workspace: Workspace) -> Iterator[Replica]:
    with closing(Replica.open(primary.base, primary.log(), workspace=workspace)) as replica:
        yield replica


@pytest.fixture
def opened(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """Every session that a view had to open anew."""
    found: list[object] = []
    standing = workspace.standing_sessions
    make = standing._make

    def counted() -> object:
        found.append(None)
        return make()

    monkeypatch.setattr(standing, "_make", counted)
    return found


def view_of(workspace: Workspace, **replicas: Replica) -> View:
    return open_view(workspace, replicas, is_checked=True)


def test_views_share_a_session_one_after_the_other(
    replica: Replica, primary: SmallTable, workspace: Workspace, opened: list[object]
) -> None:
    for number in range(5):
        primary.commit(put(number, 7), delete(number + 1))
        replica.advance()
        with view_of(workspace, t=replica) as view:
            found = view.execute("SELECT * FROM t").read_all()
            assert_same(sorted_by_key(found, primary.schema), primary.rows_at(view.positions[0].visible_seq))
    assert len(opened) == 1


def test_a_view_has_the_tables_that_it_asks_for_and_no_others(
    replica: Replica, workspace: Workspace, opened: list[object]
) -> None:
    for names in (["t"], ["t", "secret"], ["t"], ["other"], ["secret", "t"]):
        with view_of(workspace, **dict.fromkeys(names, replica)) as view:
            view.execute(f"SELECT * FROM {names[0]}").read_all()
            bound = view.execute("SELECT view_name FROM duckdb_views() WHERE NOT internal").read_all()
            assert set(bound["view_name"].to_pylist()) == set(names)
    assert len(opened) == 3


def test_views_at_once_have_sessions_of_their_own(
    replica: Replica, workspace: Workspace, opened: list[object]
) -> None:
    views = [view_of(workspace, t=replica) for _ in range(IDLE_MAX + 3)]
    for view in views:
        view.execute("SELECT * FROM t").read_all()
        view.close()
    assert len(workspace.standing_sessions._idle) == IDLE_MAX
    with view_of(workspace, t=replica) as view:
        view.execute("SELECT * FROM t").read_all()
    assert len(opened) == IDLE_MAX + 3


def fails(view: View) -> None:
    with suppress(InvalidStatement):
        view.execute("SELECT 1 FROM t WHERE nothing")
    view.spoil()  # as whoever runs statements does


SPOILING: dict[str, Callable[[View], None]] = {
    "data that was bound": lambda view: view.bind_data("mine", pa.table({"x": [1]})),
    "a time zone": lambda view: view.set_time_zone("Europe/Berlin"),
    "macros": lambda view: view.define_positions({"t": "t"}),
    "an interrupt": View.interrupt,
    "a failure": fails,
}


@pytest.mark.parametrize("what", SPOILING)
def test_a_session_that_is_not_what_it_was_ends_with_its_view(
    what: str, replica: Replica, workspace: Workspace, opened: list[object]
) -> None:
    with view_of(workspace, t=replica) as view:
        SPOILING[what](view)
    with view_of(workspace, t=replica) as view:
        assert len(opened) == 2
        assert (
            view.execute("SELECT current_setting('TimeZone') z FROM t LIMIT 1").read_all()["z"][0].as_py()
            == "UTC"
        )


def test_a_session_whose_transaction_is_lost_ends_with_its_view(
    replica: Replica, workspace: Workspace, opened: list[object]
) -> None:
    with view_of(workspace, t=replica) as view:
        view._session.execute("ROLLBACK")
    with view_of(workspace, t=replica):
        assert len(opened) == 2


def test_a_newer_state_and_a_new_column_are_seen(
    replica: Replica, primary: SmallTable, workspace: Workspace, opened: list[object]
) -> None:
    def shown() -> pa.Table:
        with view_of(workspace, t=replica) as view:
            return sorted_by_key(view.execute("SELECT * FROM t").read_all(), primary.schema)

    assert_same(shown(), primary.rows_at(replica.visible_seq))
    replica.swaps.merge_on_apply()
    assert_same(shown(), primary.rows_at(replica.visible_seq))
    primary.add_column(Column("w", pa.int64(), True, 7))
    primary.commit(put(1, 1, 1, schema=primary.schema))
    replica.advance()
    assert_same(shown(), primary.rows_at(replica.visible_seq))
    assert len(opened) == 1


def test_a_state_that_was_swapped_away_goes_while_sessions_stand(
    replica: Replica, primary: SmallTable, workspace: Workspace
) -> None:
    replica.swaps.merge_on_apply()
    with view_of(workspace, t=replica) as view:
        view.execute("SELECT * FROM t").read_all()
    (old,) = (workspace.directory / "native").rglob("*.duckdb")
    assert workspace.standing_sessions._idle
    replica.swaps.merge_on_apply()
    assert not old.exists() and str(old) not in open_files()
    with view_of(workspace, t=replica) as view:
        found = view.execute("SELECT * FROM t").read_all()
    assert_same(sorted_by_key(found, primary.schema), primary.rows_at(replica.visible_seq))


def open_files() -> set[str]:
    """The files that this process has open."""
    found = set()
    for handle in Path("/proc/self/fd").iterdir():
        with suppress(FileNotFoundError):  # the one that lists them
            found.add(os.readlink(handle).removesuffix(" (deleted)"))
    return found
