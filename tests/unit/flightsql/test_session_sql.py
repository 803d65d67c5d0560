"""USE, SET and RESET: the forms that are known, and what they say of the rest."""

from __future__ import annotations

import pytest

from flight_replica.errors import InvalidStatement, NotAllowed
from flight_replica.flightsql.options import OPTION_NAMES
from flight_replica.flightsql.session_sql import session_change


@pytest.mark.parametrize(
    ("sql", "values"),
    [
        ("USE main", {}),
        ('use "MAIN";', {}),
        ("USE merutable", {}),
        ("USE merutable.main", {}),
        ("SET min_seq = 5", {"min_seq": "5"}),
        ("set MIN_SEQ to 'orders=5,items=6' ;", {"min_seq": "orders=5,items=6"}),
        ("SET SESSION max_staleness_ms = 250.5", {"max_staleness_ms": "250.5"}),
        ("/* mine */ SET TimeZone = 'Europe/Berlin' -- here", {"time_zone": "Europe/Berlin"}),
        ("SET time_zone TO utc", {"time_zone": "utc"}),
        ("SET TIME ZONE 'Asia/Tokyo'", {"time_zone": "Asia/Tokyo"}),
        ('SET isolation = "snapshot"', {"isolation": "snapshot"}),
        ("SET pin = 'it''s'", {"pin": "it's"}),
        ("SET pin = DEFAULT", {"pin": None}),
        ("RESET wait_timeout_ms", {"wait_timeout_ms": None}),
        ("RESET SESSION timezone", {"time_zone": None}),
        ("RESET ALL", dict.fromkeys(OPTION_NAMES)),
    ],
)
def test_a_known_form_changes_the_session(sql: str, values: dict[str, object]) -> None:
    change = session_change(sql)
    assert change is not None and dict(change.values) == values


@pytest.mark.parametrize("sql", ["", ";", "SELECT 1", "SHOW TABLES", "settings", '"SET"', "-- SET x = 1"])
def test_other_statements_are_none(sql: str) -> None:
    assert session_change(sql) is None


@pytest.mark.parametrize(
    ("sql", "error", "text"),
    [
        ("USE other", NotAllowed, "one schema"),
        ("USE memory.main", NotAllowed, "one schema"),
        ("USE main; DROP TABLE t", InvalidStatement, "USE takes"),
        ("USE", InvalidStatement, "USE takes"),
        ("USE main main", InvalidStatement, "USE takes"),
        ("SET", NotAllowed, "SET option = value"),
        ("SET memory_limit = '1GB'", NotAllowed, "'memory_limit' can't be set here; what can: min_seq"),
        ("SET GLOBAL TimeZone = 'UTC'", NotAllowed, "SET option = value"),
        ("SET lock_configuration = false", NotAllowed, "lock_configuration"),
        ("SET VARIABLE x = 1", NotAllowed, "SET option = value"),
        ("SET min_seq = (SELECT 1)", InvalidStatement, "one value"),
        ("SET min_seq = 1; SELECT 1", InvalidStatement, "one value"),
        ("SET min_seq = 'x'", InvalidStatement, "session option min_seq"),
        ("SET min_seq = ", NotAllowed, "SET option = value"),
        ("SET time_zone = 'Nowhere'", InvalidStatement, "no time zone"),
        ("SET time_zone = $1", InvalidStatement, "SET time_zone takes one value|no time zone"),
        ("RESET", InvalidStatement, "RESET takes"),
        ("RESET threads", NotAllowed, "'threads' can't be set"),
        ("RESET ALL ALL", InvalidStatement, "RESET takes"),
    ],
)
def test_the_rest_is_refused_and_says_what_is_possible(sql: str, error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        session_change(sql)
