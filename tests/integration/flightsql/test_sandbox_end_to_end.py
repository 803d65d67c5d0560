"""The sandbox at a real replica process, by a real driver: what a user may not do, and what always works.

Ann may read `orders` and `customers`; `salaries` is served too, but not to her. A file with a known text lies
beside the replica's data. Each attempt must be refused, tell nothing, and leave the replica answering.
"""

# ruff: noqa: E501  # statements, one a line

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import adbc_driver_flightsql.dbapi as adbc
import adbc_driver_manager
import duckdb
import pyarrow as pa
import pytest

from flight_replica.flightsql.users import TableNames, User, save_user
from tests.processes import Server, end, rows, until

CANARY = "canary 4711"
PASSWORD = "a password"

TABLES = (
    "CREATE TABLE orders (id BIGINT PRIMARY KEY, customer INTEGER NOT NULL, status VARCHAR NOT NULL, "
    "amount DECIMAL(12, 2) NOT NULL, note VARCHAR, placed TIMESTAMP NOT NULL, due DATE, rate DOUBLE)",
    "INSERT INTO orders SELECT i, (i * 7919) % 500, ['new', 'paid', 'sent', 'done'][1 + (i * 31) % 4], "
    "((i * 104729) % 1000000) / 100, CASE WHEN i % 5 = 0 THEN NULL ELSE 'note ' || (i % 97) END, "
    "TIMESTAMP '2024-01-01 00:00:00' + INTERVAL 1 MINUTE * (i * 37 % 500000), "
    "CASE WHEN i % 11 = 0 THEN NULL ELSE DATE '2024-01-01' + (i % 400)::INT END, sin(i) FROM range(5000) r(i)",
    "CREATE TABLE customers (id INTEGER PRIMARY KEY, name VARCHAR, country VARCHAR, tags VARCHAR)",
    "INSERT INTO customers SELECT i, 'Customer ' || i, ['DE', 'FR', 'US', NULL][1 + i % 4], "
    "'a,b,' || (i % 3) FROM range(500) r(i)",
    "CREATE TABLE salaries (id INTEGER PRIMARY KEY, what VARCHAR)",
    f"INSERT INTO salaries VALUES (1, '{CANARY}')",
)


@dataclass
class Place:
    """The replica and what lies beside it."""

    replica: Server
    folder: Path
    ann: adbc.Connection
    everything: dict[str, pa.Table]  # what ann may read

    def run(self, sql: str) -> pa.Table:
        with self.ann.cursor() as cursor:
            cursor.execute(sql)
            return cursor.fetch_arrow_table()

    def run_unprepared(self, sql: str) -> pa.Table:
        with adbc_driver_manager.AdbcStatement(self.ann.adbc_connection) as statement:
            statement.set_sql_query(sql)
            handle, _ = statement.execute_query()
            return pa.RecordBatchReader.from_stream(handle).read_all()


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    folder = tmp_path_factory.mktemp("sandbox")
    (folder / "canary.csv").write_text(f"a\n{CANARY}\n")
    users = folder / "users.json"
    save_user(users, User("ann", TableNames(("orders", "customers"))), PASSWORD)
    save_user(users, User("root"), PASSWORD)
    servers: list[Server] = []
    try:
        servers.append(Server("primary", "--data", str(folder / "primary"), "--base-seconds", "0.5"))
        for sql in TABLES:
            rows(servers[0].uri, sql)
        serve = ("serve", "--primary", servers[0].uri, "--data", str(folder / "replica"))
        servers.append(Server(*serve, "--auth", "basic", "--users", str(users)))
        replica = servers[1]
        until(lambda: _count(replica) == 5000, "the replica has the rows", 90.0)
        with _connect(replica, "ann") as ann:
            found = Place(replica, folder, ann, {})
            for table in ("orders", "customers"):
                found.everything[table] = found.run(f"SELECT * FROM {table}")
            yield found
    finally:
        end(*servers)


def _connect(server: Server, user: str) -> adbc.Connection:
    return adbc.connect(server.uri, db_kwargs={"username": user, "password": PASSWORD}, autocommit=True)


