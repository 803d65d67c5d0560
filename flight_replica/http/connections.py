"""`BoundedConnection`: one HTTP/1.1 connection that can't be held open by saying nothing.

uvicorn has a limit of requests and of idle time between them; it has none of connections, and none of the
time that a header takes.
"""

from __future__ import annotations

import asyncio
from typing import ClassVar

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from flight_replica.http.limits import DEFAULT_HTTP_LIMITS, HttpLimits


class BoundedConnection(H11Protocol):
    """A connection under `limits`. Runs on the loop's thread."""

    limits: ClassVar[HttpLimits] = DEFAULT_HTTP_LIMITS
    _header_timer: asyncio.TimerHandle | None = None

    @classmethod
    def under(cls, limits: HttpLimits) -> type[BoundedConnection]:
        """The class of a server's connections: uvicorn makes one without asking for more than its own."""
        return type("BoundedConnection", (cls,), {"limits": limits})

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if len(self.connections) > self.limits.connections_max:
            transport.abort()
        else:
            self._wait_for_header()

    def connection_lost(self, exc: Exception | None) -> None:
        self._header_came()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self.conn.their_state is h11.IDLE and not self.transport.is_closing():
            if self.timeout_keep_alive_task is None:
                self._wait_for_header()
        else:
            self._header_came()

    def _wait_for_header(self) -> None:
        if self._header_timer is None:
            self._header_timer = self.loop.call_later(self.limits.header_seconds, self.transport.abort)

    def _header_came(self) -> None:
        if self._header_timer is not None:
            self._header_timer.cancel()
            self._header_timer = None
