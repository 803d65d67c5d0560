"""Writes and table changes at the primary: what is understood, what is refused, and other targets."""

from __future__ import annotations

import datetime
import math
import re
from decimal import Decimal

import duckdb
import pyarrow as pa
import pytest

from flight_replica.errors import (
    InvalidStatement,
    LimitExceeded,
    NotAllowed,
    ReplicaError,
    SchemaMismatch,
    TableNotFound,
)
from flight_replica.sql.dml import (
    AddColumn,
    CreateTable,
    Dml,
    DmlKind,
    DropTable,
    parse_ddl,
    parse_dml,
    retarget,
)

SERVED = ("t", "u", "Orders", "odd name")


def resolve(name: str) -> str | None:
    if name in SERVED:
        return name
    return next((table for table in SERVED if table.lower() == name.lower()), None)


def parse(sql: str) -> Dml:
    return parse_dml(sql, resolve)


# --- writes: allowed ----------------------------------------------------------------------------------

# (statement, kind, table, the statement over relation `new t`)
WRITES = [
    ("INSERT INTO t VALUES (1, 2)", DmlKind.INSERT, "t", 'INSERT INTO "new t" AS "me" VALUES (1, 2)'),
    (
        "insert or replace into main.T (a, b) values (1, default), (?, 'é') ; -- done",
        DmlKind.INSERT_OR_REPLACE,
        "T",
        'insert into "new t" AS "me" (a, b) values (1, default), (?, \'é\')',
    ),
    (
        "INSERT /* é */ OR /* x */ IGNORE INTO t FROM u",
        DmlKind.INSERT_OR_IGNORE,
        "t",
        'INSERT INTO "new t" AS "me" FROM u',
    ),
    (
        "INSERT INTO t BY NAME SELECT 1 AS b",
        DmlKind.INSERT,
        "t",
        'INSERT INTO "new t" AS "me" BY NAME SELECT 1 AS b',
    ),
    ("INSERT INTO t AS x SELECT * FROM u", DmlKind.INSERT, "t", 'INSERT INTO "new t" AS x SELECT * FROM u'),
    ("INSERT INTO t(a) (SELECT 1)", DmlKind.INSERT, "t", 'INSERT INTO "new t" AS "me"(a) (SELECT 1)'),
    (
        'WITH c AS (SELECT 1 AS x) INSERT INTO "odd name" (a) SELECT x FROM c',
        DmlKind.INSERT,
        "odd name",
        'WITH c AS (SELECT 1 AS x) INSERT INTO "new t" AS "me" (a) SELECT x FROM c',
    ),
    (
        "INSERT INTO t DEFAULT VALUES",
        DmlKind.INSERT,
        "t",
        'INSERT INTO "new t" AS "me" DEFAULT VALUES',
    ),
    (
        "UPDATE t SET a = a + 1, b = DEFAULT WHERE t.a IS DISTINCT FROM b",
        DmlKind.UPDATE,
        "t",
        'UPDATE "new t" AS "me" SET a = a + 1, b = DEFAULT WHERE t.a IS DISTINCT FROM b',
    ),
    (
        "UPDATE t SET b = extract(year FROM DATE '2020-01-01') FROM u WHERE u.a = t.a",
        DmlKind.UPDATE,
        "t",
        'UPDATE "new t" AS "me" SET b = extract(year FROM DATE \'2020-01-01\') FROM u WHERE u.a = t.a',
    ),
    (
        "UPDATE ORDERS o SET (a, b) = (1, (SELECT max(a) FROM u))",
        DmlKind.UPDATE,
        "ORDERS",
        'UPDATE "new t" o SET (a, b) = (1, (SELECT max(a) FROM u))',
    ),
    (
        "WITH c(x) AS (SELECT 1), update AS (SELECT 2) UPDATE t AS s SET a = 1 FROM c, update",
        DmlKind.UPDATE,
        "t",
        'WITH c(x) AS (SELECT 1), update AS (SELECT 2) UPDATE "new t" AS s SET a = 1 FROM c, update',
    ),
    ("DELETE FROM t", DmlKind.DELETE, "t", 'DELETE FROM "new t" AS "me"'),
    (
        "DELETE FROM \"t\" WHERE b = 'DELETE FROM t'",
        DmlKind.DELETE,
        "t",
        'DELETE FROM "new t" AS "me" WHERE b = \'DELETE FROM t\'',
    ),
    (
        "DELETE FROM t AS x USING u, (SELECT 1 AS c) v WHERE x.a = u.a",
        DmlKind.DELETE,
        "t",
        'DELETE FROM "new t" AS x USING u, (SELECT 1 AS c) v WHERE x.a = u.a',
    ),
    (
        "WITH RECURSIVE r(n) AS (SELECT 1 UNION SELECT 2 FROM r) DELETE FROM t WHERE a IN (FROM r)",
        DmlKind.DELETE,
        "t",
        "WITH RECURSIVE r(n) AS (SELECT 1 UNION SELECT 2 FROM r)"
        ' DELETE FROM "new t" AS "me" WHERE a IN (FROM r)',
    ),
    (
        "/* DELETE FROM u */ DELETE FROM t -- WHERE a = 1\nWHERE a = 2 -- and so on",
        DmlKind.DELETE,
        "t",
        'DELETE FROM "new t" AS "me" -- WHERE a = 1\nWHERE a = 2',
    ),
]


