"""What a literal is cast to, told by the bound plan."""

from __future__ import annotations

from collections.abc import Iterator

import duckdb
import pytest

from flight_replica.sql.bound_casts import bound_casts
from flight_replica.sql.parameter_types import parameter_types


@pytest.fixture
def cursor() -> Iterator[duckdb.DuckDBPyConnection]:
    with duckdb.connect() as connection:
        connection.execute("CREATE TABLE t (id BIGINT, price DECIMAL(9, 2), made TIMESTAMPTZ)")
        yield connection


@pytest.mark.parametrize(
    "kind",
    [
        *(
            "BOOLEAN",
            "TINYINT",
            "UBIGINT",
            "HUGEINT",
            "DOUBLE",
            "DECIMAL(9,2)",
            "VARCHAR",
            "BLOB",
            "UUID",
            "BIT",
        ),
        *("DATE", "TIME", "TIMESTAMP", "TIMESTAMP_NS", "TIMESTAMP WITH TIME ZONE", "INTERVAL"),
        *("INTEGER[]", "VARCHAR[3]", 'STRUCT("a" INTEGER, "b" DATE[])', "MAP(VARCHAR, DECIMAL(4,1))"),
        "ENUM('it''s', 'b')",
    ],
)
@pytest.mark.parametrize("sql", ["SELECT CAST('§1§' AS {}) AS v", "SELECT v FROM (SELECT '§1§'::{} AS v)"])
def test_every_type_is_spelled_as_duckdb_spells_it(
    cursor: duckdb.DuckDBPyConnection, sql: str, kind: str
) -> None:
    found = bound_casts(cursor, sql.format(kind))
    assert found == f"CAST('§1§' AS {kind})"


def test_casts_of_something_else_are_counted_too(cursor: duckdb.DuckDBPyConnection) -> None:
    assert bound_casts(cursor, "SELECT id::VARCHAR AS v FROM t WHERE price = '§1§'") == (
        "CAST(… AS VARCHAR)\nCAST('§1§' AS DECIMAL(9,2))"
    )


def test_writes_tell_their_casts(cursor: duckdb.DuckDBPyConnection) -> None:
    found = bound_casts(cursor, "UPDATE t SET made = '§1§' WHERE id = '§2§'")
    assert sorted((found or "").splitlines()) == [
        "CAST('§1§' AS TIMESTAMP WITH TIME ZONE)",
        "CAST('§2§' AS BIGINT)",
    ]


@pytest.mark.parametrize("sql", ["SELECT price * '§1§' FROM t", "SELECT * FROM nowhere", "SELEC 1"])
def test_what_cannot_be_bound_tells_nothing(cursor: duckdb.DuckDBPyConnection, sql: str) -> None:
    assert bound_casts(cursor, sql) is None


@pytest.mark.parametrize(
    ("sql", "kind"),
    [
        ("SELECT ?::BIGINT AS v", "BIGINT"),
        ("SELECT price * ? AS total FROM t", "DOUBLE"),
        ("SELECT CASE WHEN made > ? THEN 1 END AS late FROM t", "TIMESTAMP WITH TIME ZONE"),
        ("WITH c AS (SELECT ?::DATE AS d) SELECT d AS day FROM c", "DATE"),
    ],
)
def test_a_parameter_below_an_alias_has_its_type(sql: str, kind: str) -> None:
    columns = [("id", "BIGINT"), ("price", "DECIMAL(9,2)"), ("made", "TIMESTAMP WITH TIME ZONE")]
    assert parameter_types(sql, ["1"], {"t": columns}) == [kind]
