"""What an operator asks and changes, through the facade that every way in uses."""

from __future__ import annotations

import logging
import threading

import pytest
from pyarrow import flight

from flight_replica.client import query
from flight_replica.errors import (
    AlreadyExists,
    Forbidden,
    InvalidStatement,
    Paused,
    StatementNotFound,
    TableNotFound,
    Unsupported,
)
from flight_replica.flightsql.observing import Phase
from flight_replica.flightsql.users import ANYBODY, TableNames, User
from tests.integration.flightsql.clients import RawClient
from tests.integration.flightsql.test_cancel import ENDLESS, read_on
from tests.pair import Pair, log_levels_kept
from tests.processes import until

ADMIN = User("ann", may_administer=True)
READER = User("bob", TableNames(("orders",)))
STRANGER = User("eve", TableNames(("items",)))


def count(pair: Pair, table: str = "orders") -> int:
    (row,) = query(pair.uri, f"SELECT count(*) AS n FROM {table}").to_pylist()
    return int(row["n"])


# --- tables -------------------------------------------------------------------------------------------


def test_a_table_tells_how_it_is_held(shared: Pair) -> None:
    until(lambda: shared.control.table(ADMIN, "orders").lag_us >= 0, "its freshness is proven")
    found = shared.control.table(ADMIN, "orders")
    assert (found.state, found.visible_seq, found.high_water, found.lag_seqs) == ("serving", 100, 100, 0)
    assert found.is_well
    assert found.details is not None
    assert found.details.state_kind in ("merge on read", "merge on apply")
    assert found.details.paused_by is None


def test_a_paused_table_stands_still_and_says_how_far_behind_it_is(pair: Pair) -> None:
    until(lambda: pair.control.table(ADMIN, "orders").lag_us >= 0, "its freshness is proven")
    paused = pair.control.pause(ADMIN, "orders")
    assert (paused.state, paused.reason) == ("paused", "paused by ann")
    pair.write("INSERT INTO orders VALUES (1000, 'late')")
    # The list of tables tells of the newest seq, although the feed isn't read.
    until(lambda: pair.control.table(ADMIN, "orders").lag_seqs == 1, "it knows that it is behind")
    before = pair.control.table(ADMIN, "orders")
    assert (before.visible_seq, count(pair)) == (100, 100)
    until(lambda: pair.control.table(ADMIN, "orders").lag_us > before.lag_us, "its age grows")
    with pytest.raises(Paused):
        pair.control.rebase(ADMIN, "orders")
    resumed = pair.control.resume(ADMIN, "orders")
    assert resumed.state == "serving"
    until(lambda: count(pair) == 101, "it follows again")


def test_a_strict_read_of_a_paused_table_is_refused_as_when_it_is_behind(pair: Pair) -> None:
    pair.control.pause(ADMIN, "orders")
    pair.write("INSERT INTO orders VALUES (1000, 'late')")
    with flight.connect(pair.uri) as client:
        with pytest.raises(flight.FlightUnavailableError, match="min_seq"):
            RawClient(client).info(
                "SELECT * FROM orders", merutable_min_seq="101", merutable_wait_timeout_ms="50"
            )
        with pytest.raises(flight.FlightUnavailableError, match="max_staleness_ms"):
            RawClient(client).info(
                "SELECT * FROM orders", merutable_max_staleness_ms="1", merutable_wait_timeout_ms="50"
            )


def test_pausing_and_resuming_in_turn_loses_nothing(pair: Pair) -> None:
    stop = threading.Event()
    written = 0

    def write() -> None:
        nonlocal written
        while not stop.is_set():
            pair.write(f"INSERT INTO orders VALUES ({10_000 + written}, 'x')")
            written += 1

    writer = threading.Thread(target=write)
    writer.start()
    for _ in range(10):
        pair.control.pause(ADMIN, "orders")
        seq = pair.seq("orders")
        assert count(pair) == pair.seq("orders") == seq  # every op so far is one more row
        pair.control.resume(ADMIN, "orders")
        until(lambda seq=seq: pair.seq("orders") > seq, "it follows again")
    stop.set()
    writer.join()
    until(lambda: pair.seq("orders") == 100 + written, "all has come")
    assert count(pair) == 100 + written


def test_a_rebase_and_a_compaction_keep_the_rows(shared: Pair) -> None:
    rebased = shared.control.rebase(ADMIN, "orders")
    assert rebased.visible_seq == 100
    details = shared.control.table(ADMIN, "orders").details
    assert details is not None
    assert details.rebase_count >= 1
    assert details.last_rebase_at_us > 0
    compacted = shared.control.compact(ADMIN, "orders")
    assert (compacted.visible_seq, compacted.state_kind) == (100, "merge on apply")
    assert count(shared) == 100


def test_a_table_is_removed_and_added_under_a_client_that_queries(pair: Pair) -> None:
    pair.write("CREATE TABLE items (id BIGINT PRIMARY KEY)", "INSERT INTO items VALUES (1)")
    pair.wait_serving("items")
    with flight.connect(pair.uri) as client:
        raw = RawClient(client)
        info = raw.info("SELECT * FROM orders")
        pair.control.remove_table(ADMIN, "orders")
        assert raw.open(info).read_all().num_rows == 100  # it was planned before
        with pytest.raises(KeyError, match="orders"):
            raw.info("SELECT * FROM orders")
        assert raw.rows("SELECT * FROM items").num_rows == 1
        with pytest.raises(TableNotFound):
            pair.control.remove_table(ADMIN, "orders")
        pair.control.add_table(ADMIN, "orders")
        pair.wait_serving("orders")
        assert raw.rows("SELECT * FROM orders").num_rows == 100
    with pytest.raises(AlreadyExists):
        pair.control.add_table(ADMIN, "orders")
    with pytest.raises(TableNotFound):
        pair.control.add_table(ADMIN, "nothing")


