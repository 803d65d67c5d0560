"""Merge on read by bitmaps: what they leave out is what the join would, at any moment, in any file."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pytest

from flight_replica.schema import Column, TableSchema
from flight_replica.sql.database import open_database
from flight_replica.state import parquet_state, row_bits
from flight_replica.state.parquet_state import ParquetState
from flight_replica.state.row_bits import SPREAD_MAX, KeyRows, key_rows
from tests.bases import ID_V, ParquetBase, delete, op_batch, put

Rows = dict[int, int | None]


@pytest.fixture(autouse=True)
def small_files_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(row_bits, "ROWS_MIN", 0)


@pytest.fixture
def database(tmp_path: Path) -> Iterator[duckdb.DuckDBPyConnection]:
    connection = open_database(readable=[tmp_path])
    yield connection
    connection.close()


def state_of(
    tmp_path: Path, database: duckdb.DuckDBPyConnection, *files: list[int], deleted: list[int] | None = None
) -> ParquetState:
    """Files of these keys, whose values are the keys; rows `deleted` of each don't count."""
    base = ParquetBase(tmp_path / "base", ID_V)
    tables = [pa.table({"id": pa.array(keys, pa.int64()), "v": pa.array(keys, pa.int64())}) for keys in files]
    base.publish([(table, deleted or []) for table in tables], 1)
    return ParquetState(database, 1, base.snapshot, tmp_path / "state")


def begun(database: duckdb.DuckDBPyConnection) -> duckdb.DuckDBPyConnection:
    session = database.cursor()
    session.execute("BEGIN TRANSACTION READ ONLY")
    return session


def rows_of(state: ParquetState, session: duckdb.DuckDBPyConnection) -> Rows:
    """By bitmaps, and the same by joins alone."""
    position = state.position(session)
    by_bits, by_joins = (
        sorted(session.sql(sql).fetchall())
        for sql in (state.relation(position, own_session=lambda: session), state.relation(position))
    )
    assert by_bits == by_joins
    assert state.count_rows(position, session) == len(by_bits)
    return dict(by_bits)


def joins_of(state: ParquetState, database: duckdb.DuckDBPyConnection) -> int:
    """How many joins on the key a scan of the state takes."""
    with begun(database) as session:
        sql = state.relation(state.position(session), own_session=lambda: session)
        plan = str(session.execute(f"EXPLAIN (FORMAT json) {sql}").fetchall()[0][1])
    return plan.count("c0 = c0")


@pytest.mark.parametrize("kind", ["int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64"])
def test_the_row_of_a_key_is_found_in_every_integer_type(kind: str) -> None:
    limits, generator = np.iinfo(kind), np.random.default_rng(7)
    for low in {int(limits.min), max(int(limits.min), -100), int(limits.max) - 200}:
        keys = np.array(sorted({low, low + 1, low + 63, low + 64, low + 65, low + 130, low + 200}), kind)
        found = KeyRows(keys)
        asked = np.array([*keys, low + 2, low + 66, *(() if low == limits.min else (low - 1,))], kind)
        generator.shuffle(asked)
        assert sorted(found.of(asked).tolist()) == list(range(len(keys)))
        assert found.of(keys[3:4]).tolist() == [3]
        assert found.of(keys[:0]).tolist() == []


def test_rows_of_random_keys_are_found_as_a_search_finds_them() -> None:
    generator = np.random.default_rng(1)
    keys = np.unique(generator.integers(-5_000, 5_000, 3_000))
    asked = np.unique(generator.integers(-7_000, 7_000, 2_000))
    expected = np.flatnonzero(np.isin(keys, asked))
    assert np.array_equal(np.sort(KeyRows(keys).of(asked)), expected)


def test_files_whose_keys_do_not_ascend_or_lie_far_apart_have_no_rows_by_key() -> None:
    assert key_rows(np.array([1, 3, 2]), 3) is None
    assert key_rows(np.array([1, 1]), 2) is None
    assert key_rows(np.array([1, 2]), 3) is None
    assert key_rows(np.array([], np.int64), 0) is None
    assert key_rows(np.array([0, 2 * SPREAD_MAX]), 2) is None
    assert key_rows(np.array([np.iinfo(np.int64).min, np.iinfo(np.int64).max]), 2) is None
    assert key_rows(np.array([0, 2 * SPREAD_MAX - 1]), 2) is not None


@pytest.mark.parametrize("seed", range(4))
def test_every_moment_shows_its_rows_whatever_came_since(
    seed: int, tmp_path: Path, database: duckdb.DuckDBPyConnection
) -> None:
    chance = random.Random(seed)
    files = [list(range(100)), list(range(150, 400, 3)), [7000, 401, 5000], list(range(-300, -200))]
    deleted = [0, 2] if seed % 2 else []
    state = state_of(tmp_path, database, *files, deleted=deleted)
    model: Rows = {key: key for keys in files for row, key in enumerate(keys) if row not in deleted}
    moments = [(begun(database), dict(model))]
    state.position(moments[0][0])
    seq = 1
    for _ in range(30):
        ops = []
        for _ in range(chance.choice([1, 1, 5, 60])):
            key = chance.choice([chance.randrange(-320, 450), 5000, 7000, 9000])
            seq += 1
            is_gone = chance.random() < 0.3
            ops.append((seq, *(delete(key) if is_gone else put(key, seq))))
            model.pop(key, None)
            if not is_gone:
                model[key] = seq
        state.apply(op_batch(ID_V, ops), seq)
        session = begun(database)
        if chance.random() < 0.5:
            assert rows_of(state, session) == model
            session.close()
        else:
            state.position(session)  # it is read later, after newer ones
            moments.append((session, dict(model)))
        if chance.random() < 0.3:
            session, expected = moments.pop(chance.randrange(len(moments)))
            assert rows_of(state, session) == expected
            session.close()
    for session, expected in moments:
        assert rows_of(state, session) == expected
        session.close()
    state.close()


