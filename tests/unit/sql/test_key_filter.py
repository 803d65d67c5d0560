"""What a statement demands of the columns of its table: never more than all rows that it reads fulfil."""

from __future__ import annotations

from collections.abc import Mapping

import duckdb
import pyarrow as pa
import pytest

from flight_replica.schema import Column, TableSchema
from flight_replica.sql.key_filter import key_in
from flight_replica.sql.sandbox import Checked, check_select

VALUES = {"1": 5, "2": "b", "name": 5}


def checked(sql: str) -> Checked:
    return check_select(sql, lambda name: "t" if name.lower() in ("t", "x y") else None)


def demanded(sql: str) -> Mapping[str, object]:
    found = checked(sql)
    return {} if found.key is None else found.key.bound(VALUES)


DEMANDING = [
    ("SELECT * FROM t WHERE id = 5", {"id": 5}),
    ("SELECT v + 1 FROM t WHERE 5 = id", {"id": 5}),
    ("SELECT * FROM t WHERE t.id = 5", {"id": 5}),
    ('SELECT * FROM "x y" WHERE "X Y".ID = -5', {"id": -5}),
    ("SELECT * FROM t AS u WHERE u.id = 5 AND v > 1", {"id": 5}),
    ("SELECT * FROM t WHERE id = 5 AND (s = 'b' AND (v = 1 OR v = 2))", {"id": 5, "s": "b"}),
    ("SELECT * FROM t WHERE id = ? AND s = ?", {"id": 5, "s": "b"}),
    ("SELECT * FROM t WHERE id = $name", {"id": 5}),
    (
        "SELECT count(*), max(v) FROM t WHERE id = 5 GROUP BY s HAVING max(v) > 0 ORDER BY 1 LIMIT 3",
        {"id": 5},
    ),
    ("SELECT v AS id FROM t WHERE id = 5", {"id": 5}),
    ("FROM t WHERE id = 5", {"id": 5}),
]
DEMANDING_NOTHING = [
    "SELECT * FROM t",
    "SELECT * FROM t WHERE id = 5 OR v = 1",
    "SELECT * FROM t WHERE NOT (id = 5)",
    "SELECT * FROM t WHERE id >= 5",
    "SELECT * FROM t WHERE id IN (5)",
    "SELECT * FROM t WHERE id = 5.0",
    "SELECT * FROM t WHERE id = 5 + 0",
    "SELECT * FROM t WHERE id = NULL",
    "SELECT * FROM t WHERE id = true",
    "SELECT * FROM t WHERE id + 0 = 5",
    "SELECT * FROM t WHERE s.id = 5",
    "SELECT * FROM t AS u WHERE t.id = 5",
    "SELECT * FROM t AS u(id, v, s) WHERE id = 5",
    "SELECT id = 5 FROM t",
    "SELECT * FROM t, t AS u WHERE t.id = 5",
    "SELECT * FROM t JOIN t AS u USING (id) WHERE t.id = 5",
    "SELECT * FROM t WHERE id = 5 UNION ALL SELECT * FROM t",
    "SELECT *, (SELECT max(v) FROM t) FROM t WHERE id = 5",
    "SELECT * FROM t WHERE id = 5 AND v IN (SELECT v FROM t)",
    "WITH t AS (SELECT * FROM t) SELECT * FROM t WHERE id = 5",
    "SELECT * FROM (SELECT * FROM t LIMIT 1) WHERE id = 5",
    "SELECT * FROM t TABLESAMPLE reservoir(1 ROWS) WHERE id = 5",
    "SELECT count(*) FILTER (id = 5) FROM t",
    "SELECT * FROM t QUALIFY id = 5",
    "SELECT id, count(*) FROM t GROUP BY id HAVING id = 5",
]


@pytest.mark.parametrize(("sql", "expected"), DEMANDING)
def test_terms_at_the_top_of_its_where_are_demands(sql: str, expected: dict[str, object]) -> None:
    assert demanded(sql) == expected


@pytest.mark.parametrize("sql", DEMANDING_NOTHING)
def test_whatever_else_demands_nothing(sql: str) -> None:
    assert demanded(sql) == {}


@pytest.mark.parametrize("sql", [sql for sql, _ in DEMANDING] + DEMANDING_NOTHING)
def test_the_rows_that_fulfil_it_give_the_same_answer(sql: str) -> None:
    columns = "SELECT (i % 7)::BIGINT AS id, i AS v, chr((97 + i % 3)::INTEGER) AS s FROM range(40) r(i)"
    answers = []
    demands = demanded(sql) if "SAMPLE" not in sql else {}
    for terms in ([], [f"{name} = {value!r}" for name, value in demands.items()]):
        with duckdb.connect() as database:
            for name in ("t", '"x y"'):
                where = f"WHERE {' AND '.join(terms)}" if terms else ""
                database.execute(f"CREATE TABLE {name} AS SELECT * FROM ({columns}) {where} ORDER BY v")
            used = [VALUES["1"], VALUES["2"]][: sql.count("?")]
            parameters = {"name": VALUES["name"]} if "$name" in sql else used
            try:
                answers.append(database.execute(sql, parameters or None).fetchall())
            except duckdb.Error as error:
                answers.append([type(error)])
    if "SAMPLE" not in sql:
        assert answers[0] == answers[1]


SCHEMA = TableSchema((Column("Id", pa.int32(), False), Column("s", pa.string(), False)), ("s", "Id"))


@pytest.mark.parametrize(
    ("values", "key"),
    [
        ({"id": 5, "s": "b"}, ("b", 5)),
        ({"id": 5, "s": "b", "v": 1}, ("b", 5)),
        ({"id": 5}, None),
        ({"id": "5", "s": "b"}, None),
        ({"id": 5, "s": 1}, None),
        ({"id": True, "s": "b"}, None),
        ({"id": 2**31, "s": "b"}, None),
    ],
)
def test_values_of_the_keys_own_types_make_a_key(values: dict[str, object], key: object) -> None:
    assert key_in(values, SCHEMA) == key


def test_names_that_differ_by_case_alone_make_none() -> None:
    columns = (Column("id", pa.int64(), False), Column("ID", pa.int64()))
    assert key_in({"id": 5}, TableSchema(columns, ("id",))) is None


def test_a_key_of_another_type_is_none() -> None:
    columns = (Column("id", pa.float64(), False),)
    assert key_in({"id": 5}, TableSchema(columns, ("id",))) is None
