"""SQL at the primary: what each kind of statement does, and what bad input is told."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest

from flight_replica.errors import (
    ConstraintViolation,
    InvalidStatement,
    LimitExceeded,
    NotAllowed,
    ReplicaError,
    SchemaMismatch,
    TableNotFound,
)
from flight_replica.flightsql.service import IngestMode
from flight_replica.log.source import Op
from flight_replica.primary.engine import Engine
from flight_replica.primary.settings import PrimarySettings
from flight_replica.primary.values import select_of_values

BYTES = 1 << 30


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    engine = Engine.open(tmp_path, PrimarySettings(ingest_bytes_max=10_000_000))
    engine.write("CREATE TABLE t (id INTEGER PRIMARY KEY, a VARCHAR, n DECIMAL(10, 2) DEFAULT 1.5)")
    engine.write("INSERT INTO t(id, a) VALUES (1, 'one'), (2, 'two'), (3, 'three')")
    yield engine
    engine.close()


def rows(engine: Engine, table: str = "t") -> list[tuple[object, ...]]:
    record, session = engine.table(table), engine.session()
    key = ", ".join(f'"{name}"' for name in record.schema.primary_key)
    found = session.execute(f"SELECT {record.columns_sql} FROM {record.rows} ORDER BY {key}").fetchall()
    session.close()
    return found


def names(engine: Engine) -> list[object]:
    """`id:a` of each row of t."""
    return [f"{row[0]}:{row[1]}" for row in rows(engine)]


def ops_after(engine: Engine, since: int, table: str = "t") -> list[tuple[Op, object]]:
    """Op and first column of each op."""
    batch = engine.feed(table).read(since, None, BYTES)
    return [(r.op, next(iter(r.row.values())) if r.row else None) for r in batch.records()]


# --- what statements do -----------------------------------------------------------------------------


@pytest.mark.statement(118)
def test_insert_fills_columns_that_it_doesnt_name_with_their_default(engine: Engine) -> None:
    engine.write("INSERT INTO t(id) VALUES (4)")
    engine.write("INSERT INTO t VALUES (5, DEFAULT, DEFAULT)")
    engine.write("INSERT INTO t BY NAME SELECT 'six' AS a, 6 AS id")
    assert [str(row) for row in rows(engine)[3:]] == [
        "(4, None, Decimal('1.50'))",
        "(5, None, Decimal('1.50'))",
        "(6, 'six', Decimal('1.50'))",
    ]


def test_an_update_of_a_large_table_has_an_op_for_every_row(engine: Engine) -> None:
    """130,000 rows are more than a row group: there DuckDB 2.0's UPDATE RETURNING leaves rows out."""
    engine.write("CREATE TABLE large (id INTEGER PRIMARY KEY, n INTEGER)")
    engine.write("INSERT INTO large SELECT i, 0 FROM range(130000) r(i)")
    written = engine.write("UPDATE large SET n = 1 WHERE id <> 7")
    ops = engine.feed("large").read(130_000, None, BYTES).ops
    assert (written.rows_affected, written.seq) == (129_999, 259_999)
    assert sorted(ops.column("id").to_pylist()) == [i for i in range(130_000) if i != 7]
    assert set(ops.column("n").to_pylist()) == {1}


def test_updates_one_after_the_other_each_log_their_own_rows(engine: Engine) -> None:
    engine.write("UPDATE t SET a = 'x' WHERE id < 3")
    engine.write("UPDATE t AS set SET a = 'y', (n) = (2) WHERE id > 2")
    assert engine.write("UPDATE t SET a = 'z' WHERE id > 3").rows_affected == 0
    engine.write("UPDATE t SET a = u.a FROM t u WHERE u.id = 1 AND t.id = 2")
    assert [key for _, key in ops_after(engine, 3)] == [1, 2, 3, 2]
    assert names(engine) == ["1:x", "2:x", "3:y"]


