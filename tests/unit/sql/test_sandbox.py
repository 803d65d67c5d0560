"""What a client's SQL may not do, what it may, and how the server's own relations are found in it."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator

import duckdb
import pytest

from flight_replica.errors import (
    InvalidStatement,
    LimitExceeded,
    NotAllowed,
    ReadOnly,
    ReplicaError,
    TableNotFound,
)
from flight_replica.sql import functions
from flight_replica.sql.database import open_database, quote
from flight_replica.sql.sandbox import Checked, TableFunction, bind_functions, check_select

SERVED = ("t", "u", "events", "Orders", "odd.name")


def resolve(name: str) -> str | None:
    if name in SERVED:
        return name
    return next((table for table in SERVED if table.lower() == name.lower()), None)


def check(sql: str) -> Checked:
    return check_select(sql, resolve)


def call(sql: str) -> TableFunction:
    (found,) = check(sql).functions
    return found


# --- refused ------------------------------------------------------------------------------------------

REFUSED: list[tuple[str, type[ReplicaError], str]] = [
    # not one statement
    ("", InvalidStatement, "empty"),
    ("  -- nothing\n ; /* at all */ ;", InvalidStatement, "empty"),
    ("SELECT 1; SELECT 2", InvalidStatement, "found 2"),
    ("SELECT 1; DROP TABLE t", InvalidStatement, "found 2"),
    ("SELECT 1 -- x\n; INSERT INTO t VALUES (1)", InvalidStatement, "found 2"),
    ("SELECT $$;$$; SELECT 1", InvalidStatement, "found 2"),
    ("SELEC 1", InvalidStatement, "syntax error"),
    ("SELECT 'open", InvalidStatement, "unterminated"),
    ("SELECT 1\0; DROP TABLE t", InvalidStatement, "zero byte"),
    ("SELECT '\ud800'", InvalidStatement, "Unicode"),
    # writes
    ("INSERT INTO t VALUES (1)", ReadOnly, "INSERT"),
    ("/* SELECT */ INSERT INTO t VALUES (1)", ReadOnly, "INSERT"),
    ("UPDATE t SET a = 1", ReadOnly, "UPDATE"),
    ("DELETE FROM t", ReadOnly, "DELETE"),
    ("TRUNCATE t", ReadOnly, "TRUNCATE"),
    ("MERGE INTO t USING u ON t.a = u.a WHEN MATCHED THEN DELETE", ReadOnly, "MERGE"),
    ("CREATE TABLE x (a INT)", ReadOnly, "CREATE"),
    ("CREATE TABLE x AS SELECT 1", ReadOnly, "CREATE"),
    ("CREATE TEMP VIEW x AS SELECT 1", ReadOnly, "CREATE"),
    ("CREATE MACRO f(x) AS x + 1", ReadOnly, "CREATE"),
    ("CREATE SECRET s (TYPE http)", ReadOnly, "CREATE"),
    ("DROP TABLE t", ReadOnly, "DROP"),
    ("ALTER TABLE t ADD COLUMN x INT", ReadOnly, "ALTER"),
    ("WITH x AS (SELECT 1) INSERT INTO t FROM x", ReadOnly, "INSERT writes"),
    ("WITH x AS (INSERT INTO t VALUES (1) RETURNING *) FROM x", ReadOnly, "INSERT inside WITH"),
    ("WITH x AS (UPDATE t SET a = 1 RETURNING *) FROM x", ReadOnly, "UPDATE inside WITH"),
    ("WITH x AS (DELETE FROM t RETURNING *) SELECT 1", ReadOnly, "DELETE inside WITH"),
    ("SELECT (WITH x AS (DELETE FROM t RETURNING a) SELECT a FROM x)", ReadOnly, "DELETE inside WITH"),
    ("EXPLAIN INSERT INTO t VALUES (1)", ReadOnly, "INSERT"),
    ("EXPLAIN ANALYZE DELETE FROM t", ReadOnly, "DELETE"),
    ("EXPLAIN ANALYZE WITH x AS (INSERT INTO t VALUES (1) RETURNING *) FROM x", ReadOnly, "INSERT"),
    # other statements
    ("WITH x AS (COPY t TO 'f') FROM x", NotAllowed, "COPY"),
    ("COPY t TO 'f.csv'", NotAllowed, "COPY"),
    ("COPY t FROM 'f.csv'", NotAllowed, "COPY"),
    ("ATTACH 'f.db'", NotAllowed, "ATTACH"),
    ("ATTACH ':memory:' AS m", NotAllowed, "ATTACH"),
    ("DETACH m", NotAllowed, "DETACH"),
    ("USE memory", NotAllowed, "USE"),
    ("INSTALL httpfs", NotAllowed, "INSTALL"),
    ("LOAD httpfs", NotAllowed, "LOAD"),
    ("SET memory_limit = '1GB'", NotAllowed, "SET"),
    ("SET VARIABLE x = 1", NotAllowed, "SET"),
    ("RESET memory_limit", NotAllowed, "RESET"),
    ("PRAGMA version", NotAllowed, "PRAGMA"),
    ("PRAGMA database_list", NotAllowed, "PRAGMA"),
    ("CALL pragma_version()", NotAllowed, "CALL"),
    ("CALL enable_logging()", NotAllowed, "CALL"),
    ("EXPORT DATABASE 'd'", NotAllowed, "EXPORT"),
    ("VACUUM", NotAllowed, "VACUUM"),
    ("CHECKPOINT", NotAllowed, "CHECKPOINT"),
    ("FORCE CHECKPOINT", NotAllowed, "FORCE"),
    ("BEGIN", NotAllowed, "BEGIN"),
    ("COMMIT", NotAllowed, "COMMIT"),
    ("PREPARE p AS SELECT 1", NotAllowed, "PREPARE"),
    ("EXECUTE p", NotAllowed, "EXECUTE"),
    ("DEALLOCATE p", NotAllowed, "DEALLOCATE"),
    ("EXPLAIN COPY t TO 'f'", NotAllowed, "COPY"),
    ("EXPLAIN EXPLAIN SELECT 1", InvalidStatement, "syntax error"),
    ("EXPLAIN ANALYZE", InvalidStatement, "syntax error"),
    ("EXPLAIN (FORMAT json) SELECT 1", NotAllowed, "the one option"),
    ("EXPLAIN (ANALYZE, FORMAT json) SELECT 1", NotAllowed, "the one option"),
    ("EXPLAIN (ANALYZE) DELETE FROM t", ReadOnly, "DELETE"),
    ("SHOW memory_limit", NotAllowed, "SHOW"),
    ("FROM (SHOW TABLES)", NotAllowed, "SHOW"),
    ("PIVOT t ON a USING sum(b)", NotAllowed, "ON column IN"),
    ("FROM t PIVOT (sum(b) FOR a IN some_enum)", NotAllowed, "enum"),
    # tables
    ("FROM nothing", TableNotFound, "'nothing'"),
    ("FROM 'x.csv'", NotAllowed, "files can't be read"),
    ('FROM "x.csv"', NotAllowed, "files can't be read"),
    ("FROM x.csv", NotAllowed, "'x.csv'"),
    ("FROM '/etc/passwd'", NotAllowed, "/etc/passwd"),
    ("FROM 'http://host/x.parquet'", NotAllowed, "files"),
    ("FROM 'dir/*.parquet'", NotAllowed, "files"),
    ("SELECT (SELECT max(a) FROM 'x.csv')", NotAllowed, "files"),
    ("SELECT 1 FROM t JOIN 'x.csv' x ON true", NotAllowed, "files"),
    ("DESCRIBE 'x.csv'", NotAllowed, "files"),
    ("SUMMARIZE 'x.csv'", NotAllowed, "files"),
    ("FROM t WHERE a IN (FROM 'x.csv')", NotAllowed, "files"),
    ("SELECT list_transform([1], x -> x + (SELECT 1 FROM secret))", TableNotFound, "secret"),
    ("FROM t ORDER BY (FROM secret)", TableNotFound, "secret"),
    ("FROM t LIMIT (SELECT 1 FROM secret)", TableNotFound, "secret"),
    ("SELECT max(a) FILTER (EXISTS (FROM secret)) FROM t", TableNotFound, "secret"),
    ("SELECT sum(a) OVER (ORDER BY (SELECT 1 FROM secret)) FROM t", TableNotFound, "secret"),
    ("SELECT * REPLACE ((SELECT 1 FROM secret) AS a) FROM t", TableNotFound, "secret"),
    ("VALUES ((SELECT 1 FROM secret))", TableNotFound, "secret"),
    ("PIVOT (FROM secret) ON a IN (1) USING sum(b)", TableNotFound, "secret"),
    ("SELECT * FROM unnest((SELECT [1] FROM secret))", TableNotFound, "secret"),
    ("SHOW nothing", NotAllowed, "SHOW"),
    ("DESCRIBE nothing", TableNotFound, "nothing"),
    ("SHOW TABLES FROM information_schema", NotAllowed, "merutable.main"),
    ("SHOW TABLES FROM temp.main", NotAllowed, "merutable.main"),
    ("FROM (DESCRIBE secret)", TableNotFound, "secret"),
    ("FROM information_schema.character_sets", NotAllowed, "information_schema.character_sets"),
    ("FROM information_schema.views", NotAllowed, "only columns"),
    ("FROM system.information_schema.tables", NotAllowed, "system.information_schema.tables"),
    ("SELECT (SELECT 1 FROM information_schema.sequences)", NotAllowed, "sequences"),
    ("FROM merutable.main.t", NotAllowed, "merutable.main.t"),
    ("FROM pg_catalog.pg_class", NotAllowed, "pg_class"),
    ("FROM sqlite_master", TableNotFound, "sqlite_master"),
    ("FROM duckdb_tables", TableNotFound, "duckdb_tables"),
    ("FROM temp.t", NotAllowed, "temp.t"),
    ("FROM memory.main.t", NotAllowed, "memory.main.t"),
    ("FROM t AT (VERSION => 3)", NotAllowed, "time travel"),
    # CTE names end with their scope
    ("WITH a AS (WITH b AS (SELECT 1) FROM b) FROM b", TableNotFound, "'b'"),
    ("WITH b AS (FROM a), a AS (SELECT 1) FROM b", TableNotFound, "'a'"),
    ('WITH "x.csv" AS (FROM "x.csv") FROM "x.csv"', NotAllowed, "x.csv"),
    ('SELECT (WITH "x.csv" AS (SELECT 1) FROM "x.csv"), (FROM "x.csv")', NotAllowed, "x.csv"),
    ('FROM (WITH "x.csv" AS (SELECT 1) FROM "x.csv") a, "x.csv"', NotAllowed, "x.csv"),
    ("WITH RECURSIVE r AS (FROM r UNION ALL SELECT 1) FROM r", TableNotFound, "'r'"),
    ("(WITH c AS (SELECT 1) FROM c) UNION ALL FROM c", TableNotFound, "'c'"),
    ("WITH c AS (SELECT 1) FROM main.c", TableNotFound, "'c'"),
    ("WITH \u00e9 AS (SELECT 1) FROM \u00c9", TableNotFound, "\u00c9"),
    # functions with reach
    ("FROM read_csv('x.csv')", NotAllowed, "read_csv"),
    ("FROM read_text('/etc/passwd')", NotAllowed, "read_text"),
    ("FROM read_parquet(['a', 'b'])", NotAllowed, "read_parquet"),
    ("FROM parquet_schema('x')", NotAllowed, "parquet_schema"),
    ("FROM glob('*')", NotAllowed, "glob"),
    ("FROM sniff_csv('x')", NotAllowed, "sniff_csv"),
    ("FROM query('DROP TABLE t')", NotAllowed, "query"),
    ("FROM query_table('t')", NotAllowed, "query_table"),
    ("FROM histogram('t', 'a')", NotAllowed, "histogram"),
    ("FROM json_execute_serialized_sql('{}')", NotAllowed, "json_execute_serialized_sql"),
    ("FROM seq_scan(1)", NotAllowed, "seq_scan"),
    ("FROM arrow_scan(1, 2, 3)", NotAllowed, "arrow_scan"),
    ("FROM pandas_scan(1)", NotAllowed, "pandas_scan"),
    ("FROM enable_logging(storage = 'file')", NotAllowed, "enable_logging"),
    ("SELECT * FROM t, LATERAL (SELECT * FROM enable_logging())", NotAllowed, "enable_logging"),
    ("FROM checkpoint()", NotAllowed, "checkpoint"),
    ("FROM duckdb_settings()", NotAllowed, "duckdb_settings"),
    ("FROM duckdb_secrets()", NotAllowed, "duckdb_secrets"),
    ("FROM which_secret('a', 'b')", NotAllowed, "which_secret"),
    ("FROM pragma_table_info('t')", NotAllowed, "pragma_table_info"),
    ("FROM summary((FROM t))", NotAllowed, "summary"),
    ("FROM main.read_csv('x')", NotAllowed, "read_csv"),
    ("SELECT system.main.getenv('HOME')", NotAllowed, "getenv"),
    ("SELECT getenv('HOME')", NotAllowed, "getenv"),
    ("SELECT \"GetEnv\"('HOME')", NotAllowed, "getenv"),
    ("SELECT 'HOME'.getenv()", NotAllowed, "getenv"),
    ("SELECT /* abs( */ getenv /* ( */ ('HOME')", NotAllowed, "getenv"),
    ("SELECT current_setting('memory_limit')", NotAllowed, "current_setting"),
    ("SELECT current_query()", NotAllowed, "current_query"),
    ("SELECT current_database()", NotAllowed, "current_database"),
    ("SELECT current_catalog", NotAllowed, "current_catalog"),
    ("SELECT getvariable('x')", NotAllowed, "getvariable"),
    ("SELECT nextval('s')", NotAllowed, "nextval"),
    ("SELECT setseed(0.5)", NotAllowed, "setseed"),
    ("SELECT write_log('x')", NotAllowed, "write_log"),
    ("SELECT pg_sleep(1)", NotAllowed, "pg_sleep"),
    ("SELECT sleep_ms(1000)", NotAllowed, "sleep_ms"),
    ("SELECT json_serialize_sql('SELECT 1')", NotAllowed, "json_serialize_sql"),
    ("SELECT list_aggregate([1], 'nothing')", NotAllowed, "list_aggregate"),
    ("SELECT list_aggregate([1], a) FROM t", NotAllowed, "list_aggregate"),
    ("SELECT list_reduce(['a'], (x, y) -> x || x)", NotAllowed, "list_reduce"),
    ("SELECT abs(getenv('a')) OVER () FROM t", NotAllowed, "abs"),
    ("SELECT * FROM t WHERE [x FOR x IN [getenv('a')]] IS NULL", NotAllowed, "getenv"),
    ("SELECT COLUMNS(c -> getenv(c) = 'x') FROM t", NotAllowed, "getenv"),
    ("FROM t SELECT x: getenv('a')", NotAllowed, "getenv"),
    ("SELECT sum(a ORDER BY getenv('x')) FROM t", NotAllowed, "getenv"),
    ("FROM t QUALIFY getenv('x') = row_number() OVER ()", NotAllowed, "getenv"),
    ("FROM t GROUP BY ALL HAVING getenv('x') = ''", NotAllowed, "getenv"),
    ("SELECT merutable_tables()", NotAllowed, "merutable_tables"),
    ("FROM merutable_other()", NotAllowed, "merutable_other"),
    ("FROM merutable_tables", TableNotFound, "merutable_tables"),
    ("FROM abs(1)", NotAllowed, "abs"),
    ("SELECT nothing(1)", NotAllowed, "nothing"),
    ("SELECT x::secret_type FROM t", NotAllowed, "secret_type"),
    ("SELECT NULL::main.thing", NotAllowed, "type"),
    # the primary's own column
    ('SELECT "$pk_bytes" FROM t', NotAllowed, "$pk_bytes"),
    ('SELECT t."$PK_BYTES" FROM t', NotAllowed, "$pk_bytes"),
    ("SELECT struct_extract(t, '$pk_bytes') FROM t", NotAllowed, "$pk_bytes"),
    ("SELECT t[E'\\x24pk_bytes'] FROM t", NotAllowed, "$pk_bytes"),
    ('SELECT * RENAME ("$pk_bytes" AS a) FROM t', NotAllowed, "$pk_bytes"),
    ('FROM t JOIN u USING ("$pk_bytes")', NotAllowed, "$pk_bytes"),
    # one huge value
    ("SELECT repeat('x', 1000000000)", LimitExceeded, "limit 10000"),
    ("SELECT 'x'.repeat(1000000000)", LimitExceeded, "limit 10000"),
    ("SELECT repeat('x', a) FROM t", NotAllowed, "literal number"),
    ("SELECT repeat('x', ?)", NotAllowed, "literal number"),
    ("SELECT repeat('x', 5000 * 5000)", NotAllowed, "literal number"),
    ("SELECT repeat(repeat('x', 10000), 10000)", LimitExceeded, "100000000 times"),
    ("SELECT repeat(x, 10000) FROM (SELECT repeat('x', 10000) x)", LimitExceeded, "times"),
    ("WITH c AS (SELECT repeat('x', 9999) x) SELECT repeat(x, 9999) FROM c", LimitExceeded, "times"),
    ("SELECT list_transform(range(9999), x -> repeat('y', 9999))", LimitExceeded, "times"),
    (
        "WITH RECURSIVE r AS (SELECT 'a' s UNION ALL SELECT repeat(s, 9) FROM r) FROM r",
        NotAllowed,
        "recursive",
    ),
    (f"SELECT repeat('{'x' * 100_000}', 9999)", LimitExceeded, "times"),
    ("SELECT lpad('x', 1000000, 'y')", LimitExceeded, "lpad"),
    ("SELECT rpad('x', a) FROM t", NotAllowed, "rpad"),
    ("SELECT format('{:>100000}', 'x')", LimitExceeded, "format"),
    ("SELECT format('{:>{}}', 'x', 1000000)", LimitExceeded, "format"),
    ("SELECT printf('%1000000d', 1)", LimitExceeded, "printf"),
    ("SELECT printf(s) FROM t", NotAllowed, "printf"),
    ("SELECT bitstring('1', 100000000)", LimitExceeded, "bitstring"),
    ("SELECT list_resize([1], 100000000)", LimitExceeded, "list_resize"),
    ("SELECT range(1000000000)", LimitExceeded, "range"),
    ("SELECT generate_series(0, 1000000, 1)", LimitExceeded, "generate_series"),
    ("SELECT range(10001)", LimitExceeded, "10001 elements"),
    ("SELECT generate_series(1, 10001)", LimitExceeded, "10001 elements"),
    ("SELECT range(a) FROM t", NotAllowed, "range"),
    ("FROM range(1000000000000)", LimitExceeded, "rows"),
    ("FROM range(1, 1000000000000, 2)", LimitExceeded, "rows"),
    ("FROM t, range(t.a)", NotAllowed, "literals"),
    ("SELECT levenshtein(s, s) FROM t", NotAllowed, "levenshtein"),
    (f"SELECT replace(s, 'a', '{'x' * 2000}') FROM t", LimitExceeded, "replace"),
    ("SELECT replace(s, 'a', s) FROM t", NotAllowed, "replace"),
    ("SELECT string_agg(s, s) FROM t", NotAllowed, "string_agg"),
    (f"SELECT array_to_string([1], '{'x' * 101}')", LimitExceeded, "array_to_string"),
    ("SELECT NULL::INT[100000]", LimitExceeded, "array"),
    ("SELECT NULL::INT[1000][1000]", LimitExceeded, "array"),
    # the text itself
    (f"SELECT '{'x' * 1_000_000}'", LimitExceeded, "1000000 characters"),
    (f"SELECT 1 IN ({'1,' * 60_000} 1)", LimitExceeded, "tokens"),
    ("SELECT " + "(" * 5000 + "1" + ")" * 5000, LimitExceeded, "100 brackets"),
    ("SELECT " + "(" * 5000, LimitExceeded, "100 brackets"),
    ("SELECT " + "[" * 5000 + "]" * 5000, LimitExceeded, "100 brackets"),
    ("FROM (" * 5000 + "t" + ")" * 5000, LimitExceeded, "100 brackets"),
    ("WITH a AS (" * 5000 + "SELECT 1" + ") SELECT 1" * 5000, LimitExceeded, "100 brackets"),
    ("SELECT " + "NOT " * 5000 + "true", InvalidStatement, "depth"),
    ("SELECT " + "+".join(["1"] * 5000), InvalidStatement, "depth"),
    ("SELECT " + "||".join(["'a'"] * 900), LimitExceeded, "nested too deeply"),
    ("FROM t" + ", t" * 3000, LimitExceeded, "nested too deeply"),
    ("SELECT " + "a." * 32 + "a FROM t", LimitExceeded, "32 parts"),
    ("SELECT 1 FROM " + "a." * 40_000 + "t", LimitExceeded, "32 parts"),
    ("SELECT " + "a," * 4_000 + "a FROM t", LimitExceeded, "4000 columns"),
    (
        "SELECT " + "(SELECT max(b.a) FROM t b WHERE b.a = t.a)," * 100 + "(SELECT 1) FROM t",
        LimitExceeded,
        "100 sub",
    ),
    (
        "FROM t a0" + "".join(f", (SELECT a{n}.a) a{n + 1}" for n in range(101)),
        LimitExceeded,
        "100 subqueries",
    ),
    (
        "WITH " + ",".join(f"c{n} AS (SELECT 1)" for n in range(501)) + " FROM c1",
        LimitExceeded,
        "501 named queries",
    ),
    ("SELECT " + "CASE WHEN true THEN " * 900 + "1" + " END" * 900, LimitExceeded, "nested too deeply"),
]


@pytest.mark.parametrize(("sql", "error", "words"), REFUSED, ids=[sql[:60] for sql, _, _ in REFUSED])
def test_a_statement_outside_the_sandbox_is_refused_with_its_reason(
    sql: str, error: type[ReplicaError], words: str
) -> None:
    with pytest.raises(error, match=re.escape(words)):
        check(sql)


# --- allowed ------------------------------------------------------------------------------------------

ALLOWED = [
    "SELECT 1",
    "SELECT 1;",
    " ; ".join(["SELECT 1 -- done"]) + "\n;;",
    "/* a /* b */ c */ SELECT 1",
    "\u00a0SELECT\u00a01\u3000;\ufeff",
    "VALUES (1, 'a'), (2, NULL)",
    "TABLE t",
    "FROM t",
    "FROM T",
    "FROM main.t",
    'FROM Main."Orders"',
    'FROM "odd.name"',
    "FROM 't'",
    "FROM t SELECT a, b WHERE a > 1",
    "SELECT t.* FROM t",
    "SELECT t FROM t",
    "SELECT * EXCLUDE (a) REPLACE (b + 1 AS b) RENAME (s AS z) FROM t",
    "SELECT COLUMNS('a|b') FROM t",
    "SELECT COLUMNS(lambda c: c LIKE 'a%') FROM t",
    "SELECT max(COLUMNS(*)) FROM t",
    "SELECT * LIKE 'a%' FROM t",
    "SELECT DISTINCT ON (a) a, b FROM t ORDER BY a DESC NULLS LAST, b",
    "SELECT a AS x, x + 1 FROM t",
    "SELECT x: a FROM t",
    "SELECT a, count(*), sum(b) FILTER (b > 0) FROM t GROUP BY a HAVING count(*) > 0",
    "SELECT a, b, count(*), grouping(a) FROM t GROUP BY CUBE (a, b)",
    "SELECT a, count(*) FROM t GROUP BY GROUPING SETS ((a), ())",
    "SELECT a FROM t GROUP BY ALL ORDER BY ALL LIMIT 10 OFFSET 1",
    "SELECT a FROM t LIMIT 50%",
    "SELECT a FROM t LIMIT (SELECT 1)",
    "SELECT row_number() OVER w, lag(a, 1, 0) OVER w FROM t WINDOW w AS (PARTITION BY b ORDER BY a)",
    "SELECT sum(a) OVER (ORDER BY a ROWS BETWEEN 1 PRECEDING AND CURRENT ROW EXCLUDE TIES) FROM t",
    "SELECT * FROM t QUALIFY row_number() OVER (PARTITION BY a ORDER BY b) = 1",
    "SELECT * FROM t USING SAMPLE 10%",
    "SELECT * FROM t TABLESAMPLE reservoir(2 ROWS) REPEATABLE (1)",
    "SELECT * FROM t JOIN u USING (a) LEFT JOIN events e ON e.a = t.a",
    "SELECT * FROM t ASOF JOIN u ON t.a >= u.a",
    "SELECT * FROM t POSITIONAL JOIN u",
    "SELECT * FROM t SEMI JOIN u ON t.a = u.a",
    "SELECT * FROM t, LATERAL (SELECT t.a + 1 AS c)",
    "SELECT * FROM t WHERE a IN (SELECT a FROM u) AND EXISTS (FROM u WHERE u.a = t.a)",
    "SELECT * FROM t WHERE a = ANY (SELECT a FROM u) OR a NOT IN (1, 2)",
    "SELECT (SELECT max(a) FROM u), ARRAY(SELECT a FROM u ORDER BY a)",
    "SELECT 1 AS x UNION ALL BY NAME SELECT 2 AS x EXCEPT SELECT 3 INTERSECT SELECT 4",
    "(SELECT 1 AS z) UNION ALL SELECT 2 ORDER BY z LIMIT 1",
    "WITH a AS (SELECT 1 AS x), b AS MATERIALIZED (SELECT x + 1 AS y FROM a) FROM A, b",
    "WITH t AS (SELECT 5 AS z) SELECT z FROM t",
    "WITH x AS (SELECT 1 z) FROM x, (WITH x AS (SELECT 2 z) FROM x) y",
    "WITH x AS (SELECT 1 z) SELECT (SELECT z FROM x), EXISTS (FROM x) FROM x, LATERAL (FROM x) l",
    "WITH x AS (SELECT 1 z) SELECT 1 UNION ALL SELECT 2 ORDER BY (FROM x)",
    'WITH "x.csv" AS (SELECT 1) FROM "x.csv"',
    "WITH RECURSIVE r(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM r WHERE n < 5) SELECT sum(n) FROM r",
    "WITH RECURSIVE r(a, b) USING KEY (a) AS (SELECT 1, 2 UNION SELECT a, b FROM r WHERE false) FROM r",
    "WITH RECURSIVE a AS (SELECT 1 x), r AS (FROM a UNION SELECT x + 1 FROM r WHERE x < 3) FROM r, a",
    "PIVOT t ON a IN (1, 2) USING sum(b) GROUP BY s",
    "FROM t PIVOT (sum(b) AS s, max(b) FOR a IN (1, 2))",
    "UNPIVOT t ON a, b INTO NAME n VALUE v",
    "WITH c AS (SELECT 1 z) FROM (DESCRIBE c)",
    "DESCRIBE SELECT a FROM t",
    "SUMMARIZE t",
    "SUMMARIZE SELECT a FROM t",
    "FROM (DESCRIBE t) SELECT column_name",
    "EXPLAIN SELECT * FROM t",
    "EXPLAIN ANALYZE SELECT * FROM t",
    "EXPLAIN (ANALYZE) SELECT * FROM t",
    "/* why */ explain /* so */ analyze /* long */ FROM t -- ?",
    "SELECT [x + 1 FOR x IN [1, 2, 3] IF x > 1]",
    "SELECT list_transform([1, 2], lambda x: x + 1), list_filter([1, 2], lambda x: x > 1)",
    "SELECT apply([3], lambda x, i: x + i), list_sort([2, 1]), [1, 2][1], [1, 2, 3][2:3]",
    "SELECT {'a': 1}.a, {'a': 1}['a'], struct_pack(b := 2), row(1, 2), (1, 'x')",
    "SELECT MAP {'k': 1}['k'], map_keys(MAP {'k': 1}), unnest([1, 2])",
    "SELECT CASE WHEN a > 1 THEN 'x' ELSE 'y' END, coalesce(b, 0), nullif(a, 1), ifnull(a, 1) FROM t",
    "SELECT a BETWEEN 1 AND 2, a NOT BETWEEN 1 AND 2, a IS DISTINCT FROM b, a IS NOT NULL, NOT a = 1 FROM t",
    "SELECT s LIKE 'a%', s NOT ILIKE 'a', s SIMILAR TO 'a.*', s ~ 'x', s LIKE 'x' ESCAPE '!' FROM t",
    "SELECT 1 + 2 - 3 * 4 / 5 // 6 % 7, 2 ** 3, 2 ^ 3, 5 & 3 | 1, ~1, 1 << 2, 8 >> 1, @(-1), 3!",
    "SELECT s || 'x', s ^@ 'a', substring(s FROM 1 FOR 2), position('a' IN s), trim(BOTH FROM s) FROM t",
    "SELECT CAST('1' AS INTEGER), '[1]'::BIGINT[], TRY_CAST('x' AS DECIMAL(10, 2)), try(1)",
    "SELECT NULL::STRUCT(a INT, b VARCHAR[]), NULL::MAP(INT, TEXT), NULL::INT[3], x'ff', E'\\x41'",
    "SELECT 'a' COLLATE NOCASE = 'A', DATE '2020-01-01' + INTERVAL 3 DAY, TIMESTAMP '2020-01-01 00:00:00'",
    "SELECT now(), current_date, current_timestamp, today(), random() < 2, uuid() IS NOT NULL",
    "SELECT extract(year FROM DATE '2020-01-01'), date_trunc('month', d), d AT TIME ZONE 'UTC' FROM events",
    "SELECT time_bucket(INTERVAL 1 HOUR, d), strftime(d, '%Y'), epoch_ms(d), age(d, d) FROM events",
    "SELECT j -> '$.a', j ->> 'a', json_extract_string(j, '$.a'), to_json(t) FROM t, (SELECT '{}'::JSON j)",
    "SELECT e.key FROM json_each('{\"a\": 1}') e",
    "SELECT regexp_replace(s, '(a)', '\\1-', 'g'), regexp_extract(s, 'a'), string_split(s, ',') FROM t",
    "SELECT string_agg(s, ', ' ORDER BY a), list(a), array_agg(DISTINCT a), histogram(a), mode(a) FROM t",
    "SELECT arg_max(s, a), quantile_cont(a, 0.5), median(a), approx_count_distinct(a), max(a, 2) FROM t",
    "SELECT list_aggregate([1, 2], 'sum'), list_sum([1]), list_aggr(['a'], 'string_agg', '-')",
    "SELECT repeat('ab', 100), lpad(s, 10, '0'), format('{:>10} {}', s, a), printf('%05d', 7) FROM t",
    "SELECT lpad(s, 20, ' '), rpad(s, 20, ' '), rpad(s, 50, 'x'), lpad(lpad(s, 99, 'x'), 99, 'y') FROM t",
    "SELECT replace(replace(replace(replace(s, ' ', ''), '-', ''), '&', '&amp;'), '<', '&lt;') FROM t",
    "SELECT range(10), generate_series(1, 100, 5), list_resize([1], 3), bitstring('1', 8)",
    "SELECT levenshtein(s, 'abc'), jaro_winkler_similarity('abc', s), jaccard('a', 'b') FROM t",
    "FROM range(10) r(i)",
    "SELECT count(*) FROM range(10_000_000)",
    "SELECT length(range(10000)), length(range(0, -20000, -2))",
    "FROM generate_series(5, -5, -1) WITH ORDINALITY",
    "FROM generate_series(DATE '2020-01-01', DATE '2020-02-01', INTERVAL 1 DAY)",
    "SELECT * FROM unnest([1, 2]) AS x(v)",
    "SELECT 'DROP TABLE t; --' AS \"INSERT INTO t\", $$ COPY t TO 'x' $$, $q$ ; $q$",
    "SELECT 'f''(', '/*', '--', \"a\" FROM t -- read_csv('x')",
    "SELECT 'getenv(''HOME'')', 'x.csv'",
    "SELECT current_user, session_user, version(), current_schema(), typeof(1)",
    "SELECT #1 FROM t",
    "SELECT count() FROM t, u",
    "SELECT " + "(" * 99 + "1" + ")" * 99,
    "SELECT " + " OR ".join(["true"] * 3000),
    "SELECT " + "+".join(["1"] * 100),
    "SELECT 1 IN (" + ", ".join(map(str, range(20_000))) + ")",
]


@pytest.fixture(scope="module")
def session() -> Iterator[duckdb.DuckDBPyConnection]:
    """A session as a view opens it: hardened, with the served tables as temporary views."""
    root = open_database()
    session = root.cursor()
    rows = "(VALUES (1, 2, 'abc', TIMESTAMP '2020-01-01 00:00:00'), (2, 3, 'x', NULL)) v(a, b, s, d)"
    for table in SERVED:
        session.execute(f"CREATE TEMP VIEW {quote(table)} AS SELECT * FROM {rows}")
    yield session
    root.close()


@pytest.mark.parametrize("sql", ALLOWED, ids=[sql[:60] for sql in ALLOWED])
def test_a_statement_inside_the_sandbox_is_let_through_and_runs(
    sql: str, session: duckdb.DuckDBPyConnection
) -> None:
    checked = check(sql)
    assert not checked.functions
    session.execute(checked.sql).fetchall()


def test_the_lists_name_functions_and_types_that_duckdb_has() -> None:
    known = {name.lower() for (name,) in _rows("SELECT function_name FROM duckdb_functions()")}
    assert known >= functions.SCALAR | functions.WINDOW | functions.TABLE
    assert functions.AGGREGATE <= functions.WINDOW
    assert {name.lower() for (name,) in _rows("SELECT type_name FROM duckdb_types()")} >= functions.TYPES
    assert not functions.MERUTABLE & known


REACH = {
    "files": r"(read|sniff|write)_\w+|glob|parquet_\w+|\w*_parquet_\w+|(copy|import)_database",
    "dynamic SQL": r"query|query_table|json_\w*serialize\w*|histogram_values|summary|prepare|invoke",
    "pointers": r"arrow_scan\w*|pandas_scan|python_\w+|seq_scan|remap_struct",
    "state": r"(force_)?checkpoint|(enable|disable)_\w+|write_log|\w*external_resource\w*"
    r"|nextval|setval|currval|setseed|truncate_\w+|(add|remove)_\w+_extension|storage_info",
    "time": r"sleep_ms|pg_sleep",
    "settings and sessions": r"current_(setting|query|query_id|connection_id|transaction_id|database|schemas)"
    r"|getvariable|which_secret|duckdb_\w+|pragma_\w+|pg_(?!size_pretty|typeof)\w+|has_\w+_privilege|inet_\w+"
    r"|txid_current|platform|user_agent|show\w*|getenv",
    "internals": r"__\w+|icu_\w+|collate_\w+|test_\w+|repeat_row|st_\w+|variant_\w+",
    "one value without bounds": r"list_reduce|array_reduce|reduce|aggregate|equi_width_bins|lttb",
}


def test_no_listed_function_has_reach() -> None:
    listed = functions.SCALAR | functions.WINDOW | functions.TABLE
    for reach, pattern in REACH.items():
        assert not [name for name in listed if re.fullmatch(pattern, name)], reach


def test_every_function_of_duckdb_is_listed_or_refused() -> None:
    listed = functions.SCALAR | functions.WINDOW | functions.TABLE
    for (name,) in _rows("SELECT DISTINCT lower(function_name) FROM duckdb_functions()"):
        scalar, table = f"SELECT {quote(name)}(1)", f"FROM {quote(name)}(1)"
        if name not in functions.SCALAR | functions.AGGREGATE:
            with pytest.raises(ReplicaError):
                check(scalar)
        if name not in functions.TABLE:
            with pytest.raises(NotAllowed, match="isn't allowed"):
                check(table)
        assert name in listed or name not in functions.SCALAR


def _rows(sql: str) -> list[tuple[str]]:
    with duckdb.connect() as connection:
        return connection.execute(sql).fetchall()


# --- what is said about a statement -----------------------------------------------------------------------


def test_tables_are_named_once_as_the_server_spells_them() -> None:
    checked = check("SELECT * FROM ORDERS o, main.T, t WHERE EXISTS (FROM (FROM orders))")
    assert sorted(checked.tables) == ["Orders", "t"]


def test_a_cte_hides_a_table_but_not_behind_main() -> None:
    assert check("WITH t AS (SELECT 1) FROM t").tables == ()
    assert sorted(check("WITH t AS (FROM u) FROM t, main.t").tables) == ["t", "u"]


def test_the_text_ends_with_its_last_token() -> None:
    assert check("\n -- a\nSELECT 1 -- b\n ; ; /* c */").sql == "SELECT 1"
    assert check("SELECT ';--' ;").sql == "SELECT ';--'"


@pytest.mark.parametrize(
    ("sql", "count", "names"),
    [
        ("SELECT 1", 0, ()),
        ("SELECT ?, ? FROM t WHERE a = ?", 3, ()),
        ("SELECT $2, $1, $2", 2, ()),
        ("SELECT $3", 3, ()),
        ("SELECT $b, $a, $b", 2, ("b", "a")),
        ('SELECT \'?\', "$1", $$ ? $$ FROM (SELECT 1 AS "$1")', 0, ()),
        ("EXPLAIN SELECT ?", 1, ()),
    ],
)
def test_parameters_are_counted(sql: str, count: int, names: tuple[str, ...]) -> None:
    checked = check(sql)
    assert (checked.parameter_count, checked.parameter_names) == (count, names)


def test_show_tables_asks_the_servers_own_relation() -> None:
    checked = check("show /* all */ TABLES;")
    assert [found.name for found in checked.functions] == ["merutable_tables"]
    assert "table_name AS name" in checked.sql


def test_threads_check_side_by_side() -> None:
    found: list[object] = []

    def many() -> None:
        found.extend(check(f"SELECT {n} FROM t").tables for n in range(30))

    threads = [threading.Thread(target=many) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [("t",)] * 120


# --- the server's own relations -----------------------------------------------------------------------------


def test_arguments_of_a_call_are_its_literals() -> None:
    found = call("FROM merutable_changes('d\u00e9j\u00e0', 18_446_744_073_709_551_615, follow := true)")
    assert found.arguments == ("d\u00e9j\u00e0", 18446744073709551615)
    assert found.named == {"follow": True}
    assert call("FROM merutable_digest('t', x'00ff', x'')").arguments == ("t", b"\x00\xff", b"")


@pytest.mark.parametrize(
    "sql",
    [
        "FROM merutable_changes('t', ?)",
        "FROM merutable_changes($1, 1)",
        "FROM merutable_changes('t', 1 + 1)",
        "FROM merutable_changes('t', (SELECT 1))",
        "FROM merutable_changes(lower('T'), 1)",
        "FROM merutable_changes('t', NULL)",
        "FROM merutable_changes('t', 1.5)",
        "FROM t, merutable_changes('t', t.a)",
        "FROM merutable_changes(follow := true, 't', 1)",
        "FROM merutable_tables() WITH ORDINALITY",
        "FROM other.merutable_tables()",
    ],
)
def test_a_call_takes_literals_only(sql: str) -> None:
    with pytest.raises(InvalidStatement):
        check(sql)


@pytest.mark.parametrize(
    ("sql", "name", "after"),
    [
        ("WHERE seq > 5", "seq", 5),
        ("WHERE seq >= 5", "seq", 4),
        ("WHERE 5 < seq", "seq", 5),
        ("WHERE 5 <= seq", "seq", 4),
        ("WHERE seq = 5", "seq", 4),
        ("WHERE _seq > 5", "_seq", 5),
        ("WHERE seq BETWEEN 5 AND 9", "seq", 4),
        ("WHERE merutable_changes.seq > 5", "seq", 5),
        ("AS c WHERE C.SEQ > 5 AND op = 'DELETE'", "seq", 5),
        ("WHERE seq > 5 AND (seq > 7 AND seq > 6)", "seq", 7),
        ("WHERE seq < 5", "", None),
        ("WHERE 5 > seq", "", None),
        ("WHERE seq > 5 OR true", "", None),
        ("WHERE NOT seq > 5", "", None),
        ("WHERE seq NOT BETWEEN 5 AND 9", "", None),
        ("WHERE seq + 1 > 5", "", None),
        ("WHERE seq > a", "", None),
        ("WHERE seq > ?", "", None),
        ("WHERE seq > '5'", "", None),
        ("WHERE seq > true", "", None),
        ("WHERE x.seq > 5", "", None),
        ("WHERE seq > 5 AND _seq > 3", "", None),
        ("c(x, y, z) WHERE seq > 5", "", None),
        ("TABLESAMPLE 10% WHERE seq > 5", "", None),
        (", t WHERE seq > 5", "", None),
        ("LEFT JOIN t ON seq > 5", "", None),
        ("QUALIFY seq > 5", "", None),
        ("GROUP BY ALL HAVING seq > 5", "", None),
    ],
)
def test_a_bound_on_seq_is_found_where_every_row_must_meet_it(sql: str, name: str, after: int | None) -> None:
    found = call(f"SELECT * FROM merutable_changes('t', 1) {sql}")
    assert (found.seq_name, found.seq_after) == (name, after)


def test_a_bound_of_an_outer_query_is_not_taken() -> None:
    assert call("FROM (FROM merutable_changes('t', 1)) WHERE seq > 5").seq_after is None
    assert (
        call("SELECT (SELECT max(seq) FROM merutable_changes('t', 1)) FROM t WHERE seq > 5").seq_after is None
    )


@pytest.mark.parametrize(
    ("sql", "is_whole"),
    [
        ("SELECT * FROM merutable_changes('t', 1, follow := true)", True),
        ("from merutable_changes('t', 1, follow := true) ; -- end", True),
        ("SELECT * FROM merutable_changes('t', 1) c", False),
        ("SELECT seq FROM merutable_changes('t', 1)", False),
        ("SELECT *, 1 FROM merutable_changes('t', 1)", False),
        ("SELECT * EXCLUDE op FROM merutable_changes('t', 1)", False),
        ("SELECT * FROM merutable_changes('t', 1) WHERE true", False),
        ("SELECT * FROM merutable_changes('t', 1) LIMIT 1", False),
        ("SELECT DISTINCT * FROM merutable_changes('t', 1)", False),
        ("SELECT * FROM merutable_changes('t', 1) c(a)", False),
        ("SELECT * FROM merutable_changes('t', 1), t", False),
        ("FROM (SELECT * FROM merutable_changes('t', 1))", False),
        ("WITH c AS (SELECT 1) SELECT * FROM merutable_changes('t', 1)", False),
        ("EXPLAIN SELECT * FROM merutable_changes('t', 1)", False),
        ("DESCRIBE SELECT * FROM merutable_changes('t', 1)", False),
        ("SELECT * FROM merutable_changes('t', 1) USING SAMPLE 1%", False),
        ("SELECT * FROM merutable_changes('t', 1) UNION ALL SELECT 1", False),
    ],
)
def test_a_whole_statement_is_a_call_and_nothing_else(sql: str, is_whole: bool) -> None:
    assert call(sql).is_whole_statement is is_whole


@pytest.mark.parametrize(
    ("sql", "bound"),
    [
        ("SELECT * FROM merutable_tables()", 'SELECT * FROM "r 0" AS "merutable_tables"'),
        ("SELECT c.a FROM merutable_changes ( 't' , 1 ) AS c", 'SELECT c.a FROM "r 0" AS c'),
        ("FROM main.merutable_tables() x(a, b)", 'FROM "r 0" x(a, b)'),
        ("FROM c: merutable_tables()", 'FROM c: "r 0"'),
        (
            "SELECT 'merutable_tables()\u00e9' FROM /* merutable_tables() */ \"merutable_tables\"()",
            'SELECT \'merutable_tables()\u00e9\' FROM /* merutable_tables() */ "r 0" AS "merutable_tables"',
        ),
        ("EXPLAIN  FROM Merutable_Tables()", 'EXPLAIN FROM "r 0" AS "merutable_tables"'),
        ("FROM merutable_digest('t)', x'00')", 'FROM "r 0" AS "merutable_digest"'),
        (
            "SELECT * FROM t JOIN merutable_tables() ON a = merutable_tables.a",
            'SELECT * FROM t JOIN "r 0" AS "merutable_tables" ON a = merutable_tables.a',
        ),
    ],
)
def test_a_call_is_replaced_and_keeps_its_name(sql: str, bound: str) -> None:
    assert bind_functions(check(sql), ["r 0"]) == bound


def test_several_calls_are_replaced_in_text_order(session: duckdb.DuckDBPyConnection) -> None:
    checked = check(
        "WITH \u00e9 AS (FROM merutable_clock()) SELECT *, (SELECT max(a) FROM merutable_wait('t', 1, 2))"
        " FROM \u00e9, merutable_tables() WHERE EXISTS (FROM merutable_status() WHERE a = merutable_status.a)"
    )
    names = [found.name for found in checked.functions]
    assert names == ["merutable_clock", "merutable_wait", "merutable_tables", "merutable_status"]
    text = bind_functions(checked, ["t", "u", "events", "Orders"])
    assert len(session.execute(text).fetchall()) == 4
