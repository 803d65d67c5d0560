"""Request ids over Flight: given or made, back in every reply, in every line of the call and of no other."""

from __future__ import annotations

import io
import json
import logging
import threading
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa
import pytest
from pyarrow import flight

from flight_replica._pb import flight_sql_pb2 as pb
from flight_replica.flightsql.server import FlightSqlServer
from flight_replica.logs.formats import JsonFormat
from tests.integration.flightsql.clients import RawClient
from tests.integration.flightsql.memory_service import MemoryService

HEADER = "x-request-id"


class Replies(flight.ClientMiddlewareFactory):  # type: ignore[misc]
    """The request ids of the replies, in order of arrival. A call's may be told at its start and its end."""

    def __init__(self) -> None:
        super().__init__()
        self.ids: list[str] = []

    def start_call(self, info: flight.CallInfo) -> flight.ClientMiddleware:
        return _Reply(self.ids)


class _Reply(flight.ClientMiddleware):  # type: ignore[misc]
    def __init__(self, ids: list[str]) -> None:
        super().__init__()
        self._ids = ids

    def received_headers(self, headers: Mapping[str, Sequence[str]]) -> None:
        self._ids += [found for found in set(headers.get(HEADER, [])) if found not in self._ids]


@pytest.fixture
def replies() -> Replies:
    return Replies()


@pytest.fixture
def client(server: FlightSqlServer, replies: Replies) -> Iterator[RawClient]:
    with flight.connect(f"grpc://127.0.0.1:{server.port}", middleware=[replies]) as found:
        yield RawClient(found)


@pytest.fixture
def lines() -> Iterator[io.StringIO]:
    """What a server's process would log, as JSON lines."""
    found, logger = io.StringIO(), logging.getLogger("flight_replica")
    handler, former = logging.StreamHandler(found), logger.level
    handler.setFormatter(JsonFormat())
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)
    yield found
    logger.removeHandler(handler)
    logger.setLevel(former)


def events(lines: io.StringIO) -> list[dict[str, object]]:
    return [json.loads(line) for line in lines.getvalue().splitlines()]


def test_every_kind_of_call_has_an_id_of_its_own(client: RawClient, replies: Replies) -> None:
    client.rows("SELECT id FROM orders")
    client.reply(pb.CommandGetTableTypes())
    client.begin()
    list(client.client.list_actions())
    with pytest.raises(pa.ArrowInvalid):
        client.rows("SELEC")
    assert len(replies.ids) == 7
    assert all(len(found) == 16 and int(found, 16) >= 0 for found in replies.ids)


def test_a_client_s_own_id_comes_back(client: RawClient, replies: Replies) -> None:
    client.info("SELECT id FROM orders", x_request_id="order-4711/a")
    with pytest.raises(pa.ArrowInvalid):
        client.info("SELECT nix FROM orders", x_request_id="order-4711/b")
    assert replies.ids == ["order-4711/a", "order-4711/b"]


@pytest.mark.parametrize("given", ["two words", "x" * 129, 'say "hi"'])
def test_an_id_that_would_spoil_a_line_is_replaced(client: RawClient, replies: Replies, given: str) -> None:
    client.info("SELECT id FROM orders", x_request_id=given)
    (found,) = replies.ids
    assert found != given and len(found) == 16


def test_an_error_that_only_the_log_explains_names_the_call(
    client: RawClient, service: MemoryService, lines: io.StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("two\nlines")

    monkeypatch.setattr(service, "open_view", fail)
    with pytest.raises(flight.FlightInternalError, match="internal error mine-1: the server's log says more"):
        client.info("SELECT * FROM orders", x_request_id="mine-1")
    (event,) = events(lines)
    assert (event["event"], event["request_id"], event["level"]) == ("unexpected error", "mine-1", "ERROR")
    assert "RuntimeError: two\nlines" in str(event["exception"])


def test_lines_of_calls_that_overlap_have_the_id_of_their_own_call(
    server: FlightSqlServer, service: MemoryService, lines: io.StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each call logs at plan time and inside its stream, while the others do."""
    from flight_replica.flightsql.plans import QueryPlan

    logger, fitted, planned = logging.getLogger("flight_replica.test"), QueryPlan._sent, service.open_view

    def sent(plan: QueryPlan, batch: pa.RecordBatch) -> pa.RecordBatch:
        logger.info("sent rows=%d", batch.num_rows)
        return fitted(plan, batch)

    def open_view(*arguments: Any) -> object:
        logger.info("planned")
        return planned(*arguments)

    monkeypatch.setattr(QueryPlan, "_sent", sent)
    monkeypatch.setattr(service, "open_view", open_view)
    barrier = threading.Barrier(4)

    def ask(number: int) -> None:
        with flight.connect(f"grpc://127.0.0.1:{server.port}") as connection:
            options = flight.FlightCallOptions(headers=[(HEADER.encode(), f"call-{number}".encode())])
            asking = RawClient(connection)
            barrier.wait()
            for _ in range(5):
                info = asking.info(f"SELECT id FROM orders LIMIT {number}", x_request_id=f"call-{number}")
                (endpoint,) = info.endpoints
                connection.do_get(endpoint.ticket, options).read_all()

    threads = [threading.Thread(target=ask, args=[number]) for number in (0, 1, 2, 3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    found = events(lines)
    assert sum(event["event"] == "planned" for event in found) == 20
    assert all(str(event.get("request_id")).startswith("call-") for event in found)
    sent_rows = {(event["request_id"], event["rows"]) for event in found if event["event"] == "sent"}
    assert sent_rows <= {(f"call-{number}", number) for number in range(4)} and len(sent_rows) >= 3