def test_insert_of_an_existing_key_is_an_error_and_changes_nothing(engine: Engine) -> None:
    with pytest.raises(ConstraintViolation, match=r"table 't': key id = 2 exists already"):
        engine.write("INSERT INTO t(id) VALUES (9), (2)")
    assert (names(engine), engine.feed("t").high_water) == (["1:one", "2:two", "3:three"], 3)


def test_insert_of_one_key_twice_is_an_error(engine: Engine) -> None:
    with pytest.raises(ConstraintViolation, match="key id = 9 is there twice in this statement"):
        engine.write("INSERT INTO t(id) VALUES (9), (8), (9)")
    assert len(rows(engine)) == 3


def test_insert_or_replace_keeps_the_last_of_equal_keys_in_one_op(engine: Engine) -> None:
    result = engine.write("INSERT OR REPLACE INTO t(id, a) VALUES (1, 'x'), (9, 'y'), (1, 'z')")
    assert (result.rows_affected, result.seq) == (2, 5)
    assert names(engine) == ["1:z", "2:two", "3:three", "9:y"]
    assert ops_after(engine, 3) == [(Op.INSERT, 9), (Op.UPDATE, 1)]


def test_insert_or_ignore_keeps_what_is_there(engine: Engine) -> None:
    result = engine.write("INSERT OR IGNORE INTO t(id, a) VALUES (1, 'x'), (9, 'y'), (9, 'z')")
    assert (result.rows_affected, result.seq) == (1, 4)
    assert names(engine) == ["1:one", "2:two", "3:three", "9:y"]


def test_insert_or_replace_takes_many_keys(engine: Engine) -> None:
    engine.write("INSERT OR REPLACE INTO t(id, a) SELECT range, 'new' FROM range(2, 2000)")
    assert names(engine)[:3] == ["1:one", "2:new", "3:new"]
    assert [op for op, _ in ops_after(engine, 3)].count(Op.UPDATE) == 2
    assert len(rows(engine)) == 1999


def test_insert_select_reads_its_own_table_as_it_was(engine: Engine) -> None:
    engine.write("INSERT INTO t(id, a) SELECT id + 10, a FROM t WHERE id IN (SELECT max(id) FROM T)")
    assert names(engine)[3:] == ["13:three"]


@pytest.mark.statement(78, 81, 89)
def test_an_op_is_an_insert_or_an_update_by_whether_the_key_is_there(engine: Engine) -> None:
    for sql in (
        "INSERT OR REPLACE INTO t(id, a) VALUES (7, 'x')",
        "INSERT OR REPLACE INTO t(id, a) VALUES (7, 'x')",
        "INSERT OR REPLACE INTO t(id, a) VALUES (8, 'y')",
        "DELETE FROM t WHERE id = 7",
        "INSERT OR REPLACE INTO t(id, a) VALUES (7, 'z')",
    ):
        engine.write(sql)
    found = [(Op.INSERT, 7), (Op.UPDATE, 7), (Op.INSERT, 8), (Op.DELETE, 7), (Op.INSERT, 7)]
    assert ops_after(engine, 3) == found
    assert engine.feed("t").read(3, None, BYTES).ops["seq"].to_pylist() == [4, 5, 6, 7, 8]
    assert [str(op) for op in Op] == ["INSERT", "UPDATE", "DELETE"]


def test_update_says_its_new_rows(engine: Engine) -> None:
    assert engine.write("UPDATE t SET a = upper(a) WHERE id >= 2").rows_affected == 2
    assert names(engine) == ["1:one", "2:TWO", "3:THREE"]
    assert sorted(ops_after(engine, 3)) == [(Op.UPDATE, 2), (Op.UPDATE, 3)]


def test_update_of_keys_is_delete_and_insert(engine: Engine) -> None:
    assert engine.write("UPDATE t SET id = id + 1").rows_affected == 3
    assert names(engine) == ["2:one", "3:two", "4:three"]
    found = ops_after(engine, 3)
    assert [op for op, _ in found] == [Op.DELETE] * 3 + [Op.INSERT] * 3
    engine.write("INSERT INTO t(id) VALUES (1)")  # the key is free again, and findable in the index
    with pytest.raises(ConstraintViolation):
        engine.write("INSERT INTO t(id) VALUES (4)")