def _count(server: Server) -> int:
    try:
        with _connect(server, "root") as connection, connection.cursor() as cursor:
            cursor.execute("SELECT count(*) FROM orders, salaries")
            return int(cursor.fetchone()[0])
    except adbc_driver_manager.Error:
        return 0


# --- refused ----------------------------------------------------------------------------------------------

# FILE is the canary's path, OUT a path beside it that must not come into being.
ATTEMPTS = [
    # files
    "FROM 'FILE'",
    'FROM "FILE"',
    "SELECT * FROM read_csv('FILE')",
    "SELECT * FROM read_csv_auto(['FILE'])",
    "SELECT * FROM read_text('FILE')",
    "SELECT * FROM read_blob('FILE')",
    "SELECT * FROM read_json('FILE')",
    "SELECT * FROM read_ndjson_objects('FILE')",
    "SELECT * FROM read_parquet('FILE')",
    "SELECT * FROM parquet_scan('FILE')",
    "SELECT * FROM parquet_metadata('FILE')",
    "SELECT * FROM parquet_file_metadata('FILE')",
    "SELECT * FROM sniff_csv('FILE')",
    "SELECT * FROM glob('/*')",
    "SELECT * FROM read_duckdb('FILE')",
    "COPY orders TO 'OUT'",
    "COPY (SELECT 1) TO 'OUT' (FORMAT parquet)",
    "COPY orders FROM 'FILE'",
    "COPY orders TO '/dev/stdout'",
    "EXPORT DATABASE 'OUT'",
    "IMPORT DATABASE 'FILE'",
    "ATTACH 'OUT' AS x",
    "ATTACH ':memory:' AS x",
    "DESCRIBE 'FILE'",
    "SUMMARIZE 'FILE'",
    "SELECT (SELECT a FROM 'FILE')",
    "SELECT 1 WHERE EXISTS (FROM 'FILE')",
    "SELECT * FROM orders WHERE note IN (SELECT a FROM 'FILE')",
    "SELECT * FROM orders JOIN 'FILE' f ON true",
    "SELECT * FROM orders, LATERAL (FROM read_text('FILE'))",
    "SELECT list_transform([1], x -> (SELECT a FROM 'FILE'))",
    "SELECT sum(id) OVER (ORDER BY (SELECT a FROM 'FILE')) FROM orders",
    "FROM orders LIMIT (SELECT count(*) FROM 'FILE')",
    "FROM orders ORDER BY (SELECT a FROM 'FILE')",
    "VALUES ((SELECT a FROM 'FILE'))",
    "SELECT CASE WHEN true THEN (FROM read_text('FILE')) END",
    "WITH x AS (FROM 'FILE') FROM x",
    "WITH x AS (COPY orders TO 'OUT') FROM x",
    "WITH RECURSIVE r AS (SELECT 'a' AS a UNION ALL SELECT a FROM 'FILE') FROM r",
    'WITH "FILE" AS (FROM "FILE") FROM "FILE"',
    "SELECT 1 UNION ALL SELECT a FROM 'FILE'",
    "FROM orders PIVOT (count(*) FOR status IN (SELECT a FROM 'FILE'))",
    "PIVOT 'FILE' ON a IN (1) USING count(*)",
    "UNPIVOT 'FILE' ON a INTO NAME n VALUE v",
    "EXPLAIN SELECT * FROM 'FILE'",
    "EXPLAIN ANALYZE COPY orders TO 'OUT'",
    "/* SELECT */ COPY orders TO 'OUT' -- SELECT",
    "SELECT * FROM \"read_csv\"('FILE')",
    "SELECT * FROM main.read_csv('FILE')",
    "SELECT * FROM system.main.read_csv('FILE')",
    "SELECT * FROM READ_CSV /* ( */ ('FILE')",
    "FROM 'FILE' AT (VERSION => 1)",
    # network
    "FROM 'http://127.0.0.1:1/x.parquet'",
    "FROM 's3://bucket/x.parquet'",
    "SELECT * FROM read_parquet('https://127.0.0.1:1/x')",
    "ATTACH 'postgres:host=127.0.0.1' AS p (TYPE postgres)",
    "ATTACH 'https://127.0.0.1:1/x.db' AS p",
    "INSTALL httpfs",
    "INSTALL httpfs FROM 'http://127.0.0.1:1'",
    "LOAD httpfs",
    "LOAD 'FILE'",
    "FORCE INSTALL json",
    "UPDATE EXTENSIONS",
    "CREATE SECRET s (TYPE s3, KEY_ID 'x')",
    "SELECT * FROM duckdb_secrets()",
    "SELECT * FROM which_secret('s3://x', 's3')",
    # settings, state, other sessions
    "SET GLOBAL memory_limit = '100GB'",
    "SET threads = 100",
    "SET enable_external_access = true",
    "SET lock_configuration = false",
    "RESET lock_configuration",
    "SET VARIABLE x = 1",
    "PRAGMA enable_profiling",
    "PRAGMA database_list",
    "CALL pragma_version()",
    "CALL enable_logging()",
    "SELECT * FROM enable_logging(storage = 'file', storage_path = 'OUT')",
    "SELECT * FROM disable_logging()",
    "SELECT write_log('x')",
    "SELECT current_setting('memory_limit')",
    "SELECT * FROM duckdb_settings()",
    "SELECT * FROM pg_settings",
    "SELECT * FROM duckdb_tables()",
    "SELECT * FROM duckdb_views()",
    "SELECT * FROM duckdb_memory()",
    "SELECT * FROM duckdb_temporary_files()",
    "SELECT * FROM duckdb_databases()",
    "SELECT * FROM duckdb_logs()",
    "SELECT * FROM duckdb_prepared_statements()",
    "SELECT * FROM pragma_storage_info('orders')",
    "SELECT * FROM pragma_table_info('salaries')",
    "SELECT current_query()",
    "SELECT getvariable('x')",
    "SELECT txid_current()",
    "SELECT nextval('s')",
    "SELECT setseed(0.1)",
    "CHECKPOINT",
    "FORCE CHECKPOINT",
    "SELECT * FROM checkpoint()",
    "SELECT * FROM force_checkpoint()",
    "VACUUM",
    "BEGIN",
    "ROLLBACK",
    "PREPARE p AS SELECT 1",
    "EXECUTE p",
    "DEALLOCATE ALL",
    "SELECT 1; SELECT 2",
    "SELECT 1; COPY orders TO 'OUT'",
    # other users' tables, the server's own, and writes
    "SELECT * FROM salaries",
    'SELECT * FROM "SALARIES"',
    "SELECT * FROM main.salaries",
    "SELECT * FROM memory.main.salaries",
    "SELECT (SELECT what FROM salaries)",
    "WITH x AS (SELECT * FROM salaries) SELECT count(*) FROM x",
    "SELECT * FROM orders WHERE id = (SELECT max(id) FROM salaries)",
    "SELECT * FROM orders UNION ALL BY NAME SELECT * FROM salaries",
    "SELECT * FROM merutable_changes('salaries', 0)",
    "SELECT count(*) FROM merutable_changes('salaries', 0)",
    "SELECT * FROM merutable_changes('Salaries', 0, follow := true)",
    "SELECT * FROM merutable_digest('salaries')",
    "DESCRIBE salaries",
    "SUMMARIZE salaries",
    "SHOW salaries",
    "EXPLAIN SELECT * FROM salaries",
    "SELECT * FROM query('SELECT * FROM salaries')",
    "SELECT * FROM query_table('salaries')",
    "SELECT * FROM json_execute_serialized_sql(json_serialize_sql('SELECT * FROM salaries'))",
    "SELECT * FROM sqlite_master",
    "SELECT * FROM pg_catalog.pg_class",
    "SELECT * FROM pg_catalog.pg_tables",
    "SELECT * FROM seq_scan(1)",
    "SELECT * FROM histogram('salaries', 'what')",
    'SELECT "$pk_bytes" FROM orders',
    "SELECT rowid FROM salaries",
    "INSERT INTO orders (id) VALUES (1)",
    "UPDATE orders SET note = 'x'",
    "DELETE FROM orders",
    "TRUNCATE orders",
    "MERGE INTO orders USING customers c ON false WHEN NOT MATCHED THEN INSERT VALUES (1)",
    "CREATE TABLE x (a INT)",
    "CREATE TEMP TABLE x AS SELECT 1",
    "CREATE VIEW v AS SELECT * FROM salaries",
    "CREATE TEMP VIEW v AS SELECT * FROM 'FILE'",
    "CREATE MACRO m() AS (SELECT a FROM 'FILE')",
    "CREATE TEMP MACRO m() AS TABLE FROM 'FILE'",
    "CREATE SCHEMA s",
    "CREATE TYPE t AS ENUM (SELECT a FROM 'FILE')",
    "CREATE INDEX i ON orders (note)",
    "DROP TABLE orders",
    "ALTER TABLE orders RENAME TO x",
    "COMMENT ON TABLE orders IS 'x'",
    "WITH x AS (INSERT INTO orders (id) VALUES (1) RETURNING *) FROM x",
    "WITH x AS (DELETE FROM orders RETURNING *) FROM x",
    # the process
    "SELECT getenv('HOME')",
    "SELECT system.main.getenv('PATH')",
    "SELECT 'HOME'.getenv()",
    "SELECT list_transform(['HOME'], x -> getenv(x))",
    "SELECT COLUMNS(c -> getenv(c) = 'x') FROM orders",
    "SELECT * FROM pandas_scan(0)",
    "SELECT * FROM arrow_scan(1, 2, 3)",
    "SELECT * FROM python_map_function()",
    "SELECT pg_sleep(10)",
    "SELECT sleep_ms(10000)",
    "SELECT * FROM repeat_row(1, num_rows = 1000000000)",
    "SELECT * FROM test_all_types()",
    # hogs
    "SELECT repeat('x', 1000000000)",
    "SELECT repeat(repeat('x', 9999), 9999)",
    "SELECT lpad('x', 1000000000, 'y')",
    "SELECT format('{:1000000000d}', 1)",
    "SELECT printf('%1000000000d', 1)",
    "SELECT bitstring('1', 1000000000)",
    "SELECT list_resize([1], 1000000000)",
    "SELECT range(1000000000)",
    "SELECT * FROM range(1000000000000)",
    "SELECT levenshtein(a.note, b.note) FROM orders a, orders b",
    "WITH RECURSIVE r(s) AS (SELECT 'x' UNION ALL SELECT repeat(s, 100) FROM r) SELECT max(length(s)) FROM r",
    "SELECT NULL::INT[1000000]",
    f"SELECT length({'hex(' * 40}note{')' * 40}) FROM orders",
    f"SELECT length({'url_encode(' * 20}note{')' * 20}) FROM orders",
    "SELECT bin(note) FROM orders",
    "WITH RECURSIVE r(s) AS (SELECT 'x' UNION ALL SELECT hex(s) FROM r) SELECT max(length(s)) FROM r",
]


