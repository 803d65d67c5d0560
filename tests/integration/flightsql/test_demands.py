"""Reads that demand a position or an age, what SQL says of both, and a client's time zone."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import adbc_driver_flightsql.dbapi as adbc
import pyarrow as pa
import pytest
from pyarrow import flight

from flight_replica._pb import flight_sql_pb2 as pb
from flight_replica.flightsql.commands import unpack
from flight_replica.flightsql.limits import ServerLimits
from flight_replica.flightsql.server import FlightSqlServer
from flight_replica.log.wire import decode_positions
from tests.integration.flightsql.clients import RawClient, descriptor, wait_until
from tests.integration.flightsql.conftest import Serve
from tests.integration.flightsql.memory_service import MemoryService

COUNT = "SELECT count(*) AS n FROM orders"
COOKIES = {"adbc.flight.sql.rpc.with_cookie_middleware": "true"}
HEADER = "adbc.flight.sql.rpc.call_header.merutable-"
OPTION = "adbc.flight.sql.session.option."


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(8) as found:
        yield found


def _order(order_id: int) -> pa.Table:
    return pa.table({"id": [order_id], "item": ["new"], "price": [0.5]})


def _waiting(server: FlightSqlServer) -> int:
    return server._front.planner._waits.count


def _is_waiting(server: FlightSqlServer, count: int = 1) -> None:
    wait_until(lambda: _waiting(server) == count)


# --- min_seq ----------------------------------------------------------------------------------------


def test_a_read_waits_for_its_seq_and_then_shows_it(
    raw: RawClient, server: FlightSqlServer, service: MemoryService, pool: ThreadPoolExecutor
) -> None:
    found = pool.submit(raw.rows, COUNT, merutable_min_seq="4")
    _is_waiting(server)
    assert service.open_views == 0
    service.put("orders", _order(4))
    assert found.result(10)["n"].to_pylist() == [4]
    assert _waiting(server) == 0


def test_a_seq_that_is_there_is_not_waited_for(raw: RawClient) -> None:
    assert raw.rows(COUNT, merutable_min_seq="3", merutable_wait_timeout_ms="0")["n"].to_pylist() == [3]


def test_when_the_time_is_up_the_position_reached_is_named(raw: RawClient, service: MemoryService) -> None:
    with pytest.raises(
        flight.FlightUnavailableError,
        match=r"'orders': waited \d+ ms \(wait_timeout_ms\) for seq 9 \(min_seq\); visible is seq 3",
    ):
        raw.info(COUNT, merutable_min_seq="9", merutable_wait_timeout_ms="20")
    assert service.open_views == 0


def test_each_table_has_its_own_seq_and_names_are_percent_encoded(raw: RawClient) -> None:
    joined = "SELECT count(*) AS n FROM orders, odd"
    assert raw.rows(joined, merutable_min_seq="Orders=3,o%64d=0")["n"].to_pylist() == [0]
    with pytest.raises(flight.FlightUnavailableError, match=r"'odd': .* for seq 1"):
        raw.info(joined, merutable_min_seq="orders=3,odd=1", merutable_wait_timeout_ms="0")
    assert raw.rows(COUNT, merutable_min_seq="odd=77")["n"].to_pylist() == [3]


def test_a_bare_seq_for_several_tables_and_an_unknown_table_are_errors(raw: RawClient) -> None:
    with pytest.raises(pa.ArrowInvalid, match=r"min_seq 3: the statement reads 2 tables \(orders, odd\)"):
        raw.info("SELECT 1 FROM orders, odd", merutable_min_seq="3")
    with pytest.raises(pa.ArrowKeyError, match="'order' isn't served"):
        raw.info(COUNT, merutable_min_seq="order=3")
    assert raw.rows("SELECT 1 AS one", merutable_min_seq="99")["one"].to_pylist() == [1]


@pytest.mark.parametrize(
    ("name", "text"),
    [("min_seq", "x"), ("max_staleness_ms", "-1"), ("wait_timeout_ms", "soon"), ("time_zone", "Nowhere")],
)
def test_a_wrong_header_is_named(raw: RawClient, name: str, text: str) -> None:
    header = f"merutable-{name.replace('_', '-')}"
    with pytest.raises(pa.ArrowInvalid, match=f"call header {header}: "):
        raw.info(COUNT, **{f"merutable_{name}": text})


def test_changes_are_read_no_earlier_than_the_seq_demanded(
    raw: RawClient, server: FlightSqlServer, service: MemoryService, pool: ThreadPoolExecutor
) -> None:
    for sql in (
        "SELECT * FROM merutable_changes('orders', 3)",
        "SELECT seq FROM merutable_changes('ORDERS', 3)",
    ):
        before = service.tables_by_name["orders"].seq
        found = pool.submit(raw.rows, sql, merutable_min_seq=str(before + 1))
        _is_waiting(server)
        service.put("orders", _order(100 + before))
        assert found.result(10)["seq"].to_pylist() == list(range(4, before + 2))


def test_a_prepared_statement_waits_each_time_it_is_run(
    raw: RawClient, server: FlightSqlServer, service: MemoryService, pool: ThreadPoolExecutor
) -> None:
    (body,) = raw.act("CreatePreparedStatement", pb.ActionCreatePreparedStatementRequest(query=COUNT))
    handle = unpack(body, "the result").prepared_statement_handle
    command = pb.CommandPreparedStatementQuery(prepared_statement_handle=handle)
    found = pool.submit(raw.command, command, merutable_min_seq="4")
    _is_waiting(server)
    service.put("orders", _order(4))
    info = found.result(10)
    (position,), _ = decode_positions(info.app_metadata)
    assert position.visible_seq == 4
    assert json.loads(info.schema.metadata[b"merutable.position"]) == {"tables": [position.as_json()]}
    assert raw.open(info).read_all()["n"].to_pylist() == [4]


def test_to_prepare_and_to_ask_for_a_schema_waits_for_nothing(raw: RawClient) -> None:
    options = flight.FlightCallOptions(headers=[(b"merutable-min-seq", b"99")])
    command = pb.CommandStatementQuery(query=COUNT)

    assert raw.client.get_schema(descriptor(command), options).schema.names == ["n"]
    request = pb.ActionCreatePreparedStatementRequest(query="SELECT * FROM merutable_wait('orders', 99)")
    (body,) = raw.act("CreatePreparedStatement", request)
    assert unpack(body, "the result").dataset_schema


# --- waiting ----------------------------------------------------------------------------------------


def test_a_wait_ends_with_its_client(server: FlightSqlServer, service: MemoryService) -> None:
    options = flight.FlightCallOptions(
        timeout=0.2, headers=[(b"merutable-min-seq", b"99"), (b"merutable-wait-timeout-ms", b"60000")]
    )
    with flight.connect(f"grpc://127.0.0.1:{server.port}") as client:
        command = pb.CommandStatementQuery(query=COUNT)

        with pytest.raises(flight.FlightTimedOutError):
            client.get_flight_info(descriptor(command), options)
        wait_until(lambda: _waiting(server) == 0)
        wait_until(lambda: service.open_views == 0)


def test_the_limit_of_waiting_calls_is_named_and_reads_that_need_not_wait_go_on(
    serve: Serve, service: MemoryService, pool: ThreadPoolExecutor
) -> None:
    server = serve(ServerLimits(waits_max=2))
    with flight.connect(f"grpc://127.0.0.1:{server.port}") as client:
        raw = RawClient(client)
        waiting: list[Future[pa.Table]] = [
            pool.submit(raw.rows, COUNT, merutable_min_seq="4") for _ in range(2)
        ]
        _is_waiting(server, 2)
        with pytest.raises(flight.FlightUnavailableError, match=r"2 calls wait .* \(waits_max\)"):
            raw.info(COUNT, merutable_min_seq="4")
        assert raw.rows(COUNT, merutable_min_seq="3")["n"].to_pylist() == [3]
        service.put("orders", _order(4))
        assert [found.result(10)["n"].to_pylist() for found in waiting] == [[4], [4]]


def test_a_server_that_closes_ends_the_waits(serve: Serve, pool: ThreadPoolExecutor) -> None:
    server = serve()
    with flight.connect(f"grpc://127.0.0.1:{server.port}") as client:
        found = pool.submit(RawClient(client).rows, COUNT, merutable_min_seq="99")
        _is_waiting(server)
        server.close()
        with pytest.raises(flight.FlightUnavailableError):
            found.result(10)


# --- age --------------------------------------------------------------------------------------------


def test_an_age_is_demanded_of_each_answer(raw: RawClient) -> None:
    assert raw.rows(COUNT, merutable_max_staleness_ms="0")["n"].to_pylist() == [3]


# --- in SQL -----------------------------------------------------------------------------------------


def test_merutable_wait_waits_and_answers_one_row(
    raw: RawClient, server: FlightSqlServer, service: MemoryService, pool: ThreadPoolExecutor
) -> None:
    assert raw.rows("SELECT table_name, visible_seq FROM merutable_wait('ORDERS', 2)").to_pylist() == [
        {"table_name": "orders", "visible_seq": 3}
    ]
    found = pool.submit(raw.rows, "SELECT * FROM merutable_wait('orders', 4, 10000)")
    _is_waiting(server)
    service.put("orders", _order(4))
    (row,) = found.result(10).to_pylist()
    assert (row["table_name"], row["visible_seq"]) == ("orders", 4)
    assert row["waited_ms"] > 0


def test_after_merutable_wait_the_same_statement_sees_the_seq(
    raw: RawClient, server: FlightSqlServer, service: MemoryService, pool: ThreadPoolExecutor
) -> None:
    sql = "SELECT count(*) AS n, max(visible_seq) AS seq FROM merutable_wait('orders', 4), orders"
    found = pool.submit(raw.rows, sql)
    _is_waiting(server)
    service.put("orders", _order(4))
    assert found.result(10).to_pylist() == [{"n": 4, "seq": 4}]


def test_merutable_wait_says_unavailable_when_its_time_is_up(raw: RawClient) -> None:
    with pytest.raises(flight.FlightUnavailableError, match=r"seq 9 .*visible is seq 3"):
        raw.info("SELECT * FROM merutable_wait('orders', 9, 10)")
    with pytest.raises(flight.FlightUnavailableError, match=r"waited .* ms"):
        raw.info("SELECT * FROM merutable_wait('orders', 9)", merutable_wait_timeout_ms="10")


@pytest.mark.parametrize(
    "arguments",
    ["", "'orders'", "'orders', 'x'", "'orders', -1", "'orders', 1, -5", "'orders', 1, true", "5, 5"],
)
def test_merutable_wait_names_the_argument_that_is_wrong(raw: RawClient, arguments: str) -> None:
    with pytest.raises(pa.ArrowInvalid, match=r"merutable_wait\(\)"):
        raw.info(f"SELECT * FROM merutable_wait({arguments})")


def test_seq_and_lag_are_those_of_the_statements_own_view(raw: RawClient, service: MemoryService) -> None:
    info = raw.info(
        "SELECT merutable_seq('orders') AS seq, merutable_lag_ms('ORDERS') AS lag, count(*) AS n FROM orders"
    )
    service.put("orders", _order(4))
    found = raw.open(info).read_all()
    assert found.schema.types[:2] == [pa.uint64(), pa.float64()]
    assert found.to_pylist() == [{"seq": 3, "lag": 0.0, "n": 3}]


@pytest.mark.parametrize(
    ("sql", "answer"),
    [
        ("SELECT merutable_seq('orders')", {"merutable_seq('orders')": 3}),
        ("SELECT id FROM orders WHERE id = merutable_seq('orders')", {"id": 3}),
        ("SELECT main.merutable_seq('Orders') + merutable_seq('odd') AS sum", {"sum": 3}),
        ("WITH x AS (SELECT merutable_seq('orders') AS s) SELECT s FROM x", {"s": 3}),
        ("SELECT id FROM orders ORDER BY id = merutable_seq('orders') DESC, id LIMIT 1", {"id": 3}),
        ("SELECT 1 AS one HAVING merutable_lag_ms('odd') < 5", {"one": 1}),
        ("SELECT $1 || merutable_seq('orders') AS text", None),
    ],
)
def test_seq_and_lag_stand_wherever_a_value_can(
    raw: RawClient, sql: str, answer: dict[str, object] | None
) -> None:
    if answer is not None:
        assert raw.rows(sql).to_pylist() == [answer]
    else:
        (body,) = raw.act("CreatePreparedStatement", pb.ActionCreatePreparedStatementRequest(query=sql))
        assert unpack(body, "the result").dataset_schema


@pytest.mark.parametrize(
    ("sql", "error", "text"),
    [
        ("SELECT merutable_seq(item) FROM orders", pa.ArrowInvalid, "one table, a literal text"),
        ("SELECT merutable_seq()", pa.ArrowInvalid, "one table, a literal text"),
        ("SELECT merutable_seq('a', 'b')", pa.ArrowInvalid, "one table, a literal text"),
        ("SELECT merutable_seq('nope')", pa.ArrowKeyError, "'nope' isn't served"),
        ("SELECT merutable_lag_ms('main.orders')", pa.ArrowInvalid, "main.orders"),
        ("SELECT merutable_seq('orders') OVER ()", pa.ArrowInvalid, "merutable_seq"),
        ("INSERT INTO orders SELECT merutable_seq('orders'), 'x', 1", pa.ArrowInvalid, "where a view stands"),
    ],
)
def test_seq_and_lag_take_one_served_tables_name(
    raw: RawClient, sql: str, error: type[Exception], text: str
) -> None:
    with pytest.raises(error, match=text):
        raw.info(sql)


def test_asking_for_a_seq_is_reading_the_table(raw: RawClient) -> None:
    (position,), _ = decode_positions(raw.info("SELECT merutable_seq('ORDERS')").app_metadata)
    assert (position.table, position.visible_seq) == ("orders", 3)
    with pytest.raises(flight.FlightUnavailableError, match="seq 9"):
        raw.info("SELECT merutable_seq('orders')", merutable_min_seq="9", merutable_wait_timeout_ms="0")


# --- through ADBC -----------------------------------------------------------------------------------


def _count(connection: adbc.Connection, **statement_options: str) -> int:
    with connection.cursor() as cursor:
        cursor.adbc_statement.set_options(**statement_options)
        cursor.execute(COUNT)
        ((count,),) = cursor.fetchall()
        return int(count)


def test_adbc_demands_at_database_connection_and_statement_level(server: FlightSqlServer) -> None:
    uri = f"grpc://127.0.0.1:{server.port}"
    late = {HEADER + "min-seq": "9", HEADER + "wait-timeout-ms": "0"}
    with adbc.connect(uri, db_kwargs=late, autocommit=True) as connection:
        with pytest.raises(adbc.OperationalError, match="for seq 9"):
            _count(connection)
        with pytest.raises(adbc.OperationalError, match="for seq 10"):
            _count(connection, **{HEADER + "min-seq": "10"})
    with (
        adbc.connect(uri, conn_kwargs=late, autocommit=True) as connection,
        pytest.raises(adbc.OperationalError, match="for seq 9"),
    ):
        _count(connection)
    with adbc.connect(uri, autocommit=True) as connection:
        assert _count(connection) == 3
        with pytest.raises(adbc.OperationalError, match="for seq 9"):
            _count(connection, **late)
        assert _count(connection) == 3


def test_adbc_demands_by_session_options_given_at_connect_or_later(server: FlightSqlServer) -> None:
    uri = f"grpc://127.0.0.1:{server.port}"
    late = {OPTION + "min_seq": "9", OPTION + "wait_timeout_ms": "0"}
    with adbc.connect(uri, db_kwargs=COOKIES, conn_kwargs=late, autocommit=True) as connection:
        with pytest.raises(adbc.OperationalError, match="for seq 9"):
            _count(connection)
        connection.adbc_connection.set_options(**{OPTION + "min_seq": "3"})
        assert _count(connection) == 3
        with pytest.raises(adbc.OperationalError, match="for seq 10"):
            _count(connection, **{HEADER + "min-seq": "10"})


def test_adbc_sees_the_position_of_a_prepared_answer_in_its_schema(connection: adbc.Connection) -> None:
    with connection.cursor() as cursor:
        cursor.execute("SELECT id FROM orders WHERE id > ?", (1,))
        schema = cursor.fetch_arrow_table().schema
    (told,) = json.loads(schema.metadata[b"merutable.position"])["tables"]
    assert (told["table"], told["visible_seq"]) == ("orders", 3)


# --- time zones -------------------------------------------------------------------------------------

INSTANT = "TIMESTAMPTZ '2024-07-01 00:30:00+00'"


def test_a_time_zone_is_one_clients_and_the_default_is_utc(raw: RawClient) -> None:
    sql = (
        f"SELECT {INSTANT} AS at, {INSTANT}::VARCHAR AS text, {INSTANT}::DATE AS day, hour({INSTANT}) AS hour"
    )
    berlin = raw.rows(sql, merutable_time_zone="europe/berlin")
    assert berlin.schema.field("at").type == pa.timestamp("us", "Europe/Berlin")
    assert (berlin["text"][0].as_py(), berlin["hour"][0].as_py()) == ("2024-07-01 02:30:00+02", 2)
    utc, new_york = raw.rows(sql), raw.rows(sql, merutable_time_zone="America/New_York")
    assert (utc["text"][0].as_py(), str(new_york["day"][0])) == ("2024-07-01 00:30:00+00", "2024-06-30")
    assert utc.schema.field("at").type == pa.timestamp("us", "UTC")
    assert utc["at"].cast(pa.int64()) == berlin["at"].cast(pa.int64()) == new_york["at"].cast(pa.int64())


def test_a_time_zone_stays_what_it_was_when_the_statement_was_planned(raw: RawClient) -> None:
    infos = [raw.info("SELECT now() AS at", merutable_time_zone=zone) for zone in ("Asia/Tokyo", "UTC")]
    zones = [raw.open(info).read_all().schema.field("at").type.tz for info in infos]
    assert zones == ["Asia/Tokyo", "UTC"]


def test_a_write_at_another_zone_than_utc_is_refused(raw: RawClient, service: MemoryService) -> None:
    sql = "DELETE FROM orders WHERE id = 1"
    with pytest.raises(pa.ArrowInvalid, match="time_zone is Asia/Tokyo, and writes are done at UTC"):
        raw.info(sql, merutable_time_zone="Asia/Tokyo")
    assert service.writes_total == 0
    assert raw.rows(sql, merutable_time_zone="utc")["rows_affected"].to_pylist() == [1]


def test_many_clients_at_once_keep_their_zones_apart(raw: RawClient, pool: ThreadPoolExecutor) -> None:
    zones = ["Europe/Berlin", "Asia/Tokyo", "America/New_York", "UTC"] * 5
    start = threading.Barrier(4)

    def zone_of(zone: str) -> str:
        start.wait(10)
        return str(raw.rows("SELECT now() AS at", merutable_time_zone=zone).schema.field("at").type.tz)

    assert list(pool.map(zone_of, zones)) == zones
