"""Statements that don't come by gRPC are held to the same rules, and listed with the others."""

from __future__ import annotations

import threading

import pytest

from flight_replica.errors import (
    Cancelled,
    InvalidStatement,
    NotAllowed,
    ReadOnly,
    TableNotFound,
    Unavailable,
)
from flight_replica.flightsql.auth import Login
from flight_replica.flightsql.direct import Caller
from flight_replica.flightsql.observing import Outcome
from flight_replica.flightsql.server import FlightSqlServer
from flight_replica.flightsql.users import ANYBODY, TableNames, User
from tests.integration.flightsql.clients import wait_until
from tests.integration.flightsql.test_cancel import ENDLESS, OUTER_SECONDS
from tests.integration.flightsql.test_observed_queries import Heard

ANYONE = Login(ANYBODY)
STRANGER = Login(User("eve", TableNames(("others",))))


def rows_of(server: FlightSqlServer, sql: str, login: Login = ANYONE, session: str = "") -> tuple[list, str]:
    """The rows of a statement, and what leads to its session."""
    with server.reads.read(sql, login, Caller(), peer="here", session=session) as answer:
        return [row for batch in answer.batches for row in batch.to_pylist()], answer.session


def test_a_statement_gives_rows_with_their_position(server: FlightSqlServer) -> None:
    heard = Heard(server)
    with server.reads.read("SELECT id FROM orders", ANYONE, Caller(), peer="here") as answer:
        found = [row["id"] for batch in answer.batches for row in batch.to_pylist()]
        (at,) = answer.positions
    assert len(found) == 3
    assert (at.table, at.visible_seq) == ("orders", 3)
    record = heard.one()
    assert (record.outcome, record.rows, record.peer) == (Outcome.DONE, 3, "here")
    assert server.stats.calls == server.stats.queries == 0


def test_one_who_takes_the_first_rows_alone_has_what_he_wanted(server: FlightSqlServer) -> None:
    heard = Heard(server)
    sql = "SELECT * FROM range(1000000)"
    with server.reads.read(sql, ANYONE, Caller(), peer="here") as answer:
        next(answer.batches)
    assert heard.one().outcome is Outcome.DONE
    assert server.stats.queries == 0


@pytest.mark.parametrize(
    ("sql", "error"),
    [
        ("INSERT INTO orders (id) VALUES (9)", ReadOnly),
        ("DROP TABLE orders", ReadOnly),
        ("COPY orders TO '/tmp/x'", NotAllowed),
        ("SELECT * FROM read_csv('/etc/passwd')", NotAllowed),
        ("SELECT * FROM nothing_here", TableNotFound),
        ("SELECT * FROM merutable_changes('orders', 0, follow := true)", InvalidStatement),
    ],
)
def test_what_is_not_a_read_in_the_sandbox_is_refused(
    server: FlightSqlServer, sql: str, error: type[Exception]
) -> None:
    with pytest.raises(error):
        rows_of(server, sql)
    assert server.stats.calls == 0
    assert not server.activities.running()


def test_a_table_that_the_user_may_not_read_is_not_there(server: FlightSqlServer) -> None:
    with pytest.raises(TableNotFound):
        rows_of(server, "SELECT * FROM orders", STRANGER)


def test_a_set_lasts_for_the_session_that_is_shown_again(server: FlightSqlServer) -> None:
    _, session = rows_of(server, "SET time_zone = 'Europe/Berlin'")
    sql = "SELECT extract(hour FROM TIMESTAMPTZ '2026-01-01 00:00:00+00') AS h"
    assert rows_of(server, sql, session=session)[0] == [{"h": 1}]
    assert rows_of(server, sql)[0] == [{"h": 0}]
    with pytest.raises(InvalidStatement):
        rows_of(server, "SET memory_limit = '1GB'", session=session)


def test_a_forged_session_is_a_new_one(server: FlightSqlServer) -> None:
    assert rows_of(server, "SELECT 1 AS one", session="0.abc.def")[0] == [{"one": 1}]


def test_a_server_that_drains_takes_none(server: FlightSqlServer) -> None:
    server.drain()
    with pytest.raises(Unavailable):
        rows_of(server, "SELECT 1")


def test_it_ends_when_the_caller_goes_or_an_operator_cancels_it(server: FlightSqlServer) -> None:
    heard = Heard(server)
    for by_operator in (False, True):
        caller, raised = Caller(), []

        def run(caller: Caller = caller, raised: list[Exception] = raised) -> None:
            try:
                with server.reads.read(ENDLESS, ANYONE, caller, peer="here") as answer:
                    list(answer.batches)
            except Exception as error:
                raised.append(error)

        thread = threading.Thread(target=run)
        thread.start()
        wait_until(lambda: bool(server.activities.running()), OUTER_SECONDS)
        if by_operator:
            server.activities.cancel(server.activities.running()[0].id, Cancelled("by hand"))
        else:
            caller.leave()
        thread.join(OUTER_SECONDS)
        assert isinstance(raised[0], Cancelled)
        assert ("by hand" in str(raised[0])) == by_operator
        assert heard.one().outcome is Outcome.CANCELLED
        assert server.stats.calls == server.stats.queries == 0
