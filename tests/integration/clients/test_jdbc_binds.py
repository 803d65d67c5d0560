"""Bound parameters through the JDBC driver.

The driver converts a value to the type that the server announced for the parameter, and to no other: an
announced type that isn't the true one refuses the setter that an application uses, or binds a wrong value
silently. So each setter is tried against the type that its column has.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.clients.programs import ClientError
from tests.integration.clients.conftest import Line
from tests.integration.clients.jdbc_client import Connection, Jdbc

INTEGER_SQL_TYPE = 4  # java.sql.Types.INTEGER


@pytest.fixture
def replica(jdbc: Jdbc, line: Line) -> Connection:
    return jdbc.connect(line.replica)


@pytest.fixture
def primary(jdbc: Jdbc, line: Line) -> Iterator[Connection]:
    found = jdbc.connect(line.primary)
    yield found
    found.statement().call("executeUpdate", "DELETE FROM orders WHERE id > 3")


@pytest.mark.parametrize(
    ("condition", "setter", "value"),
    [
        ("id = ?", "setLong", 1),
        ("id = ?", "setInt", 1),
        ("id < ? + 1", "setShort", 1),
        ("id IN (?)", "setByte", 1),
        ("item = ?", "setString", "apple"),
        ("item LIKE ?", "setString", "app%"),
        ("price = ?", "setBigDecimal", "1.50"),
        ("weight = ?", "setDouble", 0.5),
        ("weight < ?", "setFloat", 0.75),
        ("weight < ?", "setInt", 1),
        ("paid = ?", "setBoolean", True),
        ("ordered_at = ?", "setTimestamp", "2020-02-03 04:05:06.789"),
        ("? < ordered_at", "setTimestamp", "2020-02-03 04:05:06.788"),
        ("due = ?", "setDate", "2020-02-03"),
        ("due BETWEEN DATE '2020-01-01' AND ?", "setDate", "2020-02-03"),
        ("opens = ?", "setTime", "04:05:06.789"),
        ("blob_value = ?", "setBytes", "ab"),
    ],
)
def test_a_parameter_takes_the_setter_of_its_column(
    replica: Connection, condition: str, setter: str, value: object
) -> None:
    statement = replica.prepare(f"SELECT id FROM orders WHERE {condition}")
    statement.call(setter, 1, value)
    assert statement.rows() == [(1,)]
    statement.close()


@pytest.mark.parametrize(
    ("type_", "setter", "value", "answer"),
    [
        ("TINYINT", "setByte", -128, -128),
        ("SMALLINT", "setShort", -32768, -32768),
        ("INTEGER", "setInt", -2147483648, -2147483648),
        ("BIGINT", "setLong", -9223372036854775808, -9223372036854775808),
        ("FLOAT", "setFloat", 1.5, 1.5),
        ("DOUBLE", "setDouble", -1e300, -1e300),
        ("DECIMAL(18, 3)", "setBigDecimal", "-123456789012345.678", "-123456789012345.678"),
        ("VARCHAR", "setString", "grüße 🍐", "grüße 🍐"),
        ("VARCHAR", "setString", "", ""),
        ("BOOLEAN", "setBoolean", False, False),
        ("BLOB", "setBytes", "00ff", "00ff"),
        ("DATE", "setDate", "1969-12-31", "1969-12-31"),
        ("TIME", "setTime", "23:59:59.999", "23:59:59.999"),
        ("TIMESTAMP", "setTimestamp", "1969-12-31 23:59:59.999", "1969-12-31 23:59:59.999"),
        ("UUID", "setString", "7fffffff-0000-4000-8000-000000000000", "7fffffff-0000-4000-8000-000000000000"),
    ],
)
@pytest.mark.parametrize("marker", ["?", "$1"])
def test_a_bound_value_arrives_as_it_is(
    replica: Connection, type_: str, marker: str, setter: str, value: object, answer: object
) -> None:
    statement = replica.prepare(f"SELECT {marker}::{type_} AS v")
    statement.call(setter, 1, value)
    assert statement.rows() == [(answer,)]


@pytest.mark.parametrize(
    "type_",
    [
        "TINYINT",
        "BIGINT",
        "DOUBLE",
        "DECIMAL(9, 2)",
        "VARCHAR",
        "BOOLEAN",
        "BLOB",
        "DATE",
        "TIME",
        "TIMESTAMP",
    ],
)
def test_null_is_bound_to_every_type(replica: Connection, type_: str) -> None:
    statement = replica.prepare(f"SELECT ?::{type_} IS NULL")
    statement.call("setNull", 1, INTEGER_SQL_TYPE)
    assert statement.rows() == [(True,)]


def test_a_timestamp_with_time_zone_is_bound_as_the_moment_it_is(replica: Connection) -> None:
    statement = replica.prepare("SELECT ?::TIMESTAMPTZ = TIMESTAMPTZ '2020-02-03 05:05:06.789+01'")
    statement.call("setTimestamp", 1, "2020-02-03 04:05:06.789")
    assert statement.rows() == [(True,)]


def test_the_same_parameter_twice_is_one_parameter(replica: Connection) -> None:
    statement = replica.prepare("SELECT id FROM orders WHERE id = $1 OR id = $1 + 1 ORDER BY id")
    statement.call("setLong", 1, 1)
    assert statement.rows() == [(1,), (2,)]


def test_several_parameters_are_bound_by_position(replica: Connection) -> None:
    statement = replica.prepare(
        "SELECT ? || item FROM orders WHERE price > ? AND id <= ? ORDER BY id LIMIT ?"
    )
    statement.call("setString", 1, "x ")
    statement.call("setBigDecimal", 2, "1.00")
    statement.call("setLong", 3, 3)
    statement.call("setLong", 4, 1)
    assert statement.rows() == [("x apple",)]


def test_a_statement_is_bound_again_and_again(replica: Connection) -> None:
    statement = replica.prepare("SELECT item FROM orders WHERE id = ?")
    for value, expected in ((1, [("apple",)]), (2, [("pear",)]), (9, []), (1, [("apple",)])):
        statement.call("setLong", 1, value)
        assert statement.rows() == expected
    assert statement.rows() == [("apple",)]  # what was bound last stays


def test_a_decimal_parameter_takes_exactly_its_scale(replica: Connection) -> None:
    statement = replica.prepare("SELECT id FROM orders WHERE price = ?")
    statement.call("setBigDecimal", 1, "1.5")
    with pytest.raises(ClientError, match="scale"):
        statement.rows()
    again = replica.prepare("SELECT id FROM orders WHERE price = ?")
    again.call("setBigDecimal", 1, "1.50")
    assert again.rows() == [(1,)]


def test_the_parameters_say_their_types(replica: Connection) -> None:
    statement = replica.prepare(
        "SELECT 1 FROM orders WHERE id = ? AND item = ? AND price = ? AND ordered_at = ? AND due = ?"
    )
    assert statement.parameter_types() == [
        "Int(64, true)",
        "Utf8",
        "Decimal(9, 2, 128)",
        "Timestamp(MILLISECOND, null)",
        "Date(DAY)",
    ]


def test_a_batch_is_one_write_of_many_rows(primary: Connection, line: Line) -> None:
    statement = primary.prepare("INSERT INTO orders (id, item, price, ordered_at) VALUES (?, ?, ?, ?)")
    for number in range(100, 105):
        statement.call("setLong", 1, number)
        statement.call("setString", 2, f"item {number}")
        statement.call("setBigDecimal", 3, f"{number}.25")
        statement.call("setTimestamp", 4, "2020-02-03 04:05:06.789")
        statement.call("addBatch")
    assert statement.call("executeBatch") == [5]
    line.until_replica_has("SELECT count(*), sum(id)::BIGINT FROM orders WHERE id >= 100", [(5, 510)])


def test_a_bound_update_changes_what_it_names(primary: Connection) -> None:
    insert = primary.prepare("INSERT INTO orders (id, item, weight) VALUES (?, ?, ?)")
    insert.call("setLong", 1, 50)
    insert.call("setString", 2, "plum")
    insert.call("setDouble", 3, 0.25)
    assert insert.call("executeUpdate") == 1
    update = primary.prepare("UPDATE orders SET item = ? WHERE id = ?")
    update.call("setString", 1, "prune")
    update.call("setLong", 2, 50)
    assert update.call("executeUpdate") == 1
    assert primary.rows("SELECT item, weight FROM orders WHERE id = 50") == [("prune", 0.25)]
    delete = primary.prepare("DELETE FROM orders WHERE id = ?")
    delete.call("setLong", 1, 50)
    assert delete.call("executeUpdate") == 1
