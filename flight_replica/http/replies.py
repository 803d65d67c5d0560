"""Answers in the form that was asked for, and errors as HTTP statuses."""

from __future__ import annotations

from starlette.requests import HTTPConnection, Request
from starlette.responses import JSONResponse, PlainTextResponse, Response

from flight_replica import errors
from flight_replica.http.guard import unexpected
from flight_replica.logs.request import current_request

# The first class that fits; what isn't named here is a fault of the server's.
_STATUSES: tuple[tuple[type[errors.ReplicaError], int], ...] = (
    (errors.Unauthenticated, 401),
    (errors.ReadOnly, 405),
    (errors.Forbidden, 403),
    (errors.TableNotFound, 404),
    (errors.StatementNotFound, 404),
    (errors.InvalidStatement, 400),
    (errors.Busy, 429),
    (errors.LimitExceeded, 413),
    (errors.Cancelled, 409),
    (errors.TimedOut, 504),
    (errors.Unavailable, 503),
)


def status_of(error: errors.ReplicaError) -> int:
    """The HTTP status of an error."""
    return next((status for kind, status in _STATUSES if isinstance(error, kind)), 500)


def wants_json(request: HTTPConnection) -> bool:
    """Whether JSON was asked for by `Accept`; text is what everybody gets who doesn't care."""
    return "application/json" in request.headers.get("accept", "")


async def failed(request: Request, error: Exception) -> Response:
    """The answer where an endpoint raised a `ReplicaError`: one line, as text or JSON."""
    assert isinstance(error, errors.ReplicaError), "another error than the handler's"
    # A Basic challenge would make browsers ask, and then send the password from any site's page.
    headers = {"www-authenticate": 'Bearer realm="flight-replica"'} if status_of(error) == 401 else {}
    if wants_json(request):
        body = {"error": type(error).__name__, "message": str(error), "retryable": error.retryable}
        return JSONResponse(body, status_of(error), headers)
    return PlainTextResponse(f"{error}\n", status_of(error), headers)


async def failed_unexpectedly(request: Request, error: Exception) -> Response:
    """The answer where an endpoint raised anything else: it says nothing of it. The guard logs it."""
    return PlainTextResponse(unexpected(current_request()) + "\n", 500)
