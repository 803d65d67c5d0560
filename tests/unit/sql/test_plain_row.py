"""Which statements ask for columns of the row of one key and nothing else."""

from __future__ import annotations

import pytest

from flight_replica.sql.sandbox import check_select

NAMES = ["id", "v", "S"]


def places(sql: str) -> tuple[int, ...] | None:
    """Where the columns stand that a plain one asks for."""
    row = check_select(sql, lambda name: "t" if name.lower() == "t" else None).row
    return None if row is None else row.places(NAMES)


@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        ("SELECT * FROM t WHERE id = 5", (0, 1, 2)),
        ("FROM t WHERE 5 = id", (0, 1, 2)),
        ("select V, s as other, v from T where t.id = ? and s = 'b' limit 1", (1, 2, 1)),
        ("SELECT id FROM t AS u WHERE (u.id = $key);", (0,)),
        ("SELECT n: v FROM main.t WHERE id = 5 -- the value", (1,)),
    ],
)
def test_a_plain_one_asks_for_these_columns(sql: str, expected: tuple[int, ...]) -> None:
    assert places(sql) == expected


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT * FROM t",
        "SELECT * FROM t WHERE id > 5",
        "SELECT * FROM t WHERE id = 5 AND v > 1",
        "SELECT * FROM t WHERE id = 5 AND id = 6",
        "SELECT * FROM t WHERE id = 5 OR v = 1",
        "SELECT * FROM t WHERE id = 5 AND (v = 1 OR v = 2)",
        "SELECT * FROM t WHERE id = 5 AND v = 1.5",
        "SELECT * EXCLUDE (v) FROM t WHERE id = 5",
        "SELECT * REPLACE (1 AS v) FROM t WHERE id = 5",
        "SELECT * RENAME (v AS w) FROM t WHERE id = 5",
        "SELECT COLUMNS(*) FROM t WHERE id = 5",
        "SELECT *, v FROM t WHERE id = 5",
        "SELECT t.* FROM t WHERE id = 5",
        "SELECT t.v FROM t WHERE id = 5",
        "SELECT v + 1 FROM t WHERE id = 5",
        "SELECT 1 FROM t WHERE id = 5",
        "SELECT count(*) FROM t WHERE id = 5",
        "SELECT DISTINCT v FROM t WHERE id = 5",
        "SELECT v FROM t WHERE id = 5 LIMIT 0",
        "SELECT v FROM t WHERE id = 5 LIMIT 1 OFFSET 1",
        "SELECT v FROM t WHERE id = 5 GROUP BY v",
        "SELECT v FROM t WHERE id = 5 GROUP BY ALL",
        "SELECT v FROM t WHERE id = 5 QUALIFY row_number() OVER () > 1",
        "SELECT v FROM t WHERE id = 5 USING SAMPLE 1 ROWS",
        "SELECT v FROM t TABLESAMPLE 1 ROWS WHERE id = 5",
        "WITH other AS (SELECT 1) SELECT v FROM t WHERE id = 5",
        "SELECT v FROM t AS u(a, v) WHERE v = 5",
        "SELECT v FROM t, t AS u WHERE t.id = 5",
        "SELECT v FROM t WHERE id = 5 UNION ALL SELECT 1",
        "SELECT v FROM (SELECT v FROM t WHERE id = 5)",
        "SELECT v, merutable_seq('t') FROM t WHERE id = 5",
        "EXPLAIN SELECT v FROM t WHERE id = 5",
    ],
)
def test_another_is_not_taken_for_one(sql: str) -> None:
    assert places(sql) is None


def test_a_name_that_is_no_column_or_two_has_no_place() -> None:
    for name in ("t", "rowid", "w"):
        assert places(f"SELECT {name} FROM t WHERE id = 5") is None
    row = check_select("SELECT v FROM t WHERE id = 5", lambda name: name).row
    assert row is not None
    assert row.places(["id", "v", "V"]) is None
