"""`ReplicaTail`, statement by statement (merutable format, 10.B), and what the engine's tail doesn't have."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import duckdb
import pyarrow as pa
import pytest

from flight_replica.errors import FeedError, LogGap, SchemaMismatch
from flight_replica.log.source import Op
from flight_replica.schema import Column, TableSchema
from flight_replica.sql.database import open_database
from flight_replica.state.tail import ReplicaTail
from tests.bases import ID_V, Change, Fault, SmallTable, delete, op_batch, put


@pytest.fixture
def database() -> Iterator[duckdb.DuckDBPyConnection]:
    connection = open_database()
    yield connection
    connection.close()


@pytest.fixture
def tail(database: duckdb.DuckDBPyConnection) -> ReplicaTail:
    return ReplicaTail(database, 1, ID_V)


@pytest.fixture
def primary(tmp_path: Path) -> SmallTable:
    return SmallTable(tmp_path)


def ops(*changes: tuple[int, Change]) -> pa.RecordBatch:
    return op_batch(ID_V, [(seq, op, row) for seq, (op, row) in changes])


@pytest.mark.statement(16)
def test_a_new_tail_is_empty_at_seq_0(tail: ReplicaTail) -> None:
    assert (tail.visible_seq, tail.ops_applied) == (0, 0)
    assert tail.get([1]) == (False, None)


@pytest.mark.statement(17)
def test_advance_takes_every_op_of_the_log(tail: ReplicaTail, primary: SmallTable) -> None:
    for key in range(1, 6):
        primary.commit(put(key, 10 * key))
    tail.advance(primary.log())
    assert (tail.visible_seq, tail.ops_applied) == (5, 5)
    assert [tail.get([key]) for key in range(1, 6)] == [
        (True, {"id": key, "v": 10 * key}) for key in range(1, 6)
    ]
    assert tail.get([6]) == (False, None)


@pytest.mark.statement(18)
def test_advance_without_new_ops_changes_nothing(tail: ReplicaTail, primary: SmallTable) -> None:
    primary.commit(put(1, 1))
    tail.advance(primary.log())
    tail.advance(primary.log())
    assert (tail.visible_seq, tail.ops_applied) == (1, 1)


@pytest.mark.statement(19, 28)
def test_a_second_advance_takes_only_what_is_new(tail: ReplicaTail, primary: SmallTable) -> None:
    log = primary.log()
    primary.commit(put(1, 1))
    tail.advance(log)
    primary.commit(put(2, 2))
    primary.commit(put(3, 3))
    tail.advance(log)
    assert tail.ops_applied == 3
    assert log.opened == [0, 1]
    assert all(tail.get([key])[0] for key in (1, 2, 3))


@pytest.mark.statement(20)
def test_the_newest_put_of_a_key_counts(tail: ReplicaTail, primary: SmallTable) -> None:
    primary.commit(put(1, 100))
    primary.commit(put(1, 999))
    tail.advance(primary.log())
    assert tail.get([1]) == (True, {"id": 1, "v": 999})


@pytest.mark.statement(15, 21)
@pytest.mark.parametrize("seq", [4, 5])
def test_an_op_not_newer_than_its_key_is_dropped(tail: ReplicaTail, seq: int) -> None:
    tail.apply(ops((5, put(1, 5))))
    tail.apply(ops((seq, put(1, -1))))
    assert tail.get([1]) == (True, {"id": 1, "v": 5})
    assert (tail.visible_seq, tail.ops_applied) == (5, 1)


@pytest.mark.statement(22, 23)
def test_an_old_op_of_an_unknown_key_is_stored_by_a_tail_alone(tail: ReplicaTail) -> None:
    tail.apply(ops((5, put(1, 5))), commit_time_us=50)
    tail.apply(ops((3, put(2, 3))), commit_time_us=30)
    assert tail.get([2]) == (True, {"id": 2, "v": 3})
    assert (tail.visible_seq, tail.ops_applied, tail.commit_time_us) == (5, 2, 50)


@pytest.mark.statement(21, 23)
def test_a_batch_of_known_and_new_ops_keeps_the_new_ones(tail: ReplicaTail) -> None:
    tail.apply(ops((5, put(1, 5)), (6, put(2, 6))))
    tail.apply(ops((5, put(1, -1)), (6, put(2, -1)), (7, put(1, 7))))
    assert (tail.get([1]), tail.get([2])) == ((True, {"id": 1, "v": 7}), (True, {"id": 2, "v": 6}))
    assert (tail.visible_seq, tail.ops_applied) == (7, 3)


@pytest.mark.statement(24)
def test_a_deleted_key_stays_known(tail: ReplicaTail) -> None:
    tail.apply(ops((1, put(1, 1)), (2, delete(1))))
    assert tail.get([1]) == (True, None)


@pytest.mark.statement(25)
def test_a_put_after_a_delete_is_a_row_again(tail: ReplicaTail) -> None:
    tail.apply(ops((1, put(1, 1)), (2, delete(1)), (3, put(1, 3))))
    assert tail.get([1]) == (True, {"id": 1, "v": 3})


@pytest.mark.statement(26)
@pytest.mark.parametrize("op", [Op.INSERT, Op.UPDATE])
def test_insert_and_update_mean_the_same(tail: ReplicaTail, op: Op) -> None:
    tail.apply(ops((1, put(1, 1)), (2, (op, {"id": 1, "v": 2})), (3, (op, {"id": 2, "v": 3}))))
    assert (tail.get([1])[1], tail.get([2])[1]) == ({"id": 1, "v": 2}, {"id": 2, "v": 3})


@pytest.mark.statement(27)
def test_seeding_only_raises_the_seq(tail: ReplicaTail) -> None:
    tail.seed_visible_seq(7, 70)
    tail.seed_visible_seq(3, 30)
    assert (tail.visible_seq, tail.commit_time_us, tail.ops_applied) == (7, 70, 0)


@pytest.mark.statement(29)
def test_ops_before_an_error_in_the_stream_stay(tail: ReplicaTail, primary: SmallTable) -> None:
    primary.commit(put(1, 1))
    primary.commit(put(2, 2))
    log = primary.log()
    log.fault = Fault.ERROR_AFTER_ONE
    with pytest.raises(FeedError, match="object-store blip"):
        tail.advance(log)
    assert (tail.visible_seq, tail.ops_applied) == (1, 1)


def test_a_gap_is_raised_and_changes_nothing(tail: ReplicaTail, primary: SmallTable) -> None:
    log = primary.log()
    log.fault = Fault.GAP
    with pytest.raises(LogGap):
        tail.advance(log)
    assert (tail.visible_seq, tail.ops_applied) == (0, 0)


def test_a_delete_without_pre_image_gets_its_key_from_the_key_bytes(tail: ReplicaTail) -> None:
    tail.apply(op_batch(ID_V, [(1, *put(1, 1)), (2, *put(2, 2))]))
    tail.apply(op_batch(ID_V, [(3, *delete(1))], is_bare_delete=True))
    assert (tail.get([1]), tail.get([2])[1]) == ((True, None), {"id": 2, "v": 2})


def test_a_batch_that_fails_changes_nothing(tail: ReplicaTail, database: duckdb.DuckDBPyConnection) -> None:
    tail.apply(ops((1, put(1, 1))))
    other = TableSchema((*ID_V.columns, Column("w", pa.int64())), ("id",))
    with pytest.raises(SchemaMismatch, match="'w'"):
        tail.apply(op_batch(other, [(2, Op.INSERT, {"id": 2, "v": 2, "w": 2})]))
    assert (tail.visible_seq, tail.ops_applied, tail.get([2])) == (1, 1, (False, None))
    assert tail.position(database.cursor()).visible_seq == 1


@pytest.mark.statement(40)
@pytest.mark.parametrize("key", [[], [1, 2], ["x"], [1.5], [None]], ids=repr)
def test_a_key_that_does_not_fit_is_refused(tail: ReplicaTail, key: list[object]) -> None:
    with pytest.raises(SchemaMismatch):
        tail.get(key)


def test_an_added_column_has_its_default_in_older_rows_and_ops(tail: ReplicaTail) -> None:
    tail.apply(ops((1, put(1, 1))))
    tail.add_columns(TableSchema((*ID_V.columns, Column("w", pa.string(), True, "old")), ("id",)))
    tail.apply(ops((2, put(2, 2))))
    assert tail.get([1])[1] == {"id": 1, "v": 1, "w": "old"}
    assert tail.get([2])[1] == {"id": 2, "v": 2, "w": "old"}


def test_close_drops_every_table(tail: ReplicaTail, database: duckdb.DuckDBPyConnection) -> None:
    assert len(database.execute("SELECT table_name FROM duckdb_tables()").fetchall()) == 3
    tail.close()
    assert database.execute("SELECT table_name FROM duckdb_tables()").fetchall() == []


def test_a_table_that_cannot_be_held_leaves_no_tables(database: duckdb.DuckDBPyConnection) -> None:
    wide = TableSchema((Column("id", pa.int64(), False), Column("d", pa.decimal256(76, 3))), ("id",))
    with pytest.raises(SchemaMismatch, match=r"decimal256\(76, 3\)"):
        ReplicaTail(database, 1, wide)
    assert database.execute("SELECT table_name FROM duckdb_tables()").fetchall() == []
