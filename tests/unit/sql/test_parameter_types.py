"""The types that a statement's parameters turn out to have."""

from __future__ import annotations

import pytest

from flight_replica.sql.parameter_types import guesses, parameter_types, with_typed_nulls

TABLES = {
    "t": [
        ("id", "BIGINT"),
        ("i", "INTEGER"),
        ("s", "VARCHAR"),
        ("d", "DOUBLE"),
        ("ts", "TIMESTAMP"),
        ("tz", "TIMESTAMP WITH TIME ZONE"),
        ("dt", "DATE"),
        ("tm", "TIME"),
        ("price", "DECIMAL(9,2)"),
        ("u", "UUID"),
        ("b", "BLOB"),
        ("ok", "BOOLEAN"),
        ("l", "INTEGER[]"),
    ],
    "odd name": [("id", "BIGINT"), ("name", "VARCHAR"), ("w", "FLOAT")],
}


def types(sql: str, keys: int | tuple[str, ...]) -> list[str | None]:
    names = keys if isinstance(keys, tuple) else tuple(str(n) for n in range(1, keys + 1))
    return parameter_types(sql, names, TABLES)


@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        # comparisons, both ways
        ("SELECT * FROM t WHERE id = ?", ["BIGINT"]),
        ("SELECT * FROM t WHERE ? < d", ["DOUBLE"]),
        ("SELECT * FROM t WHERE NOT (ok = ?)", ["BOOLEAN"]),
        ("SELECT * FROM t WHERE tz > ? AND dt = ? AND tm < ?", ["TIMESTAMP WITH TIME ZONE", "DATE", "TIME"]),
        ("SELECT * FROM t WHERE price >= ? AND u = ? AND b = ?", ["DECIMAL(9,2)", "UUID", "BLOB"]),
        ("SELECT * FROM t WHERE date_trunc('day', ts) = ?", ["TIMESTAMP"]),
        # BETWEEN, IN, LIKE
        ("SELECT * FROM t WHERE ts BETWEEN ? AND ?", ["TIMESTAMP", "TIMESTAMP"]),
        ("SELECT * FROM t WHERE i IN (?, ?)", ["INTEGER", "INTEGER"]),
        ("SELECT * FROM t WHERE id = ANY([?, ?])", ["BIGINT", "BIGINT"]),
        ("SELECT * FROM t WHERE s LIKE ?", ["VARCHAR"]),
        # CASE, COALESCE, casts
        ("SELECT CASE WHEN id = ? THEN ? ELSE i END FROM t", ["BIGINT", "INTEGER"]),
        ("SELECT coalesce(i, ?), nullif(s, ?), greatest(d, ?) FROM t", ["INTEGER", "VARCHAR", "DOUBLE"]),
        ("SELECT CAST(? AS DATE), ?::DECIMAL(10,3)", ["DATE", "DECIMAL(10,3)"]),
        ("SELECT if(?, 1, 2) FROM t WHERE ?", ["BOOLEAN", "BOOLEAN"]),
        # CTE, join, sub-select, HAVING, QUALIFY, FILTER
        ("WITH x AS (SELECT id FROM t WHERE s = ?) FROM x WHERE id > ?", ["VARCHAR", "BIGINT"]),
        ('FROM t JOIN "odd name" o ON t.id = o.id AND o.w > ?', ["FLOAT"]),
        ('FROM t WHERE EXISTS (FROM "odd name" o WHERE o.id = t.id AND name = ?)', ["VARCHAR"]),
        ("SELECT s, count(*) FROM t GROUP BY s HAVING count(*) > ?", ["BIGINT"]),
        ("SELECT s FROM t GROUP BY s HAVING sum(i) > ?", ["HUGEINT"]),
        ("SELECT row_number() OVER (ORDER BY id) AS r FROM t QUALIFY r <= ?", ["BIGINT"]),
        ("SELECT sum(d) FILTER (i > ?) FROM t", ["INTEGER"]),
        # arithmetic and calls, where a bare literal is ambiguous
        ("SELECT i + ?, d * ?, ts - ? FROM t", ["INTEGER", "DOUBLE", "TIMESTAMP"]),
        ("SELECT id % ? FROM t WHERE i = ? + 1", ["BIGINT", "INTEGER"]),
        ("SELECT * FROM t WHERE ts > now() - ?", ["INTERVAL"]),
        ("SELECT abs(?)", ["BIGINT"]),
        ("SELECT substr(s, ?), round(d, ?), l[?] FROM t", ["BIGINT", "INTEGER", "BIGINT"]),
        ("SELECT list_contains(l, ?) FROM t", ["INTEGER"]),
        # LIMIT and OFFSET, which no plan shows
        ("SELECT id FROM t LIMIT ? OFFSET ?", ["BIGINT", "BIGINT"]),
        ("SELECT id FROM t LIMIT ?%", ["DOUBLE"]),
        # beside a table's position
        ("SELECT merutable_seq('t') AS seq FROM t WHERE id = ?", ["BIGINT"]),
        (
            "SELECT * FROM t WHERE merutable_seq('t') >= ? AND merutable_lag_ms('t') < ?",
            ["UBIGINT", "DOUBLE"],
        ),
        # lists
        ("SELECT * FROM t WHERE id = ANY(?)", ["BIGINT[]"]),
        # an instant rather than its day
        ("SELECT * FROM t WHERE ts >= ? - INTERVAL 1 DAY", ["TIMESTAMP"]),
        ("SELECT * FROM t WHERE id = ?1 AND i = ?2 + 1", ["BIGINT", "INTEGER"]),
        # anything will do
        ("SELECT ?", [None]),
        ("SELECT s || ? FROM t", [None]),
        # around a query
        ("DESCRIBE SELECT ? + 1", ["INTEGER"]),
        ("DESCRIBE SELECT id FROM t WHERE id = ?", ["BIGINT"]),
        ("SUMMARIZE SELECT i FROM t WHERE i > ?", ["INTEGER"]),
        # writes
        ("INSERT INTO t (id, s, price) VALUES (?, ?, ?)", ["BIGINT", "VARCHAR", "DECIMAL(9,2)"]),
        ('INSERT INTO "odd name" VALUES (?, ?, ?)', ["BIGINT", "VARCHAR", "FLOAT"]),
        (
            "INSERT INTO t (id, i, s) VALUES (1, ? + 1, ?), (?, 2, lower(?))",
            ["INTEGER", "VARCHAR", "BIGINT", None],
        ),
        ("INSERT INTO t (id) SELECT id FROM t WHERE d > ?", ["DOUBLE"]),
        ("UPDATE t SET s = ?, price = ? WHERE id = ?", ["VARCHAR", "DECIMAL(9,2)", "BIGINT"]),
        ("DELETE FROM t WHERE id IN (?, ?)", ["BIGINT", "BIGINT"]),
    ],
)
def test_each_parameter_has_the_type_that_it_is_used_as(sql: str, expected: list[str | None]) -> None:
    assert types(sql, len(expected)) == expected