def test_update_that_swaps_two_keys_is_possible(engine: Engine) -> None:
    engine.write("UPDATE t SET id = 3 - id WHERE id < 3")
    assert names(engine) == ["1:two", "2:one", "3:three"]


@pytest.mark.parametrize(
    "change", ["id = 3 WHERE id = 1", "id = 7", "id = CASE id WHEN 1 THEN 2 ELSE id END"]
)
def test_update_to_a_key_that_is_taken_is_an_error_and_changes_nothing(engine: Engine, change: str) -> None:
    with pytest.raises(ConstraintViolation, match="table 't': key id = "):
        engine.write(f"UPDATE t SET {change}")
    assert (names(engine), engine.feed("t").high_water) == (["1:one", "2:two", "3:three"], 3)


def test_update_with_another_table_changes_each_row_once(engine: Engine) -> None:
    engine.write("CREATE TABLE o (k INTEGER PRIMARY KEY, id INTEGER)")
    engine.write("INSERT INTO o VALUES (1, 1), (2, 1), (3, 2)")
    assert engine.write("UPDATE t SET a = 'o' FROM o WHERE o.id = t.id").rows_affected == 2
    assert engine.write("DELETE FROM t AS x USING o WHERE o.id = x.id").rows_affected == 2
    assert names(engine) == ["3:three"]


def test_delete_takes_sub_selects(engine: Engine) -> None:
    assert engine.write("DELETE FROM t WHERE id = (SELECT min(id) FROM t)").rows_affected == 1
    assert names(engine) == ["2:two", "3:three"]


@pytest.mark.statement(93)
def test_a_statement_that_changes_nothing_takes_no_seq(engine: Engine) -> None:
    assert engine.write("DELETE FROM t WHERE id = 77").seq == 3
    assert engine.write("UPDATE t SET a = '' WHERE id = 77").rows_affected == 0


def test_nested_and_exact_types_come_back_as_written(engine: Engine) -> None:
    engine.write(
        "CREATE TABLE x (k UUID PRIMARY KEY, l INTEGER[], s STRUCT(a INTEGER, b VARCHAR), "
        "m MAP(VARCHAR, DATE), ts TIMESTAMPTZ, tm TIME, u UBIGINT, b BLOB)"
    )
    engine.write(
        "INSERT INTO x VALUES ('12345678-1234-1234-1234-1234567890ab', [1, NULL], {'a': 1, 'b': 'é'}, "
        "MAP {'k': DATE '2024-02-29'}, '2024-01-01 00:00:00.000001+02', '12:00:00.5', "
        "18446744073709551615, 'a\\x00')"
    )
    engine.write("UPDATE x SET l = [2]")
    feed = engine.feed("x")
    ops = feed.read(0, None, BYTES).ops
    assert ops.schema.equals(feed.schema.feed_schema)
    (_, updated) = ops.to_pylist()
    assert (updated["op"], updated["l"], updated["u"], updated["b"]) == ("UPDATE", [2], 2**64 - 1, b"a\0")
    assert str(updated["ts"]) == "2023-12-31 22:00:00.000001+00:00"


# --- parameters -------------------------------------------------------------------------------------


def test_executemany_is_one_commit(engine: Engine) -> None:
    bound = pa.table({"id": [7, 5, 6], "a": ["x", None, "z"]})
    result = engine.write("INSERT INTO t(a, id) VALUES (lower($2), $1)", bound)
    assert (result.rows_affected, result.seq) == (3, 6)
    assert ops_after(engine, 3) == [(Op.INSERT, 7), (Op.INSERT, 5), (Op.INSERT, 6)]
    assert engine.feed("t").read(0, 5, BYTES).mark.commit_through == 3
    assert names(engine)[3:] == ["5:None", "6:z", "7:x"]