@pytest.mark.parametrize(("sql", "kind", "table", "text"), WRITES, ids=[row[0][:50] for row in WRITES])
def test_a_write_is_understood_and_takes_another_target(
    sql: str, kind: DmlKind, table: str, text: str
) -> None:
    dml = parse(sql)
    assert (dml.kind, dml.table) == (kind, table)
    assert retarget(dml, "new t", "me") == text
    place = slice(dml.target_start, dml.target_start + dml.target_length)
    assert dml.sql.encode()[place].decode().split(".")[-1].strip('"') == table


@pytest.mark.parametrize("sql", [row[0] for row in WRITES], ids=[row[0][:50] for row in WRITES])
def test_a_write_runs_over_its_new_target_with_returning_behind_it(sql: str) -> None:
    dml = parse(sql)
    with duckdb.connect() as connection:
        connection.execute('CREATE TABLE "new t" (a INT, b VARCHAR)')
        for table in SERVED:
            connection.execute(f"CREATE TABLE \"{table}\" AS SELECT 1 AS a, 'x' AS b")
        values = [7] * dml.parameter_count
        rows = connection.execute(retarget(dml, "new t", dml.table) + "\nRETURNING *", values).fetchall()
        for table in SERVED:
            assert connection.execute(f'FROM "{table}"').fetchall() == [(1, "x")]
        assert connection.execute('SELECT count(*) FROM "new t"').fetchall() == [
            (len(rows) if dml.kind.startswith("INSERT") else 0,)
        ]


def test_no_alias_is_added_where_none_is_given() -> None:
    assert retarget(parse("DELETE FROM t"), 'q"x', None) == 'DELETE FROM "q""x"'


def test_tables_are_those_that_are_read() -> None:
    assert parse("UPDATE t SET a = 1").tables == ()
    assert parse("UPDATE t SET a = (SELECT max(a) FROM T)").tables == ("t",)
    assert parse("DELETE FROM t USING orders WHERE true").tables == ("Orders",)
    assert parse("WITH u AS (SELECT 1) DELETE FROM t WHERE a IN (FROM u)").tables == ()


def test_calls_in_a_write_stand_where_its_text_has_them() -> None:
    dml = parse("INSERT INTO t SELECT 1, 'é' FROM merutable_tables() m, (FROM merutable_changes('u', 3))")
    texts = [dml.sql.encode()[call.start :][: call.length].decode() for call in dml.functions]
    assert texts == ["merutable_tables()", "merutable_changes('u', 3)"]
    assert not any(call.is_whole_statement for call in dml.functions)


@pytest.mark.parametrize(
    ("sql", "count", "names"),
    [
        ("INSERT INTO t VALUES (?, ?), (?, 1)", 3, ()),
        ("UPDATE t SET a = $2 WHERE a = $1", 2, ()),
        ("DELETE FROM t WHERE a = $key OR b = $key", 1, ("key",)),
        ("DELETE FROM t", 0, ()),
    ],
)
def test_parameters_of_a_write_are_counted(sql: str, count: int, names: tuple[str, ...]) -> None:
    dml = parse(sql)
    assert (dml.parameter_count, dml.parameter_names) == (count, names)


