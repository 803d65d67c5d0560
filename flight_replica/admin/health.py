"""The standard health service, `grpc.health.v1`: "" is the server, every other name a table.

Anybody who reaches the port may ask, since probes can't log in: whoever knows a table's name learns whether
it is served and well, and nothing else. Their streams are few, so that users' own are answered beside them.
"""

from __future__ import annotations

from collections.abc import Iterator

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from flight_replica.admin.gate import Gate, Stream
from flight_replica.control.health import SERVER, Health, HealthBook
from flight_replica.flightsql.users import User

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
        def watch(stream: Stream) -> Iterator[health_pb2.HealthCheckResponse]:
            told: Health | None = None
            while True:
                found = self._book.of(request.service)
                if found is not told:
                    told = found
                    yield _response(found)
                if not stream.wait(LOOK_SECONDS):
                    return

        return self._gate.open_answers(context, watch)

    def List(
        self, request: health_pb2.HealthListRequest, context: grpc.ServicerContext
    ) -> health_pb2.HealthListResponse:
        """Names are for those who log in: the server, and the tables that the user may read."""

        def listed(user: User) -> health_pb2.HealthListResponse:
            names = [SERVER, *(name for name in self._book.names() if name in user.read)]
            found = {name: self._book.of(name) for name in names}
            return health_pb2.HealthListResponse(
                statuses={n: _response(h) for n, h in found.items() if h is not Health.UNKNOWN}
            )

        return self._gate.answer(context, listed)


def _response(health: Health) -> health_pb2.HealthCheckResponse:
    return health_pb2.HealthCheckResponse(status=health.value)
