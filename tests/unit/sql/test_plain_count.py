"""Which statements ask for the number of a table's rows alone, and that their answer looks as if counted."""

from __future__ import annotations

import duckdb
import pytest

from flight_replica.sql.sandbox import check_select

ROWS = 7


def resolve(name: str) -> str | None:
    return {"t": "t", "orders": "Orders"}.get(name.lower())


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT count(*) FROM t",
        "select COUNT(*) from T;",
        "SELECT count(*) AS n FROM main.orders AS o",
        'SELECT Count(1) "the rows", count(*) FROM orders o',
        "SELECT count(0), count(*), count(*), count() FROM t",
        "SELECT count_star() FROM t LIMIT 1000",
        "FROM t SELECT count(*)",
        "-- how many\nSELECT n: count(*) FROM t -- all",
    ],
)
def test_a_plain_count_is_answered_under_the_same_names_and_types(sql: str) -> None:
    count = check_select(sql, resolve).count
    assert count is not None
    with duckdb.connect() as connection:
        connection.execute(f"CREATE TABLE {count.table} AS SELECT range AS id FROM range({ROWS})")
        assert connection.sql(count.answer(ROWS)).to_arrow_table() == connection.sql(sql).to_arrow_table()


def test_an_explanation_of_a_plain_count_is_one_of_its_answer() -> None:
    for prefix in ("EXPLAIN ", "EXPLAIN ANALYZE "):
        count = check_select(prefix + "SELECT count(*) AS n FROM t", resolve).count
        assert count is not None
        assert count.answer(ROWS) == f'{prefix}SELECT {ROWS}::BIGINT AS "n"'


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT 1",
        "SELECT count(*)",
        "SELECT count(id) FROM t",
        "SELECT count(NULL) FROM t",
        "SELECT count($1) FROM t",
        "SELECT count(DISTINCT 1) FROM t",
        "SELECT count(*) FILTER (id > 1) FROM t",
        "SELECT count(*) OVER () FROM t",
        "SELECT count(*) + 1 FROM t",
        "SELECT count(*), max(id) FROM t",
        "SELECT count(*), merutable_seq('t') FROM t",
        "SELECT count(*) FROM t WHERE id > 1",
        "SELECT count(*) FROM t GROUP BY id",
        "SELECT count(*) FROM t GROUP BY ()",
        "SELECT count(*) FROM t GROUP BY ALL",
        "SELECT count(*) FROM t HAVING count(*) > 1",
        "SELECT count(*) FROM t QUALIFY true",
        "SELECT count(*) FROM t USING SAMPLE 10%",
        "SELECT count(*) FROM t TABLESAMPLE 10%",
        "SELECT count(*) FROM t x(a)",
        "SELECT count(*) FROM t, orders",
        "SELECT count(*) FROM t, t u",
        "SELECT count(*) FROM t JOIN orders ON true",
        "SELECT count(*) FROM (SELECT * FROM t)",
        "SELECT count(*) FROM t LIMIT 0",
        "SELECT count(*) FROM t LIMIT 10%",
        "SELECT count(*) FROM t LIMIT 10 OFFSET 1",
        "SELECT count(*) FROM t LIMIT (SELECT 1)",
        "SELECT count(*) FROM t ORDER BY 1",
        "SELECT DISTINCT count(*) FROM t",
        "WITH t AS (SELECT 1) SELECT count(*) FROM t",
        "WITH x AS (SELECT 1 FROM orders) SELECT count(*) FROM x",
        "SELECT count(*) FROM t UNION ALL SELECT count(*) FROM t",
        "SELECT count(*) FROM information_schema.tables",
        "SELECT count(*) FROM merutable_tables()",
        "SELECT count(*) FROM range(5)",
        "SELECT count(*) FROM (VALUES (1)) t",
        "SELECT (SELECT count(*) FROM t)",
        "DESCRIBE t",
    ],
)
def test_whatever_asks_for_more_is_no_plain_count(sql: str) -> None:
    assert check_select(sql, resolve).count is None
