"""Statements that are ended: by an action, by a dropped stream or connection, by a limit. All is let go then.

`ENDLESS` obeys an interrupt at any time, so what is measured is how soon it comes.
"""

from __future__ import annotations

import logging
import subprocess
import sys
import threading
import time
from collections.abc import Callable

import adbc_driver_flightsql.dbapi as adbc
import adbc_driver_manager
import pyarrow as pa
import pytest
from google.protobuf.message import Message
from pyarrow import flight

from flight_replica._pb import flight_cancel_pb2 as base_pb
from flight_replica._pb import flight_sql_pb2 as pb
from flight_replica.errors import InvalidStatement, StatementNotFound
from flight_replica.flightsql.cancels import CANCEL_FLIGHT_INFO, CANCEL_QUERY, Running, cancel_action
from flight_replica.flightsql.commands import pack, unpack
from flight_replica.flightsql.limits import ServerLimits
from flight_replica.flightsql.plans import WrittenPlan
from flight_replica.flightsql.server import FlightSqlServer
from flight_replica.flightsql.service import Ending, WriteResult
from flight_replica.flightsql.statements import Statements
from flight_replica.flightsql.stats import ServerStats
from flight_replica.sql.view import View
from tests.faults import TcpProxy
from tests.integration.flightsql.clients import RawClient, descriptor, wait_until
from tests.integration.flightsql.conftest import Serve
from tests.integration.flightsql.memory_service import MemoryService

ENDLESS = (
    "SELECT sum(a.range * b.range) FROM range(10000000) a, range(10000000) b "
    "WHERE a.range % 7 <> b.range % 11"
)
MANY_ROWS = "SELECT a.range AS n, 'some text ' || b.range AS t FROM range(10000) a, range(10000) b"
NOTHING = ServerStats(
    calls=0,
    running=0,
    queries=0,
    follows=0,
    planned=0,
    prepared=0,
    transactions=0,
    transactions_holding=0,
    pins=0,
    sessions=0,
)
NOTICE_SECONDS = 0.05
OUTER_SECONDS = 30.0  # for a machine with other work to do

CANCELLED = base_pb.CANCEL_STATUS_CANCELLED


def client_of(server: FlightSqlServer) -> flight.FlightClient:
    return flight.connect(f"grpc://127.0.0.1:{server.port}")


def read_on(stream: flight.FlightStreamReader) -> None:
    """Read to the end, by chunks: of a CANCELLED, pyarrow's `read_all` makes a KeyboardInterrupt."""
    for _ in stream:
        pass


def wait_idle(server: FlightSqlServer, service: MemoryService) -> None:
    """Wait until no client holds anything."""
    wait_until(lambda: server.stats == NOTHING and service.open_views == 0, OUTER_SECONDS)


def wait_runs(server: FlightSqlServer, begins: threading.Event) -> None:
    assert begins.wait(OUTER_SECONDS)
    wait_until(lambda: server.stats.queries == 1, OUTER_SECONDS)


def cancel_info(client: flight.FlightClient, info: flight.FlightInfo) -> int:
    """The status of a CancelFlightInfo."""
    request = base_pb.CancelFlightInfoRequest()
    request.info.ParseFromString(info.serialize())
    return cancel_raw(client, request.SerializeToString())


def cancel_raw(client: flight.FlightClient, body: bytes) -> int:
    (result,) = client.do_action((CANCEL_FLIGHT_INFO, body))
    found = base_pb.CancelFlightInfoResult()
    found.ParseFromString(result.body.to_pybytes())
    return int(found.status)


def cancel_query(client: flight.FlightClient, info: flight.FlightInfo) -> int:
    """The status of a CancelQuery."""
    (result,) = client.do_action((CANCEL_QUERY, pack(pb.ActionCancelQueryRequest(info=info.serialize()))))
    return int(unpack(result.body.to_pybytes(), "the result").result)


Cancel = Callable[[flight.FlightClient, flight.FlightInfo], int]