# --- writes: refused ----------------------------------------------------------------------------------

REFUSED: list[tuple[str, type[ReplicaError], str]] = [
    ("", InvalidStatement, "empty"),
    ("DELETE FROM t; DELETE FROM u", InvalidStatement, "found 2"),
    ("INSERT INTO t VALUES (1)) SELECT (1", InvalidStatement, "syntax error"),
    ("SELECT 1", NotAllowed, "SELECT"),
    ("WITH x AS (DELETE FROM t RETURNING *) FROM x", NotAllowed, "SELECT"),
    ("TRUNCATE t", NotAllowed, "TRUNCATE"),
    ("MERGE INTO t USING u ON t.a = u.a WHEN MATCHED THEN DELETE", NotAllowed, "MERGE"),
    ("CREATE TABLE x (a INT)", NotAllowed, "CREATE"),
    ("COPY t FROM 'x.csv'", NotAllowed, "COPY"),
    ("EXPLAIN DELETE FROM t", NotAllowed, "EXPLAIN"),
    ("INSERT INTO t VALUES (1) RETURNING *", NotAllowed, "RETURNING"),
    ("UPDATE t SET a = 1 RETURNING a", NotAllowed, "RETURNING"),
    ("DELETE FROM t RETURNING a", NotAllowed, "RETURNING"),
    ("INSERT INTO t VALUES (1) ON CONFLICT DO NOTHING", NotAllowed, "ON CONFLICT"),
    ("INSERT INTO t VALUES (1) ON CONFLICT (a) DO UPDATE SET b = 1", NotAllowed, "ON CONFLICT"),
    ("INSERT OR REPLACE INTO t VALUES (1) ON CONFLICT DO NOTHING", ReplicaError, "ON"),
    ("INSERT INTO nothing VALUES (1)", TableNotFound, "nothing"),
    ("INSERT INTO other.t VALUES (1)", NotAllowed, "other.t"),
    ("INSERT INTO memory.main.t VALUES (1)", NotAllowed, "memory.main.t"),
    ("UPDATE temp.t SET a = 1", NotAllowed, "temp.t"),
    ("WITH x AS (SELECT 1) DELETE FROM x", TableNotFound, "'x'"),
    ("INSERT INTO t FROM 'x.csv'", NotAllowed, "files"),
    ("INSERT INTO t SELECT * FROM read_csv('x.csv')", NotAllowed, "read_csv"),
    ("INSERT INTO t FROM secret", TableNotFound, "secret"),
    ("INSERT INTO t VALUES ((SELECT 1 FROM secret))", TableNotFound, "secret"),
    ("UPDATE t SET a = getenv('x')", NotAllowed, "getenv"),
    ("UPDATE t SET a = 1 FROM secret", TableNotFound, "secret"),
    ("UPDATE t SET a = 1 FROM 'x.csv' x WHERE x.a IS DISTINCT FROM t.a", NotAllowed, "files"),
    ("UPDATE t SET a = 1 WHERE b = (SELECT max(b) FROM secret)", TableNotFound, "secret"),
    ("UPDATE t SET a = repeat('x', 1000000000)", LimitExceeded, "repeat"),
    ("UPDATE t SET a = nextval('s')", NotAllowed, "nextval"),
    ("DELETE FROM t USING secret", TableNotFound, "secret"),
    ("DELETE FROM t WHERE a IN (FROM glob('*'))", NotAllowed, "glob"),
    ("WITH c AS (COPY u TO 'f') DELETE FROM t", NotAllowed, "COPY"),
    ("WITH c AS (DELETE FROM u RETURNING *) INSERT INTO t FROM c", ReplicaError, "DELETE"),
    ("WITH c AS (FROM secret) DELETE FROM t", TableNotFound, "secret"),
    ("WITH a AS (WITH b AS (SELECT 1) FROM b) INSERT INTO t FROM b", TableNotFound, "'b'"),
    ('UPDATE t SET "$pk_bytes" = 1', NotAllowed, "$pk_bytes"),
    ('UPDATE t SET a = "$PK_bytes"', NotAllowed, "$pk_bytes"),
    ('INSERT INTO t ("$pk_bytes") VALUES (1)', NotAllowed, "$pk_bytes"),
    ('INSERT INTO t BY NAME SELECT 1 AS "$pk_bytes"', NotAllowed, "$pk_bytes"),
    ('DELETE FROM t WHERE "$pk_bytes" IS NULL', NotAllowed, "$pk_bytes"),
    ('UPDATE t SET "$updated" = 1', NotAllowed, "$updated"),
    ('UPDATE t SET a = 1 WHERE "$Updated" > 3', NotAllowed, "$updated"),
    ("DELETE FROM t WHERE a = " + "(" * 5000 + "1" + ")" * 5000, LimitExceeded, "brackets"),
    ("INSERT INTO t VALUES (" + "1, " * 60_000 + "1)", LimitExceeded, "tokens"),
]


