"""Our errors as the exceptions that pyarrow turns into gRPC codes and texts. The one place that does so.

pyarrow chooses the code by the exception's class, and knows seven Flight classes and three plain ones. So
each error has the code sent, the nearest that can be had, and its exact one: that stands in the trailer
`merutable-error-code`, and `merutable-retryable: true` beside it where the same call may succeed later.
Plain exceptions carry a formatted traceback to the client, unless `hide_tracebacks` was called in the
process. Flight errors raised in GetSchema always arrive as UNKNOWN.
"""

from __future__ import annotations

import functools
import logging
import sys
from collections.abc import Callable, Iterator
from enum import StrEnum
from typing import TYPE_CHECKING, ParamSpec, TypeVar

from pyarrow import flight

from flight_replica.errors import (
    AlreadyExists,
    BaseNotUsable,
    Busy,
    Cancelled,
    Closed,
    FeedError,
    Forbidden,
    LimitExceeded,
    LogGap,
    NotCaughtUp,
    ReadOnly,
    ReplicaError,
    SessionExpired,
    StatementNotFound,
    TableNotFound,
    TimedOut,
    TransactionFailed,
    Unauthenticated,
    Unavailable,
    Unsupported,
)
from flight_replica.flightsql.texts import told
from flight_replica.log.wire import encode_log_gap
from flight_replica.logs.request import current_request, in_request, items_in_request, request_id_of

if TYPE_CHECKING:
    from flight_replica.flightsql.call import Call

logger = logging.getLogger(__name__)
P = ParamSpec("P")
T = TypeVar("T")

MIDDLEWARE = "calls"  # the name under which a context has its `Call`
CODE_TRAILER = "merutable-error-code"
RETRYABLE_TRAILER = "merutable-retryable"
RETRYABLE = " (retryable)"  # ends the text, for clients that can't read trailers

_UNKNOWN = 2  # the gRPC code of FlightServerError
_SUFFIX = ". Detail: Failed"  # what pyarrow appends to the text of a FlightServerError


class Code(StrEnum):
    """gRPC's codes, by the names it gives them."""

    CANCELLED = "CANCELLED"
    INVALID_ARGUMENT = "INVALID_ARGUMENT"
    DEADLINE_EXCEEDED = "DEADLINE_EXCEEDED"
    NOT_FOUND = "NOT_FOUND"
    ALREADY_EXISTS = "ALREADY_EXISTS"
    PERMISSION_DENIED = "PERMISSION_DENIED"
    RESOURCE_EXHAUSTED = "RESOURCE_EXHAUSTED"
    FAILED_PRECONDITION = "FAILED_PRECONDITION"
    OUT_OF_RANGE = "OUT_OF_RANGE"
    UNIMPLEMENTED = "UNIMPLEMENTED"
    INTERNAL = "INTERNAL"
    UNAVAILABLE = "UNAVAILABLE"
    UNAUTHENTICATED = "UNAUTHENTICATED"


class Unimplemented(ReplicaError):
    """A part of Flight SQL that isn't served here."""


# Kind of error -> its exact code and the class that is sent; the first that fits counts.
_KINDS: tuple[tuple[tuple[type[ReplicaError], ...], Code, type[Exception]], ...] = (
    ((LogGap,), Code.OUT_OF_RANGE, flight.FlightServerError),
    ((Unauthenticated,), Code.UNAUTHENTICATED, flight.FlightUnauthenticatedError),
    ((Forbidden,), Code.PERMISSION_DENIED, flight.FlightUnauthorizedError),
    ((Cancelled,), Code.CANCELLED, flight.FlightCancelledError),
    ((TimedOut,), Code.DEADLINE_EXCEEDED, flight.FlightTimedOutError),
    ((Busy,), Code.RESOURCE_EXHAUSTED, flight.FlightUnavailableError),
    (
        (Unavailable, Closed, FeedError, NotCaughtUp, BaseNotUsable),
        Code.UNAVAILABLE,
        flight.FlightUnavailableError,
    ),
    ((TableNotFound, StatementNotFound, SessionExpired), Code.NOT_FOUND, KeyError),
    ((Unimplemented, Unsupported), Code.UNIMPLEMENTED, NotImplementedError),
    ((AlreadyExists,), Code.ALREADY_EXISTS, ValueError),
    ((LimitExceeded,), Code.RESOURCE_EXHAUSTED, ValueError),
    ((ReadOnly, TransactionFailed), Code.FAILED_PRECONDITION, ValueError),
    ((ReplicaError,), Code.INVALID_ARGUMENT, ValueError),
)


