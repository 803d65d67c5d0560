"""Calls: what is left to do when an RPC is over, and what pyarrow calls on threads that are new to Python."""

from __future__ import annotations

import types
from collections.abc import Iterator
from contextlib import closing

import pytest

from flight_replica.flightsql.auth import Login, OpenLogins
from flight_replica.flightsql.call import Call
from flight_replica.flightsql.calls import Calls
from flight_replica.flightsql.handshake import Handshakes
from flight_replica.flightsql.limits import DEFAULT_LIMITS
from flight_replica.flightsql.sessions import Sessions
from flight_replica.flightsql.users import ANYBODY
from flight_replica.logs.request import HEADER


class _Client:
    def is_cancelled(self) -> bool:
        return False


@pytest.fixture
def calls() -> Iterator[Calls]:
    with closing(Calls(Sessions(DEFAULT_LIMITS), lambda: None, OpenLogins())) as calls:
        yield calls


@pytest.fixture
def call(calls: Calls) -> Call:
    sessions = Sessions(DEFAULT_LIMITS)
    return Call(calls, Login(ANYBODY), sessions.find({}), {HEADER: ["7"]}, {"set-cookie": "a=b"})


def test_a_call_is_watched_until_its_handler_has_returned(calls: Calls, call: Call) -> None:
    call.watch(_Client())
    assert calls.count == 1
    call.handled()
    assert calls.count == 0


def test_a_call_with_something_left_to_do_is_watched_until_it_is_over(calls: Calls, call: Call) -> None:
    done: list[str] = []
    call.watch(_Client())
    call.on_completed(lambda: done.append("closed"))
    call.handled()
    assert (calls.count, done) == (1, [])
    call.call_completed(None)
    assert (calls.count, done) == (0, ["closed"])


def test_a_call_that_is_over_holds_itself_no_longer(call: Call) -> None:
    call.on_completed(lambda: None)
    call.call_completed(None)
    assert getattr(call.call_completed, "__self__", None) is not call


def test_a_reply_has_its_headers(call: Call) -> None:
    assert call.sending_headers() == {"set-cookie": "a=b", HEADER: "7"}


def test_nothing_in_python_runs_around_the_handler_of_most_calls(call: Call) -> None:
    functions = (call.sending_headers, call.call_completed, Handshakes(OpenLogins()).is_valid)
    assert not any(isinstance(f, types.FunctionType | types.MethodType) for f in functions)
    assert Handshakes(OpenLogins()).is_valid(b"any token") == b""