def test_a_parameter_in_two_places_has_the_wider_of_their_types() -> None:
    assert types("SELECT * FROM t WHERE id = $1 AND s = $2 OR i = $1", 2) == ["BIGINT", "VARCHAR"]
    assert types("SELECT * FROM t WHERE i = $1 OR d = $1 OR id = $1", 1) == ["DOUBLE"]
    assert types("SELECT * FROM t WHERE s = $1 OR dt = $1", 1) == ["DATE"]


def test_named_parameters_have_types_by_name() -> None:
    assert types("SELECT * FROM t WHERE s = $Who AND id > $since", ("since", "Who")) == ["BIGINT", "VARCHAR"]


def test_question_marks_in_texts_and_comments_are_no_parameters() -> None:
    assert types("SELECT '?', \"i\", $$ ? $$ FROM t /* ? */ WHERE i = ? -- ?", 1) == ["INTEGER"]


def test_a_statement_that_cannot_be_planned_tells_nothing() -> None:
    assert types("SELECT nothing FROM t WHERE id = ?", 1) == [None]
    assert parameter_types("SELECT ?", ("1",), {"x": [("a", "NO SUCH TYPE")]}) == [None]


def test_tables_of_one_statement_are_not_there_in_the_next() -> None:
    assert parameter_types("SELECT * FROM z WHERE a = ?", ("1",), {"z": [("a", "DATE")]}) == ["DATE"]
    assert parameter_types("SELECT * FROM z WHERE a = ?", ("1",), {}) == [None]


def test_guesses_leave_what_is_known_and_try_pairs_of_what_is_not() -> None:
    found = list(guesses(("DATE", None, None)))
    assert all(first == "DATE" and None not in others for first, *others in found)
    assert ("DATE", "VARCHAR", "VARCHAR") in found and ("DATE", "TIMESTAMP", "VARCHAR") in found
    assert list(guesses(("DATE",))) == []
    assert len(list(guesses((None, None, None)))) < 20


def test_nulls_of_the_types_stand_where_the_parameters_stood() -> None:
    assert with_typed_nulls("SELECT ?, $a, 'é?'", ("1", "a"), ("DATE", None)) == (
        "SELECT CAST(NULL AS DATE), CAST(NULL AS VARCHAR), 'é?'"
    )
