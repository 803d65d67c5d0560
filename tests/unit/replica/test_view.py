"""A view: exact at one seq from plan to last batch, whatever happens to the replica meanwhile."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from flight_replica.errors import Closed, InvalidStatement, TimedOut
from flight_replica.replica.replica import Replica
from flight_replica.replica.view import open_view, open_views
from flight_replica.schema import Column, TableSchema
from flight_replica.sql.view import View
from flight_replica.state.native_state import NativeState
from flight_replica.state.state import KeyNow
from flight_replica.state.workspace import Workspace
from tests.bases import LINEAGE, SmallTable, assert_same, delete, put, sorted_by_key


@pytest.fixture
def replica(primary: SmallTable, workspace: Workspace) -> Iterator[Replica]:
    with closing(Replica.open(primary.base, primary.log(), workspace=workspace)) as replica:
        yield replica


def assert_shows(view: View, primary: SmallTable, seq: int) -> None:
    """Assert that the view shows the table as of `seq`, and says so."""
    assert [position.visible_seq for position in view.positions] == [seq]
    rows = primary.rows_at(seq)
    assert_same(sorted_by_key(view.execute("FROM t").read_all(), primary.schema), rows)
    assert view.row_count("t") == len(rows)


def apply(replica: Replica, primary: SmallTable) -> None:
    primary.commit(put(1, 100), delete(2), put(9, 90))
    replica.advance()


def rebase(replica: Replica, primary: SmallTable) -> None:
    primary.commit(delete(1))
    primary.flush()
    replica.swaps.rebase_hotswap()


def swap_twice(replica: Replica, primary: SmallTable) -> None:
    rebase(replica, primary)
    rebase(replica, primary)
    primary.base.remove_files()


def add_column(replica: Replica, primary: SmallTable) -> None:
    primary.add_column(Column("w", pa.int64(), True, 7))
    primary.commit(put(1, 1, 1, schema=primary.schema))
    replica.advance()


def close(replica: Replica, primary: SmallTable) -> None:
    replica.close()


@pytest.mark.parametrize("event", [apply, rebase, swap_twice, add_column, close])
def test_a_view_stays_exact_while_its_replica_moves_on(
    event: object, replica: Replica, primary: SmallTable
) -> None:
    primary.commit(put(4, 40), delete(3))
    replica.advance()
    old_schema = primary.schema
    with replica.view() as view:
        stream = view.execute("SELECT * FROM t")  # planned before, read after
        event(replica, primary)  # type: ignore[operator]
        found = sorted_by_key(stream.read_all(), old_schema)
        again = sorted_by_key(view.execute("SELECT * FROM t").read_all(), old_schema)
        assert view.positions[0].visible_seq == 5
    primary.schema = old_schema
    assert_same(found, primary.rows_at(5))
    assert_same(again, primary.rows_at(5))


def test_a_long_stream_is_the_table_at_its_own_seq(tmp_path: Path, workspace: Workspace) -> None:
    primary = SmallTable(tmp_path / "many")
    primary.commit(*[put(key, key) for key in range(30_000)])
    primary.flush()
    with closing(Replica.open(primary.base, primary.log(), workspace=workspace)) as replica:
        primary.commit(*[put(key, -key) for key in range(0, 30_000, 7)])
        replica.advance()
        reader = replica.query("SELECT id, v FROM t")
        batches = [reader.read_next_batch()]
        seq = replica.visible_seq
        for key in range(5):
            primary.commit(put(key, 5), delete(29_999 - key))
            replica.advance()
        batches += list(reader)
        assert len(batches) > 1
        assert_same(sorted_by_key(pa.Table.from_batches(batches), primary.schema), primary.rows_at(seq))


def test_a_view_opened_after_a_column_was_added_has_it(replica: Replica, primary: SmallTable) -> None:
    add_column(replica, primary)
    with replica.view() as view:
        assert_shows(view, primary, 4)


def test_positions_say_where_the_rows_stand(replica: Replica, primary: SmallTable) -> None:
    primary.commit(put(4, 40))
    with replica.view() as view:
        (position,) = view.positions
        assert (position.table, position.lineage) == ("t", LINEAGE)
        assert (position.base_seq, position.visible_seq, position.commit_time_us) == (3, 3, 3_000_000)
    replica.advance()
    with replica.view() as view:
        (position,) = view.positions
        assert (position.base_seq, position.visible_seq, position.commit_time_us) == (3, 4, 4_000_000)


def test_a_view_joins_several_tables_of_one_workspace(
    replica: Replica, primary: SmallTable, workspace: Workspace, tmp_path: Path
) -> None:
    other = SmallTable(tmp_path / "other")
    other.commit(put(1, 7), put(3, 8))
    with closing(Replica.open(other.base, other.log(), table="O t", workspace=workspace)) as second:
        second.advance()
        with open_view(workspace, {"t": replica, "O t": second}) as view:
            sql = 'SELECT t.id, o.v FROM t JOIN "O t" o USING (id) ORDER BY 1'
            found = view.execute(sql).read_all().to_pylist()
            assert found == [{"id": 1, "v": 7}, {"id": 3, "v": 8}]
            assert [(p.table, p.visible_seq) for p in view.positions] == [("t", 3), ("O t", 2)]


def test_a_view_that_cannot_be_opened_lets_go_of_every_state(
    replica: Replica, primary: SmallTable, workspace: Workspace, tmp_path: Path
) -> None:
    other = SmallTable(tmp_path / "other")
    closed = Replica.open(other.base, other.log(), table="o", workspace=workspace)
    closed.close()
    with pytest.raises(Closed):
        open_view(workspace, {"t": replica, "o": closed})
    rebase(replica, primary)
    assert replica._slot.retired_count == 0


def test_closing_a_view_twice_releases_once(replica: Replica) -> None:
    view = replica.view()
    view.close()
    view.close()
    with pytest.raises(Closed):
        view.execute("FROM t")


def test_a_wrong_statement_is_an_error_and_the_view_lives_on(replica: Replica, primary: SmallTable) -> None:
    with replica.view() as view:
        with pytest.raises(InvalidStatement):
            view.execute("SELECT nothing FROM t")
        assert_shows(view, primary, 3)


@pytest.mark.statement(44)
@pytest.mark.parametrize(
    "sql",
    ["INSERT INTO tail_1 VALUES (9, false, 9, 9, 9)", "DELETE FROM position_1", "CREATE TABLE x (i INT)"],
)
def test_nothing_can_be_written_through_a_view(replica: Replica, primary: SmallTable, sql: str) -> None:
    with replica.view() as view, pytest.raises(InvalidStatement, match="read-only"):
        view.execute(sql)
    with replica.view() as view:
        assert_shows(view, primary, 3)


def test_a_view_s_lag_is_proven_by_what_it_shows(replica: Replica, primary: SmallTable) -> None:
    replica.advance()
    take_lag = replica.lag_us

    def lag_then_apply() -> int:
        replica.lag_us = take_lag  # type: ignore[method-assign]
        lag_us = take_lag()
        primary.commit(put(4, 40))
        replica.advance()  # between the lag and the view's moment: the view has more, never less
        return lag_us

    replica.lag_us = lag_then_apply  # type: ignore[method-assign]
    with replica.view() as view:
        assert_shows(view, primary, 4)
        assert view.positions[0].lag_us == -1 < take_lag()


def test_interrupt_ends_a_statement_and_not_the_replica(replica: Replica) -> None:
    with replica.view() as view:
        started = threading.Event()
        raised: list[BaseException] = []

        def run() -> None:
            started.set()
            try:
                view.execute("SELECT count(*) FROM range(10000000) a, range(10000000) b").read_all()
            except (TimedOut, pa.ArrowException, OSError) as error:
                raised.append(error)

        thread = threading.Thread(target=run)
        thread.start()
        started.wait()
        while thread.is_alive():
            view.interrupt()
            thread.join(0.01)
        assert len(raised) == 1
    assert replica.get(1) == {"id": 1, "v": 10}


@pytest.mark.parametrize("is_native", [False, True], ids=["merge on read", "merge on apply"])
def test_a_view_knows_its_rows_until_other_ones_are_bound(
    replica: Replica, primary: SmallTable, is_native: bool
) -> None:
    if is_native:
        replica.swaps.merge_on_apply()
    with replica.view() as before:
        primary.commit(delete(2))
        replica.advance()
        with replica.view() as after:
            assert (before.row_count("t"), after.row_count("t")) == (3, 2)
            after.bind("t", "SELECT 1")
            assert (before.row_count("t"), after.row_count("t")) == (3, None)


def test_a_statement_that_reads_nothing_has_nothing_bound(replica: Replica, primary: SmallTable) -> None:
    primary.commit(delete(2))
    replica.advance()
    sql = "SELECT count(*) FROM duckdb_views() WHERE view_name = 't'"
    with replica.view() as view, replica.view() as another:
        view.take_up_nothing()
        counts = [found.execute(sql).read_all().column(0).to_pylist() for found in (view, another)]
    assert counts == [[0], [1]]


@pytest.mark.parametrize("is_native", [False, True], ids=["merge on read", "merge on apply"])
def test_views_that_are_opened_together_show_one_moment_while_ops_are_applied(
    replica: Replica, primary: SmallTable, workspace: Workspace, is_native: bool
) -> None:
    if is_native:
        replica.swaps.merge_on_apply()
    is_over = threading.Event()

    def write() -> None:
        while not is_over.is_set():
            apply(replica, primary)

    writer = threading.Thread(target=write)
    writer.start()
    together: list[Sequence[View]] = []
    try:
        while len({views[0].positions[0].visible_seq for views in together}) < 4:
            together.append(open_views(workspace, {"t": replica}, 8))
    finally:
        is_over.set()
        writer.join()
    for views in together:
        (seq,) = {view.positions[0].visible_seq for view in views}
        for view in views:
            with view:
                view.take_up(["t"])
                assert_shows(view, primary, seq)


def test_columns_that_differ_only_by_case_are_numbered_in_sql(workspace: Workspace, tmp_path: Path) -> None:
    columns = (Column("id", pa.int64(), False), Column("ID", pa.int64()), Column("seq", pa.string()))
    schema = TableSchema(columns, ("id",))
    table = SmallTable(tmp_path / "base", schema)
    table.commit(put(1, 2, "x", schema=schema))
    replica = Replica.open(table.base, table.log(), workspace=workspace)
    replica.advance()
    assert replica.query("SELECT * FROM t").read_all().to_pylist() == [{"id": 1, "ID_1": 2, "seq": "x"}]
    assert replica.get(1) == {"id": 1, "ID": 2, "seq": "x"}
    replica.close()


def test_a_view_for_one_key_leaves_what_waits_and_shows_it(
    replica: Replica, primary: SmallTable, workspace: Workspace
) -> None:
    replica.swaps.merge_on_apply()
    state = replica.state
    assert isinstance(state, NativeState)
    primary.commit(put(1, 100), delete(2), put(9, 90))
    replica.advance()
    for key in (1, 2, 3, 9, 10):
        with open_view(workspace, {"t": replica}, {"t": {"id": key}}) as view:
            assert [at.visible_seq for at in view.positions] == [primary.seq]
            found = view.execute(f"SELECT * FROM t WHERE id = {key}").read_all()
            expected = primary.rows_at(primary.seq)
            assert_same(found, expected.filter(pc.equal(expected["id"], key)))
    assert state._recent.is_waiting
    with replica.view() as view:
        assert_shows(view, primary, primary.seq)
    assert not state._recent.is_waiting


def test_a_view_for_one_key_is_as_new_as_the_table_where_that_is_newer(
    replica: Replica, primary: SmallTable, workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is known of the key is looked up first; ops may be written before the transaction begins."""
    replica.swaps.merge_on_apply()
    state = replica.state
    assert isinstance(state, NativeState)
    primary.commit(put(1, 100))
    replica.advance()
    key_now = state.key_now

    def slow_key_now(key: Sequence[object]) -> KeyNow:
        found = key_now(key)
        primary.commit(put(1, 101))
        replica.advance()
        state.settle()
        return found

    monkeypatch.setattr(state, "key_now", slow_key_now)
    with open_view(workspace, {"t": replica}, {"t": {"id": 1}}) as view:
        assert [at.visible_seq for at in view.positions] == [primary.seq]
        assert view.execute("SELECT v FROM t WHERE id = 1").read_all()["v"].to_pylist() == [101]


@pytest.mark.parametrize("kind", ["tail", "position", "defaults", "deleted"])
def test_a_served_table_is_never_taken_for_a_table_of_a_state(
    kind: str, replica: Replica, primary: SmallTable, workspace: Workspace, tmp_path: Path
) -> None:
    primary.commit(put(1, 100))
    replica.advance()
    names = workspace.database.execute("SELECT table_name FROM duckdb_tables()").fetchall()
    name = next((name for (name,) in names if name.startswith(kind)), f"{kind}_1_0")
    other = SmallTable(tmp_path / "other", primary.schema)
    other.commit(put(1, 7), put(2, 8))
    with closing(Replica.open(other.base, other.log(), table=name, workspace=workspace)) as named:
        named.advance()
        with open_view(workspace, {"t": replica, name: named}) as view:
            found = view.execute("FROM t").read_all()
            assert_same(sorted_by_key(found, primary.schema), primary.rows_at(primary.seq))
            assert view.execute(f"SELECT v FROM {name} ORDER BY v").read_all()["v"].to_pylist() == [7, 8]
