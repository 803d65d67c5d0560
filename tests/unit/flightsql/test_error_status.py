from __future__ import annotations

import time

import pytest
from pyarrow import flight

from flight_replica.errors import (
    AlreadyExists,
    BaseNotUsable,
    Busy,
    Cancelled,
    Closed,
    ConstraintViolation,
    Forbidden,
    LimitExceeded,
    LogGap,
    NotAllowed,
    ReadOnly,
    ReplicaError,
    SessionExpired,
    StatementNotFound,
    TableNotFound,
    TimedOut,
    Unauthenticated,
    Unavailable,
)
from flight_replica.flightsql.status import (
    Unimplemented,
    as_flight_error,
    boundary,
    code_of,
    guarded_stream,
)
from flight_replica.flightsql.texts import TEXT_BYTES_MAX, told
from flight_replica.log.wire import decode_log_gap
from flight_replica.sql.messages import one_line


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (ReadOnly("r"), ValueError),
        (ConstraintViolation("c"), ValueError),
        (LimitExceeded("l"), ValueError),
        (TableNotFound("t"), KeyError),
        (StatementNotFound("s"), KeyError),
        (Unavailable("u"), flight.FlightUnavailableError),
        (Closed("c"), flight.FlightUnavailableError),
        (BaseNotUsable("b"), flight.FlightUnavailableError),
        (TimedOut("t"), flight.FlightTimedOutError),
        (Unimplemented("u"), NotImplementedError),
        (OSError("o"), flight.FlightInternalError),
    ],
)
def test_each_error_has_the_class_that_makes_its_code(error: Exception, expected: type[Exception]) -> None:
    found = as_flight_error(error, "here")
    assert isinstance(found, expected)
    assert str(error) in str(found) or not isinstance(error, ReplicaError)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (LogGap(5, 7, "trimmed"), "OUT_OF_RANGE"),
        (Unauthenticated("u"), "UNAUTHENTICATED"),
        (Forbidden("f"), "PERMISSION_DENIED"),
        (Cancelled("c"), "CANCELLED"),
        (TimedOut("t"), "DEADLINE_EXCEEDED"),
        (Busy("b"), "RESOURCE_EXHAUSTED"),
        (LimitExceeded("l"), "RESOURCE_EXHAUSTED"),
        (Unavailable("u"), "UNAVAILABLE"),
        (SessionExpired("s"), "NOT_FOUND"),
        (AlreadyExists("a"), "ALREADY_EXISTS"),
        (ReadOnly("r"), "FAILED_PRECONDITION"),
        (NotAllowed("n"), "INVALID_ARGUMENT"),
        (Unimplemented("u"), "UNIMPLEMENTED"),
        (RuntimeError("r"), "INTERNAL"),
    ],
)
def test_each_error_has_its_exact_code(error: Exception, code: str) -> None:
    assert code_of(error) == code


def test_what_can_be_tried_again_says_so_at_the_end_of_its_text() -> None:
    assert str(as_flight_error(Unavailable("full"), "here")) == "full (retryable)"
    assert str(as_flight_error(TableNotFound("gone"), "here")) == "gone"


def test_an_exception_that_pyarrow_quotes_twice_gives_its_text_once_and_then_its_code() -> None:
    found = as_flight_error(LimitExceeded("too much"), "here")
    assert (str(found), str(found), type(found).__name__) == ("too much", "", "RESOURCE_EXHAUSTED")


def test_flight_errors_of_get_schema_are_plain_ones_with_the_exact_code() -> None:
    found = as_flight_error(Unavailable("full"), "get_schema")
    assert (type(found).__name__, str(found)) == ("UNAVAILABLE", "full (retryable)")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("No magic bytes in '/srv/my data/t-1/a.parquet'", "No magic bytes in '…/a.parquet'"),
        ('can\'t open "/srv/x/a.parquet": gone', 'can\'t open "…/a.parquet": gone'),
        ("base /srv/x/y/a.parquet is gone", "base …/a.parquet is gone"),
        ("base file:///srv/x/a.parquet is gone", "base …/a.parquet is gone"),
        ("see http://host/dir/page", "see http://host/dir/page"),
        ("2020/01/02 is no date, a/b no path", "2020/01/02 is no date, a/b no path"),
        ("SELECT a / b / c", "SELECT a / b / c"),
        ("one\n\ttwo\nthree ", "one two three"),
    ],
)
def test_a_text_is_one_line_without_directories(text: str, expected: str) -> None:
    assert told(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        f"wrong: {' ' * 400_000}",
        f"wrong: {' ' * 400_000}x",
        "wrong\n" + "\n" * 400_000 + "x",
        "wrong " + "'/" * 200_000,
        "wrong " + " /a" * 200_000,
        "wrong " + "file:/" * 100_000,
        "wrong " + "/a" * 200_000,
    ],
    ids=range(7),
)
def test_no_text_takes_long(text: str) -> None:
    """Of a pattern that takes the square of it this would take minutes, and hold all other threads."""
    began = time.process_time()
    assert told(text).startswith("wrong")
    assert one_line(f"Parser Error: {text}").startswith("Parser Error: wrong")
    assert time.process_time() - began < 5.0


def test_a_directory_is_not_shown_where_a_long_text_is_cut() -> None:
    for blanks in range(3500, 3620):
        assert "secret" not in told(f"{' ' * blanks}x '/srv/secret/name' {'y' * 900}".strip())
        assert "secret" not in told(f"x{' ' * blanks}/srv/secret/name is gone {'y' * 900}")


def test_a_log_gap_keeps_its_details() -> None:
    found = as_flight_error(LogGap(5, 7, "trimmed"), "here")
    gap = decode_log_gap(found.extra_info)
    assert gap is not None and (gap.requested, gap.earliest_available, gap.reason) == (5, 7, "trimmed")
    assert found.extra_info.count(b"because") == 0 and str(found).encode() in found.extra_info


@pytest.mark.parametrize("text", ["x" * 5000, "é" * 5000])
def test_a_long_message_is_cut_between_signs(text: str) -> None:
    found = str(as_flight_error(Unavailable(text), "here"))
    assert len(found.encode()) <= TEXT_BYTES_MAX
    assert "…" in found


def test_handlers_and_streams_raise_flight_errors_alone() -> None:
    @boundary
    def handler() -> None:
        raise TableNotFound("nope")

    def stream() -> object:
        yield 1
        raise Unavailable("later")

    with pytest.raises(KeyError):
        handler()
    items = guarded_stream(stream(), "here")  # type: ignore[arg-type,var-annotated]
    assert next(items) == 1
    with pytest.raises(flight.FlightUnavailableError):
        next(items)
