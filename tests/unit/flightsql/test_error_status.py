from __future__ import annotations

import pyarrow as pa
import pytest
from pyarrow import flight

from flight_replica.errors import (
    BaseNotUsable,
    Closed,
    ConstraintViolation,
    LimitExceeded,
    LogGap,
    ReadOnly,
    ReplicaError,
    StatementNotFound,
    TableNotFound,
    TimedOut,
    Unavailable,
)
from flight_replica.flightsql.status import (
    MESSAGE_BYTES_MAX,
    Unimplemented,
    as_flight_error,
    boundary,
    guarded_stream,
)
from flight_replica.log.wire import decode_log_gap


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (ReadOnly("r"), ValueError),
        (ConstraintViolation("c"), ValueError),
        (LimitExceeded("l"), ValueError),
        (TableNotFound("t"), pa.ArrowKeyError),
        (StatementNotFound("s"), pa.ArrowKeyError),
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


def test_a_log_gap_keeps_its_details() -> None:
    found = as_flight_error(LogGap(5, 7, "trimmed"), "here")
    gap = decode_log_gap(found.extra_info)
    assert gap is not None and (gap.requested, gap.earliest_available, gap.reason) == (5, 7, "trimmed")
    assert found.extra_info.count(b"because") == 0 and str(found).encode() in found.extra_info


@pytest.mark.parametrize("text", ["x" * 5000, "é" * 5000])
def test_a_long_message_is_cut_between_signs(text: str) -> None:
    found = str(as_flight_error(Unavailable(text), "here"))
    assert len(found.encode()) <= MESSAGE_BYTES_MAX + 20
    assert "…" in found


def test_handlers_and_streams_raise_flight_errors_alone() -> None:
    @boundary
    def handler() -> None:
        raise TableNotFound("nope")

    def stream() -> object:
        yield 1
        raise Unavailable("later")

    with pytest.raises(pa.ArrowKeyError):
        handler()
    items = guarded_stream(stream(), "here")  # type: ignore[arg-type,var-annotated]
    assert next(items) == 1
    with pytest.raises(flight.FlightUnavailableError):
        next(items)
