"""`Page`: the page of one server, and the addresses that it asks: `/`, `/page/…` and `/api/…`."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator

from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.routing import Route

from flight_replica.control.control import Control
from flight_replica.errors import InvalidStatement, ReplicaError, Unauthenticated
from flight_replica.flightsql.auth import Login
from flight_replica.flightsql.direct import DirectReads
from flight_replica.flightsql.users import User
from flight_replica.http.page.happenings import Happenings
from flight_replica.http.page.now import advice_json, may_see, queries_json, server_json, tables_json
from flight_replica.http.page.queries import PageQueries
from flight_replica.http.page.sampler import Sampler
from flight_replica.http.page.samples import KEPT_SECONDS, SAMPLE_SECONDS
from flight_replica.http.page.snippets import Address, snippets
from flight_replica.http.page.static_files import StaticFiles
from flight_replica.http.site import site_of
from flight_replica.http.visitors import Visitor

ALL_STEP_SECONDS = 60.0  # of all tables at once no finer points are given: they'd be many MiB
LIVE_SECONDS = 1.0  # how often a page that is open hears how things are
_PACKAGE = "flight_replica"


class Page:
    """Looks at tables and listens to the log from creation to `close`; `routes` are for an `HttpServer`."""

    def __init__(self, control: Control, reads: DirectReads, address: Address) -> None:
        """`address`: where the Flight port listens; `0.0.0.0` is shown by the name that the page has."""
        self._control = control
        self._reads = reads
        self._address = address
        self._files = StaticFiles()
        self._queries = PageQueries(reads)
        self._happenings = Happenings()
        self._happenings.listen(logging.getLogger(_PACKAGE))
        self._sampler = Sampler(control, self._happenings)
        self.routes = [
            Route("/", self.index, methods=["GET"]),
            Route("/page/{path:path}", self.static_file, methods=["GET"]),
            Route("/api/live", self.live, methods=["GET"]),
            Route("/api/history", self.history, methods=["GET"]),
            Route("/api/snippets", self.snippets, methods=["GET"]),
            Route("/api/sql", self.sql, methods=["POST"]),
            Route("/api/cancel", self.cancel, methods=["POST"]),
        ]

    def close(self) -> None:
        """Look and listen no longer. Idempotent."""
        self._sampler.close()
        self._happenings.close()
        self._queries.close()

    # --- files ------------------------------------------------------------------------------------

    async def index(self, request: Request) -> Response:
        """The page; the form to log in for who isn't."""
        try:
            await site_of(request).visitor(request)
        except Unauthenticated:
            return RedirectResponse("/login", 303)
        return self._files.answer(request, "index.html")

    async def static_file(self, request: Request) -> Response:
        """What is the same for everybody, so that the form to log in has its style."""
        return self._files.answer(request, request.path_params["path"])

    # --- what is shown ----------------------------------------------------------------------------

    async def live(self, request: Request) -> Response:
        """Events `now`, one at once and one each second."""
        site = site_of(request)
        visitor = await site.visitor(request)
        uri = self._seen_address(request).uri

        async def events() -> AsyncIterator[str]:
            last_id = 0
            while True:
                text, last_id = self._now(visitor.user, uri, last_id)
                yield f"event: now\ndata: {text}\n\n"
                if not await site.streams.pause(LIVE_SECONDS):
                    return

        return site.streams.response(events(), visitor.is_still_good)

    def _now(self, user: User, uri: str, last_id: int) -> tuple[str, int]:
        """What a page is told, and the id of the last event in it; of events, those after `last_id`."""
        moment = self._sampler.latest
        rates = {table.name: self._sampler.samples.rate(table.name) for table in moment.tables}
        happened = self._happenings.after(last_id, lambda found: may_see(found, user))
        found = {
            "server": server_json(self._control, user, uri, moment.time_ms),
            "tables": tables_json(moment, user, rates),
            "advice": advice_json(moment, user),
            **queries_json(self._control, user),
            "events": [event.as_json() for event in happened],
        }
        return json.dumps(found), happened[-1].id if happened else last_id

    async def history(self, request: Request) -> Response:
        """The last hour of `table`, or of all in few points; one for every `step_seconds`."""
        user = (await site_of(request).visitor(request)).user
        wanted = request.query_params.get("table")
        least = SAMPLE_SECONDS if wanted is not None else ALL_STEP_SECONDS
        step = _step_seconds(request.query_params.get("step_seconds"), least)
        names = {table.name for table in self._sampler.latest.tables if table.name in user.read}
        if wanted is not None:
            names &= {wanted}
        found = await asyncio.to_thread(self._sampler.samples.points, names, step)
        return JSONResponse({"step_seconds": step, "tables": [points.as_json() for points in found]})

    async def snippets(self, request: Request) -> Response:
        """How to connect, with this server's address and a table of it."""
        user = (await site_of(request).visitor(request)).user
        names = [table.name for table in self._sampler.latest.tables if table.name in user.read]
        found = snippets(self._seen_address(request), names[0] if names else "my_table")
        return JSONResponse({"snippets": [snippet.as_json() for snippet in found]})

    def _seen_address(self, request: Request) -> Address:
        return self._address.seen_from(request.url.hostname or "")

    # --- what is done -----------------------------------------------------------------------------

    async def sql(self, request: Request) -> Response:
        """Run one statement that reads: `{"sql": …, "session": …}`. Its error is an answer with `error`."""
        visitor, body = await self._change(request)
        sql, session = _text(body, "sql"), _text(body, "session", "")
        login = Login(visitor.user, is_good=visitor.is_still_good)
        try:
            return JSONResponse(await self._queries.run(request, sql, login, session))
        except ReplicaError as error:  # the statement's answer, not the request's: it may be asked anything
            found = {"error": type(error).__name__, "message": str(error), "retryable": error.retryable}
            return JSONResponse(found)

    async def cancel(self, request: Request) -> Response:
        """End a statement: `{"id": …}`."""
        visitor, body = await self._change(request)
        self._control.cancel(visitor.user, _text(body, "id"))
        return JSONResponse({})

    async def _change(self, request: Request) -> tuple[Visitor, dict[str, object]]:
        """Who asks for a change, and its JSON. Raises `Forbidden`, `Unauthenticated`, `InvalidStatement`."""
        site = site_of(request)
        visitor = await site.visitor(request)
        site.visitors.check_change(request, visitor)
        # Pages of other sites can't send this type without being asked first whether they may.
        if request.headers.get("content-type", "").partition(";")[0].strip() != "application/json":
            raise InvalidStatement("the body has to be application/json")
        try:
            body = json.loads(await request.body())
        except (ValueError, RecursionError) as error:
            raise InvalidStatement(f"the body isn't JSON: {error}") from None
        if not isinstance(body, dict):
            raise InvalidStatement("the body has to be a JSON object")
        return visitor, body


def _text(body: dict[str, object], name: str, default: str | None = None) -> str:
    found = body.get(name, default)
    if not isinstance(found, str):
        raise InvalidStatement(f"{name!r} has to be a text")
    try:
        found.encode()
    except UnicodeEncodeError:  # JSON can write half of a pair
        raise InvalidStatement(f"{name!r} is not valid Unicode text") from None
    return found


def _step_seconds(text: str | None, least: float) -> float:
    """What was asked for, `least` where nothing was. Raises `InvalidStatement`."""
    if text is None:
        return least
    try:
        step = float(text)
    except ValueError:
        step = 0.0
    if not least <= step <= KEPT_SECONDS:
        raise InvalidStatement(f"step_seconds {text[:40]!r}: expected {least:g} to {KEPT_SECONDS:g}")
    return step