def hide_tracebacks() -> None:
    """Keep Python tracebacks out of what clients see, for the whole process.

    Log formatters that print tracebacks have to pass a limit of their own then.
    """
    sys.tracebacklimit = 0


# --- one error ----------------------------------------------------------------------------------------


def code_of(error: Exception) -> Code:
    """The exact code of an error, whether or not it can be sent."""
    return _kind(error)[0]


def as_flight_error(
    error: Exception, where: str, context: flight.ServerCallContext | None = None
) -> Exception:
    """What to raise out of a Flight handler for `error`, so that the client gets code and text.

    The trailers are set on the call of `context`, which must be under way. An error that isn't ours is
    logged under its call's request id, and the client is told the id alone.
    """
    code, sent = _kind(error)
    if context is not None:
        _add_trailers(context, error, code)
    if not isinstance(error, ReplicaError):
        return sent(report_unexpected(error, where))
    text = told(str(error), RETRYABLE if error.retryable else "")
    if isinstance(error, LogGap):
        # The details have to repeat the final text, or ADBC drops them.
        return sent(text, encode_log_gap(error, _UNKNOWN, text + _SUFFIX))
    if issubclass(sent, flight.FlightError) and where != "get_schema":
        return sent(text)
    return _plain(sent if not issubclass(sent, flight.FlightError) else Exception, code)(text)


def _kind(error: Exception) -> tuple[Code, type[Exception]]:
    for kinds, code, sent in _KINDS:
        if isinstance(error, kinds):
            return code, sent
    return Code.INTERNAL, flight.FlightInternalError


def _add_trailers(context: flight.ServerCallContext, error: Exception, code: Code) -> None:
    context.add_trailer(CODE_TRAILER, code.value)
    if isinstance(error, ReplicaError) and error.retryable:
        context.add_trailer(RETRYABLE_TRAILER, "true")


def report_unexpected(error: Exception, where: str) -> str:
    """Log an error that isn't ours; what its client is told instead, under the call's request id."""
    request_id = current_request() or request_id_of(None)
    with in_request(request_id):
        logger.error("unexpected error call=%s", where, exc_info=error)
    return f"internal error {request_id}: the server's log says more"


class _ToldOnce(Exception):
    """Gives its text once: pyarrow appends the exception's class and text to the text itself."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._texts = [text]

    def __str__(self) -> str:
        return self._texts.pop() if self._texts else ""


def _plain(base: type[Exception], code: Code) -> Callable[[str], Exception]:
    """A class of exceptions that pyarrow sends as it does `base`, and whose name is the exact code.

    So the code also stands at the end of the text: `Detail: Python exception: RESOURCE_EXHAUSTED`.
    """
    return type(code.value, (_ToldOnce, base), {"__module__": "builtins"})


# --- handlers -----------------------------------------------------------------------------------------


def boundary(handler: Callable[P, T]) -> Callable[P, T]:
    """The handler, raising nothing but what `as_flight_error` makes. What it logs is of its call."""

    @functools.wraps(handler)
    def guarded(*args: P.args, **kwargs: P.kwargs) -> T:
        # Flight gives it first, behind `self`; a handshake has none.
        context = args[1] if len(args) > 1 and isinstance(args[1], flight.ServerCallContext) else None
        call = _call(context)
        with in_request(None if call is None else call.request_id):
            try:
                return handler(*args, **kwargs)
            except Exception as error:
                raise _raised(error, handler.__name__, context) from None
            finally:
                if call is not None:
                    call.handled()

    return guarded


def guarded_stream(
    batches: Iterator[T], where: str, context: flight.ServerCallContext | None = None
) -> Iterator[T]:
    """The same items, raising nothing but what `as_flight_error` makes. Closes `batches` with itself."""
    call = _call(context)
    request_id = None if call is None else call.request_id
    try:
        yield from items_in_request(request_id, batches)
    except Exception as error:
        with in_request(request_id):
            raise _raised(error, where, context) from None


def _call(context: flight.ServerCallContext | None) -> Call | None:
    return None if context is None else context.get_middleware(MIDDLEWARE)


def _raised(error: Exception, where: str, context: flight.ServerCallContext | None) -> Exception:
    is_ours = isinstance(error, ReplicaError)
    if not is_ours and context is not None and context.is_cancelled():
        # Whatever it is, it comes of that, and nobody is there to be told.
        logger.info("client gone call=%s error=%s", where, type(error).__name__)
        error = Cancelled("the client has gone")
    return as_flight_error(error, where, context)