def test_executemany_of_changes_is_one_commit(engine: Engine) -> None:
    result = engine.write("UPDATE t SET a = ? WHERE id = ?", pa.table({"a": ["p", "q"], "id": [1, 1]}))
    assert (result.rows_affected, result.seq, names(engine)[0]) == (2, 5, "1:q")
    engine.write("DELETE FROM t WHERE id = $id", pa.table({"x": [1, 2]}))
    assert (names(engine), engine.feed("t").read(0, 6, BYTES).mark.commit_through) == (["3:three"], 5)


def test_executemany_that_fails_in_its_last_row_changes_nothing(engine: Engine) -> None:
    with pytest.raises(ReplicaError):
        engine.write("UPDATE t SET id = ? WHERE id = ?", pa.table({"to": [8, 3], "id": [1, 2]}))
    assert (names(engine), engine.feed("t").high_water) == (["1:one", "2:two", "3:three"], 3)


def test_executemany_of_or_replace_keeps_the_last_row_of_a_key(engine: Engine) -> None:
    bound = pa.table({"id": [i % 10 for i in range(5000)], "a": [str(i) for i in range(5000)]})
    engine.write("INSERT OR REPLACE INTO t(id, a) VALUES (?, ?)", bound)
    assert names(engine) == [f"{i}:{4990 + i}" for i in range(10)]


def test_executemany_with_default_or_a_query_runs_row_by_row(engine: Engine) -> None:
    engine.write("INSERT INTO t VALUES (?, DEFAULT, 2)", pa.table({"id": [8, 9]}))
    engine.write("INSERT INTO t(id, a) VALUES (?, (SELECT min(a) FROM t))", pa.table({"id": [10, 11]}))
    assert names(engine)[3:] == ["8:None", "9:None", "10:one", "11:one"]


def test_an_empty_executemany_does_nothing(engine: Engine) -> None:
    nothing = pa.table({"id": pa.array([], pa.int64())})
    assert engine.write("INSERT INTO t(id) VALUES (?)", nothing).rows_affected == 0


def test_a_wrong_number_of_parameters_is_refused(engine: Engine) -> None:
    with pytest.raises(InvalidStatement, match="takes 2 parameters, 1 are bound"):
        engine.write("INSERT INTO t(id, a) VALUES (?, ?)", pa.table({"id": [1]}))
    with pytest.raises(InvalidStatement, match="takes 1 parameters, 0 are bound"):
        engine.write("DELETE FROM t WHERE id = ?")


@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        ("INSERT INTO t VALUES (?, '?')", """INSERT INTO t SELECT "$parameters".p0, '?' FROM"""),
        ("INSERT INTO t(a) VALUES ($2 + f($1))", "INSERT INTO t(a) SELECT"),
        ("INSERT INTO t VALUES (?), (?)", None),
        ("INSERT INTO t VALUES (?, DEFAULT)", None),
        ("INSERT INTO t SELECT ?", None),
        ("INSERT INTO t SELECT * FROM (VALUES (?))", None),
    ],
)
def test_one_row_of_values_becomes_a_select(sql: str, expected: str | None) -> None:
    found = select_of_values(sql, ())
    assert found is None if expected is None else found is not None and found.startswith(expected)


# --- bad input --------------------------------------------------------------------------------------


