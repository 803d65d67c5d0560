"""arrow-go's database/sql driver, and the Flight SQL client below it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.clients.programs import ClientError, Program
from tests.integration.clients.conftest import Line, MemoryServer
from tests.integration.clients.go_client import Database, Go, Raw
from tests.integration.flightsql.clients import wait_until

ENDLESS = "SELECT sum(a.range * b.range) FROM range(10000000) a, range(10000000) b WHERE a.range <> b.range"
ODD = "odd _%name"


@pytest.fixture
def go(go_program: Program) -> Go:
    return Go(go_program)


@pytest.fixture
def replica(go: Go, line: Line) -> Database:
    return go.open(line.replica)


@pytest.fixture
def primary(go: Go, line: Line) -> Iterator[Database]:
    found = go.open(line.primary)
    yield found
    found.execute("DELETE FROM orders WHERE id > 3")


@pytest.fixture
def raw(go: Go, line: Line) -> Raw:
    return go.raw(line.replica)


# --- database/sql: queries --------------------------------------------------------------------------------


def test_a_table_of_many_types_is_read(replica: Database) -> None:
    assert replica.rows("SELECT * FROM orders WHERE id < 4 ORDER BY id") == [
        (
            *(1, "apple", 1.5, 0.5, True),
            *("2020-02-03T04:05:06.789Z", "2020-02-03T00:00:00Z", "1970-01-01T04:05:06.789Z", "ab"),
        ),
        (
            *(2, "pear", 22, 1.25, False),
            *("1969-12-31T23:59:59Z", "1970-01-01T00:00:00Z", "1970-01-01T00:00:00Z", ""),
        ),
        (3, None, None, None, None, None, None, None, None),
    ]


def test_an_enum_arrives_as_its_text(replica: Database) -> None:
    assert replica.rows("SELECT 'b'::ENUM('a', 'b')") == [("b",)]


@pytest.mark.parametrize("sql", ["SHOW TABLES", "DESCRIBE orders", "SUMMARIZE orders", "EXPLAIN SELECT 1"])
def test_what_is_no_select_gives_rows_too(replica: Database, sql: str) -> None:
    assert len(replica.rows(sql)) > 0


def test_arguments_are_taken_by_their_true_types(replica: Database) -> None:
    assert replica.rows("SELECT item FROM orders WHERE id = ?", 1) == [("apple",)]
    assert replica.rows("SELECT id FROM orders WHERE item = ? AND weight > ?", "pear", 0.5) == [(2,)]
    assert replica.rows("SELECT id FROM orders WHERE paid = $1", True) == [(1,)]


def test_a_prepared_statement_is_run_again_and_again(replica: Database) -> None:
    statement = replica.prepare("SELECT item FROM orders WHERE id = ?")
    for value, expected in ((1, [("apple",)]), (2, [("pear",)]), (9, [])):
        assert statement.rows("", value) == expected
    with pytest.raises(ClientError, match="expected 1 arguments, got 2"):
        statement.rows("", 1, 2)
    statement.close()


def test_a_million_rows_arrive(replica: Database) -> None:
    assert replica.count("SELECT range AS n FROM range(1000000)") == [1_000_000, 499_999_500_000]


@pytest.mark.parametrize(
    ("sql", "text"), [("SELEC 1", "syntax error"), ("SELECT * FROM nope", "nope"), ("", "statement")]
)
def test_a_wrong_statement_is_an_error_with_the_servers_text(replica: Database, sql: str, text: str) -> None:
    with pytest.raises(ClientError, match=f"(?i){text}") as found:
        replica.rows(sql)
    assert "Traceback" not in str(found.value)
    assert replica.rows("SELECT 1") == [(1,)]


# --- database/sql: writes and transactions ----------------------------------------------------------------


def test_exec_at_the_primary_says_how_many_rows_it_changed(primary: Database, line: Line) -> None:
    assert primary.execute("INSERT INTO orders (id, item) VALUES (?, ?)", 31, "fig") == 1
    assert primary.execute("UPDATE orders SET weight = 2 WHERE id > 30") == 1
    line.until_replica_has("SELECT item, weight FROM orders WHERE id = 31", [("fig", 2.0)])


def test_exec_at_a_replica_is_refused_and_names_the_primary(replica: Database, line: Line) -> None:
    with pytest.raises(ClientError, match=f"write to the primary at grpc://{line.primary}"):
        replica.execute("DELETE FROM orders WHERE id = ?", 1)
    with pytest.raises(ClientError, match=f"write to the primary at grpc://{line.primary}"):
        replica.execute("DELETE FROM orders")


def test_a_transaction_at_the_primary_is_visible_at_commit(go: Go, primary: Database, line: Line) -> None:
    transaction = primary.begin()
    assert transaction.execute("INSERT INTO orders (id) VALUES (?)", 41) == 1
    assert transaction.execute("INSERT INTO orders (id) VALUES (42)") == 1
    other = go.open(line.primary)
    assert other.rows("SELECT id FROM orders WHERE id > 40") == []
    transaction.commit()
    assert other.rows("SELECT id FROM orders WHERE id > 40 ORDER BY id") == [(41,), (42,)]


def test_a_transaction_rolled_back_leaves_nothing(primary: Database) -> None:
    transaction = primary.begin()
    transaction.execute("DELETE FROM orders")
    transaction.rollback()
    assert primary.rows("SELECT count(*) FROM orders WHERE id < 4") == [(3,)]


def test_a_transaction_at_a_replica_reads_the_newest_rows(
    replica: Database, primary: Database, line: Line
) -> None:
    transaction = replica.begin()
    sql = "SELECT id FROM orders WHERE id = 43"
    assert transaction.rows(sql) == []
    primary.execute("INSERT INTO orders (id) VALUES (43)")
    line.until_replica_has(sql, [(43,)])
    assert transaction.rows(sql) == [(43,)]
    transaction.commit()


# --- database/sql: cancel and timeouts --------------------------------------------------------------------


def test_a_cancelled_context_ends_the_query_at_the_server(go: Go, memory: MemoryServer) -> None:
    running = go.open(memory.address).start(ENDLESS)
    assert memory.query_begins.wait(10)
    running.cancel()
    with pytest.raises(ClientError, match=r"context canceled|Canceled"):
        running.join()
    wait_until(lambda: memory.service.open_views == 0)


def test_a_context_timeout_ends_the_query_at_the_server(go: Go, memory: MemoryServer) -> None:
    with pytest.raises(ClientError, match=r"DeadlineExceeded|deadline exceeded"):
        go.open(memory.address).rows(ENDLESS, timeout_ms=300)
    wait_until(lambda: memory.service.open_views == 0)


# --- logins -----------------------------------------------------------------------------------------------


def test_basic_on_every_call_is_taken_where_nobody_asks_for_it(go: Go, line: Line) -> None:
    assert go.open(line.replica, login="anybody:anything@").rows("SELECT 1") == [(1,)]


def test_a_handshake_in_unpadded_base64_leads_to_a_token(go: Go, line: Line) -> None:
    client = go.raw(line.replica)
    client.do("login", arguments=["u", "pw"])
    assert client.rows("query", sql="SELECT 1 AS one") == [{"one": 1}]


# --- the raw client ---------------------------------------------------------------------------------------


def test_a_header_waits_for_a_position(go: Go, line: Line) -> None:
    reached = go.raw(line.replica, merutable_min_seq="orders=3")
    assert reached.rows("query", sql="SELECT count(*) AS n FROM orders WHERE id < 4") == [{"n": 3}]
    ahead = go.raw(line.replica, merutable_min_seq="orders=1000000", merutable_wait_timeout_ms="100")
    with pytest.raises(ClientError, match="Unavailable"):
        ahead.rows("query", sql="SELECT count(*) FROM orders")


def test_a_header_demands_an_age_that_is_proven_or_refused(go: Go, line: Line) -> None:
    fresh = go.raw(line.replica, merutable_max_staleness_ms="60000")
    assert fresh.rows("query", sql="SELECT count(*) AS n FROM orders WHERE id < 4") == [{"n": 3}]
    never = go.raw(line.replica, merutable_max_staleness_ms="0", merutable_wait_timeout_ms="100")
    with pytest.raises(ClientError, match="max_staleness_ms"):
        never.rows("query", sql="SELECT count(*) FROM orders")


def test_the_schema_of_a_query_is_known_without_running_it(raw: Raw) -> None:
    found = raw.do("schema", sql="SELECT id, item, price FROM orders")
    assert found == ["id: int64", "item: utf8", "price: decimal(9, 2)"]


def test_an_update_without_preparing_writes(go: Go, line: Line) -> None:
    client = go.raw(line.primary)
    assert client.do("update", sql="INSERT INTO orders (id) VALUES (61), (62)") == 2
    assert client.do("update", sql="DELETE FROM orders WHERE id > 60") == 2


def test_tables_are_listed_with_and_without_their_schemas(raw: Raw) -> None:
    catalogs = [row["catalog_name"] for row in raw.rows("catalogs")]
    (orders,) = raw.rows("tables", table="orders", tabletypes=["TABLE"])
    assert orders["catalog_name"] in catalogs
    assert [orders[name] for name in ("db_schema_name", "table_name", "table_type")] == [
        "main",
        "orders",
        "TABLE",
    ]
    (described,) = raw.rows("tables_and_schemas", catalog=orders["catalog_name"], table="odd \\_\\%name")
    assert described["table_name"] == ODD
    assert described["table_schema"] == ["b: int32", "a: utf8"]
    assert {"catalog_name": catalogs[0], "db_schema_name": "main"} in raw.rows("schemas", schema="ma%")
    assert "TABLE" in [row["table_type"] for row in raw.rows("table_types")]


def test_keys_are_the_real_ones(raw: Raw) -> None:
    found = raw.rows("primary_keys", table=ODD)
    assert [(row["column_name"], row["key_sequence"]) for row in found] == [("a", 1), ("b", 2)]
    for verb in ("exported_keys", "imported_keys", "cross_reference"):
        assert raw.rows(verb, table="orders") == []


def test_type_info_is_given_whole_and_by_type(raw: Raw) -> None:
    every = raw.rows("xdbc_type_info")
    assert [row["data_type"] for row in every] == sorted(int(str(row["data_type"])) for row in every)
    assert {"BIGINT", "VARCHAR", "DECIMAL", "TIMESTAMP"} <= {row["type_name"] for row in every}
    whole = raw.rows("xdbc_type_info", datatype=-5)
    assert "BIGINT" in [row["type_name"] for row in whole]
    assert {row["data_type"] for row in whole} == {-5}


def test_every_code_of_sql_info_is_answered(raw: Raw) -> None:
    every = raw.rows("sql_info", codes=[])
    wanted = {*range(12), 100, 101, *range(500, 577)}
    assert wanted <= {row["info_name"] for row in every}
    assert [row["info_name"] for row in raw.rows("sql_info", codes=[504, 8])] == [504, 8]


def test_session_options_are_set_and_wrong_ones_named(raw: Raw) -> None:
    (catalog,) = {row["catalog_name"] for row in raw.rows("tables", table="orders")}
    assert raw.do("set_session_option", arguments=["catalog", catalog]) == {}
    assert raw.do("set_session_option", arguments=["catalog", "nowhere"]) == {"catalog": "INVALID_VALUE"}
    assert raw.do("set_session_option", arguments=["nonsense", "x"]) == {"nonsense": "INVALID_NAME"}
    assert raw.do("close_session") == "CLOSED"