@pytest.mark.parametrize(("sql", "error", "words"), REFUSED, ids=[row[0][:50] for row in REFUSED])
def test_a_write_outside_the_sandbox_is_refused_with_its_reason(
    sql: str, error: type[ReplicaError], words: str
) -> None:
    with pytest.raises(error, match=re.escape(words)):
        parse(sql)


# --- tables ---------------------------------------------------------------------------------------------


def create(sql: str) -> CreateTable:
    found = parse_ddl(sql)
    assert isinstance(found, CreateTable)
    return found


def test_a_table_is_read_with_types_key_and_nullability() -> None:
    found = create(
        'CREATE TABLE IF NOT EXISTS main."My T" (b VARCHAR NOT NULL, a BIGINT, -- the id\n'
        ' c DECIMAL(10, 2) NULL, s STRUCT(x INT, "y z" DOUBLE[]), m MAP(INT, TEXT), PRIMARY KEY (A, b));'
    )
    assert (found.name, found.if_not_exists, found.primary_key) == ("My T", True, ("a", "b"))
    columns = [(column.name, column.type, column.nullable) for column in found.schema.columns]
    assert columns == [
        ("b", pa.string(), False),
        ("a", pa.int64(), False),
        ("c", pa.decimal128(10, 2), True),
        ("s", pa.struct([("x", pa.int32()), ("y z", pa.list_(pa.float64()))]), True),
        ("m", pa.map_(pa.int32(), pa.string()), True),
    ]


@pytest.mark.parametrize(
    ("kind", "default", "value"),
    [
        ("INT", "5", 5),
        ("INT", "-5", -5),
        ("INT", "NULL", None),
        ("BIGINT", "'12'", 12),
        ("VARCHAR", "'it''s, (so)'", "it's, (so)"),
        ("BOOLEAN", "true", True),
        ("DECIMAL(10, 2)", "-1.5", Decimal("-1.50")),
        ("DOUBLE", "1e3", 1000.0),
        ("DATE", "DATE '2020-02-29'", datetime.date(2020, 2, 29)),
        ("TIMESTAMP", "'2020-01-01 00:00:00.5'", datetime.datetime(2020, 1, 1, 0, 0, 0, 500_000)),
        ("TIMESTAMPTZ", "'2020-01-01 02:00:00+02'", datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC)),
        ("BLOB", "'\\x00\\xFF'", b"\x00\xff"),
        ("INT", "'7'::INT", 7),
    ],
)
def test_a_default_is_the_literals_value_in_the_columns_type(kind: str, default: str, value: object) -> None:
    column = create(f"CREATE TABLE x (a INT PRIMARY KEY, b {kind} DEFAULT {default}, c INT)").schema.columns[
        1
    ]
    assert column.default == value


def test_a_default_may_be_nan() -> None:
    column = create("CREATE TABLE x (a INT PRIMARY KEY, b DOUBLE DEFAULT 'nan' NOT NULL)").schema.columns[1]
    assert isinstance(column.default, float)
    assert math.isnan(column.default)
    assert not column.nullable


