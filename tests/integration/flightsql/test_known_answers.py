"""Statements that are answered without a view: the same rows, columns and position as by one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial

import adbc_driver_flightsql.dbapi as adbc
import adbc_driver_manager
import pyarrow as pa
import pytest

from flight_replica.client import connect
from flight_replica.replica.service import ReplicaService
from flight_replica.sql.key_filter import NO_KEYS, Keys
from flight_replica.sql.view import View
from flight_replica.state.state import StateKind
from tests.pair import Pair, served_pair
from tests.processes import until

HEADER = "adbc.flight.sql.rpc.call_header.merutable-"
TYPES = {
    "flag": ("BOOLEAN", "true"),
    "small": ("TINYINT", "-7"),
    "wide": ("UBIGINT", "18446744073709551615"),
    "single": ("FLOAT", "'nan'"),
    "double": ("DOUBLE", "-0.0"),
    "amount": ("DECIMAL(30, 5)", "1234567890123456789.12345"),
    "day": ("DATE", "DATE '2024-02-29'"),
    "clock": ("TIME", "TIME '12:34:56.789'"),
    "moment": ("TIMESTAMP", "TIMESTAMP '1969-12-31 23:59:59.999999'"),
    "zoned": ("TIMESTAMPTZ", "TIMESTAMPTZ '9999-12-31 23:59:59.999999+00'"),
    "word": ("VARCHAR", "'Straße 🦆'"),
    "bytes": ("BLOB", "'\\x00\\xFF'::BLOB"),
    "list": ("INTEGER[]", "[1, NULL, 3]"),
    "pair": ("STRUCT(a INTEGER, b VARCHAR)", "{'a': 1, 'b': 'x'}"),
}


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    def is_native(table: str) -> bool:
        return pair.replica.table(table).replica.state.kind is StateKind.MERGE_ON_APPLY

    with served_pair(tmp_path_factory.mktemp("pair")) as pair:
        columns = ", ".join(f'"{name}" {kind}' for name, (kind, _) in TYPES.items())
        values = ", ".join(value for _, value in TYPES.values())
        nulls = ", ".join("NULL" for _ in TYPES)
        pair.write(
            f"CREATE TABLE every (id BIGINT PRIMARY KEY, {columns})",
            f"INSERT INTO every VALUES (1, {values}), (2, {nulls})",
            "CREATE TABLE words (word VARCHAR, number INTEGER, v BIGINT, PRIMARY KEY (word, number))",
            "INSERT INTO words VALUES ('a', 1, 10), ('a', 2, 20), ('b', 1, 30)",
        )
        for table in ("orders", "every", "words"):
            pair.wait_serving(table)
            until(partial(is_native, table), "its native state is there")
        yield pair


@pytest.fixture
def connection(pair: Pair) -> Iterator[adbc.Connection]:
    with connect(pair.uri) as connection:
        yield connection


@pytest.fixture
def views(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> list[Sequence[str]]:
    """The tables of each view that is opened from now on."""
    opened: list[Sequence[str]] = []
    open_view = ReplicaService.open_view

    def noted(self: ReplicaService, tables: Sequence[str], keys: Keys = NO_KEYS) -> View:
        opened.append(tables)
        return open_view(self, tables, keys)

    monkeypatch.setattr(ReplicaService, "open_view", noted)
    return opened


def ask(connection: adbc.Connection, sql: str, *parameters: object) -> pa.Table:
    with connection.cursor() as cursor:
        cursor.execute(sql, parameters or None)
        return cursor.fetch_arrow_table()


def assert_known(connection: adbc.Connection, views: list[Sequence[str]], sql: str, *bound: object) -> None:
    """The second answer is the first one's, and took no view; nor did a third."""
    first = ask(connection, sql, *bound)
    views.clear()
    for _ in range(2):
        again = ask(connection, sql, *bound)
        assert again.schema.equals(first.schema, check_metadata=False)
        assert [field.metadata for field in again.schema] == [field.metadata for field in first.schema]
        assert again.to_batches() == first.to_batches() or repr(again.to_pydict()) == repr(first.to_pydict())
    assert views == []


