"""Statements as an operator sees them: under way, and what observers are told when they have ended."""

from __future__ import annotations

import threading
from collections.abc import Callable

import adbc_driver_flightsql.dbapi as adbc
import pyarrow as pa
import pytest
from pyarrow import flight

from flight_replica.errors import Cancelled, StatementNotFound
from flight_replica.flightsql.limits import ServerLimits
from flight_replica.flightsql.observing import Outcome, Phase, QueryKind, QueryRecord, RunningQuery
from flight_replica.flightsql.server import FlightSqlServer
from tests.integration.flightsql.clients import RawClient, wait_until
from tests.integration.flightsql.conftest import Serve
from tests.integration.flightsql.memory_service import MemoryService
from tests.integration.flightsql.test_cancel import ENDLESS, MANY_ROWS, OUTER_SECONDS, client_of, read_on


class Heard:
    """An observer that keeps what it is told."""

    def __init__(self, server: FlightSqlServer) -> None:
        self._lock = threading.Lock()
        self._records: list[QueryRecord] = []
        server.activities.add_observer(self)

    def query_ended(self, record: QueryRecord) -> None:
        with self._lock:
            self._records.append(record)

    def one(self) -> QueryRecord:
        """The next record; there is no other."""
        wait_until(lambda: bool(self._records), OUTER_SECONDS)
        with self._lock:
            (record,) = self._records
            self._records.clear()
        return record


@pytest.fixture
def heard(server: FlightSqlServer) -> Heard:
    return Heard(server)


def running(server: FlightSqlServer, holds: Callable[[RunningQuery], bool]) -> RunningQuery:
    """The one statement under way, once that `holds` of it."""
    found: list[RunningQuery] = []

    def is_there() -> bool:
        found[:] = server.activities.running()
        return len(found) == 1 and holds(found[0])

    wait_until(is_there, OUTER_SECONDS)
    return found[0]


def test_a_query_is_told_with_its_rows_position_and_times(raw: RawClient, heard: Heard) -> None:
    rows = raw.rows("SELECT id, price FROM orders")
    record = heard.one()
    assert (record.kind, record.outcome, record.error) == (QueryKind.QUERY, Outcome.DONE, "")
    assert record.sql == "SELECT id, price FROM orders"
    assert record.rows == rows.num_rows == 3
    assert record.bytes >= 48  # two columns of eight bytes, and what the server holds beside them
    assert (tuple(record.tables), record.visible_seqs) == (("orders",), {"orders": 3})
    assert record.peer.startswith("ipv4:127.0.0.1:")
    parts = (record.plan_seconds, record.execute_seconds, record.stream_seconds)
    assert all(seconds > 0 for seconds in parts)
    assert sum(parts) + record.wait_seconds <= record.seconds


def test_an_answer_that_was_known_is_told_like_one_that_was_read(raw: RawClient, heard: Heard) -> None:
    sql = "SELECT * FROM merutable_wait('orders', 3)"
    rows = raw.rows(sql)
    record = heard.one()
    assert (record.kind, record.outcome, record.sql) == (QueryKind.QUERY, Outcome.DONE, sql)
    assert (record.rows, record.bytes) == (1, rows.nbytes)
    assert set(record.began_at_us) == {Phase.PLANNING, Phase.PLANNED, Phase.EXECUTING, Phase.STREAMING}


def test_a_statement_that_cannot_be_planned_is_told_with_its_error(raw: RawClient, heard: Heard) -> None:
    with pytest.raises(pa.ArrowInvalid):
        raw.info("SELECT * FROM orders WHERE nothing = 1")
    record = heard.one()
    assert (record.outcome, record.error, record.rows) == (Outcome.FAILED, "InvalidStatement", 0)
    assert "nothing" in record.reason


def test_a_prepared_statement_is_told_each_time_it_runs(connection: adbc.Connection, heard: Heard) -> None:
    with connection.cursor() as cursor:
        for key in (1, 2):
            cursor.execute("SELECT item FROM orders WHERE id = ?", (key,))
            assert len(cursor.fetchall()) == 1
            record = heard.one()
            assert (record.sql, record.rows) == ("SELECT item FROM orders WHERE id = ?", 1)


def test_writes_say_what_they_changed(connection: adbc.Connection, heard: Heard) -> None:
    with connection.cursor() as cursor:
        cursor.execute("INSERT INTO orders VALUES (4, 'd', 4.5), (5, 'e', 5.5)")
        record = heard.one()
        assert (record.kind, record.outcome, record.rows) == (QueryKind.WRITE, Outcome.DONE, 2)
        assert (tuple(record.tables), record.visible_seqs) == (("orders",), {"orders": 5})
        cursor.adbc_ingest("orders", pa.table({"id": [6], "item": ["f"], "price": [6.5]}), mode="append")
        record = heard.one()
        assert (record.kind, record.rows, record.visible_seqs) == (QueryKind.INGEST, 1, {"orders": 6})


