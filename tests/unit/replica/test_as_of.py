"""Older seqs: exact where base and history hold them, an error that names what is held elsewhere."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing

import pyarrow as pa
import pytest

from flight_replica.errors import Busy, InvalidStatement
from flight_replica.replica.as_of import AS_OF_VIEWS_MAX, OlderViews
from flight_replica.replica.replica import Replica
from flight_replica.replica.stats import ReplicaSettings
from flight_replica.schema import Column
from flight_replica.sql.view import View
from flight_replica.state.workspace import Workspace
from tests.bases import SmallTable, assert_same, delete, put, sorted_by_key


@pytest.fixture
def replica(primary: SmallTable, workspace: Workspace) -> Iterator[Replica]:
    """At seq 9, over a base at seq 3; commits end at 4, 7 and 9."""
    with closing(Replica.open(primary.base, primary.log(1), workspace=workspace)) as replica:
        for changes in ([put(1, 11)], [put(2, 22), delete(3), put(4, 44)], [delete(1), put(3, 33)]):
            primary.commit(*changes)
            replica.advance()
        yield replica


def as_of(workspace: Workspace, replica: Replica, seq: int) -> View:
    return OlderViews(workspace).open({"t": replica}, {"t": seq})


@pytest.mark.parametrize("seq", [3, 4, 7, 9])
def test_a_seq_that_is_held_is_read_exactly(
    workspace: Workspace, replica: Replica, primary: SmallTable, seq: int
) -> None:
    with as_of(workspace, replica, seq) as view:
        primary.commit(put(2, 0), put(8, 8))
        replica.advance()
        assert [(at.visible_seq, at.base_seq) for at in view.positions] == [(seq, 3)]
        found = sorted_by_key(view.execute("FROM t").read_all(), primary.schema)
        assert_same(found, primary.rows_at(seq))


@pytest.mark.parametrize("seq", [0, 2, 10, 2**63])
def test_a_seq_that_is_not_held_is_refused_with_those_that_are(
    workspace: Workspace, replica: Replica, seq: int
) -> None:
    with pytest.raises(InvalidStatement, match=f"as_of_seq {seq}: .* holds the seqs from 3 to 9"):
        as_of(workspace, replica, seq)


def test_a_commit_is_never_read_in_part(workspace: Workspace, replica: Replica) -> None:
    with pytest.raises(InvalidStatement, match="known to end there; the newest known end before it is seq 4"):
        as_of(workspace, replica, 5)


def test_a_newer_base_moves_the_held_seqs_on(
    workspace: Workspace, replica: Replica, primary: SmallTable
) -> None:
    primary.flush(7)
    replica.swaps.rebase_hotswap()
    with pytest.raises(InvalidStatement, match="holds the seqs from 7 to 9"):
        as_of(workspace, replica, 4)
    with as_of(workspace, replica, 7) as view:
        assert_same(sorted_by_key(view.execute("FROM t").read_all(), primary.schema), primary.rows_at(7))


def test_without_the_history_only_the_visible_seq_is_held(primary: SmallTable, workspace: Workspace) -> None:
    settings = ReplicaSettings(history_bytes_max=1)
    with closing(
        Replica.open(primary.base, primary.log(), workspace=workspace, settings=settings)
    ) as replica:
        for key in range(3):
            primary.commit(put(key, 7))
            replica.advance()
        with pytest.raises(InvalidStatement, match="holds the seqs from 6 to 6"):
            as_of(workspace, replica, 4)
        with as_of(workspace, replica, 6) as view:
            assert view.positions[0].visible_seq == 6


def test_an_older_seq_has_the_columns_of_today_with_their_defaults(
    workspace: Workspace, replica: Replica, primary: SmallTable
) -> None:
    primary.add_column(Column("w", pa.int64(), True, 7))
    primary.commit(put(1, 1, 1, schema=primary.schema))
    replica.advance()
    with as_of(workspace, replica, 4) as view:
        found = sorted_by_key(view.execute("FROM t").read_all(), primary.schema)
        assert_same(found, primary.rows_at(4))


@pytest.mark.parametrize("seq", [3, 4, 7, 9])
def test_a_native_state_takes_the_base_once_more(
    workspace: Workspace, replica: Replica, primary: SmallTable, seq: int
) -> None:
    replica.swaps.merge_on_apply()
    with as_of(workspace, replica, seq) as view:
        found = sorted_by_key(view.execute("FROM t").read_all(), primary.schema)
        assert_same(found, primary.rows_at(seq))


def test_a_native_state_whose_base_is_gone_holds_what_it_shows(
    workspace: Workspace, replica: Replica, primary: SmallTable
) -> None:
    replica.swaps.merge_on_apply()
    primary.base.remove_files()
    with pytest.raises(InvalidStatement, match="holds the seqs from 9 to 9"):
        as_of(workspace, replica, 4)


def test_so_many_older_seqs_are_read_at_once_and_each_gives_its_place_back(
    workspace: Workspace, replica: Replica
) -> None:
    older = OlderViews(workspace)
    for _ in range(2):
        views = [older.open({"t": replica}, {"t": 4}) for _ in range(AS_OF_VIEWS_MAX)]
        with pytest.raises(Busy, match="as_of_views_max"):
            older.open({"t": replica}, {"t": 4})
        for view in views:
            view.close()
