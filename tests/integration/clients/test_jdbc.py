"""Statements, results, errors and connection properties through the Arrow Flight SQL JDBC driver.

What the driver needs of a server, and its faults to live with: docs/clients/jdbc.md.
Bound parameters: test_jdbc_binds.py. DatabaseMetaData: test_jdbc_metadata.py.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing

import pytest

from flight_replica.flightsql.limits import ServerLimits
from tests.clients.programs import ClientError
from tests.faults import TcpProxy
from tests.integration.clients.conftest import Line, MemoryServer
from tests.integration.clients.jdbc_client import Connection, Jdbc
from tests.integration.flightsql.clients import wait_until

ENDLESS = "SELECT sum(a.range * b.range) FROM range(10000000) a, range(10000000) b WHERE a.range <> b.range"


@pytest.fixture
def replica(jdbc: Jdbc, line: Line) -> Connection:
    return jdbc.connect(line.replica)


@pytest.fixture
def primary(jdbc: Jdbc, line: Line) -> Iterator[Connection]:
    found = jdbc.connect(line.primary)
    yield found
    found.statement().call("executeUpdate", "DELETE FROM orders WHERE id > 3")


# --- statements and results -----------------------------------------------------------------------------


def test_a_table_of_many_types_is_read(replica: Connection) -> None:
    assert replica.rows("SELECT * FROM orders WHERE id < 4 ORDER BY id") == [
        (1, "apple", "1.50", 0.5, True, "2020-02-03 04:05:06.789", "2020-02-03", "04:05:06.789", "ab"),
        (2, "pear", "22.00", 1.25, False, "1969-12-31 23:59:59.0", "1970-01-01", "00:00", ""),
        (3, None, None, None, None, None, None, None, None),
    ]


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("127::TINYINT", 127),
        ("(-32768)::SMALLINT", -32768),
        ("(-2147483648)::INTEGER", -2147483648),
        ("9223372036854775807::BIGINT", 9223372036854775807),
        ("1.5::FLOAT", 1.5),
        ("'NaN'::DOUBLE", "NaN"),
        ("'-Infinity'::DOUBLE", "-Infinity"),
        (
            "12345678901234567890123456789.123456789::DECIMAL(38, 9)",
            "12345678901234567890123456789.123456789",
        ),
        ("'grüße 🍐'", "grüße 🍐"),
        ("'\\x00\\xFF'::BLOB", "00ff"),
        ("DATE '2024-02-29'", "2024-02-29"),
        ("TIME '23:59:59.999'", "23:59:59.999"),
        ("TIMESTAMP '2262-04-11 23:47:16.854775'", "2262-04-11 23:47:16.854775"),
        ("'2020-02-03 04:05:06'::TIMESTAMP_S", "2020-02-03 04:05:06.0"),
        ("'2020-02-03 04:05:06.789'::TIMESTAMP_MS", "2020-02-03 04:05:06.789"),
        ("'2020-02-03 04:05:06.123456789'::TIMESTAMP_NS", "2020-02-03 04:05:06.123456789"),
        ("[1, 2, NULL]", [1, 2, None]),
        ("[[1], []]", [[1], []]),
        ("{'a': 1, 'b': 'x'}", '{"a":1,"b":"x"}'),
        ("'7fffffff-0000-4000-8000-000000000000'::UUID", "7fffffff-0000-4000-8000-000000000000"),
        ("NULL", None),
    ],
)
def test_a_value_arrives_as_it_is(replica: Connection, expression: str, value: object) -> None:
    assert replica.rows(f"SELECT {expression} AS v") == [(value,)]


def test_an_enum_arrives_as_its_text(replica: Connection) -> None:
    sql = "SELECT v::ENUM('a', 'b') AS e FROM (VALUES ('b'), ('a'), (NULL)) t(v)"
    assert replica.rows(sql) == [("b",), ("a",), (None,)]
    assert [column["type"] for column in replica.columns(sql)] == ["VARCHAR"]


def test_a_timestamp_with_time_zone_is_read_as_text(replica: Connection) -> None:
    # The driver's getObject isn't implemented for this type.
    (row,) = replica.rows("SELECT TIMESTAMPTZ '2020-02-03 04:05:06+00'", getter="getTimestamp")
    assert row == ("2020-02-03 04:05:06.0",)


@pytest.mark.parametrize(
    ("sql", "columns"),
    [
        ("SHOW TABLES", ["name"]),
        ("DESCRIBE orders", ["column_name", "column_type", "null", "key", "default", "extra"]),
        ("EXPLAIN SELECT * FROM orders", ["explain_key", "explain_value"]),
        ("EXPLAIN ANALYZE SELECT * FROM orders", ["explain_key", "explain_value"]),
        ("SUMMARIZE orders", ["column_name", "column_type", "min", "max"]),
    ],
)
def test_what_is_no_select_gives_rows_too(replica: Connection, sql: str, columns: list[str]) -> None:
    assert len(replica.rows(sql)) > 0
    assert [column["label"] for column in replica.columns(sql)][: len(columns)] == columns
    assert len(replica.prepare(sql).rows()) > 0


def test_comments_and_a_semicolon_are_taken(replica: Connection) -> None:
    assert replica.rows("-- of the tool\nSELECT /* inside */ 1;  -- at the end") == [(1,)]


def test_a_decimal_column_says_its_precision_and_scale(replica: Connection) -> None:
    id_, price, total = replica.columns("SELECT id, price, sum(price) AS total FROM orders GROUP BY ALL")
    assert (price["type"], price["precision"], price["scale"]) == ("DECIMAL", 9, 2)
    assert (total["type"], total["precision"], total["scale"]) == ("DECIMAL", 38, 2)
    assert id_["type"] == "BIGINT"


def test_a_column_is_labelled_by_its_name_alone(replica: Connection) -> None:
    found = replica.columns('SELECT id, item AS "Item: it", 1 AS "a b" FROM orders')
    assert [(column["label"], column["name"]) for column in found] == [
        ("id", "id"),
        ("Item: it", "Item: it"),
        ("a b", "a b"),
    ]


def test_a_million_rows_arrive(replica: Connection) -> None:
    sql = "SELECT range AS n, 'row ' || range AS text, range / 3.0 AS third FROM range(1000000)"
    assert replica.count(sql) == (1_000_000, 499_999_500_000)


def test_max_rows_and_fetch_size_leave_a_connection_that_works(replica: Connection) -> None:
    statement = replica.statement()
    statement.call("setMaxRows", 3)
    statement.call("setFetchSize", 2)
    statement.start("SELECT range FROM range(100000)")
    assert statement.join() == [(0,), (1,), (2,)]
    statement.close()
    assert replica.rows("SELECT 1") == [(1,)]


def test_statements_and_metadata_run_at_once_on_one_connection(replica: Connection) -> None:
    statements = [replica.statement() for _ in range(4)]
    for number, statement in enumerate(statements):
        statement.start(f"SELECT sum(range + {number}) FROM range(1000000)")
    assert len(replica.metadata("getTables", None, None, "orders", None)) == 1
    sums = [statement.join() for statement in statements]
    assert [int(str(row[0][0])) for row in sums] == [
        499_999_500_000 + number * 1_000_000 for number in range(4)
    ]


# --- writes -----------------------------------------------------------------------------------------------


def test_the_primary_says_how_many_rows_an_update_changed(primary: Connection, line: Line) -> None:
    update = primary.statement()
    assert update.call("executeUpdate", "INSERT INTO orders (id, item) VALUES (11, 'x'), (12, 'y')") == 2
    assert update.call("executeUpdate", "UPDATE orders SET item = 'z' WHERE id > 10") == 2
    assert update.call("executeUpdate", "DELETE FROM orders WHERE id = 12") == 1
    assert update.call("execute", "DELETE FROM orders WHERE id = 99") is False
    assert update.call("getUpdateCount") == 0
    line.until_replica_has("SELECT id, item FROM orders WHERE id > 10", [(11, "z")])


def test_the_primary_makes_and_drops_a_table(primary: Connection) -> None:
    update = primary.statement()
    assert update.call("executeUpdate", "CREATE TABLE made (k INTEGER PRIMARY KEY)") == 0
    assert primary.rows("SELECT count(*) FROM made") == [(0,)]
    assert update.call("executeUpdate", "DROP TABLE made") == 0


@pytest.mark.parametrize(
    "sql",
    [
        "INSERT INTO orders (id) VALUES (10)",
        "DELETE FROM orders",
        "UPDATE orders SET item = ? WHERE id = ?",
        "CREATE TABLE t (k INTEGER PRIMARY KEY)",
        "DROP TABLE orders",
    ],
)
def test_a_replica_refuses_a_write_at_prepare_and_names_the_primary(
    replica: Connection, line: Line, sql: str
) -> None:
    with pytest.raises(ClientError, match=f"write to the primary at grpc://{line.primary}"):
        replica.prepare(sql)


def test_a_replica_refuses_execute_update(replica: Connection, line: Line) -> None:
    with pytest.raises(ClientError, match=f"write to the primary at grpc://{line.primary}"):
        replica.statement().call("executeUpdate", "DELETE FROM orders")


# --- errors -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sql", "text"),
    [
        ("SELEC 1", "syntax error"),
        ("SELECT * FROM nope", "nope"),
        ("SELECT nope FROM orders", "nope"),
        ("SELECT 1; SELECT 2", "one statement"),
        ("", "statement"),
    ],
)
def test_a_wrong_statement_is_an_sql_exception_with_the_servers_text(
    replica: Connection, sql: str, text: str
) -> None:
    for execute in (replica.rows, replica.prepare):
        with pytest.raises(ClientError, match=f"(?i){text}") as found:
            execute(sql)
        assert found.value.kind == "SQLException"
        assert "Traceback" not in str(found.value) and ".py" not in str(found.value)
    assert replica.rows("SELECT 1") == [(1,)]


def test_an_error_in_the_middle_of_a_result_says_what_went_wrong(replica: Connection) -> None:
    sql = "SELECT CASE WHEN range < 900000 THEN '1' ELSE 'x' END::INTEGER AS n FROM range(1000000)"
    with pytest.raises(ClientError, match="Could not convert string 'x' to INT32"):
        replica.count(sql)
    assert replica.rows("SELECT 1") == [(1,)]


# --- cancel and timeouts ----------------------------------------------------------------------------------


def test_cancel_ends_a_running_query_and_frees_what_it_held(jdbc: Jdbc, memory: MemoryServer) -> None:
    connection = jdbc.connect(memory.address)
    statement = connection.statement()
    statement.start(ENDLESS)
    assert memory.query_begins.wait(10)
    wait_until(statement.waits_for_rows)
    statement.call("cancel")
    with pytest.raises(ClientError, match="Cancelling"):
        statement.join()
    wait_until(lambda: memory.service.open_views == 0)
    assert connection.rows("SELECT 1") == [(1,)]


def test_cancel_while_rows_arrive_ends_the_query(jdbc: Jdbc, memory: MemoryServer) -> None:
    """The reader pauses meanwhile: the driver frees what it reads, and sometimes frees it twice."""
    statement = jdbc.connect(memory.address).statement()
    statement.start_count("SELECT a.range FROM range(10000000) a, range(10000000) b", pause_at=100_000)
    wait_until(lambda: statement.counted() == 100_000)
    assert memory.service.open_views == 1
    statement.call("cancel")
    wait_until(lambda: memory.service.open_views == 0)
    statement.go_on()
    with pytest.raises(ClientError, match=r"(?i)cancel"):
        statement.join()


def test_a_query_timeout_ends_the_query_at_the_server(jdbc: Jdbc, memory: MemoryServer) -> None:
    with pytest.raises(ClientError, match="timed out after 1 SECONDS"):
        jdbc.connect(memory.address).rows(ENDLESS, timeout_seconds=1)
    assert memory.query_begins.is_set()
    wait_until(lambda: memory.service.open_views == 0)


def test_the_servers_own_limit_is_named_in_the_error(jdbc: Jdbc, memory: MemoryServer) -> None:
    server = memory.serve(ServerLimits(statement_seconds=0.3))
    with pytest.raises(ClientError, match="statement_seconds"):
        jdbc.connect(f"127.0.0.1:{server.port}").rows(ENDLESS)
    wait_until(lambda: memory.service.open_views == 0)


def test_a_result_left_unread_frees_its_view(jdbc: Jdbc, memory: MemoryServer) -> None:
    statement = jdbc.connect(memory.address).statement()
    statement.call("setMaxRows", 1)
    statement.start("SELECT 0 FROM range(10000000) a, range(1000) b")
    assert statement.join() == [(0,)]
    wait_until(lambda: memory.service.open_views == 0)


def test_a_statement_that_nobody_closed_is_forgotten(jdbc: Jdbc, memory: MemoryServer) -> None:
    server = memory.serve(ServerLimits(prepared_idle_seconds=0.0))
    statement = jdbc.connect(f"127.0.0.1:{server.port}").prepare("SELECT 1")

    def is_forgotten() -> bool:
        try:
            return not statement.rows()
        except ClientError as error:
            return "prepare it again" in str(error)

    wait_until(is_forgotten)


# --- connections ------------------------------------------------------------------------------------------


def test_a_server_behind_a_proxy_is_asked_through_it_alone(jdbc: Jdbc, line: Line) -> None:
    with closing(TcpProxy(int(line.replica.rpartition(":")[2]))) as proxy:
        connection = jdbc.connect(f"127.0.0.1:{proxy.port}")
        assert connection.rows("SELECT id FROM orders WHERE id = 1") == [(1,)]
        proxy.cut()
        wait_until(lambda: _answers(connection))


def _answers(connection: Connection) -> bool:
    try:
        return connection.rows("SELECT 1") == [(1,)]
    except ClientError:
        return False


def test_user_and_password_are_taken_where_none_are_asked_for(jdbc: Jdbc, line: Line) -> None:
    for properties in ({"user": "anybody", "password": "anything"}, {"token": "any"}):
        assert jdbc.connect(line.replica, **properties).rows("SELECT 1") == [(1,)]


def test_a_catalog_in_the_url_is_taken_and_a_wrong_one_refused(jdbc: Jdbc, line: Line) -> None:
    (catalog,) = jdbc.connect(line.replica).metadata("getCatalogs")
    connection = jdbc.connect(line.replica, catalog=catalog["TABLE_CAT"])
    assert connection.rows("SELECT count(*) FROM orders WHERE id < 4") == [(3,)]
    with pytest.raises(ClientError):
        jdbc.connect(line.replica, catalog="nowhere")


def test_encryption_against_a_plain_server_is_refused(jdbc: Jdbc, line: Line) -> None:
    with pytest.raises(ClientError):
        jdbc.connect(line.replica, is_encrypted=True, user="a", password="b")


def test_nobody_at_the_address_is_an_error_of_the_first_statement(jdbc: Jdbc) -> None:
    with closing(TcpProxy(1)) as proxy:
        port = proxy.port
    with pytest.raises(ClientError, match="io exception"):
        jdbc.connect(f"127.0.0.1:{port}").rows("SELECT 1")


def test_min_seq_in_the_url_waits_for_the_position_and_says_where_it_is(jdbc: Jdbc, line: Line) -> None:
    reached = jdbc.connect(line.replica, merutable_min_seq="orders=3")
    assert reached.rows("SELECT count(*) FROM orders WHERE id < 4") == [(3,)]
    ahead = jdbc.connect(line.replica, merutable_min_seq="orders=1000000", merutable_wait_timeout_ms=100)
    with pytest.raises(ClientError, match=r"UNAVAILABLE|1000000"):
        ahead.rows("SELECT count(*) FROM orders")


def test_max_staleness_in_the_url_is_proven_or_refused(jdbc: Jdbc, line: Line) -> None:
    fresh = jdbc.connect(line.replica, merutable_max_staleness_ms=60_000)
    assert fresh.rows("SELECT count(*) FROM orders WHERE id < 4") == [(3,)]
    never = jdbc.connect(line.replica, merutable_max_staleness_ms=0, merutable_wait_timeout_ms=100)
    with pytest.raises(ClientError, match="max_staleness_ms"):
        never.rows("SELECT count(*) FROM orders")


def test_a_statement_timeout_in_the_url_ends_a_statement(jdbc: Jdbc, line: Line) -> None:
    with pytest.raises(ClientError, match="statement_timeout_ms"):
        jdbc.connect(line.replica, merutable_statement_timeout_ms=200).rows(ENDLESS)


def test_a_pin_in_the_url_shows_several_connections_one_view(
    jdbc: Jdbc, line: Line, primary: Connection
) -> None:
    count = "SELECT count(*) FROM orders"
    pinned = jdbc.connect(line.replica, merutable_pin="report")
    (before,) = pinned.rows(count)
    primary.statement().call("executeUpdate", "INSERT INTO orders (id) VALUES (21)")
    line.until_replica_has("SELECT id FROM orders WHERE id = 21", [(21,)])
    assert jdbc.connect(line.replica, merutable_pin="report").rows(count) == [before]
    assert pinned.rows(count) == [before]
