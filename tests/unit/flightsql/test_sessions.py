"""Sessions by cookie and by token: found again, kept apart, forgotten, and never silently without options."""

from __future__ import annotations

import pytest

from flight_replica.errors import LimitExceeded, SessionExpired
from flight_replica.flightsql.limits import ServerLimits
from flight_replica.flightsql.sessions import Session, Sessions


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def sessions(clock: Clock) -> Sessions:
    return Sessions(ServerLimits(sessions_max=2, session_idle_seconds=10), clock)


def _with_cookie(sessions: Sessions, cookie: str, user: str = "") -> Session:
    return sessions.find({"cookie": [cookie]}, user)


def _with_token(sessions: Sessions, token: str, user: str = "") -> Session:
    return sessions.find({"authorization": [f"Bearer {token}"]}, user)


def test_a_client_without_cookie_is_given_one_that_leads_back(sessions: Sessions) -> None:
    first = sessions.find({})
    assert (first.needs_cookie, first.is_kept) == (True, False)
    again = _with_cookie(sessions, f"theme=dark; {sessions.cookie(first)}")
    assert (again.id, again.needs_cookie, again.is_kept) == (first.id, False, True)
    assert sessions.count == 0


def test_two_clients_are_two_sessions(sessions: Sessions) -> None:
    one, two = sessions.find({}), sessions.find({})
    sessions.change(one, {"min_seq": "5"})
    assert _with_cookie(sessions, sessions.cookie(two)).options() == {}
    assert _with_cookie(sessions, sessions.cookie(one)).options() == {"min_seq": "5"}


def test_options_are_set_unset_and_seen_by_the_next_call(sessions: Sessions) -> None:
    session = sessions.find({})
    cookie = sessions.cookie(session)
    assert sessions.change(session, {"min_seq": 5, "pin": "p"}) == {"min_seq": 5, "pin": "p"}
    assert sessions.change(session, {"min_seq": None}) == {"pin": "p"}
    assert _with_cookie(sessions, cookie).options() == {"pin": "p"}


def test_a_token_and_the_cookie_given_beside_it_lead_to_one_session(sessions: Sessions) -> None:
    by_token = _with_token(sessions, "secret")
    sessions.change(by_token, {"pin": "p"})
    by_cookie = _with_cookie(sessions, sessions.cookie(by_token))
    assert (by_cookie.id, by_cookie.options()) == (by_token.id, {"pin": "p"})
    assert _with_token(sessions, "secret").options() == {"pin": "p"}
    assert _with_token(sessions, "other").options() == {}


def test_a_cookie_is_good_for_its_user_alone(sessions: Sessions) -> None:
    ann = sessions.find({}, "ann")
    sessions.change(ann, {"pin": "p"})
    cookie = sessions.cookie(ann)
    assert _with_cookie(sessions, cookie, "ann").options() == {"pin": "p"}
    assert _with_cookie(sessions, cookie, "bob").id != ann.id
    assert _with_token(sessions, "t", "ann").id != _with_token(sessions, "t", "bob").id


@pytest.mark.parametrize("value", ["", "x", "0..", "0.abc.def", "é", "0." + "0" * 32 + "." + "0" * 32])
def test_a_forged_cookie_leads_nowhere(sessions: Sessions, value: str) -> None:
    found = _with_cookie(sessions, f"arrow_flight_session_id={value}")
    assert found.needs_cookie and found.options() == {}
    assert found.id not in value


def test_a_session_without_calls_expires_and_its_client_is_told(sessions: Sessions, clock: Clock) -> None:
    session = sessions.find({})
    left = sessions.change(session, {"min_seq": "5"})
    cookie = sessions.cookie(session, left)
    clock.now = 9
    assert _with_cookie(sessions, cookie).options() == {"min_seq": "5"}
    clock.now = 18.9
    sessions.expire()
    assert sessions.count == 1
    clock.now = 19
    sessions.expire()
    assert sessions.count == 0
    with pytest.raises(SessionExpired, match="session_idle_seconds"):
        _with_cookie(sessions, cookie).options()


def test_a_token_whose_session_expired_is_told_too(sessions: Sessions, clock: Clock) -> None:
    sessions.change(_with_token(sessions, "t"), {"pin": "p"})
    clock.now = 11
    sessions.expire()
    with pytest.raises(SessionExpired):
        _with_token(sessions, "t").options()


def test_a_restarted_server_tells_those_who_had_options_and_lets_others_go_on(sessions: Sessions) -> None:
    plain, session = sessions.find({}), sessions.find({})
    left = sessions.change(session, {"min_seq": "5"})
    restarted = Sessions(ServerLimits())
    assert _with_cookie(restarted, sessions.cookie(plain)).options() == {}
    lost = _with_cookie(restarted, sessions.cookie(session, left))
    with pytest.raises(SessionExpired, match="started anew"):
        lost.options()
    assert lost.needs_cookie
    restarted.change(lost, {"min_seq": "6"})
    assert _with_cookie(restarted, restarted.cookie(lost)).options() == {"min_seq": "6"}


def test_catalog_and_schema_are_no_loss(sessions: Sessions) -> None:
    session = sessions.find({})
    cookie = sessions.cookie(session, {"catalog": "merutable"})
    assert _with_cookie(Sessions(ServerLimits()), cookie).options() == {}


def test_a_session_that_was_closed_or_emptied_is_no_loss(sessions: Sessions) -> None:
    closed, emptied = sessions.find({}), sessions.find({})
    cookies = [sessions.cookie(one, sessions.change(one, {"pin": "p"})) for one in (closed, emptied)]
    sessions.close(closed)
    sessions.change(emptied, {"pin": None})
    for cookie in cookies:
        found = _with_cookie(sessions, cookie)
        assert (found.options(), found.needs_cookie) == ({}, True)


def test_the_limit_of_sessions_is_named_and_costs_only_those_who_set_something(sessions: Sessions) -> None:
    for _ in range(2):
        sessions.change(sessions.find({}), {"pin": "p"})
    with pytest.raises(LimitExceeded, match=r"2 sessions .*sessions_max"):
        sessions.change(sessions.find({}), {"pin": "p"})
    for _ in range(5):
        assert sessions.find({}).options() == {}
