"""`Site`: what the endpoints of one HTTP port share. Endpoints find it by `site_of`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from starlette.concurrency import run_in_threadpool
from starlette.requests import HTTPConnection

from flight_replica.flightsql.service import Service
from flight_replica.http.streams import Streams
from flight_replica.http.visitors import Visitor, Visitors


@dataclass(slots=True)
class Site:
    """Of one port, from its start to its end. `service` is unrestricted: see `rights.as_seen_by`."""

    service: Service
    check: Callable[[], None]  # raises where no statement can be answered any more
    visitors: Visitors
    streams: Streams
    is_draining: bool = False  # no longer ready, since it is about to end

    async def visitor(self, request: HTTPConnection) -> Visitor:
        """Who asks, for async endpoints. Raises `Unauthenticated`."""
        return await run_in_threadpool(self.visitors.visitor, request)


def site_of(request: HTTPConnection) -> Site:
    site = request.app.state.site
    assert isinstance(site, Site), "an application without its site"
    return site