@pytest.mark.statement(118, 119)
@pytest.mark.parametrize(
    ("sql", "error", "message"),
    [
        ("INSERT INTO nope VALUES (1)", TableNotFound, "nope"),
        ("INSERT INTO t(nope) VALUES (1)", InvalidStatement, 'Table "t" does not have a column .*"nope"'),
        ("INSERT INTO t VALUES (1, '', 1, 1)", InvalidStatement, "t has 3 columns but 4|has 3 columns"),
        ("INSERT INTO t(id) VALUES ('x')", InvalidStatement, "x"),
        ("INSERT INTO t(id) VALUES (3000000000)", InvalidStatement, "3000000000"),
        ("INSERT INTO t(id) VALUES (NULL)", ConstraintViolation, "table 't': column 'id' is NOT NULL"),
        ("INSERT INTO t(a) VALUES ('x')", ConstraintViolation, "table 't': column 'id' is NOT NULL"),
        ("UPDATE t SET id = NULL", ConstraintViolation, "table 't': column 'id' is NOT NULL"),
        ("UPDATE t SET nope = 1", InvalidStatement, "nope"),
        ("UPDATE t SET n = 'x'", InvalidStatement, "x"),
        ("UPDATE t SET \"$pk_bytes\" = ''", InvalidStatement, "pk_bytes"),
        ("DELETE FROM t WHERE nope = 1", InvalidStatement, "nope"),
        (
            "INSERT INTO t(id) SELECT seq FROM merutable_changes('t', 0)",
            InvalidStatement,
            "merutable_changes",
        ),
        ('DELETE FROM "$rows_1"', ReplicaError, "rows_1"),
        ('INSERT INTO t(id) SELECT high_water FROM "$tables"', ReplicaError, "tables"),
        ("SELECT 1", NotAllowed, "SELECT"),
        ("DROP TABLE nope", TableNotFound, "nope"),
        ("ALTER TABLE nope ADD COLUMN x INTEGER", TableNotFound, "nope"),
        ("ALTER TABLE t ADD COLUMN a INTEGER", InvalidStatement, "table 't': column name 'a' exists already"),
        ("ALTER TABLE t ADD COLUMN id TEXT", InvalidStatement, "table 't': column name 'id' exists already"),
        ("ALTER TABLE t ADD COLUMN x INTEGER NOT NULL", NotAllowed, "'x': an added column is nullable or"),
        ("ALTER TABLE t ADD COLUMN A INTEGER", InvalidStatement, "'A' equals 'a' but for case"),
        ("ALTER TABLE t ADD COLUMN op INTEGER", InvalidStatement, "'op' is reserved"),
        ("CREATE TABLE T (id INTEGER PRIMARY KEY)", InvalidStatement, "table 't' exists already"),
        ('CREATE TABLE "../x" (id INTEGER PRIMARY KEY)', InvalidStatement, "looks like a path"),
        ('CREATE TABLE "a/b" (id INTEGER PRIMARY KEY)', InvalidStatement, "looks like a path"),
        ('CREATE TABLE " " (id INTEGER PRIMARY KEY)', InvalidStatement, "empty"),
        ("CREATE TABLE seq (id INTEGER PRIMARY KEY)", InvalidStatement, "reserved"),
        ("CREATE TABLE merutable_x (id INTEGER PRIMARY KEY)", InvalidStatement, "reserved prefix"),
        (f"CREATE TABLE {'x' * 129} (id INTEGER PRIMARY KEY)", InvalidStatement, "129 bytes, limit 128"),
        ('CREATE TABLE x (id INTEGER PRIMARY KEY, "Pk_Bytes" INTEGER)', InvalidStatement, "reserved"),
        ("CREATE TABLE x (id INTEGER PRIMARY KEY, rowid INTEGER)", InvalidStatement, "reserved"),
        ("CREATE TABLE x (id INTEGER)", NotAllowed, "PRIMARY KEY"),
        ("CREATE TABLE x (id TIMESTAMP_NS PRIMARY KEY)", SchemaMismatch, "TIMESTAMP_NS"),
        ("CREATE TABLE x (id INTEGER PRIMARY KEY, u UUID[])", InvalidStatement, "UUID"),
    ],
)
def test_bad_input_is_a_clear_error_and_changes_nothing(
    engine: Engine, sql: str, error: type[Exception], message: str
) -> None:
    tables = engine.tables
    with pytest.raises(error, match=message) as caught:
        engine.write(sql)
    if "$rows_1" not in sql:
        assert "$rows" not in str(caught.value) and "$staging" not in str(caught.value)
    assert (names(engine), engine.tables) == (["1:one", "2:two", "3:three"], tables)
    assert engine.write("INSERT INTO t(id) VALUES (4)").seq == 4


