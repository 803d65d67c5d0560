"""The page's SQL box: one statement each, by the way of every client (flightsql/direct.py)."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor

from starlette.requests import Request

from flight_replica.errors import Busy
from flight_replica.flightsql.auth import Login
from flight_replica.flightsql.direct import Caller, DirectReads
from flight_replica.http.page.positions import position_json
from flight_replica.http.page.values import ROWS_MAX, shown

PAGE_QUERIES_MAX = 8  # statements of pages at once; each has a thread, and one of the queries_max places


class PageQueries:
    """Used on the loop's thread alone. Owns the threads `page-query…`, on which the statements run."""

    def __init__(self, reads: DirectReads) -> None:
        self._reads = reads
        self._running = 0
        self._threads = ThreadPoolExecutor(PAGE_QUERIES_MAX, "page-query")

    def close(self) -> None:
        """End the threads, once nobody waits for an answer any more. Idempotent; from any thread."""
        self._threads.shutdown()

    async def run(self, request: Request, sql: str, login: Login, session: str) -> dict[str, object]:
        """The answer as JSON; the statement ends when the browser no longer waits for it.

        Raises `Busy`, and what a Flight client would be told.
        """
        if self._running >= PAGE_QUERIES_MAX:
            raise Busy(f"page_queries_max: {PAGE_QUERIES_MAX} statements of pages are running; try again")
        caller = Caller()
        peer = f"page:{request.client.host}" if request.client is not None else "page"

        def read() -> dict[str, object]:
            return self._answer(sql, login, caller, peer, session)

        leaving = asyncio.create_task(_left(request.receive, caller.leave))
        self._running += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, read)
        finally:
            self._running -= 1
            caller.leave()  # also where the server gives up the request
            leaving.cancel()

    def _answer(self, sql: str, login: Login, caller: Caller, peer: str, session: str) -> dict[str, object]:
        began = time.monotonic()
        with self._reads.read(sql, login, caller, peer=peer, session=session) as answer:
            found = shown(answer.schema, answer.batches)
            return {
                "columns": found.columns,
                "rows": found.rows,
                "is_cut": found.is_cut,
                "seconds": time.monotonic() - began,
                "positions": [position_json(at) for at in answer.positions],
                "session": answer.session,
                "rows_max": ROWS_MAX,
            }


async def _left(receive: Callable[[], Awaitable[object]], leave: Callable[[], None]) -> None:
    """Call `leave` when the browser closes the request."""
    while True:
        message = await receive()
        assert isinstance(message, dict), "a message of ASGI"
        if message["type"] == "http.disconnect":
            leave()
            return