@pytest.mark.parametrize("sql", ATTEMPTS, ids=[sql[:50] for sql in ATTEMPTS])
def test_an_attempt_to_get_out_is_refused(sql: str, place: Place) -> None:
    out = place.folder / "out"
    text = sql.replace("FILE", str(place.folder / "canary.csv")).replace("OUT", str(out))
    for run in (place.run, place.run_unprepared):
        with pytest.raises(adbc_driver_manager.Error) as found:
            run(text)
        told = str(found.value)
        assert CANARY not in told and "Traceback" not in told and ".py" not in told
        assert str(place.folder / "replica") not in told
    assert not out.exists()
    assert place.run("SELECT 1 AS one").to_pylist() == [{"one": 1}]


def test_there_are_at_least_a_hundred_attempts_and_a_hundred_queries() -> None:
    assert len(set(ATTEMPTS)) >= 100
    assert len(set(QUERIES)) >= 100


def test_a_bound_value_is_a_value_and_never_sql(place: Place) -> None:
    for value in ("x'; COPY orders TO 'out'", str(place.folder / "canary.csv"), "salaries"):
        with place.ann.cursor() as cursor:
            cursor.execute("SELECT ?::VARCHAR AS v, count(*) AS n FROM orders WHERE note = ?", (value, value))
            assert cursor.fetchall() == [(value, 0)]
        for sql in ("SELECT * FROM read_text(?)", "SELECT * FROM query_table(?)", "SELECT getenv(?)"):
            with place.ann.cursor() as cursor, pytest.raises(adbc_driver_manager.Error):
                cursor.execute(sql, (value,))


