"""The standard health service, `grpc.health.v1`: "" is the server, every other name a table.

Anybody who reaches the port may ask, since probes can't log in: whoever knows a table's name learns whether
it is served and well, and nothing else.
"""

from __future__ import annotations

from collections.abc import Iterator

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from flight_replica.admin.gate import Gate
from flight_replica.control.health import Health, HealthBook

LOOK_SECONDS = 0.25  # how soon a watcher hears of a change


class HealthServicer(health_pb2_grpc.HealthServicer):  # type: ignore[misc]
    """Thread-safe."""

    def __init__(self, book: HealthBook, gate: Gate) -> None:
        self._book = book
        self._gate = gate

    def Check(
        self, request: health_pb2.HealthCheckRequest, context: grpc.ServicerContext
    ) -> health_pb2.HealthCheckResponse:
        found = self._book.of(request.service)
        if found is Health.UNKNOWN:
            context.abort(grpc.StatusCode.NOT_FOUND, f"there is no table {request.service[:200]!r}")
        return _response(found)

    def Watch(
        self, request: health_pb2.HealthCheckRequest, context: grpc.ServicerContext
    ) -> Iterator[health_pb2.HealthCheckResponse]:
        with self._gate.stream(context) as stream:
            told: Health | None = None
            while True:
                found = self._book.of(request.service)
                if found is not told:
                    told = found
                    yield _response(found)
                if not stream.wait(LOOK_SECONDS):
                    return


def _response(health: Health) -> health_pb2.HealthCheckResponse:
    return health_pb2.HealthCheckResponse(status=health.value)