@pytest.fixture
def interrupts(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The monotonic times of the interrupts of queries."""
    times: list[float] = []
    interrupt = View.interrupt

    def noted(view: View) -> None:
        times.append(time.monotonic())
        interrupt(view)

    monkeypatch.setattr(View, "interrupt", noted)
    return times


# --- by an action -------------------------------------------------------------------------------------


@pytest.mark.parametrize("cancel", [cancel_info, cancel_query])
def test_a_running_statement_is_cancelled_from_another_connection(
    cancel: Cancel, server: FlightSqlServer, service: MemoryService, query_begins: threading.Event
) -> None:
    with client_of(server) as client, client_of(server) as other:
        info = RawClient(client).info(ENDLESS)
        stream = RawClient(client).open(info)
        wait_runs(server, query_begins)
        assert cancel(other, info) == CANCELLED
        with pytest.raises(flight.FlightCancelledError, match="the statement was cancelled"):
            read_on(stream)
        wait_idle(server, service)
        with pytest.raises(pa.ArrowKeyError, match="nothing to cancel"):
            cancel(other, info)


def test_an_action_interrupts_within_50_ms(
    server: FlightSqlServer, service: MemoryService, raw: RawClient, interrupts: list[float]
) -> None:
    def once() -> float:
        interrupts.clear()
        info = raw.info(ENDLESS)
        stream = raw.open(info)
        wait_until(lambda: server.stats.queries == 1, OUTER_SECONDS)
        began = time.monotonic()
        cancel_info(raw.client, info)
        with pytest.raises(flight.FlightCancelledError):
            read_on(stream)
        return interrupts[0] - began

    assert any(once() < NOTICE_SECONDS for _ in range(5))
    wait_idle(server, service)


@pytest.mark.parametrize("cancel", [cancel_info, cancel_query])
def test_a_statement_that_waits_for_its_fetch_is_cancelled(
    cancel: Cancel, server: FlightSqlServer, service: MemoryService, raw: RawClient
) -> None:
    info = raw.info("SELECT id FROM orders")
    assert (server.stats.planned, service.open_views) == (1, 1)
    assert cancel(raw.client, info) == CANCELLED
    wait_idle(server, service)
    with pytest.raises(pa.ArrowKeyError, match="unknown"):
        raw.open(info).read_all()


def test_a_stream_that_its_client_does_not_read_is_cancelled(
    server: FlightSqlServer, service: MemoryService, raw: RawClient
) -> None:
    info = raw.info(MANY_ROWS)
    stream = raw.open(info)
    stream.read_chunk()
    assert cancel_info(raw.client, info) == CANCELLED
    wait_until(lambda: (server.stats.queries, service.open_views) == (0, 0), OUTER_SECONDS)
    with pytest.raises(flight.FlightCancelledError):
        read_on(stream)


def test_a_follow_stream_is_cancelled(
    server: FlightSqlServer, service: MemoryService, raw: RawClient
) -> None:
    info = raw.info("SELECT * FROM merutable_changes('orders', 0, follow := true)")
    stream = raw.open(info)
    stream.read_chunk()
    assert cancel_info(raw.client, info) == CANCELLED
    with pytest.raises(flight.FlightCancelledError):
        read_on(stream)
    wait_idle(server, service)


def test_the_info_of_a_prepared_statement_cancels_it(server: FlightSqlServer, raw: RawClient) -> None:
    (body,) = raw.act("CreatePreparedStatement", pb.ActionCreatePreparedStatementRequest(query=ENDLESS))
    handle = unpack(body, "the result").prepared_statement_handle
    info = raw.command(pb.CommandPreparedStatementQuery(prepared_statement_handle=handle))
    stream = raw.open(info)
    wait_until(lambda: server.stats.queries == 1, OUTER_SECONDS)
    assert cancel_info(raw.client, info) == CANCELLED
    with pytest.raises(flight.FlightCancelledError):
        read_on(stream)
    assert server.stats.prepared == 1


def test_a_catalog_command_is_not_cancellable(raw: RawClient) -> None:
    info = raw.command(pb.CommandGetTables())
    assert cancel_info(raw.client, info) == base_pb.CANCEL_STATUS_NOT_CANCELLABLE
    assert cancel_query(raw.client, info) == pb.ActionCancelQueryResult.CANCEL_RESULT_NOT_CANCELLABLE


def test_what_is_no_flight_info_is_refused(raw: RawClient) -> None:
    for body in (b"", b"\xff\xff", b"\x0a\x00"):
        with pytest.raises(pa.ArrowInvalid):
            cancel_raw(raw.client, body)
    for message in (pb.ActionCancelQueryRequest(), pb.ActionCancelQueryRequest(info=b"\xff\xff")):
        with pytest.raises(pa.ArrowInvalid):
            raw.act(CANCEL_QUERY, message)
    with pytest.raises(pa.ArrowInvalid, match="ActionBeginTransactionRequest"):
        raw.act(CANCEL_QUERY, pb.ActionBeginTransactionRequest())
    forged = base_pb.FlightInfo()
    forged.endpoint.add().ticket.ticket = pack(pb.TicketStatementQuery(statement_handle=b"guess"))
    with pytest.raises(pa.ArrowKeyError, match="nothing to cancel"):
        cancel_raw(raw.client, base_pb.CancelFlightInfoRequest(info=forged).SerializeToString())
    with pytest.raises(pa.ArrowNotImplementedError, match="no expiration time"):
        list(raw.client.do_action(("RenewFlightEndpoint", b"")))


def test_nobody_cancels_the_statement_of_another_user() -> None:
    statements, running = Statements(ServerLimits()), Running()
    handle = statements.of("ann").keep(WrittenPlan(WriteResult(0, "t", 1)))
    body = _request(handle)
    with pytest.raises(StatementNotFound):
        cancel_action(CANCEL_FLIGHT_INFO, body.SerializeToString(), running, statements.of("bob"), "bob")
    assert statements.planned == 1
    cancel_action(CANCEL_FLIGHT_INFO, body.SerializeToString(), running, statements.of("ann"), "ann")
    assert statements.planned == 0


def test_a_flight_info_with_thousands_of_endpoints_is_refused() -> None:
    statements = Statements(ServerLimits())
    body = base_pb.CancelFlightInfoRequest(
        info=base_pb.FlightInfo(endpoint=[base_pb.FlightEndpoint()] * 2000)
    )
    with pytest.raises(InvalidStatement, match="2000 endpoints"):
        cancel_action(CANCEL_FLIGHT_INFO, body.SerializeToString(), Running(), statements.of(""), "")


def _request(handle: bytes) -> Message:
    info = base_pb.FlightInfo()
    info.endpoint.add().ticket.ticket = pack(pb.TicketStatementQuery(statement_handle=handle))
    return base_pb.CancelFlightInfoRequest(info=info)


# --- by the stream's or the connection's end -------------------------------------------------------------


def test_a_reset_stream_interrupts_within_50_ms_also_before_the_first_row(
    server: FlightSqlServer, service: MemoryService, raw: RawClient, interrupts: list[float]
) -> None:
    def once() -> float:
        interrupts.clear()
        stream = raw.open(raw.info(ENDLESS))
        wait_until(lambda: server.stats.queries == 1, OUTER_SECONDS)
        began = time.monotonic()
        stream.cancel()
        wait_until(lambda: bool(interrupts), OUTER_SECONDS)
        return interrupts[0] - began

    assert any(once() < NOTICE_SECONDS for _ in range(5))
    wait_idle(server, service)


def test_adbc_cancels_from_another_thread(
    server: FlightSqlServer,
    service: MemoryService,
    connection: adbc.Connection,
    query_begins: threading.Event,
) -> None:
    errors: list[BaseException] = []

    def run() -> None:
        try:
            with connection.cursor() as cursor:
                cursors.append(cursor)
                cursor.execute(ENDLESS)
                cursor.fetchall()
        except adbc_driver_manager.Error as error:
            errors.append(error)

    cursors: list[adbc.Cursor] = []
    thread = threading.Thread(target=run)
    thread.start()
    wait_runs(server, query_begins)
    cursors[0].adbc_cancel()
    thread.join(OUTER_SECONDS)
    assert len(errors) == 1 and "cancel" in str(errors[0]).lower()
    wait_idle(server, service)


def test_a_stream_dropped_at_once_leaves_nothing_behind(
    server: FlightSqlServer, service: MemoryService, raw: RawClient
) -> None:
    for _ in range(100):
        raw.open(raw.info("SELECT id FROM orders")).cancel()
    wait_idle(server, service)


def test_the_query_of_a_killed_client_is_ended(
    server: FlightSqlServer, service: MemoryService, query_begins: threading.Event
) -> None:
    program = (
        "import sys, adbc_driver_flightsql.dbapi as adbc\n"
        "adbc.connect(sys.argv[1], autocommit=True).cursor().execute(sys.argv[2]).fetchall()"
    )
    client = subprocess.Popen([sys.executable, "-c", program, f"grpc://127.0.0.1:{server.port}", ENDLESS])
    try:
        wait_runs(server, query_begins)
    finally:
        client.kill()
        client.wait(OUTER_SECONDS)
    wait_until(lambda: (server.stats.calls, service.open_views) == (0, 0), OUTER_SECONDS)


def test_a_client_that_goes_before_its_update_is_answered_is_no_error(
    serve: Serve,
    service: MemoryService,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    begun, go_on = threading.Event(), threading.Event()

    def write(sql: str, parameters: pa.Table | None, ending: Ending) -> WriteResult:
        begun.set()
        assert go_on.wait(OUTER_SECONDS)
        return WriteResult(1, "orders", 4)

    monkeypatch.setattr(service, "write", write)
    caplog.set_level(logging.INFO, "flight_replica")
    with TcpProxy(serve().port) as proxy, flight.connect(f"grpc://127.0.0.1:{proxy.port}") as client:
        command = descriptor(pb.CommandStatementUpdate(query="DELETE FROM orders"))
        writer, _ = client.do_put(command, pa.schema([]))
        writer.done_writing()
        assert begun.wait(OUTER_SECONDS)
        proxy.cut()
        with pytest.raises(flight.FlightError):
            writer.close()
        time.sleep(0.2)  # the server can't be asked whether it has seen the reset
        go_on.set()
        wait_until(lambda: any("client gone" in r.getMessage() for r in caplog.records), OUTER_SECONDS)
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


# --- by a limit -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("at", ["plan", "fetch"])
def test_a_client_gives_its_statement_less_time_by_a_header(
    at: str, server: FlightSqlServer, service: MemoryService, raw: RawClient
) -> None:
    options = flight.FlightCallOptions(headers=[(b"merutable-statement-timeout-ms", b"200")])
    command = descriptor(pb.CommandStatementQuery(query=ENDLESS))
    info = raw.client.get_flight_info(command, options if at == "plan" else None)
    stream = raw.client.do_get(info.endpoints[0].ticket, options if at == "fetch" else None)
    with pytest.raises(flight.FlightTimedOutError, match="statement_timeout_ms, 200 ms"):
        stream.read_all()
    wait_idle(server, service)


def test_a_client_cannot_give_itself_more_time_than_the_server_does(serve: Serve) -> None:
    server = serve(ServerLimits(statement_seconds=0.2))
    ended = pytest.raises(flight.FlightTimedOutError, match=r"statement_seconds, 0\.2 s")
    with client_of(server) as client, ended:
        RawClient(client).rows(ENDLESS, merutable_statement_timeout_ms="60000")


def test_a_result_over_its_limit_is_ended_with_the_limit_named(serve: Serve, service: MemoryService) -> None:
    server = serve(ServerLimits(result_bytes_max=10_000_000))
    with client_of(server) as client:
        with pytest.raises(pa.ArrowInvalid, match="result_bytes_max is 10000000 bytes"):
            RawClient(client).rows(MANY_ROWS)
        wait_idle(server, service)
        assert RawClient(client).rows("SELECT 1 AS one").to_pylist() == [{"one": 1}]


def test_a_client_that_stops_reading_loses_its_statement_and_the_log_says_so(
    serve: Serve, service: MemoryService, caplog: pytest.LogCaptureFixture
) -> None:
    server = serve(ServerLimits(stalled_seconds=0.3))
    with client_of(server) as client:
        stream = RawClient(client).open(RawClient(client).info(MANY_ROWS))
        stream.read_chunk()
        assert server.stats.queries == 1
        wait_until(lambda: (server.stats.queries, service.open_views) == (0, 0), OUTER_SECONDS)
        with pytest.raises(flight.FlightTimedOutError, match=r"stalled_seconds, 0\.3 s"):
            stream.read_all()
        wait_idle(server, service)
    (record,) = caplog.records
    assert record.levelno == logging.WARNING and "client stopped reading" in record.getMessage()


def test_a_silent_half_open_peer_loses_its_statement(serve: Serve, service: MemoryService) -> None:
    server = serve(ServerLimits(stalled_seconds=0.3))
    with TcpProxy(server.port) as proxy, flight.connect(f"grpc://127.0.0.1:{proxy.port}") as client:
        stream = RawClient(client).open(RawClient(client).info(MANY_ROWS))
        stream.read_chunk()
        proxy.stall()
        wait_until(lambda: (server.stats.queries, service.open_views) == (0, 0), OUTER_SECONDS)
        proxy.cut()
        with pytest.raises(flight.FlightError):
            stream.read_all()
    wait_idle(server, service)