@pytest.mark.parametrize(
    "pattern", ["salaries", "%", "'; DROP TABLE orders; --", "_" * 5000, "\\", "%" * 2000]
)
def test_metadata_patterns_find_nothing_that_is_not_anns(pattern: str, place: Place) -> None:
    found = place.ann.adbc_get_objects(depth="all", table_name_filter=pattern).read_all().to_pylist()
    told = str(found)
    assert "salaries" not in told and CANARY not in told
    assert place.run("SELECT 1 AS one").num_rows == 1


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT table_name FROM merutable_tables()",
        "SELECT table_name FROM merutable_status()",
        "SELECT table_name FROM information_schema.tables",
        "SELECT table_name FROM information_schema.columns",
        "SHOW TABLES",
    ],
)
def test_lists_of_tables_show_anns_alone(sql: str, place: Place) -> None:
    names = set(place.run(sql).column(0).to_pylist())
    assert {"orders", "customers"} <= names and "salaries" not in names


# --- what always works ------------------------------------------------------------------------------------

QUERIES = [
    "SELECT count(*) FROM orders",
    "SELECT count(DISTINCT customer), min(id), max(id), sum(amount), avg(amount) FROM orders",
    "SELECT status, count(*) AS n, sum(amount) AS total FROM orders GROUP BY status",
    "SELECT status, customer % 10 AS c, count(*) FROM orders GROUP BY ALL",
    "SELECT status, customer % 3 AS c, sum(amount) FROM orders GROUP BY ROLLUP (status, c)",
    "SELECT status, customer % 3 AS c, sum(amount) FROM orders GROUP BY CUBE (status, c)",
    "SELECT status, count(*) FROM orders GROUP BY GROUPING SETS ((status), ())",
    "SELECT customer, sum(amount) AS s FROM orders GROUP BY customer HAVING s > 50000",
    "SELECT * FROM orders WHERE id BETWEEN 100 AND 120",
    "SELECT * FROM orders WHERE id IN (1, 2, 3, 99999)",
    "SELECT * FROM orders WHERE note IS NULL AND status = 'paid' AND amount > 9000",
    "SELECT * FROM orders WHERE note LIKE 'note 1%' AND status NOT LIKE 'p%'",
    "SELECT * FROM orders WHERE note ILIKE 'NOTE 42'",
    "SELECT * FROM orders WHERE note SIMILAR TO 'note (7|8)'",
    "SELECT * FROM orders WHERE regexp_matches(note, '^note [0-9]$')",
    "SELECT DISTINCT status FROM orders",
    "SELECT DISTINCT ON (customer) customer, id FROM orders ORDER BY customer, id DESC",
    "SELECT id FROM orders ORDER BY amount DESC, id LIMIT 10",
    "SELECT id FROM orders ORDER BY amount DESC, id LIMIT 10 OFFSET 20",
    "SELECT id, note FROM orders ORDER BY note NULLS FIRST, id LIMIT 5",
    "SELECT o.id, c.name FROM orders o JOIN customers c ON o.customer = c.id WHERE o.id < 50",
    "SELECT o.id, c.name FROM orders o LEFT JOIN customers c ON o.customer = c.id AND c.country = 'DE' WHERE o.id < 50",
    "SELECT c.id, o.id FROM orders o RIGHT JOIN customers c ON o.customer = c.id AND o.id < 20",
    "SELECT c.id, o.id FROM orders o FULL JOIN customers c ON o.id = c.id WHERE coalesce(c.id, o.id) < 600",
    "SELECT count(*) FROM orders CROSS JOIN (SELECT * FROM customers LIMIT 10)",
    "SELECT * FROM orders NATURAL JOIN (SELECT id, name FROM customers) WHERE id < 10",
    "SELECT id, name FROM orders JOIN customers USING (id) WHERE id < 10",
    "SELECT c.country, sum(o.amount) FROM orders o JOIN customers c ON o.customer = c.id GROUP BY c.country",
    "SELECT a.id, b.id FROM customers a JOIN customers b ON a.id + 1 = b.id WHERE a.id < 10",
    "SELECT id FROM customers c WHERE EXISTS (FROM orders o WHERE o.customer = c.id AND o.amount > 9990)",
    "SELECT id FROM customers c WHERE NOT EXISTS (FROM orders o WHERE o.customer = c.id AND o.amount > 100)",
    "SELECT id FROM customers WHERE id IN (SELECT customer FROM orders WHERE amount > 9990)",
    "SELECT id FROM orders WHERE amount > (SELECT avg(amount) * 1.9 FROM orders)",
    "SELECT id FROM orders o WHERE amount = (SELECT max(amount) FROM orders i WHERE i.customer = o.customer)",
    "SELECT id FROM orders WHERE amount >= ALL (SELECT amount FROM orders)",
    "SELECT id FROM customers SEMI JOIN orders ON customers.id = orders.customer",
    "SELECT id FROM customers ANTI JOIN orders ON customers.id = orders.id",
    "WITH big AS (SELECT * FROM orders WHERE amount > 9900) SELECT status, count(*) FROM big GROUP BY 1",
    "WITH a AS (SELECT customer, sum(amount) s FROM orders GROUP BY 1), b AS (SELECT avg(s) m FROM a) "
    "SELECT customer FROM a, b WHERE s > m * 1.5",
    "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 100) SELECT sum(i) FROM n",
    "WITH RECURSIVE p(i, path) AS (SELECT 0, '0' UNION ALL SELECT i + 1, path || '/' || (i + 1) FROM p "
    "WHERE i < 20) SELECT * FROM p",
    "SELECT id FROM orders WHERE id < 5 UNION SELECT id FROM customers WHERE id < 8",
    "SELECT status FROM orders UNION ALL SELECT country FROM customers",
    "SELECT id FROM customers EXCEPT SELECT customer FROM orders WHERE amount > 5000",
    "SELECT id FROM customers INTERSECT SELECT id FROM orders WHERE id % 2 = 0",
    "SELECT id, row_number() OVER (ORDER BY amount, id) AS r FROM orders",
    "SELECT id, rank() OVER (PARTITION BY status ORDER BY amount DESC) AS r FROM orders QUALIFY r <= 3",
    "SELECT id, lag(id) OVER w, lead(id, 2, -1) OVER w FROM orders WINDOW w AS (PARTITION BY customer ORDER BY id)",
    "SELECT id, sum(amount) OVER (PARTITION BY customer ORDER BY id ROWS BETWEEN 2 PRECEDING AND CURRENT ROW) "
    "FROM orders",
    "SELECT id, ntile(4) OVER (ORDER BY amount, id), percent_rank() OVER (ORDER BY amount) FROM orders",
    "SELECT id, first_value(id) OVER (PARTITION BY status ORDER BY id) AS f FROM orders WHERE id < 200",
    "SELECT id, count(*) OVER () AS n, id * 100.0 / count(*) OVER () AS share FROM orders WHERE id < 10",
    "SELECT id, avg(amount) OVER (ORDER BY id RANGE BETWEEN 10 PRECEDING AND 10 FOLLOWING) FROM orders WHERE id < 99",
    "SELECT date_trunc('month', placed) AS m, count(*) FROM orders GROUP BY m",
    "SELECT extract(year FROM placed) AS y, extract(dow FROM placed) AS d, count(*) FROM orders GROUP BY ALL",
    "SELECT year(due), month(due), day(due), dayname(due) FROM orders WHERE id < 50",
    "SELECT time_bucket(INTERVAL '6 hours', placed) AS b, sum(amount) FROM orders GROUP BY b",
    "SELECT id, due - placed::DATE AS days FROM orders WHERE due IS NOT NULL AND id < 99",
    "SELECT id, date_diff('hour', placed, TIMESTAMP '2025-01-01 00:00:00') FROM orders WHERE id < 99",
    "SELECT id, placed + INTERVAL 1 MONTH, due + 30 FROM orders WHERE id < 99",
    "SELECT id, strftime(placed, '%Y-%m-%d %H:%M') FROM orders WHERE id < 99",
    "SELECT strptime('2024-02-03', '%Y-%m-%d'), DATE '2024-02-29' + INTERVAL 1 YEAR, last_day(DATE '2024-02-03')",
    "SELECT max(placed), min(due), epoch_ms(max(placed)) FROM orders",
    "SELECT upper(status), lower(name), length(name) FROM orders JOIN customers USING (id) WHERE id < 20",
    "SELECT substr(name, 1, 4), left(name, 3), right(name, 2), reverse(name) FROM customers",
    "SELECT name || ' (' || coalesce(country, '?') || ')' FROM customers",
    "SELECT concat_ws('-', name, country), replace(name, 'Customer', 'C'), trim('  x ') FROM customers",
    "SELECT lpad(id::VARCHAR, 6, '0'), rpad(name, 20, '.') FROM customers",
    "SELECT split_part(tags, ',', 3) AS t, count(*) FROM customers GROUP BY t",
    "SELECT string_split(tags, ',') FROM customers",
    "SELECT id, unnest(string_split(tags, ',')) AS tag FROM customers WHERE id < 20",
    "SELECT regexp_extract(note, '([0-9]+)', 1)::INT AS n, count(*) FROM orders GROUP BY n",
    "SELECT regexp_replace(name, '[0-9]+', '#') FROM customers",
    "SELECT position('o' IN name), starts_with(name, 'Cust'), contains(name, '42') FROM customers",
    "SELECT md5(name), hash(name) = hash(name) FROM customers WHERE id < 20",
    "SELECT format('{}: {:>5}', name, id), printf('%05d', id) FROM customers WHERE id < 20",
    "SELECT string_agg(name, ', ' ORDER BY id) FROM customers WHERE id < 20",
    "SELECT list(id ORDER BY id), array_agg(country ORDER BY id) FROM customers WHERE id < 20",
    "SELECT round(amount, 0), floor(rate), ceil(rate), abs(rate), sign(rate), sqrt(abs(rate)) FROM orders WHERE id < 99",
    "SELECT id % 7, id // 7, id / 7, -id, id ** 2, power(id, 0.5), ln(id + 1) FROM orders WHERE id < 99",
    "SELECT greatest(id, customer), least(id, customer), coalesce(note, status), nullif(status, 'paid') FROM orders",
    "SELECT CASE WHEN amount > 5000 THEN 'big' WHEN amount > 100 THEN 'mid' ELSE 'small' END AS c, count(*) "
    "FROM orders GROUP BY c",
    "SELECT CASE status WHEN 'paid' THEN 1 ELSE 0 END FROM orders WHERE id < 99",
    "SELECT CAST(amount AS BIGINT), amount::VARCHAR, TRY_CAST(note AS INT), id::DOUBLE FROM orders WHERE id < 99",
    "SELECT count(*) FILTER (status = 'paid'), count_if(amount > 100), sum(amount) FILTER (note IS NULL) FROM orders",
    "SELECT stddev_samp(amount), var_pop(amount), corr(id, customer), median(amount), mode(id < 9) FROM orders",
    "SELECT quantile_cont(amount, [0.25, 0.5, 0.75]), quantile_disc(amount, 0.9) FROM orders",
    "SELECT arg_max(id, amount), arg_min(id, amount), bool_and(id >= 0), bit_xor(id) FROM orders",
    "SELECT regr_slope(amount, id), covar_samp(amount, id), kurtosis(rate), skewness(rate) FROM orders WHERE id < 500",
    "SELECT histogram(status) FROM orders",
    "PIVOT orders ON status IN ('new', 'paid') USING sum(amount) GROUP BY customer",
    "FROM orders PIVOT (count(*) FOR status IN ('new', 'paid', 'sent'))",
    "UNPIVOT (SELECT id, customer, id * 2 AS twice FROM orders WHERE id < 20) ON customer, twice INTO NAME k VALUE v",
    "SELECT {'id': id, 'name': name} FROM customers WHERE id < 20",
    "SELECT s.a + s.b[1] FROM (SELECT {'a': id, 'b': [id, 2]} AS s FROM customers WHERE id < 20)",
    "SELECT list_transform([id, customer], lambda x: x * 2), list_filter([id, 2, 3], lambda x: x > 2) FROM orders WHERE id < 20",
    "SELECT list_sum([id, 1]), len([1, 2, id]), list_contains([1, 2], id), list_sort([3, id, 1]) FROM customers WHERE id < 20",
    "SELECT MAP {'id': id}['id'], map_keys(MAP {'a': 1}) FROM customers WHERE id < 20",
    "SELECT to_json({'id': id, 'name': name}) FROM customers WHERE id < 20",
    "SELECT json_extract_string('{\"a\": {\"b\": 5}}', '$.a.b'), '{\"a\": 1}'::JSON ->> 'a'",
    "SELECT * EXCLUDE (note, rate) FROM orders WHERE id < 20",
    "SELECT * REPLACE (upper(status) AS status) FROM orders WHERE id < 20",
    "SELECT COLUMNS('id|cust.*') FROM orders WHERE id < 20",
    "FROM orders SELECT id, status WHERE id < 20",
    "SELECT id, c FROM orders, LATERAL (SELECT id * 2 AS c) WHERE id < 20",
    "SELECT r.range, count(o.id) FROM range(10) r LEFT JOIN orders o ON o.id % 10 = r.range GROUP BY 1",
    "SELECT d::DATE AS d FROM generate_series(DATE '2024-01-01', DATE '2024-01-10', INTERVAL 1 DAY) t(d)",
    "SELECT o.id, c.id FROM (SELECT id FROM orders WHERE id % 100 = 0) o ASOF JOIN customers c ON o.id >= c.id",
    "SELECT * FROM (VALUES (1, 'a'), (2, NULL)) v(n, s)",
    "SELECT approx_count_distinct(status) FROM orders",
    "SELECT ARRAY(SELECT id FROM customers WHERE id < 5 ORDER BY id), 1 = ANY ([1, 2])",
    "SELECT x'ff', '\\x41'::BLOB, 1e10::DOUBLE, 12345678901234567890::HUGEINT::VARCHAR, INTERVAL 3 DAY",
    "SELECT 'a' COLLATE NOCASE = 'A', 'straße' < 'strasse', 'é' = 'é'",
    "SELECT column_name, column_type FROM (DESCRIBE SELECT id, status, amount FROM orders)",
]