def test_what_a_primary_cannot_do_is_said(shared: Pair) -> None:
    with pytest.raises(Unsupported, match="a primary can't pause"):
        shared.primary_control.pause(ADMIN, "orders")
    (found,) = shared.primary_control.tables(ADMIN)
    assert (found.name, found.details, found.lag_us) == ("orders", None, 0)


# --- statements, sessions, pins -----------------------------------------------------------------------


def test_a_cancelled_query_ends_at_its_client(shared: Pair) -> None:
    with flight.connect(shared.uri) as client:
        raw = RawClient(client)
        stream = raw.open(raw.info(ENDLESS))
        until(lambda: _phases(shared) == [Phase.EXECUTING], "it runs")
        (found,) = shared.control.queries(ADMIN)
        assert found.sql == ENDLESS
        with pytest.raises(StatementNotFound):
            shared.control.cancel(READER, found.id)
        shared.control.cancel(ADMIN, found.id)
        with pytest.raises(flight.FlightCancelledError, match="cancelled by 'ann'"):
            read_on(stream)
    until(lambda: _phases(shared) == [], "it is gone")


def _phases(pair: Pair) -> list[Phase]:
    return [found.phase for found in pair.control.queries(ADMIN)]


def test_slow_queries_are_kept_the_newest_first(pair: Pair) -> None:
    pair.control.slow.slow_seconds = 0.0
    for number in range(3):
        query(pair.uri, f"SELECT {number}")
    until(lambda: len(pair.control.slow_queries(ANYBODY)) == 3, "all have ended")
    assert [found.sql for found in pair.control.slow_queries(ANYBODY)] == ["SELECT 2", "SELECT 1", "SELECT 0"]
    assert pair.control.slow_queries(READER) == []


def test_a_pin_is_listed_and_released(shared: Pair) -> None:
    with flight.connect(shared.uri) as client:
        raw = RawClient(client)
        raw.rows("SELECT * FROM orders", merutable_pin="p")
        (found,) = shared.control.pins(ADMIN)
        assert (found.name, found.visible_seqs) == ("p", {"orders": 100})
        assert shared.control.pins(READER) == []
        shared.control.release_pin(ADMIN, found.user, "p")
        assert shared.control.pins(ADMIN) == []
        with pytest.raises(flight.FlightUnavailableError, match="ann ended it"):
            raw.rows("SELECT * FROM orders", merutable_pin="p")
    with pytest.raises(StatementNotFound):
        shared.control.release_pin(ADMIN, "", "p")


def test_a_session_is_ended_with_what_it_runs(shared: Pair) -> None:
    with flight.connect(shared.uri) as client:
        raw = RawClient(client)
        stream = raw.open(raw.info(ENDLESS))
        until(lambda: _phases(shared) == [Phase.EXECUTING], "it runs")
        (found,) = shared.control.sessions(ADMIN)
        assert (found.queries, found.transactions) == (1, 0)
        shared.control.end_session(ADMIN, found.id)
        with pytest.raises(flight.FlightCancelledError, match="session was ended by 'ann'"):
            read_on(stream)
    until(lambda: shared.control.sessions(ADMIN) == [], "it is gone")
    with pytest.raises(StatementNotFound):
        shared.control.end_session(ADMIN, found.id)


# --- who may ------------------------------------------------------------------------------------------


def test_who_has_no_admin_right_sees_his_own_and_changes_nothing(shared: Pair) -> None:
    assert [found.name for found in shared.control.tables(READER)] == ["orders"]
    assert shared.control.tables(STRANGER) == []
    with pytest.raises(TableNotFound):
        shared.control.table(STRANGER, "orders")
    for change in (
        shared.control.pause,
        shared.control.resume,
        shared.control.rebase,
        shared.control.compact,
    ):
        with pytest.raises(Forbidden, match="admin"):
            change(READER, "orders")
    with pytest.raises(Forbidden):
        shared.control.set_log_level(READER, "debug")
    assert shared.state("orders") == "serving"


def test_an_admin_does_not_learn_of_tables_that_he_may_not_read(shared: Pair) -> None:
    blind = User("cat", TableNames(("items",)), may_administer=True)
    with pytest.raises(TableNotFound):
        shared.control.pause(blind, "orders")


def test_changes_are_logged_with_who_made_them(shared: Pair, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        shared.control.pause(ADMIN, "orders")
        shared.control.resume(ADMIN, "orders")
    assert "control change=pause by=ann table=orders" in caplog.text
    assert "control change=resume by=ann table=orders" in caplog.text


def test_the_log_level_is_read_and_set(shared: Pair) -> None:
    before = shared.control.log_level(ADMIN)
    with log_levels_kept():
        assert shared.control.set_log_level(ADMIN, "error") == before
        assert shared.control.log_level(ADMIN) == "error"
        with pytest.raises(InvalidStatement, match="expected one of"):
            shared.control.set_log_level(ADMIN, "loud")
