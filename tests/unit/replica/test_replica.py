"""`Replica` opened and advanced by hand: merutable format, 10.C and 10.G, statement by statement."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from uuid import UUID

import pyarrow as pa
import pytest

from flight_replica.errors import (
    BaseNotUsable,
    Closed,
    FeedError,
    LimitExceeded,
    LineageChanged,
    LogGap,
    SchemaMismatch,
)
from flight_replica.replica.replica import Replica
from flight_replica.replica.stats import Advanced, ReplicaSettings, ReplicaStats
from flight_replica.schema import Column, TableSchema
from flight_replica.state.workspace import Workspace
from tests.bases import (
    ID_V,
    Fault,
    FaultyLog,
    ParquetBase,
    SmallTable,
    assert_same,
    delete,
    op_batch,
    put,
    sorted_by_key,
)


@pytest.fixture
def log(primary: SmallTable) -> FaultyLog:
    return primary.log()


@pytest.fixture
def replica(primary: SmallTable, log: FaultyLog, workspace: Workspace) -> Iterator[Replica]:
    with closing(Replica.open(primary.base, log, workspace=workspace)) as replica:
        yield replica


def rows_of(replica: Replica) -> pa.Table:
    return sorted_by_key(replica.query("SELECT * FROM t").read_all(), replica.schema)


@pytest.mark.statement(31, 32, 41, 74, 75)
def test_open_shows_the_base_and_reads_no_log(replica: Replica, primary: SmallTable, log: FaultyLog) -> None:
    assert asdict(replica.stats) == {
        "visible_seq": 3,
        "base_seq": 3,
        "tail_length": 0,
        "rebase_count": 0,
        "last_rebase_warmup_millis": 0,
    }
    assert (replica.visible_seq, replica.base_seq) == (3, 3)
    assert log.opened == []
    assert_same(rows_of(replica), primary.rows_at(3))


@pytest.mark.statement(33)
def test_without_a_base_the_first_advance_replays_from_the_start(
    tmp_path: Path, workspace: Workspace
) -> None:
    primary = SmallTable(tmp_path / "base")
    primary.commit(put(1, 1))
    log = primary.log()
    with closing(Replica.open(primary.base, log, workspace=workspace)) as replica:
        assert (replica.visible_seq, replica.base_seq, replica.get(1)) == (0, 0, None)
        replica.advance()
        assert (replica.visible_seq, replica.base_seq, log.opened) == (1, 0, [0])
        assert replica.get(1) == {"id": 1, "v": 1}


@pytest.mark.statement(34, 35)
def test_base_and_log_are_read_together_after_advance(replica: Replica, primary: SmallTable) -> None:
    primary.commit(put(4, 40))
    assert replica.get(4) is None
    replica.advance()
    assert (replica.get(1), replica.get(4)) == ({"id": 1, "v": 10}, {"id": 4, "v": 40})


@pytest.mark.statement(36, 37, 39)
def test_a_key_deleted_in_the_tail_is_gone_whatever_the_base_holds(
    replica: Replica, primary: SmallTable
) -> None:
    primary.commit(delete(2))
    replica.advance()
    assert (replica.get(2), replica.get(1)) == (None, {"id": 1, "v": 10})
    assert_same(rows_of(replica), primary.rows_at(4))


@pytest.mark.statement(38)
def test_the_tail_s_row_counts_before_the_base_s(replica: Replica, primary: SmallTable) -> None:
    primary.commit(put(1, 2))
    replica.advance()
    assert replica.get(1) == {"id": 1, "v": 2}
    assert_same(rows_of(replica), primary.rows_at(4))


@pytest.mark.statement(40)
@pytest.mark.parametrize("key", [(), (1, 2), ("x",), (None,)], ids=repr)
def test_a_key_of_wrong_arity_or_type_is_refused(replica: Replica, key: tuple[object, ...]) -> None:
    with pytest.raises(SchemaMismatch):
        replica.get(*key)


@pytest.mark.statement(28, 41)
def test_advance_reads_the_log_from_what_is_visible(
    replica: Replica, primary: SmallTable, log: FaultyLog
) -> None:
    primary.commit(put(4, 40))
    replica.advance()
    replica.advance()
    assert log.opened == [3, 4]


@pytest.mark.statement(6)
@pytest.mark.parametrize("hint", [0, 1_000_000])
def test_the_newest_seq_that_a_log_hints_at_bounds_nothing(
    replica: Replica, primary: SmallTable, log: FaultyLog, hint: int
) -> None:
    log.latest_seq = lambda: hint  # type: ignore[method-assign]
    primary.commit(put(4, 40))
    replica.advance()
    replica.swaps.rebase_hotswap()
    assert replica.visible_seq == 4
    assert_same(rows_of(replica), primary.rows_at(4))


@pytest.mark.statement(42, 43)
def test_base_seq_stays_whatever_is_written_and_advanced(replica: Replica, primary: SmallTable) -> None:
    primary.commit(put(4, 40))
    primary.flush()
    replica.advance()
    assert (replica.base_seq, replica.visible_seq) == (3, 4)


@pytest.mark.statement(76, 77)
def test_tail_length_counts_ops_not_keys(replica: Replica, primary: SmallTable) -> None:
    primary.commit(put(4, 40))
    primary.commit(put(4, 41))
    replica.advance()
    assert replica.stats == ReplicaStats(5, 3, 2, 0, 0)


@pytest.mark.statement(68)
def test_advance_or_recover_without_a_gap_is_an_advance(replica: Replica) -> None:
    assert replica.advance_or_recover() == Advanced()
    assert replica.stats.rebase_count == 0


@pytest.mark.statement(29, 71)
@pytest.mark.parametrize("fault", [Fault.ERROR_AT_OPEN, Fault.ERROR_AFTER_ONE])
def test_an_error_that_is_no_gap_goes_through_with_its_text(
    replica: Replica, primary: SmallTable, log: FaultyLog, fault: Fault
) -> None:
    primary.commit(put(4, 40))
    primary.commit(put(5, 50))
    log.fault = fault
    with pytest.raises(FeedError, match="object-store blip"):
        replica.advance_or_recover()
    assert replica.stats.rebase_count == 0
    seq = 4 if fault is Fault.ERROR_AFTER_ONE else 3  # batches before the error stay
    assert replica.visible_seq == seq
    assert_same(rows_of(replica), primary.rows_at(seq))


@pytest.mark.statement(72)
def test_advance_on_a_gap_raises_and_resets_nothing(
    replica: Replica, primary: SmallTable, log: FaultyLog
) -> None:
    primary.commit(put(4, 40))
    replica.advance()
    log.fault = Fault.GAP
    with pytest.raises(LogGap) as raised:
        replica.advance()
    assert (raised.value.requested, raised.value.earliest_available) == (4, 1000)
    assert replica.stats == ReplicaStats(4, 3, 1, 0, 0)
    assert replica.get(4) == {"id": 4, "v": 40}


@pytest.mark.statement(4)
def test_a_log_behind_the_replica_is_a_gap(tmp_path: Path, primary: SmallTable, workspace: Workspace) -> None:
    restored = SmallTable(tmp_path / "restored")  # the primary lost its history
    with closing(Replica.open(primary.base, restored.log(), workspace=workspace)) as replica:
        with pytest.raises(LogGap) as raised:
            replica.advance()
        assert raised.value.requested == 3
        assert_same(rows_of(replica), primary.rows_at(3))


@pytest.mark.statement(21, 22)
@pytest.mark.parametrize("fault", [Fault.DUPLICATE, Fault.FROM_ZERO])
def test_ops_that_come_again_are_taken_once(
    replica: Replica, primary: SmallTable, log: FaultyLog, fault: Fault
) -> None:
    primary.commit(put(4, 40))
    primary.commit(put(4, 41), delete(1))
    log.fault = fault
    replica.advance()  # an op at or below base_seq never reaches the tail, where it would hide the base's row
    assert replica.stats == ReplicaStats(6, 3, 3, 0, 0)
    assert_same(rows_of(replica), primary.rows_at(6))


def test_a_batch_that_fails_leaves_nothing_and_the_next_advance_mends_it(
    replica: Replica, primary: SmallTable, workspace: Workspace
) -> None:
    primary.commit(put(4, 40))
    replica.advance()
    blocker = workspace.session()  # a write under way in another transaction makes the apply fail
    tail = workspace.database.execute(
        "SELECT table_name FROM duckdb_tables() WHERE table_name LIKE 'position%'"
    ).fetchall()[0][0]
    blocker.execute(f"BEGIN; UPDATE {tail} SET row_count = row_count + 1")
    primary.commit(put(1, 11), delete(4))
    with pytest.raises(Exception, match=r"[Cc]onflict"):
        replica.advance()
    blocker.execute("ROLLBACK")
    blocker.close()
    assert replica.stats == ReplicaStats(4, 3, 1, 0, 0)
    assert replica.history.high_water == replica.history.newest_seq == 4
    assert_same(rows_of(replica), primary.rows_at(4))
    replica.advance()
    assert_same(rows_of(replica), primary.rows_at(6))


def test_a_base_of_another_lineage_is_refused_and_leaves_nothing(
    primary: SmallTable, tmp_path: Path, workspace: Workspace
) -> None:
    other = ParquetBase(tmp_path / "other", ID_V, lineage=UUID(int=1))
    with pytest.raises(LineageChanged):
        Replica.open(other, primary.log(), workspace=workspace)


def test_a_base_whose_files_are_gone_is_not_opened_and_leaves_nothing(
    primary: SmallTable, workspace: Workspace, tmp_path: Path
) -> None:
    primary.base.before_load = primary.base.remove_files
    with pytest.raises(BaseNotUsable):
        Replica.open(primary.base, primary.log(), workspace=workspace)
    assert not list((tmp_path / "data").rglob("*.parquet"))


@pytest.mark.statement(45)
@pytest.mark.parametrize(
    "columns",
    [
        (Column("id", pa.int64(), False), Column("v", pa.int32())),
        (Column("id", pa.int64(), False), Column("w", pa.int64())),
    ],
    ids=["type", "name"],
)
def test_a_base_that_does_not_fit_the_log_s_schema_is_refused(
    columns: tuple[Column, ...], primary: SmallTable, tmp_path: Path, workspace: Workspace
) -> None:
    base = ParquetBase(tmp_path / "other", TableSchema(columns, ("id",)))
    with pytest.raises(SchemaMismatch):
        Replica.open(base, primary.log(), workspace=workspace)


def test_a_column_added_to_the_log_appears_with_the_next_advance(
    replica: Replica, primary: SmallTable
) -> None:
    primary.commit(put(4, 40))
    primary.add_column(Column("w", pa.string(), True, "old"))
    primary.commit(put(5, 50, "new", schema=primary.schema))
    replica.advance()
    assert replica.schema == primary.schema
    assert replica.history.schema == primary.schema
    assert replica.get(1) == {"id": 1, "v": 10, "w": "old"}
    assert_same(rows_of(replica), primary.rows_at(5))


def test_a_base_with_fewer_columns_than_the_log_is_widened(primary: SmallTable, workspace: Workspace) -> None:
    primary.add_column(Column("w", pa.int64(), True, 7))
    primary.commit(put(4, 40, 8, schema=primary.schema))
    with closing(Replica.open(primary.base, primary.log(), workspace=workspace)) as replica:
        assert_same(rows_of(replica), primary.rows_at(3))
        replica.advance()
        assert_same(rows_of(replica), primary.rows_at(4))


@pytest.mark.statement(124)
def test_a_range_of_keys_begins_with_its_start_and_ends_before_its_end(
    replica: Replica, primary: SmallTable
) -> None:
    primary.commit(*[put(key, 10 * key) for key in range(4, 11)], delete(2))
    replica.advance()
    for start, end, ids in ((3, 7, [3, 4, 5, 6]), (1, 4, [1, 3]), (9, 99, [9, 10]), (5, 5, [])):
        sql = "SELECT id FROM t WHERE id >= ? AND id < ? ORDER BY id"
        assert replica.query(sql, [start, end]).read_all()["id"].to_pylist() == ids


def test_queries_can_filter_join_and_window_over_base_and_tail(replica: Replica, primary: SmallTable) -> None:
    primary.commit(put(1, 35), put(4, 5))
    replica.advance()
    sql = """WITH ranked AS (SELECT id, v, row_number() OVER (ORDER BY v DESC) AS rank FROM t)
             SELECT a.id, b.id AS next FROM ranked a JOIN ranked b ON b.rank = a.rank + 1 WHERE a.v > ?
             ORDER BY a.rank"""
    found = replica.query(sql, [20]).read_all().to_pylist()
    assert found == [{"id": 1, "next": 3}, {"id": 3, "next": 2}]
    # A filter on a column that isn't in the key must not bring a superseded row back.
    assert replica.query("SELECT * FROM t WHERE v = 10").read_all().num_rows == 0


def test_filters_and_projection_reach_the_base_files(replica: Replica, primary: SmallTable) -> None:
    primary.commit(put(4, 40))
    replica.advance()
    for sql, scan in [
        ("SELECT id FROM t WHERE id > 2", ["Projections: p0 ", "Filters: p0 > 2"]),
        ("SELECT id FROM t WHERE v > 25", ["Filters: p1 > 25"]),
    ]:
        plan = replica.query(f"EXPLAIN {sql}").read_all()["explain_value"][0].as_py()
        assert "Read Parquet" in plan and all(part in plan for part in scan), plan


def test_a_query_nobody_reads_lets_go_of_its_state(replica: Replica, primary: SmallTable) -> None:
    reader = replica.query("SELECT * FROM t")
    primary.flush()
    replica.swaps.rebase()
    assert replica._slot.retired_count == 1
    del reader
    assert replica._slot.retired_count == 0


def test_a_query_that_fails_lets_go_of_its_state(replica: Replica, primary: SmallTable) -> None:
    with pytest.raises(Exception, match="nowhere"):
        replica.query("SELECT * FROM nowhere")
    replica.swaps.rebase()
    assert replica._slot.retired_count == 0


@pytest.mark.statement(111)
def test_a_closed_replica_says_so_and_close_can_be_repeated(replica: Replica) -> None:
    replica.close()
    replica.close()
    for call in (lambda: replica.get(1), replica.view, replica.advance, replica.swaps.rebase):
        with pytest.raises(Closed):
            call()


def test_a_replica_with_a_workspace_of_its_own_removes_it(primary: SmallTable) -> None:
    replica = Replica.open(primary.base, primary.log())
    directory = replica._workspace.directory
    assert directory.exists()
    replica.close()
    assert not directory.exists()


# --- the feed as it arrives ---------------------------------------------------------------------------


def follow(replica: Replica, primary: SmallTable) -> None:
    """Receive, batch by batch, what the feed has beyond what is visible."""
    since = replica.begin_following()
    while since < primary.feed.high_water:
        batch = primary.feed.read(since, None, 1)
        since = batch.mark.through
        replica.receive(batch)


def test_a_commit_in_parts_becomes_visible_as_a_whole(replica: Replica, primary: SmallTable) -> None:
    primary.commit(put(4, 40), put(5, 50), delete(1), parts=3)
    seen = []
    since = replica.begin_following()
    while since < 6:
        batch = primary.feed.read(since, None, 1)
        since = batch.mark.through
        replica.receive(batch)
        seen.append((replica.visible_seq, replica.history.high_water))
    assert seen == [(3, 3), (3, 3), (6, 6)]
    assert_same(rows_of(replica), primary.rows_at(6))


def test_the_history_serves_what_is_visible_to_other_replicas(replica: Replica, primary: SmallTable) -> None:
    primary.commit(put(4, 40))
    follow(replica, primary)
    batch = replica.history.read(3, None, 1 << 20)
    assert batch.ops.equals(op_batch(ID_V, [(4, *put(4, 40))]))
    assert (batch.mark.after, batch.mark.through, batch.mark.commit_through) == (3, 4, 4)
    with pytest.raises(LogGap):
        replica.history.read(2, None, 1 << 20)


@pytest.mark.statement("72a")
def test_a_batch_after_a_hole_is_never_applied(replica: Replica, primary: SmallTable) -> None:
    primary.commit(put(4, 40))
    primary.commit(put(5, 50))
    replica.begin_following()
    with pytest.raises(AssertionError, match="a batch after 4, received 3"):
        replica.receive(primary.feed.read(4, None, 1 << 20))
    assert replica.visible_seq == 3


def test_ops_received_while_the_base_loads_are_joined_with_it(
    primary: SmallTable, workspace: Workspace
) -> None:
    replica = Replica("t", primary.base, primary.log(), workspace, start_seq=3)
    primary.commit(put(4, 40), delete(1), parts=2)
    primary.commit(put(6, 60))
    follow(replica, primary)
    assert not replica.is_loaded
    primary.flush(5)
    replica.load()
    assert (replica.base_seq, replica.visible_seq, replica.stats.tail_length) == (5, 6, 1)
    assert_same(rows_of(replica), primary.rows_at(6))
    assert replica.history.high_water == 6
    replica.close()


def test_a_base_newer_than_what_was_received_is_joined_later(
    primary: SmallTable, workspace: Workspace
) -> None:
    replica = Replica("t", primary.base, primary.log(), workspace, start_seq=3)
    primary.commit(put(4, 40), put(5, 50), parts=2)
    since = replica.begin_following()
    replica.receive(primary.feed.read(since, None, 1))
    primary.flush()
    replica.load()
    assert (replica.visible_seq, replica.history.high_water) == (5, 5)
    replica.receive(primary.feed.read(4, None, 1))  # known by now
    primary.commit(put(6, 60))
    replica.receive(primary.feed.read(5, None, 1))
    assert replica.stats == ReplicaStats(6, 5, 1, 0, 0)
    assert_same(rows_of(replica), primary.rows_at(6))
    replica.close()


def test_readers_of_the_history_learn_a_commit_end_from_the_base(
    primary: SmallTable, workspace: Workspace
) -> None:
    replica = Replica("t", primary.base, primary.log(), workspace, start_seq=3)
    primary.commit(put(4, 40))
    primary.commit(put(5, 50), put(6, 60))
    batch = primary.feed.read(3, None, 1 << 20)
    unknown_ends = type(batch.mark)(**{f: getattr(batch.mark, f) for f in batch.mark.__slots__} | {
        "commit_through": 3})  # fmt: skip
    replica.receive(type(batch)(batch.ops, unknown_ends))
    primary.flush(4)
    replica.load()
    mark = replica.history.read(3, None, 1 << 20).mark
    assert (replica.visible_seq, mark.through, mark.commit_through) == (4, 4, 4)
    replica.close()


def test_ops_beyond_the_limit_while_the_base_loads_are_refused_and_come_again(
    primary: SmallTable, workspace: Workspace
) -> None:
    settings = ReplicaSettings(history_bytes_max=4000)
    replica = Replica("t", primary.base, primary.log(), workspace, start_seq=3, settings=settings)
    primary.commit(*[put(key, key) for key in range(10, 200)])
    with pytest.raises(LimitExceeded, match="arrived while the base loads, limit 4000 bytes"):
        replica.receive(primary.feed.read(3, None, 1 << 20))
    assert replica.history.newest_seq == 3
    replica.load()
    follow(replica, primary)
    assert_same(rows_of(replica), primary.rows_at(primary.seq))
    replica.close()


def test_a_commit_beyond_the_limit_is_refused_and_nothing_of_it_is_kept(
    primary: SmallTable, workspace: Workspace
) -> None:
    settings = ReplicaSettings(commit_bytes_max=1000)
    with closing(
        Replica.open(primary.base, primary.log(), workspace=workspace, settings=settings)
    ) as replica:
        primary.commit(*[put(key, key) for key in range(10, 200)], parts=5)
        with pytest.raises(LimitExceeded, match="limit 1000 bytes"):
            replica.advance()
        assert (replica.visible_seq, replica.history.newest_seq) == (3, 3)
        assert_same(rows_of(replica), primary.rows_at(3))


def test_lag_is_unknown_until_a_mark_proves_it(replica: Replica, primary: SmallTable) -> None:
    assert replica.lag_us() == replica.describe().lag_us == -1
    primary.commit(put(4, 40), put(5, 50), parts=2)
    since = replica.begin_following()
    replica.receive(primary.feed.read(since, None, 1))  # contact alone proves nothing
    assert replica.lag_us() == -1
    replica.receive(primary.feed.read(4, None, 1))
    assert replica.lag_us() >= 0
    with replica.view() as view:
        assert view.positions[0].lag_us >= 0
