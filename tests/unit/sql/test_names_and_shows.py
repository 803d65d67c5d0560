"""Qualified names without their qualification, and SHOW and DESCRIBE as queries."""

from __future__ import annotations

import pytest

from flight_replica.errors import NotAllowed
from flight_replica.sql.names import plain
from flight_replica.sql.sandbox import bind_functions, check_select
from flight_replica.sql.shows import shown
from flight_replica.sql.statement import tokens


def resolve(name: str) -> str | None:
    return {"orders": "Orders", "t": "t"}.get(name.lower())


@pytest.mark.parametrize(
    ("sql", "plainly"),
    [
        ("SELECT 1", "SELECT 1"),
        ("FROM merutable.main.t", "FROM t"),
        ('FROM "MERUTABLE" . "Main" . t', "FROM t"),
        ("SELECT merutable.main.t.a, main.t.b FROM t", "SELECT t.a, main.t.b FROM t"),
        ("SELECT 'merutable.main.t' FROM t", "SELECT 'merutable.main.t' FROM t"),
        ("FROM merutable.t", "FROM merutable.t"),
        ("SELECT x.merutable.main.t FROM x", "SELECT x.merutable.main.t FROM x"),
        ("FROM merutable.information_schema.tables", "FROM information_schema.tables"),
        (
            "SELECT information_schema.tables.* FROM information_schema.tables",
            "SELECT tables.* FROM information_schema.tables",
        ),
        ("SELECT current_database(), current_catalog", "SELECT 'merutable', 'merutable'"),
        ("SELECT Current_Catalog ( )", "SELECT 'merutable'"),
        ("SELECT 1 AS current_catalog", "SELECT 1 AS current_catalog"),
        ("SELECT t.current_catalog FROM t", "SELECT t.current_catalog FROM t"),
        ('SELECT "current_catalog" FROM t', 'SELECT "current_catalog" FROM t'),
        ("DELETE FROM merutable.main.t WHERE a = 1", "DELETE FROM t WHERE a = 1"),
    ],
)
def test_what_stands_in_front_of_a_name_is_taken_off_without_moving_the_rest(sql: str, plainly: str) -> None:
    found = plain(sql)
    assert len(found.encode()) == len(sql.encode())
    assert [token.text for token in tokens(found)] == [token.text for token in tokens(plainly)]


@pytest.mark.parametrize(
    "sql",
    [
        *("SHOW TABLES", "show all tables", "DESCRIBE", "DESC", "SHOW DATABASES", "SHOW SCHEMAS"),
        *("SHOW TABLES FROM main", "SHOW TABLES FROM merutable.main", "SHOW TABLES FROM merutable"),
        *("DESCRIBE orders", 'DESC "ORDERS"', "SHOW t", "DESCRIBE TABLE t", "DESCRIBE main.t"),
    ],
)
def test_a_look_into_the_catalog_is_a_query_of_the_servers_own_relations(sql: str) -> None:
    checked = check_select(sql, resolve)
    assert checked.functions and not checked.tables
    assert check_select(checked.sql, resolve) == checked


@pytest.mark.parametrize(
    "sql", ["DESCRIBE SELECT 1", "SUMMARIZE t", "DESCRIBE nothing", "SHOW t.a", "FROM t"]
)
def test_other_statements_are_left_to_duckdb(sql: str) -> None:
    assert shown(tokens(sql), resolve) is None


def test_a_name_with_quotes_is_described_and_not_run() -> None:
    def served(name: str) -> str | None:
        return name if name == "it's" else None

    checked = check_select('DESCRIBE "it\'s"', served)
    assert "c.table_name = 'it''s'" in checked.sql


def test_tables_of_another_schema_are_refused_by_name() -> None:
    with pytest.raises(
        NotAllowed, match=r"SHOW TABLES FROM pg_catalog: the tables here are in merutable\.main"
    ):
        check_select("SHOW TABLES FROM pg_catalog", resolve)


@pytest.mark.parametrize(
    ("sql", "bound"),
    [
        ("FROM information_schema.tables", 'FROM "x0" AS "tables"'),
        ("FROM information_schema.tables AS i", 'FROM "x0" AS i'),
        ('FROM Information_Schema . "COLUMNS" c', 'FROM "x0" c'),
        ("DESCRIBE information_schema.tables", 'DESCRIBE "x0"'),
        (
            "SELECT * FROM information_schema.tables JOIN information_schema.columns USING (table_name)",
            'SELECT * FROM "x0" AS "tables" JOIN "x1" AS "columns" USING (table_name)',
        ),
        (
            "SELECT (SELECT count(*) FROM information_schema.tables) FROM information_schema.tables",
            'SELECT (SELECT count(*) FROM "x0" AS "tables") FROM "x1" AS "tables"',
        ),
    ],
)
def test_tables_of_information_schema_are_bound_where_they_stand(sql: str, bound: str) -> None:
    checked = check_select(sql, resolve)
    assert bind_functions(checked, [f"x{n}" for n in range(len(checked.functions))]) == bound


def test_a_cte_may_be_called_like_a_table_of_information_schema() -> None:
    assert not check_select("WITH tables AS (SELECT 1 AS x) FROM tables", resolve).functions
