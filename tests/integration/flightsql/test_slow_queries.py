"""The slow-query log of a real server: which statements are in it, and what of them."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator

import adbc_driver_flightsql.dbapi as adbc
import pytest

from flight_replica.flightsql.server import FlightSqlServer
from flight_replica.logs.formats import JsonFormat
from flight_replica.logs.query_text import QueryText
from flight_replica.logs.slow_queries import SlowQueryLog
from tests.integration.flightsql.clients import RawClient, wait_until

SECRET = "geheim-4711"
ALL = 1e-6  # milliseconds that every statement takes


@pytest.fixture
def slow(server: FlightSqlServer) -> SlowQueryLog:
    found = SlowQueryLog(ALL)
    server.activities.add_observer(found)
    return found


class Lines(logging.Handler):
    """The events of slow queries."""

    def __init__(self) -> None:
        super().__init__()
        self.events: list[dict[str, object]] = []
        self.setFormatter(JsonFormat())

    def emit(self, record: logging.LogRecord) -> None:
        self.events.append(json.loads(self.format(record)))

    def one(self) -> dict[str, object]:
        wait_until(lambda: len(self.events) == 1, 30)
        return self.events[0]


@pytest.fixture
def lines() -> Iterator[Lines]:
    handler, logger = Lines(), logging.getLogger("flight_replica.logs.slow_queries")
    logger.addHandler(handler)
    yield handler
    logger.removeHandler(handler)


def test_a_line_says_where_the_time_went_and_whose_it_was(
    raw: RawClient, slow: SlowQueryLog, lines: Lines
) -> None:
    raw.rows("SELECT id FROM orders WHERE item <> 'nothing' -- a comment")
    event = lines.one()
    assert event["event"] == "slow query" and event["level"] == "WARNING"
    assert event["sql"] == "SELECT id FROM orders WHERE item <> ?"
    assert (event["outcome"], event["kind"], event["rows"], event["seqs"]) == (
        "done",
        "query",
        2,
        {"orders": 3},
    )
    parts = ("plan_seconds", "wait_seconds", "execute_seconds", "stream_seconds")
    assert event["seconds"] == pytest.approx(sum(float(str(event[part])) for part in parts), abs=0.003)
    assert len(str(event["request_id"])) == 16 and int(str(event["bytes"])) >= 16
    assert str(event["peer"]).startswith("ipv4:127.0.0.1")


def test_the_client_s_own_request_id_stands_in_the_line(
    raw: RawClient, slow: SlowQueryLog, lines: Lines
) -> None:
    with pytest.raises(KeyError):
        raw.info("SELECT x FROM orders JOIN nix USING (id)", x_request_id="mine-7")
    event = lines.one()
    assert (event["request_id"], event["outcome"]) == ("mine-7", "failed")
    assert event["error"] == "TableNotFound" and "reason" not in event


def test_quick_ones_are_left_out_and_zero_turns_it_off(
    raw: RawClient, slow: SlowQueryLog, lines: Lines
) -> None:
    slow.slow_query_ms = 0
    raw.rows("SELECT 1")
    slow.slow_query_ms = 3_600_000
    raw.rows("SELECT 2")
    slow.slow_query_ms = ALL
    raw.rows("SELECT 3 AS three")
    assert lines.one()["sql"] == "SELECT ? AS three"


@pytest.mark.parametrize("text", QueryText)
def test_bound_values_are_in_no_line_and_literals_where_they_are_asked_for(
    connection: adbc.Connection, slow: SlowQueryLog, lines: Lines, text: QueryText
) -> None:
    slow.query_text = text
    with connection.cursor() as cursor:
        cursor.execute("SELECT id, 'literal' FROM orders WHERE item <> ?", [SECRET])
        cursor.fetchall()
    event = lines.one()
    assert SECRET not in json.dumps(event)
    assert ("literal" in json.dumps(event)) == (text is QueryText.FULL)
    assert ("sql" in event) == (text is not QueryText.NONE)


def test_a_feed_without_end_is_not_slow(
    server: FlightSqlServer, raw: RawClient, slow: SlowQueryLog, lines: Lines
) -> None:
    stream = raw.open(raw.info("SELECT * FROM merutable_changes('orders', 0, follow := true)"))
    stream.read_chunk()
    stream.cancel()
    wait_until(lambda: not server.activities.running(), 30)
    raw.rows("SELECT 1 AS one")
    assert lines.one()["sql"] == "SELECT ? AS one"
