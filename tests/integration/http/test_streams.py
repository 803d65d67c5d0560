"""Event streams: so many at once, until the server ends or their visitor may see nothing any more."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator
from contextlib import closing

import httpx
import pytest
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from flight_replica.http import streams
from flight_replica.http.limits import HttpLimits
from flight_replica.http.server import HttpServer
from flight_replica.http.site import site_of
from tests.integration.http.conftest import ServeHttp
from tests.integration.http.http_service import StatedService
from tests.processes import until


class Ticks:
    """A stream of a tick each 50 ms, for a visitor who may be shut out."""

    def __init__(self) -> None:
        self.is_good = threading.Event()
        self.is_good.set()
        self.routes = [Route("/ticks", self._stream)]

    async def _stream(self, request: Request) -> Response:
        site = site_of(request)

        async def ticks() -> AsyncIterator[str]:
            yield "data: tick\n\n"
            while await site.streams.pause(0.05):
                yield "data: tick\n\n"

        return site.streams.response(ticks(), self.is_good.is_set)


@pytest.fixture
def ticks(monkeypatch: pytest.MonkeyPatch) -> Ticks:
    monkeypatch.setattr(streams, "CHECK_SECONDS", 0.1)
    return Ticks()


def test_a_stream_too_many_is_refused_until_another_has_ended(serve_http: ServeHttp, ticks: Ticks) -> None:
    server = serve_http(routes=ticks.routes, limits=HttpLimits(streams_max=1))
    with httpx.stream("GET", f"{server.url}/ticks") as first:
        lines = first.iter_lines()  # kept, since it ends the stream with itself
        assert next(lines) == "data: tick"
        refused = httpx.get(f"{server.url}/ticks")
        assert (refused.status_code, refused.headers["retry-after"]) == (503, "10")
    until(lambda: server.site.streams.count == 0, "the place is free")
    with httpx.stream("GET", f"{server.url}/ticks") as again:
        assert again.status_code == 200


def test_a_stream_ends_when_its_visitor_may_see_nothing_any_more(serve_http: ServeHttp, ticks: Ticks) -> None:
    with httpx.stream("GET", f"{serve_http(routes=ticks.routes).url}/ticks", timeout=30) as stream:
        lines = stream.iter_lines()
        assert next(lines) == "data: tick"
        ticks.is_good.clear()
        assert set(lines) == {"", "data: tick"}  # and then the end


def test_a_stream_ends_with_the_server(service: StatedService, ticks: Ticks) -> None:
    server = HttpServer(service, service.check, "127.0.0.1", 0, routes=ticks.routes)
    with closing(server), httpx.stream("GET", f"{server.url}/ticks", timeout=30) as stream:
        lines = stream.iter_lines()
        assert next(lines) == "data: tick"
        server.close()
        assert set(lines) <= {"", "data: tick"}
