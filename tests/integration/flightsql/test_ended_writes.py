"""Writes at a primary that are ended: nothing of them is there, and nobody else waits for them."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pyarrow as pa
import pytest
from google.protobuf.message import Message
from pyarrow import flight

from flight_replica._pb import flight_sql_pb2 as pb
from flight_replica.flightsql.limits import ServerLimits
from flight_replica.flightsql.server import FlightSqlServer
from flight_replica.primary.service import PrimaryService
from tests.faults import TcpProxy
from tests.integration.flightsql.clients import RawClient, descriptor, wait_until
from tests.integration.flightsql.primary_server import serving
from tests.integration.flightsql.test_cancel import ENDLESS, OUTER_SECONDS, client_of

LONG_WRITE = f"INSERT INTO t (id) {ENDLESS}"
SOON = {"merutable_statement_timeout_ms": "200"}


@pytest.fixture
def primary(tmp_path: Path) -> Iterator[FlightSqlServer]:
    with serving(tmp_path) as server:
        yield server


@pytest.fixture
def raw(primary: FlightSqlServer) -> Iterator[RawClient]:
    with client_of(primary) as client:
        yield RawClient(client)


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(4) as found:
        yield found


def put(raw: RawClient, message: Message, timeout_ms: int) -> None:
    options = flight.FlightCallOptions(headers=[(b"merutable-statement-timeout-ms", b"%d" % timeout_ms)])
    writer, reader = raw.client.do_put(descriptor(message), pa.schema([]), options)
    writer.done_writing()
    reader.read()
    writer.close()


def is_unharmed(raw: RawClient) -> bool:
    """Whether the table is as it was, and takes writes."""
    before = raw.rows("SELECT id FROM t ORDER BY id")["id"].to_pylist()
    raw.rows("INSERT INTO t VALUES (3, 'c')")
    return before == [1, 2] and raw.rows("SELECT id FROM t ORDER BY id")["id"].to_pylist() == [1, 2, 3]


def test_a_write_over_its_time_is_undone(raw: RawClient) -> None:
    with pytest.raises(flight.FlightTimedOutError, match="statement_timeout_ms, 200 ms"):
        raw.rows(LONG_WRITE, **SOON)
    assert is_unharmed(raw)


def test_an_update_by_do_put_over_its_time_is_undone(raw: RawClient) -> None:
    with pytest.raises(flight.FlightTimedOutError, match="statement_timeout_ms, 200 ms"):
        put(raw, pb.CommandStatementUpdate(query=LONG_WRITE), 200)
    assert is_unharmed(raw)


def test_a_write_of_a_transaction_over_its_time_leaves_the_others_of_it(raw: RawClient) -> None:
    transaction = raw.begin()
    raw.rows_in(transaction, "INSERT INTO t VALUES (9, 'i')")
    with pytest.raises(flight.FlightTimedOutError, match="statement_timeout_ms, 200 ms"):
        raw.rows_in(transaction, LONG_WRITE, **SOON)
    raw.commit(transaction)
    assert raw.rows("SELECT id FROM t ORDER BY id")["id"].to_pylist() == [1, 2, 9]


def test_the_servers_limit_holds_for_writes_too(tmp_path: Path) -> None:
    limits = ServerLimits(statement_seconds=0.2)
    with serving(tmp_path, limits) as server, client_of(server) as client:
        with pytest.raises(flight.FlightTimedOutError, match=r"statement_seconds, 0\.2 s"):
            RawClient(client).rows(LONG_WRITE)
        assert is_unharmed(RawClient(client))


def test_the_write_of_a_client_that_has_gone_is_undone(primary: FlightSqlServer, raw: RawClient) -> None:
    with TcpProxy(primary.port) as proxy, flight.connect(f"grpc://127.0.0.1:{proxy.port}") as client:
        with ThreadPoolExecutor(1) as pool:
            write = pool.submit(RawClient(client).info, LONG_WRITE)
            wait_until(lambda: primary.stats.calls == 1, OUTER_SECONDS)  # it may wait, run, or be sent yet
            proxy.cut()
            with pytest.raises(flight.FlightError):
                write.result(OUTER_SECONDS)
        wait_until(lambda: primary.stats.calls == 0, OUTER_SECONDS)
    assert is_unharmed(raw)


def test_a_write_that_waits_behind_a_long_one_is_told_when_its_time_is_over(
    primary: FlightSqlServer, raw: RawClient, pool: ThreadPoolExecutor
) -> None:
    long = pool.submit(raw.rows, LONG_WRITE, merutable_statement_timeout_ms="5000")
    service = primary._front.service
    assert isinstance(service, PrimaryService)
    wait_until(lambda: service.engine.is_writing, OUTER_SECONDS)
    ended = pytest.raises(flight.FlightTimedOutError, match="statement_timeout_ms, 200 ms")
    with client_of(primary) as client, ended:
        RawClient(client).rows("INSERT INTO t VALUES (4, 'd')", **SOON)
    assert not long.done()
    with pytest.raises(flight.FlightTimedOutError, match="statement_timeout_ms, 5000 ms"):
        long.result(OUTER_SECONDS)
    with client_of(primary) as client:
        assert is_unharmed(RawClient(client))


def test_writes_that_wait_with_one_that_is_ended_go_on(
    primary: FlightSqlServer, raw: RawClient, pool: ThreadPoolExecutor
) -> None:
    """They may share its transaction: it is undone, and they are done anew."""
    ended = pool.submit(raw.rows, LONG_WRITE, **SOON)
    with client_of(primary) as client:
        others = [
            pool.submit(RawClient(client).rows, f"INSERT INTO t VALUES ({number}, 'x')") for number in (3, 4)
        ]
        for other in others:
            assert other.result(OUTER_SECONDS)["rows_affected"].to_pylist() == [1]
    with pytest.raises(flight.FlightTimedOutError):
        ended.result(OUTER_SECONDS)
    assert raw.rows("SELECT id FROM t ORDER BY id")["id"].to_pylist() == [1, 2, 3, 4]
