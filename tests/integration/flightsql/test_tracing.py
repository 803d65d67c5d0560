"""Spans of statements, sent by OTLP to a real receiver, below the spans of those who asked."""

from __future__ import annotations

import logging
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing

import adbc_driver_flightsql.dbapi as adbc
import pytest
from pyarrow import flight

from flight_replica.flightsql.limits import ServerLimits
from flight_replica.flightsql.server import FlightSqlServer
from flight_replica.logs.query_text import QueryText
from flight_replica.tracing.exporter import Tracing
from tests.integration.flightsql.clients import RawClient, wait_until
from tests.integration.flightsql.conftest import Serve
from tests.otlp import Collector, ReceivedSpan, collecting

TRACE = "0af7651916cd43dd8448eb211c80319c"
PARENT = "b7ad6b7169203331"
TRACEPARENT = f"00-{TRACE}-{PARENT}-01"
UNSAMPLED = f"00-{TRACE}-{PARENT}-00"
SECRET = "geheim-4711"


@pytest.fixture
def collector() -> Iterator[Collector]:
    with collecting() as found:
        yield found


@pytest.fixture
def tracing(
    server: FlightSqlServer, collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Tracing]:
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "20")  # ms
    with closing(Tracing(collector.endpoint, "1.2.3", QueryText.NORMALIZED)) as found:
        server.activities.add_observer(found.queries)
        yield found


def is_inside(inner: ReceivedSpan, outer: ReceivedSpan) -> bool:
    return outer.began_ns <= inner.began_ns <= inner.ended_ns <= outer.ended_ns


def test_a_statement_is_a_span_with_its_phases_below_it(
    raw: RawClient, tracing: Tracing, collector: Collector
) -> None:
    raw.rows("SELECT id FROM orders WHERE item <> 'x'", x_request_id="mine")
    (query,) = collector.named("query")
    phases = collector.below(query)
    assert list(phases) == ["plan", "execute", "stream"]
    assert all(is_inside(phase, query) for phase in phases.values())
    assert phases["plan"].ended_ns <= phases["execute"].began_ns
    assert phases["execute"].ended_ns == phases["stream"].began_ns
    told = query.attributes
    assert told["db.query.text"] == "SELECT id FROM orders WHERE item <> ?"
    assert (told["flight_replica.rows"], told["flight_replica.seq.orders"]) == (2, 3)
    assert told["flight_replica.outcome"] == "done" and not query.is_error
    assert (query.parent_id, query.resource["service.name"]) == ("", "flight-replica")
    assert query.resource["service.version"] == "1.2.3"


def test_it_is_below_the_span_that_an_adbc_client_names(
    server: FlightSqlServer, tracing: Tracing, collector: Collector
) -> None:
    header = {"adbc.flight.sql.rpc.call_header.traceparent": TRACEPARENT}
    with (
        adbc.connect(f"grpc://127.0.0.1:{server.port}", db_kwargs=header, autocommit=True) as connection,
        connection.cursor() as cursor,
    ):
        cursor.execute("SELECT id FROM orders WHERE item <> ?", [SECRET])
        cursor.fetchall()
    (query,) = collector.named("query")
    assert (query.trace_id, query.parent_id) == (TRACE, PARENT)
    assert {span.trace_id for span in collector.spans} == {TRACE}
    assert SECRET not in str(collector.spans)


@pytest.mark.parametrize("header", ["", "00-nonsense", TRACEPARENT.replace("-01", "-zz"), "x" * 5000])
def test_a_header_that_is_none_begins_a_trace_of_its_own(
    raw: RawClient, tracing: Tracing, collector: Collector, header: str
) -> None:
    raw.info("SELECT id FROM orders", traceparent=header)
    raw.rows("SELECT 1")
    (query,) = collector.named("query")
    assert query.parent_id == "" and query.trace_id != TRACE


def test_what_its_caller_does_not_sample_is_not_sent(
    raw: RawClient, tracing: Tracing, collector: Collector
) -> None:
    raw.rows("SELECT 1 AS one", traceparent=UNSAMPLED)
    raw.rows("SELECT 2 AS two", traceparent=TRACEPARENT)
    (query,) = collector.named("query")
    assert query.attributes["db.query.text"] == "SELECT ? AS two"


def test_a_failed_one_says_so_without_its_values(
    raw: RawClient, tracing: Tracing, collector: Collector
) -> None:
    with pytest.raises(ValueError, match=SECRET):
        raw.rows(f"SELECT '{SECRET}'::INTEGER AS number FROM orders")
    (query,) = collector.named("query")
    assert query.is_error and query.attributes["error.type"] == "InvalidStatement"
    assert SECRET not in str(collector.spans)


def test_waits_and_queues_are_spans_too(
    serve: Serve, collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "20")
    server = serve(ServerLimits(queries_max=1, query_wait_seconds=30))
    with (
        closing(Tracing(collector.endpoint, "1", QueryText.NONE)) as tracing,
        flight.connect(f"grpc://127.0.0.1:{server.port}") as client,
    ):
        server.activities.add_observer(tracing.queries)
        raw = RawClient(client)
        holding = raw.open(raw.info("SELECT a.range, repeat('x', 1000) FROM range(100000) a"))
        holding.read_chunk()  # has the one place, and keeps it
        late = threading.Thread(target=lambda: raw.rows("SELECT id FROM orders"))
        late.start()
        until_queued(server)
        holding.read_all()
        late.join(60)
        (queue,) = collector.named("queue")
        collector.named("query", 2)
        (query,) = [span for span in collector.spans if span.attributes.get("flight_replica.rows") == 3]
        assert collector.below(collector.below(query)["execute"]) == {"queue": queue}
        assert "db.query.text" not in query.attributes


def until_queued(server: FlightSqlServer) -> None:
    wait_until(lambda: any(found.phase == "queued" for found in server.activities.running()), 30)


def test_a_collector_that_is_gone_holds_nothing_up(
    raw: RawClient, server: FlightSqlServer, caplog: pytest.LogCaptureFixture
) -> None:
    with collecting() as gone:
        endpoint = gone.endpoint
    caplog.set_level(logging.CRITICAL, "opentelemetry")
    with closing(Tracing(endpoint, "1", QueryText.NONE)) as tracing:
        server.activities.add_observer(tracing.queries)
        for _ in range(20):
            assert raw.rows("SELECT 1 AS one")["one"].to_pylist() == [1]


def test_without_tracing_nothing_of_it_is_loaded() -> None:
    program = (
        "import sys; import flight_replica.cli, flight_replica.flightsql.server, flight_replica.listening, "
        "flight_replica.replica.service; "
        "sys.exit(any(name.startswith('opentelemetry') for name in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", program], timeout=60).returncode == 0