def test_a_dropped_table_and_an_added_column_are_read() -> None:
    assert parse_ddl("DROP TABLE t") == DropTable("t", False)
    assert parse_ddl('DROP TABLE IF EXISTS main."a b";') == DropTable("a b", True)
    added = parse_ddl("ALTER TABLE t ADD COLUMN IF NOT EXISTS z INT DEFAULT 5")
    assert isinstance(added, AddColumn)
    assert (added.table, added.if_not_exists) == ("t", True)
    assert (added.column.name, added.column.type, added.column.default) == ("z", pa.int32(), 5)
    plain = parse_ddl("ALTER TABLE t ADD z VARCHAR")
    assert isinstance(plain, AddColumn)
    assert (plain.column.type, plain.column.nullable, plain.if_not_exists) == (pa.string(), True, False)
    strict = parse_ddl("ALTER TABLE t ADD COLUMN z INT NOT NULL DEFAULT 5")
    assert isinstance(strict, AddColumn)
    assert (strict.column.nullable, strict.column.default) == (False, 5)


@pytest.mark.parametrize("name", ["x.y", "main.x", ".", "t\n", " t", 'a"b', "set"])
@pytest.mark.parametrize("path", ["", "main."])
@pytest.mark.parametrize("sql", ["INSERT INTO {} VALUES (1)", "UPDATE {} SET a = 1", "DELETE FROM {}"])
def test_a_table_of_any_quoted_name_can_be_written_to(name: str, path: str, sql: str) -> None:
    quoted = '"' + name.replace('"', '""') + '"'
    found = parse_dml(sql.format(path + quoted), lambda served: served)
    assert found.table == name
    assert retarget(found, "new", None) == sql.format('"new"')