@pytest.mark.parametrize("is_recent", [False, True])
@pytest.mark.parametrize("name", TYPES)
def test_a_value_of_each_type_is_that_of_a_view(
    name: str, is_recent: bool, pair: Pair, connection: adbc.Connection, views: list[Sequence[str]]
) -> None:
    if is_recent:
        pair.write(f'UPDATE every SET "{name}" = "{name}"')
        seq = pair.primary.engine.table("every").high_water
        until(lambda: pair.seq("every") >= seq, "it has arrived")
    for number in (1, 2, 3):
        assert_known(connection, views, f'SELECT "{name}" AS x, id FROM every WHERE id = {number}')


@pytest.mark.parametrize(
    ("sql", "bound"),
    [
        ("SELECT * FROM orders WHERE id = 7", ()),
        ("SELECT * FROM orders WHERE id = 7777", ()),
        ("SELECT item FROM orders WHERE id = ?", (7,)),
        ("SELECT v FROM words WHERE number = 1 AND word = 'a' LIMIT 5", ()),
        ("SELECT v, v AS w FROM words WHERE word = ? AND number = ?", ("b", 1)),
        ("SELECT count(*) FROM orders", ()),
        ("SELECT count(*) AS n, count(1) FROM words LIMIT 10", ()),
    ],
)
def test_a_plain_statement_takes_a_view_once(
    sql: str, bound: tuple[object, ...], connection: adbc.Connection, views: list[Sequence[str]]
) -> None:
    assert_known(connection, views, sql, *bound)


@pytest.mark.parametrize(
    ("sql", "bound", "expected"),
    [
        ("SELECT v FROM words WHERE word = 'a' AND number = 1 AND v = 11", (), []),
        ("SELECT v FROM words WHERE word = ? AND number = ? AND v = ?", ("a", 1, None), []),
        ("SELECT v FROM words WHERE word = 'a' AND v = 20", (), [20]),
        ("SELECT v FROM words WHERE word = ? AND number = ?", ("a", None), []),
        ("SELECT v FROM words WHERE word = ? AND number = ?", ("a", 2.0), [20]),
    ],
)
def test_what_says_more_or_less_than_a_key_is_read_by_a_view(
    sql: str,
    bound: tuple[object, ...],
    expected: list[int],
    connection: adbc.Connection,
    views: list[Sequence[str]],
) -> None:
    for _ in range(2):
        views.clear()
        assert ask(connection, sql, *bound)["v"].to_pylist() == expected
        assert ["words"] in views


def test_a_write_is_seen_at_once_by_who_asks_for_its_seq(pair: Pair, connection: adbc.Connection) -> None:
    for number in range(20):
        pair.primary.write(f"UPDATE orders SET item = 'written {number}' WHERE id = 7")
        seq = pair.primary.write(f"INSERT INTO orders VALUES ({1000 + number}, 'new')").seq
        with connection.cursor() as cursor:
            cursor.adbc_statement.set_options(**{f"{HEADER}min-seq": str(seq)})
            cursor.execute("SELECT item FROM orders WHERE id = 7")
            assert cursor.fetchall() == [(f"written {number}",)]
            cursor.execute("SELECT count(*) FROM orders")
            assert cursor.fetchall() == [(101 + number,)]


def test_a_wait_alone_is_answered_as_one_in_a_query(
    connection: adbc.Connection, views: list[Sequence[str]]
) -> None:
    wait = "SELECT * FROM merutable_wait('orders', 1, 1000)"
    expected = ask(connection, f"SELECT table_name, visible_seq, waited_ms FROM ({wait})")
    views.clear()
    found = ask(connection, wait)
    assert (found.schema, found["visible_seq"]) == (expected.schema, expected["visible_seq"])
    assert found["table_name"].to_pylist() == ["orders"]
    with pytest.raises(adbc_driver_manager.Error, match="waited"):
        ask(connection, "SELECT * FROM merutable_wait('orders', 999999, 1)")
    assert views == []


def test_a_table_that_was_dropped_is_not_found(pair: Pair, connection: adbc.Connection) -> None:
    pair.write("CREATE TABLE short (id BIGINT PRIMARY KEY)", "INSERT INTO short VALUES (1)")
    pair.wait_serving("short")
    for _ in range(2):
        assert ask(connection, "SELECT id FROM short WHERE id = 1")["id"].to_pylist() == [1]
    pair.write("DROP TABLE short")
    until(lambda: pair.state("short") == "", "it is gone here, too")
    with pytest.raises(adbc_driver_manager.Error, match="short"):
        ask(connection, "SELECT id FROM short WHERE id = 1")