@pytest.mark.statement(122)
def test_nan_in_a_key_is_refused(engine: Engine) -> None:
    engine.write("CREATE TABLE f (d DOUBLE PRIMARY KEY)")
    with pytest.raises(ConstraintViolation, match="table 'f': key column 'd' has a NaN"):
        engine.write("INSERT INTO f VALUES ('nan')")


@pytest.mark.statement(122)
@pytest.mark.parametrize(
    ("name", "kind", "smallest"), [("DOUBLE", pa.float64(), 5e-324), ("REAL", pa.float32(), 2.0**-149)]
)
def test_every_float_that_is_a_number_is_a_key_of_its_own(
    engine: Engine, name: str, kind: pa.DataType, smallest: float
) -> None:
    engine.write(f"CREATE TABLE f (d {name} PRIMARY KEY)")
    values = [0.0, -0.0, math.inf, -math.inf, smallest, -smallest]
    assert engine.write("INSERT INTO f VALUES (?)", pa.table({"d": pa.array(values, kind)})).seq == 6
    ops = engine.feed("f").read(0, None, BYTES).ops
    assert [repr(value) for value in ops["d"].to_pylist()] == [repr(value) for value in values]
    assert len(set(ops["pk_bytes"].to_pylist())) == 6


def test_if_exists_and_if_not_exists_do_nothing_twice(engine: Engine) -> None:
    engine.write("CREATE TABLE IF NOT EXISTS t (id INTEGER PRIMARY KEY)")
    engine.write("DROP TABLE IF EXISTS nope")
    engine.write("ALTER TABLE t ADD COLUMN IF NOT EXISTS a INTEGER")
    assert engine.table("t").schema.names == ("id", "a", "n")


@pytest.mark.statement(117, 118)
@pytest.mark.parametrize(
    ("declaration", "value"),
    [
        ("VARCHAR DEFAULT 'it''s'", "it's"),
        ("BLOB DEFAULT '\\x00\\xff'::BLOB", b"\x00\xff"),
        ("DOUBLE DEFAULT 0.1", 0.1),
        ("BOOLEAN DEFAULT true", True),
        ("UBIGINT DEFAULT 18446744073709551615", 2**64 - 1),
        ("INTEGER NOT NULL DEFAULT 7", 7),
    ],
)
def test_an_added_columns_default_is_what_rows_and_later_inserts_hold(
    engine: Engine, declaration: str, value: object
) -> None:
    engine.write(f"ALTER TABLE t ADD COLUMN x {declaration}")
    engine.write("INSERT INTO t(id) VALUES (4)")
    assert [row[-1] for row in rows(engine)] == [value] * 4
    record = engine.feed("t").read(0, 1, BYTES).ops.to_pylist()[0]
    assert record["x"] == value


# --- ingest -----------------------------------------------------------------------------------------

DATA = pa.table({"k": [1, 2], "v": ["a", "b"]})
KEYED = DATA.replace_schema_metadata({"merutable.primary_key": '["k"]'})


def ingest(engine: Engine, mode: IngestMode, data: pa.Table, table: str = "u") -> tuple[int, int]:
    result = engine.ingest(table, mode, data.to_reader())
    return result.rows_affected, result.seq


def test_ingest_creates_a_table_whose_key_is_stated(engine: Engine) -> None:
    assert ingest(engine, IngestMode.CREATE, KEYED) == (2, 2)
    assert (rows(engine, "u"), engine.table("u").schema.primary_key) == ([(1, "a"), (2, "b")], ("k",))
    with pytest.raises(InvalidStatement, match="exists already"):
        ingest(engine, IngestMode.CREATE, KEYED)


