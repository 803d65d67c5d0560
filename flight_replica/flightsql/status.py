"""Our errors as the exceptions that pyarrow turns into gRPC codes. The one place that does so.

pyarrow chooses the code by the exception's class, and three useful codes are reached by plain Python
exceptions alone. Those carry a formatted traceback to the client, unless `hide_tracebacks` was called
in the process. Flight errors raised in GetSchema always arrive as UNKNOWN.
"""

from __future__ import annotations

import functools
import logging
import secrets
import sys
import traceback
from collections.abc import Callable, Iterator
from typing import ParamSpec, TypeVar

import pyarrow as pa
from pyarrow import flight

from flight_replica.errors import (
    BaseNotUsable,
    Closed,
    FeedError,
    LogGap,
    NotCaughtUp,
    ReplicaError,
    StatementNotFound,
    TableNotFound,
    TimedOut,
    Unavailable,
)
from flight_replica.log.wire import encode_log_gap

logger = logging.getLogger(__name__)
P = ParamSpec("P")
T = TypeVar("T")

MESSAGE_BYTES_MAX = 900  # status texts travel up to four times in headers, which end at 8 KiB
_UNKNOWN = 2  # the gRPC code of FlightServerError
_SUFFIX = ". Detail: Failed"  # what pyarrow appends to the text of a FlightServerError


class Unimplemented(ReplicaError):
    """A part of Flight SQL that isn't served here."""


def hide_tracebacks() -> None:
    """Keep Python tracebacks out of what clients see, for the whole process.

    Log formatters that print tracebacks have to pass a limit of their own then.
    """
    sys.tracebacklimit = 0


def as_flight_error(error: Exception, where: str) -> Exception:
    """What to raise out of a Flight handler for `error`, so that the client gets code and text.

    An error that isn't ours is logged under an id, and the client is told the id alone.
    """
    text = _short(str(error))
    found: Exception
    match error:
        case LogGap():
            # The details have to repeat the final text, or ADBC drops them.
            extra_info = encode_log_gap(error, _UNKNOWN, text + _SUFFIX)
            found = flight.FlightServerError(text, extra_info)
        case TimedOut():
            found = flight.FlightTimedOutError(text)
        case Unavailable() | Closed() | FeedError() | NotCaughtUp() | BaseNotUsable():
            found = flight.FlightUnavailableError(text)
        case TableNotFound() | StatementNotFound():
            found = pa.ArrowKeyError(text)
        case Unimplemented():
            found = NotImplementedError(text)
        case ReplicaError():
            found = ValueError(text)
        case _:
            found = _unexpected(error, where)
    return found


def _unexpected(error: Exception, where: str) -> Exception:
    error_id = secrets.token_hex(4)
    trace = "".join(traceback.format_exception(error, limit=50))
    logger.error("unexpected error id=%s call=%s\n%s", error_id, where, trace)
    found: Exception = flight.FlightInternalError(f"internal error {error_id}: the server's log says more")
    return found


def _short(text: str) -> str:
    data = text.encode("utf-8", "replace")
    if len(data) <= MESSAGE_BYTES_MAX:
        return data.decode()
    return data[: MESSAGE_BYTES_MAX - 3].decode("utf-8", "ignore") + "…"


def boundary(handler: Callable[P, T]) -> Callable[P, T]:
    """The handler, raising nothing but what `as_flight_error` makes."""

    @functools.wraps(handler)
    def guarded(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return handler(*args, **kwargs)
        except Exception as error:
            raise as_flight_error(error, handler.__name__) from None

    return guarded


def guarded_stream(batches: Iterator[T], where: str) -> Iterator[T]:
    """The same items, raising nothing but what `as_flight_error` makes. Closes `batches` with itself."""
    try:
        yield from batches
    except Exception as error:
        raise as_flight_error(error, where) from None