def test_only_files_without_an_order_of_keys_are_joined(
    tmp_path: Path, database: duckdb.DuckDBPyConnection
) -> None:
    state = state_of(tmp_path, database, list(range(100)), list(range(100, 200)), [300, 200, 250])
    state.apply(op_batch(ID_V, [(2, *put(5, 0)), (3, *delete(150))]), 3)
    assert joins_of(state, database) == 0
    state.apply(op_batch(ID_V, [(4, *put(250, 0))]), 4)
    assert joins_of(state, database) == 1
    state.close()


def test_files_are_learnt_a_few_at_a_time_and_joined_until_then(
    tmp_path: Path, database: duckdb.DuckDBPyConnection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(row_bits, "ROWS_MAPPED_AT_ONCE", 150)
    files = [list(range(first, first + 100)) for first in range(0, 700, 100)]
    state = state_of(tmp_path, database, *files)
    state.apply(op_batch(ID_V, [(2 + n, *put(100 * n, -1)) for n in range(7)]), 8)
    expected = {key: key for key in range(700)} | {100 * n: -1 for n in range(7)}
    found = []
    for _ in range(4):
        with begun(database) as session:
            assert rows_of(state, session) == expected
        found.append(joins_of(state, database))
    assert found == [1, 0, 0, 0]
    state.close()


def test_rows_are_counted_once_for_a_state_of_the_tail_and_never_by_a_long_join(
    tmp_path: Path, database: duckdb.DuckDBPyConnection, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = state_of(tmp_path, database, list(range(100)), [300, 200, 250], deleted=[0])
    monkeypatch.setattr(parquet_state, "ROWS_COUNTED_MAX", 2)
    with begun(database) as session:
        at_first = state.position(session)
    nobody_s = database.cursor()
    nobody_s.close()
    assert state.count_rows(at_first, nobody_s) == 101
    state.apply(op_batch(ID_V, [(2, *put(5, 0)), (3, *delete(50)), (4, *delete(150)), (5, *put(-1, 0))]), 5)
    with begun(database) as before:
        position = state.position(before)
        assert state.count_rows(position, before) == 101
        assert state.count_rows(position, nobody_s) == 101, "it is known"
        state.apply(op_batch(ID_V, [(6, *put(250, 0)), (7, *delete(6))]), 7)
        with begun(database) as after:
            assert state.count_rows(state.position(after), after) is None, "three rows are joined"
            monkeypatch.setattr(parquet_state, "ROWS_COUNTED_MAX", 3)
            assert state.count_rows(state.position(after), after) == 100
            assert state.count_rows(position, before) == 101
    state.apply(op_batch(ID_V, []), 9)
    with begun(database) as session:
        position = state.position(session)
    assert (position.visible_seq, state.count_rows(position, before)) == (9, 100), "nothing has changed"
    state.close()


def test_a_row_that_came_late_with_an_older_seq_is_left_out_too(
    tmp_path: Path, database: duckdb.DuckDBPyConnection
) -> None:
    state = state_of(tmp_path, database, list(range(100)))
    state.apply(op_batch(ID_V, [(5, *put(1, -1))]), 9)
    with begun(database) as session:
        assert len(rows_of(state, session)) == 100
    state.apply(op_batch(ID_V, [(3, *put(2, -2))]), 9)
    with begun(database) as session:
        found = rows_of(state, session)
    assert (len(found), found[1], found[2]) == (100, -1, -2)
    state.close()


def test_a_column_that_is_added_has_its_default_in_looked_up_files(
    tmp_path: Path, database: duckdb.DuckDBPyConnection
) -> None:
    state = state_of(tmp_path, database, [1, 2, 3])
    state.apply(op_batch(ID_V, [(2, *put(2, 20))]), 2)
    wider = TableSchema((*ID_V.columns, Column("w", pa.string(), True, "new")), ("id",))
    state.add_columns(wider)
    with begun(database) as session:
        found = session.sql(state.relation(state.position(session), own_session=lambda: session)).fetchall()
    assert sorted(found) == [(1, 1, "new"), (2, 20, "new"), (3, 3, "new")]
    state.close()


def test_the_tail_of_a_small_table_is_joined(
    tmp_path: Path, database: duckdb.DuckDBPyConnection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(row_bits, "ROWS_MIN", 101)
    state = state_of(tmp_path, database, list(range(100)))
    state.apply(op_batch(ID_V, [(2, *put(5, 0))]), 2)
    assert joins_of(state, database) == 1
    state.close()
