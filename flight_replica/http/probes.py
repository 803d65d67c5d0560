"""`/livez` and `/readyz`: for probes and load balancers, without login.

What they reveal without one, where the server has logins: whether it is ready, and how many tables aren't
for which kind of reason. Names and reasons are for those who may read the table.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from functools import partial
from typing import TypeVar

import anyio.to_thread
from anyio import CapacityLimiter
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from flight_replica.errors import InvalidStatement, ReplicaError, TimedOut, Unauthenticated
from flight_replica.flightsql.rights import as_seen_by
from flight_replica.flightsql.users import ANYBODY
from flight_replica.http.readiness import Asked, counted, readiness
from flight_replica.http.replies import wants_json
from flight_replica.http.site import Site, site_of
from flight_replica.http.visitors import Visitor

T = TypeVar("T")

PROBE_THREADS = 4  # of their own: probes are answered while all others wait for statements
PROBE_SECONDS = 5.0  # a database that doesn't answer within this isn't alive
TABLES_MAX = 100  # asked for at once
_PARAMETERS = {"max_lag_ms", "table", "degraded"}


def probe_routes() -> list[Route]:
    """To be served by one server: the routes share their threads."""
    threads = Threads()
    return [
        Route("/livez", threads.alive, methods=["GET"]),
        Route("/readyz", threads.ready, methods=["GET"]),
    ]


class Threads:
    """The probes of one server, and the threads that they may use."""

    def __init__(self) -> None:
        self._limiter: CapacityLimiter | None = None

    async def run(self, work: Callable[[], T]) -> T:
        """Do it in one of the threads. Raises `TimedOut`; the thread then ends by itself."""
        if self._limiter is None:  # it has to be made on the loop
            self._limiter = CapacityLimiter(PROBE_THREADS)
        running = anyio.to_thread.run_sync(work, limiter=self._limiter, abandon_on_cancel=True)
        try:
            return await asyncio.wait_for(running, PROBE_SECONDS)
        except TimeoutError:
            raise TimedOut(f"no answer within {PROBE_SECONDS:g} s") from None

    async def alive(self, request: Request) -> Response:
        """200 where the process answers and its database does; 503 with the reason."""
        try:
            await self.run(site_of(request).check)
        except ReplicaError as error:
            return _answer(request, False, "not alive", str(error))
        return _answer(request, True, "alive")

    async def ready(self, request: Request) -> Response:
        """200 where every table that is asked for can be read, fresh enough; 503 with the reasons."""
        asked = asked_of(request)
        site = site_of(request)
        if site.is_draining:
            return _answer(request, False, "not ready", "draining: the server is shutting down")
        known = partial(site.visitors.known, request)
        try:
            if "authorization" not in request.headers:
                return await self.run(lambda: _ready(request, site, asked, known()))
            # A password takes its time to check: nobody else's probe is to wait for it.
            visitor = await run_in_threadpool(known)
            return await self.run(lambda: _ready(request, site, asked, visitor))
        except TimedOut as error:
            return _answer(request, False, "not ready", str(error))


def asked_of(request: Request) -> Asked:
    """What the query string asks. Raises `InvalidStatement` for what isn't understood."""
    parameters = request.query_params
    if unknown := sorted(set(parameters) - _PARAMETERS):
        raise InvalidStatement(f"unknown parameter {unknown[0][:50]!r}; known are {sorted(_PARAMETERS)}")
    tables = tuple(parameters.getlist("table"))
    if len(tables) > TABLES_MAX:
        raise InvalidStatement(f"{len(tables)} tables are asked for, at most {TABLES_MAX} at once")
    degraded = parameters.get("degraded", "no")
    if degraded not in ("ok", "no"):
        raise InvalidStatement(f"degraded={degraded[:50]!r}: expected ok or no")
    return Asked(_millis(parameters.get("max_lag_ms")), tables, degraded == "ok")


def _millis(text: str | None) -> float | None:
    if text is None:
        return None
    try:
        found = float(text)
    except ValueError:
        found = math.nan
    if not 0 <= found < math.inf:
        raise InvalidStatement(f"max_lag_ms={text[:50]!r}: expected a number of milliseconds, 0 or more")
    return found


def _ready(request: Request, site: Site, asked: Asked, visitor: Visitor | None) -> Response:
    site.check()
    if visitor is None and asked.tables:
        raise Unauthenticated("log in to ask for a table by its name")
    seen = visitor or Visitor(ANYBODY)
    found = readiness(as_seen_by(seen.user, site.service).tables(), asked)
    late = [table for table in found if table.reasons]
    if visitor is None:
        return _answer(request, not late, "not ready" if late else "ready", counted(found) if late else "")
    lines = [f"{table.table}: {'; '.join(table.reasons)}" for table in late]
    tables = [table.as_json() for table in found]
    return _answer(request, not late, "not ready" if late else "ready", "\n".join(lines), tables)


def _answer(
    request: Request, is_well: bool, what: str, why: str = "", tables: list[dict[str, object]] | None = None
) -> Response:
    status = 200 if is_well else 503
    if wants_json(request):
        body: dict[str, object] = {"ok": is_well, "status": what, "reason": why}
        return JSONResponse(body if tables is None else {**body, "tables": tables}, status)
    return PlainTextResponse("\n".join(filter(None, [what, why])) + "\n", status)