def test_ingest_takes_a_key_from_marked_fields(engine: Engine) -> None:
    schema = pa.schema(
        [pa.field("k", pa.int64(), metadata={"primary_key": "true"}), pa.field("v", pa.string())]
    )
    ingest(engine, IngestMode.CREATE_APPEND, DATA.cast(schema))
    assert engine.table("u").schema.primary_key == ("k",)


def test_ingest_without_a_key_says_what_to_do(engine: Engine) -> None:
    with pytest.raises(InvalidStatement, match="CREATE TABLE … PRIMARY KEY"):
        ingest(engine, IngestMode.CREATE, DATA)
    assert len(engine.tables) == 1


def test_ingest_that_fails_leaves_no_table(engine: Engine) -> None:
    data = pa.table({"k": pa.array([1, None]), "v": ["", ""]}, schema=KEYED.schema)
    with pytest.raises(ConstraintViolation):
        ingest(engine, IngestMode.CREATE, data)
    assert len(engine.tables) == 1


def test_ingest_appends_as_put(engine: Engine) -> None:
    ingest(engine, IngestMode.CREATE, KEYED)
    more = pa.table({"V": ["x", "y", "z"], "k": pa.array([2, 3, 3], pa.int16())})
    assert ingest(engine, IngestMode.APPEND, more) == (3, 4)
    assert rows(engine, "u") == [(1, "a"), (2, "x"), (3, "z")]
    assert ops_after(engine, 2, "u") == [(Op.UPDATE, 2), (Op.INSERT, 3)]


def test_ingest_replaces_a_table_by_a_new_one_with_its_key(engine: Engine) -> None:
    ingest(engine, IngestMode.CREATE, KEYED)
    old = engine.feed("u")
    assert ingest(engine, IngestMode.REPLACE, pa.table({"k": [9], "w": [1.5]})) == (1, 1)
    assert (rows(engine, "u"), engine.feed("u").lineage != old.lineage) == ([(9, 1.5)], True)
    with pytest.raises(TableNotFound):
        old.read(0, None, BYTES)


@pytest.mark.parametrize(
    ("data", "error", "message"),
    [
        (pa.table({"k": [1], "nope": [1]}), InvalidStatement, "table 'u' has no column 'nope'"),
        (pa.table({"v": ["x"]}), ConstraintViolation, "table 'u': column 'k' is NOT NULL"),
        (pa.table({"k": ["x"]}), ConstraintViolation, "table 'u': column 'k' is int64"),
        (pa.table({"k": range(2_000_000)}), LimitExceeded, "10000000 bytes"),
    ],
)
def test_ingest_of_bad_data_is_a_clear_error(
    engine: Engine, data: pa.Table, error: type[Exception], message: str
) -> None:
    ingest(engine, IngestMode.CREATE, KEYED)
    with pytest.raises(error, match=message):
        ingest(engine, IngestMode.APPEND, data)
    assert engine.feed("u").high_water == 2


def test_ingest_into_an_unknown_table_is_refused(engine: Engine) -> None:
    with pytest.raises(TableNotFound):
        ingest(engine, IngestMode.APPEND, DATA)


def test_ingest_takes_the_senders_encodings(engine: Engine) -> None:
    columns = {
        "k": pa.array(["a", "b"]).dictionary_encode(),
        "v": pa.array(["x", None], pa.large_string()),
        "b": pa.array([b"1", b"2"], pa.binary_view()),
        "l": pa.array([[1], None], pa.list_(pa.field("element", pa.int8()))),
        "f": pa.array([b"ab", b"cd"], pa.binary(2)),
        "t": pa.array([1, 2], pa.time32("ms")),
    }
    data = pa.table(columns).replace_schema_metadata({"merutable.primary_key": '["k"]'})
    ingest(engine, IngestMode.CREATE, data)
    feed = engine.feed("u")
    batch = feed.read(0, None, BYTES)
    assert batch.ops.schema.equals(feed.schema.feed_schema)
    assert batch.ops.column("f").to_pylist() == [b"ab", b"cd"]