def test_a_client_that_does_not_read_is_streaming(server: FlightSqlServer, heard: Heard) -> None:
    with client_of(server) as client:
        raw = RawClient(client)
        stream = raw.open(raw.info(MANY_ROWS))
        stream.read_chunk()
        found = running(server, lambda query: query.phase is Phase.STREAMING)
        assert found.rows > 0
        assert found.bytes > 0
        assert found.sql == MANY_ROWS
        stream.cancel()
    record = heard.one()
    assert (record.outcome, record.error) == (Outcome.CANCELLED, "Cancelled")
    assert record.stream_seconds > 0
    assert server.activities.running() == []


def test_an_operator_ends_a_query_and_its_client_is_told_by_whom(
    server: FlightSqlServer, heard: Heard
) -> None:
    with client_of(server) as client:
        raw = RawClient(client)
        stream = raw.open(raw.info(ENDLESS))
        found = running(server, lambda query: query.phase is Phase.EXECUTING)
        server.activities.cancel(found.id, Cancelled("the statement was cancelled by 'ann'"))
        with pytest.raises(flight.FlightCancelledError, match="cancelled by 'ann'"):
            read_on(stream)
    record = heard.one()
    assert (record.id, record.outcome) == (found.id, Outcome.CANCELLED)
    with pytest.raises(StatementNotFound):
        server.activities.cancel(found.id, Cancelled("again"))


@pytest.mark.parametrize("sql", ["SELECT * FROM orders", "SELECT * FROM merutable_wait('orders', 3)"])
def test_a_query_that_waits_to_be_fetched_can_be_ended(
    sql: str, server: FlightSqlServer, raw: RawClient, heard: Heard, service: MemoryService
) -> None:
    info = raw.info(sql)
    found = running(server, lambda query: query.phase is Phase.PLANNED)
    server.activities.cancel(found.id, Cancelled("the statement was cancelled by 'ann'"))
    assert heard.one().outcome is Outcome.CANCELLED
    wait_until(lambda: service.open_views == 0, OUTER_SECONDS)
    with pytest.raises(flight.FlightCancelledError, match="cancelled by 'ann'"):
        read_on(raw.open(info))


def test_a_query_that_waits_for_a_seq_says_so_and_can_be_ended(server: FlightSqlServer, heard: Heard) -> None:
    with client_of(server) as client:
        failures: list[Exception] = []

        def ask() -> None:
            try:
                RawClient(client).info(
                    "SELECT * FROM orders", merutable_min_seq="99", merutable_wait_timeout_ms="60000"
                )
            except flight.FlightCancelledError as error:
                failures.append(error)

        asking = threading.Thread(target=ask)
        asking.start()
        found = running(server, lambda query: query.phase is Phase.WAITING)
        assert tuple(found.tables) == ("orders",)
        server.activities.cancel(found.id, Cancelled("the statement was cancelled by 'ann'"))
        asking.join(OUTER_SECONDS)
        assert "cancelled by 'ann'" in str(failures[0])
    record = heard.one()
    assert record.outcome is Outcome.CANCELLED
    assert record.wait_seconds > 0


def test_a_query_that_finds_no_place_is_refused_after_its_wait(serve: Serve) -> None:
    server = serve(ServerLimits(queries_max=1, query_wait_seconds=0.05))
    with client_of(server) as client:
        raw = RawClient(client)
        holding = raw.open(raw.info(MANY_ROWS))
        holding.read_chunk()
        heard = Heard(server)
        with pytest.raises(flight.FlightUnavailableError):
            raw.rows("SELECT 1")
        record = heard.one()
        assert record.outcome is Outcome.REFUSED
        assert record.wait_seconds >= 0.05
        holding.cancel()


def test_a_plan_that_nobody_fetches_is_abandoned(serve: Serve) -> None:
    server = serve(ServerLimits(planned_seconds=0.05))
    heard = Heard(server)
    with client_of(server) as client:
        RawClient(client).info("SELECT * FROM orders")
        assert heard.one().outcome is Outcome.ABANDONED


def test_an_observer_that_fails_costs_the_client_nothing(
    server: FlightSqlServer, raw: RawClient, caplog: pytest.LogCaptureFixture
) -> None:
    class Failing:
        def query_ended(self, record: QueryRecord) -> None:
            raise ValueError("broken")

    server.activities.add_observer(Failing())
    heard = Heard(server)
    assert raw.rows("SELECT 1 AS one").num_rows == 1
    heard.one()
    assert "observer failed" in caplog.text