TABLES_REFUSED: list[tuple[str, type[ReplicaError], str]] = [
    ("CREATE TABLE x (a INT)", NotAllowed, "PRIMARY KEY"),
    ("CREATE TABLE x (a INT, PRIMARY KEY (b))", ReplicaError, "b"),
    ("CREATE TABLE x (a INT PRIMARY KEY, b INT PRIMARY KEY)", InvalidStatement, "primary key"),
    ("CREATE TABLE x (a INT PRIMARY KEY, A INT)", InvalidStatement, "A"),
    ("CREATE OR REPLACE TABLE x (a INT PRIMARY KEY)", NotAllowed, "OR REPLACE"),
    ("CREATE TEMP TABLE x (a INT PRIMARY KEY)", NotAllowed, "TEMP"),
    ("CREATE TEMPORARY TABLE x (a INT PRIMARY KEY)", NotAllowed, "TEMPORARY"),
    ("CREATE TABLE x AS SELECT 1 AS a", NotAllowed, "CREATE TABLE AS"),
    ("CREATE TABLE x AS FROM 'x.csv'", NotAllowed, "CREATE TABLE AS"),
    ("CREATE TABLE other.x (a INT PRIMARY KEY)", NotAllowed, "schema"),
    ("CREATE TABLE memory.main.x (a INT PRIMARY KEY)", NotAllowed, "schema"),
    ("CREATE VIEW x AS SELECT 1", NotAllowed, "VIEW"),
    ("CREATE SEQUENCE s", NotAllowed, "SEQUENCE"),
    ("CREATE MACRO f(x) AS x", NotAllowed, "MACRO"),
    ("CREATE INDEX i ON t (a)", NotAllowed, "INDEX"),
    ("CREATE SCHEMA s", NotAllowed, "SCHEMA"),
    ("CREATE TYPE e AS ENUM ('a')", NotAllowed, "TYPE"),
    ("CREATE TABLE x (a INT PRIMARY KEY, b INT CHECK (b > 0))", NotAllowed, "CHECK"),
    ("CREATE TABLE x (a INT PRIMARY KEY, CHECK (a > 0))", NotAllowed, "CHECK"),
    ("CREATE TABLE x (a INT PRIMARY KEY, b INT UNIQUE)", NotAllowed, "UNIQUE"),
    ("CREATE TABLE x (a INT PRIMARY KEY, UNIQUE (a))", NotAllowed, "UNIQUE"),
    ("CREATE TABLE x (a INT PRIMARY KEY REFERENCES y (a))", NotAllowed, "REFERENCES"),
    ("CREATE TABLE x (a INT PRIMARY KEY, FOREIGN KEY (a) REFERENCES y (a))", NotAllowed, "FOREIGN"),
    ("CREATE TABLE x (a INT PRIMARY KEY, CONSTRAINT c CHECK (a > 0))", NotAllowed, "CONSTRAINT"),
    ("CREATE TABLE x (a INT PRIMARY KEY, b INT GENERATED ALWAYS AS (a + 1))", NotAllowed, "GENERATED"),
    ("CREATE TABLE x (a INT PRIMARY KEY, b INT AS (a + 1))", NotAllowed, "AS"),
    ("CREATE TABLE x (a INT PRIMARY KEY, b VARCHAR COLLATE NOCASE)", NotAllowed, "COLLATE"),
    ("CREATE TABLE x (a INT PRIMARY KEY, b INT DEFAULT (1 + 1))", NotAllowed, "literal"),
    ("CREATE TABLE x (a INT PRIMARY KEY, b INT DEFAULT (SELECT 1))", NotAllowed, "literal"),
    ("CREATE TABLE x (a INT PRIMARY KEY, b INT DEFAULT random())", NotAllowed, "literal"),
    ("CREATE TABLE x (a INT PRIMARY KEY, b INT DEFAULT nextval('s'))", NotAllowed, "nextval"),
    ("CREATE TABLE x (a INT PRIMARY KEY, b TEXT DEFAULT getenv('HOME'))", NotAllowed, "getenv"),
    ("CREATE TABLE x (a INT PRIMARY KEY, b TEXT DEFAULT current_user)", NotAllowed, "literal"),
    ("CREATE TABLE x (a INT PRIMARY KEY, b TINYINT DEFAULT 300)", InvalidStatement, "300"),
    ("CREATE TABLE x (a INT PRIMARY KEY, b INT DEFAULT 'five')", InvalidStatement, "five"),
    ("CREATE TABLE x (a INT PRIMARY KEY, b something)", NotAllowed, "something"),
    ("CREATE TABLE x (a INT PRIMARY KEY, b HUGEINT)", SchemaMismatch, "DECIMAL(38, 0)"),
    ("CREATE TABLE x (a INT PRIMARY KEY, b ENUM ('a'))", SchemaMismatch, "VARCHAR"),
    ("CREATE TABLE x (a INT PRIMARY KEY, b INT[3])", SchemaMismatch, "fixed size"),
    ("CREATE TABLE x (a INT[] PRIMARY KEY)", SchemaMismatch, "key"),
    ('CREATE TABLE x (a INT PRIMARY KEY, "$PK_BYTES" INT)', NotAllowed, "$pk_bytes"),
    ("CREATE TABLE x (a INT PRIMARY KEY); DROP TABLE t", InvalidStatement, "found 2"),
    ("DROP TABLE t CASCADE", NotAllowed, "CASCADE"),
    ("DROP TABLE other.t", NotAllowed, "schema"),
    ("DROP VIEW t", NotAllowed, "VIEW"),
    ("DROP SCHEMA main", NotAllowed, "SCHEMA"),
    ("ALTER TABLE t DROP COLUMN a", NotAllowed, "DROP"),
    ("ALTER TABLE t RENAME TO u", NotAllowed, "RENAME"),
    ("ALTER TABLE t RENAME a TO b", NotAllowed, "RENAME"),
    ("ALTER TABLE t ALTER a TYPE BIGINT", NotAllowed, "ALTER"),
    ("ALTER TABLE t ADD PRIMARY KEY (a)", NotAllowed, "PRIMARY KEY"),
    ("ALTER TABLE t ADD COLUMN z INT DEFAULT random()", NotAllowed, "literal"),
    ("ALTER TABLE t ADD COLUMN z INT NOT NULL", NotAllowed, "has a default"),
    ("ALTER TABLE t ADD COLUMN z INT NOT NULL DEFAULT NULL", NotAllowed, "has a default"),
    ("ALTER TABLE t ADD COLUMN s.z INT", NotAllowed, "schema"),
    ("ALTER VIEW v RENAME TO w", NotAllowed, "VIEW"),
    ("INSERT INTO t VALUES (1)", NotAllowed, "INSERT"),
    ("SELECT 1", NotAllowed, "SELECT"),
]


@pytest.mark.parametrize(
    ("sql", "error", "words"), TABLES_REFUSED, ids=[row[0][:60] for row in TABLES_REFUSED]
)
def test_what_a_table_here_cannot_have_is_refused_by_name(
    sql: str, error: type[ReplicaError], words: str
) -> None:
    with pytest.raises(error) as raised:
        parse_ddl(sql)
    assert words in str(raised.value)
