"""Calls that only plan, whose planning doesn't end: a limit or the client's going ends it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import pyarrow as pa
import pytest
from pyarrow import flight

from flight_replica._pb import flight_sql_pb2 as pb
from flight_replica.flightsql.commands import pack
from flight_replica.flightsql.limits import ServerLimits
from flight_replica.sql.view import Parameters, View
from tests.faults import TcpProxy
from tests.integration.flightsql.clients import descriptor, wait_until
from tests.integration.flightsql.conftest import Serve
from tests.integration.flightsql.memory_service import MemoryService
from tests.integration.flightsql.test_cancel import ENDLESS, OUTER_SECONDS, client_of, wait_idle

FAILED = (flight.FlightError, pa.ArrowException, OSError)  # of GetSchema pyarrow makes what it likes
SQL = "SELECT id FROM orders"


def get_schema(client: flight.FlightClient) -> None:
    client.get_schema(descriptor(pb.CommandStatementQuery(query=SQL)))


def prepare(client: flight.FlightClient) -> None:
    request = pb.ActionCreatePreparedStatementRequest(query=SQL)
    list(client.do_action(("CreatePreparedStatement", pack(request))))


def plan(client: flight.FlightClient) -> None:
    client.get_flight_info(descriptor(pb.CommandStatementQuery(query=SQL)))


PLANNING: Sequence[Callable[[flight.FlightClient], None]] = (get_schema, prepare, plan)


@pytest.fixture
def planning(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """Planning goes on for ever in DuckDB; set as soon as one has begun."""
    begun = threading.Event()

    def plan(view: View, sql: str, parameters: Parameters = ()) -> pa.Schema:
        begun.set()
        return view.execute(ENDLESS).read_all().schema

    monkeypatch.setattr(View, "plan", plan)
    return begun


@pytest.mark.parametrize("call", PLANNING)
def test_planning_over_its_time_is_ended(
    call: Callable[[flight.FlightClient], None], serve: Serve, service: MemoryService, planning: object
) -> None:
    server = serve(ServerLimits(statement_seconds=0.2))
    with client_of(server) as client:
        with pytest.raises(FAILED, match=r"statement_seconds, 0\.2 s"):
            call(client)
        wait_idle(server, service)


@pytest.mark.parametrize("call", PLANNING)
def test_planning_for_a_client_that_has_gone_is_ended(
    call: Callable[[flight.FlightClient], None],
    serve: Serve,
    service: MemoryService,
    planning: threading.Event,
) -> None:
    server = serve()
    with TcpProxy(server.port) as proxy, flight.connect(f"grpc://127.0.0.1:{proxy.port}") as client:
        with ThreadPoolExecutor(1) as pool:
            answer = pool.submit(call, client)
            assert planning.wait(OUTER_SECONDS)
            proxy.cut()
            with pytest.raises(FAILED):
                answer.result(OUTER_SECONDS)
        wait_until(lambda: (server.stats.calls, service.open_views) == (0, 0), OUTER_SECONDS)
