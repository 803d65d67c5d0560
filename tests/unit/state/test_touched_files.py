"""Merge on read: only files that may hold a changed key take part in the merge, the others cost nothing."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pytest

from flight_replica.schema import Column, TableSchema
from flight_replica.sql.database import open_database
from flight_replica.state.parquet_state import ParquetState
from tests.bases import ID_V, ParquetBase, delete, op_batch, put

FILE_ROWS = 100


@pytest.fixture
def database(tmp_path: Path) -> Iterator[duckdb.DuckDBPyConnection]:
    connection = open_database(readable=[tmp_path])
    yield connection
    connection.close()


def base_of(tmp_path: Path, kind: pa.DataType, *, deleted: bool = False, offset: int = 0) -> ParquetBase:
    """Five files of 100 keys each, in order; with `deleted`, each lacks its first two rows."""
    schema = TableSchema((Column("id", kind, False), Column("v", pa.int64())), ("id",))
    base = ParquetBase(tmp_path / "base", schema)
    files = []
    for first in range(offset, offset + 5 * FILE_ROWS, FILE_ROWS):
        ids = list(range(first, first + FILE_ROWS))
        keys = [str(number).zfill(4) for number in ids] if pa.types.is_string(kind) else ids
        rows = pa.table(
            {"id": pa.array(keys, kind), "v": pa.array(range(first - offset, first - offset + FILE_ROWS))}
        )
        files.append((rows, [0, 1] if deleted else []))
    base.publish(files, base_seq=10)
    return base


def merged_scans(state: ParquetState, database: duckdb.DuckDBPyConnection) -> tuple[int, int]:
    """How many files are read in all, and how many of them below the merge with the tail."""
    session = database.cursor()
    session.execute("BEGIN TRANSACTION READ ONLY")
    sql = state.relation(state.position(session))
    found = session.execute(f"EXPLAIN (ANALYZE, FORMAT json) {sql}").fetchall()[0][1]
    session.close()
    return _files(json.loads(found)["operator"], is_merged=False)


def _files(operators: list[dict[str, Any]], *, is_merged: bool) -> tuple[int, int]:
    read, merged = 0, 0
    for operator in operators:
        info = operator["extra_info"]
        count = int(info.get("Total Files Read", 0))
        more, more_merged = _files(
            operator.get("children", []), is_merged=is_merged or info.get("Join Type") == "ANTI"
        )
        read += count + more
        merged += count * is_merged + more_merged
    return read, merged


def rows_of(state: ParquetState, database: duckdb.DuckDBPyConnection) -> dict[object, object]:
    session = database.cursor()
    session.execute("BEGIN TRANSACTION READ ONLY")
    found = session.sql(state.relation(state.position(session))).fetchall()
    session.close()
    rows = dict(found)
    assert len(rows) == len(found), "a key stands twice"
    return rows


def test_files_without_a_changed_key_are_read_as_they_lie(
    tmp_path: Path, database: duckdb.DuckDBPyConnection
) -> None:
    state = ParquetState(database, 1, base_of(tmp_path, pa.int64()).snapshot, tmp_path / "state")
    assert merged_scans(state, database) == (5, 0)
    state.apply(op_batch(ID_V, [(11, *put(250, -1)), (12, *delete(299))]), 12)
    assert merged_scans(state, database) == (5, 1)
    state.apply(op_batch(ID_V, [(13, *put(1000, 5))]), 13)  # a key beyond all files touches none
    assert merged_scans(state, database) == (5, 1)
    state.apply(op_batch(ID_V, [(14, *put(0, -2)), (15, *put(499, -3))]), 15)  # at the edges of two files
    assert merged_scans(state, database) == (5, 3)
    expected = {key: key for key in range(500)} | {250: -1, 1000: 5, 0: -2, 499: -3}
    del expected[299]
    assert rows_of(state, database) == expected
    state.close()


def test_a_key_that_is_no_integer_touches_every_file(
    tmp_path: Path, database: duckdb.DuckDBPyConnection
) -> None:
    base = base_of(tmp_path, pa.string())
    state = ParquetState(database, 1, base.snapshot, tmp_path / "state")
    schema = base.snapshot.schema
    state.apply(op_batch(schema, [(11, *put("0250", -1, schema=schema))]), 11)
    assert merged_scans(state, database) == (5, 5)
    assert rows_of(state, database)["0250"] == -1
    state.close()


@pytest.mark.parametrize("kind", [pa.int16(), pa.uint16(), pa.int32(), pa.uint32(), pa.int64(), pa.uint64()])
def test_every_row_counts_once_whatever_files_are_touched(
    kind: pa.DataType, tmp_path: Path, database: duckdb.DuckDBPyConnection
) -> None:
    """Keys lie around zero where there are negative ones, and else across what the signed type can hold."""
    chosen = random.Random(str(kind))
    offset = -250 if pa.types.is_signed_integer(kind) else 2 ** (kind.bit_width - 1) - 250
    base = base_of(tmp_path, kind, deleted=True, offset=offset)
    schema = base.snapshot.schema
    expected: dict[object, object] = {key: key - offset for key in range(offset, offset + 500)}
    for first in range(offset, offset + 500, FILE_ROWS):
        del expected[first], expected[first + 1]
    state = ParquetState(database, 1, base.snapshot, tmp_path / "state")
    assert rows_of(state, database) == expected
    for seq in range(11, 41):
        key = chosen.randrange(offset - 5, offset + 505)
        if chosen.random() < 0.5:
            change = delete(key, schema=schema)
            expected.pop(key, None)
        else:
            change = put(key, -seq, schema=schema)
            expected[key] = -seq
        state.apply(op_batch(schema, [(seq, *change)]), seq)
        assert rows_of(state, database) == expected
    state.close()


def test_a_key_whose_name_is_also_the_path_of_a_field_is_not_mistaken_for_it(
    tmp_path: Path, database: duckdb.DuckDBPyConnection
) -> None:
    nested = Column("a", pa.struct([pa.field("b", pa.int64())]))
    schema = TableSchema((nested, Column("a.b", pa.int64(), False)), ("a.b",))
    base = ParquetBase(tmp_path / "base", schema)
    rows = pa.table({"a": pa.array([{"b": 100}], nested.type), "a.b": pa.array([1])})
    base.publish([(rows, [])], base_seq=10)
    state = ParquetState(database, 1, base.snapshot, tmp_path / "state")
    state.apply(op_batch(schema, [(11, *put({"b": 7}, 1, schema=schema))]), 11)
    session = database.cursor()
    assert session.sql(state.relation(state.position(session))).fetchall() == [({"b": 7}, 1)]
    session.close()
    state.close()
