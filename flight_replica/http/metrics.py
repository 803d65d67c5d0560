"""`/metrics` for Prometheus. Where the server has logins it needs one, by `authorization` header."""

from __future__ import annotations

import asyncio

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from flight_replica.http.site import site_of
from flight_replica.metrics.metrics import Metrics


def metrics_routes(metrics: Metrics) -> list[Route]:
    one_at_a_time = asyncio.Lock()

    async def scrape(request: Request) -> Response:
        site = site_of(request)
        visitor = await site.visitor(request)
        async with one_at_a_time:  # however many ask, it costs one thread
            text, content_type = await asyncio.to_thread(
                metrics.exposition, request.headers.get("accept", ""), visitor.user
            )
        return Response(text, headers={"content-type": content_type})

    return [Route("/metrics", scrape, methods=["GET"])]