@pytest.fixture(scope="module")
def local(place: Place) -> Iterator[duckdb.DuckDBPyConnection]:
    """DuckDB itself, with the same rows."""
    connection = duckdb.connect()
    connection.execute("SET TimeZone = 'UTC'")
    for name, table in place.everything.items():
        connection.register("rows", table)
        connection.execute(f"CREATE TABLE {name} AS SELECT * FROM rows")
    yield connection
    connection.close()


@pytest.mark.parametrize("sql", QUERIES, ids=[sql[:50] for sql in QUERIES])
def test_an_ordinary_query_answers_what_duckdb_itself_does(
    sql: str, place: Place, local: duckdb.DuckDBPyConnection
) -> None:
    found, expected = place.run(sql), local.sql(sql).to_arrow_table()
    assert found.schema.names == expected.schema.names
    is_ordered = " ORDER BY " in sql and " OVER " not in sql and "agg(" not in sql
    assert _rows(found, is_ordered) == _rows(expected, is_ordered)


def _rows(table: pa.Table, is_ordered: bool) -> list[str]:
    """The rows as text, floating point to 9 digits: sums depend on the order of their parts."""
    texts = [str(_rounded(row)) for row in table.to_pylist()]
    return texts if is_ordered else sorted(texts)


def _rounded(value: object) -> object:
    match value:
        case float():
            return float(f"{value:.9g}")
        case dict():
            return {key: _rounded(item) for key, item in value.items()}
        case list() | tuple():
            return [_rounded(item) for item in value]
    return value
