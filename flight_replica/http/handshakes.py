"""`Handshakes`: TLS handshakes of the HTTP port, bounded in number and time.

asyncio tells a protocol of a connection only when its handshake is done, and waits a minute for that; who
says nothing would hold as many as he likes. So connections are taken plain, counted, and then encrypted.
"""

from __future__ import annotations

import asyncio
import ssl

from flight_replica.http.connections import BoundedConnection


class Handshakes:
    """Of one server; makes the protocol of each connection. Used on the loop's thread alone."""

    def __init__(self, connection: type[BoundedConnection], tls: ssl.SSLContext) -> None:
        """`connection`: what a connection is once its handshake is done, with its limits."""
        self._connection = connection
        self._tls = tls
        self._under_way: set[asyncio.Task[None]] = set()

    def __call__(self, **given: object) -> asyncio.Protocol:
        """A connection that has just come; `given` is what uvicorn makes one with."""
        return _Encrypting(self, self._connection(**given))  # type: ignore[arg-type]

    def begin(self, transport: asyncio.Transport, first: _Encrypting, then: BoundedConnection) -> None:
        """Encrypt the connection and give it from `first` to `then`; close it if there are too many."""
        if len(self._under_way) + len(then.connections) >= then.limits.connections_max:
            transport.abort()
            return
        transport.pause_reading()  # what comes now is the handshake's
        task = then.loop.create_task(self._encrypt(transport, first, then))
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)

    async def _encrypt(
        self, transport: asyncio.Transport, first: _Encrypting, then: BoundedConnection
    ) -> None:
        try:
            encrypted = await then.loop.start_tls(
                transport,
                first,
                self._tls,
                server_side=True,
                ssl_handshake_timeout=then.limits.header_seconds,
            )
        except OSError:  # no TLS, no right certificate, or nothing at all: it is closed by now
            return
        if encrypted is None or encrypted.is_closing():  # the client went as soon as it had come
            return
        encrypted.set_protocol(then)
        then.connection_made(encrypted)
        if first.early:
            then.data_received(bytes(first.early))


class _Encrypting(asyncio.Protocol):
    """A connection until its handshake is done.

    `early`: what the client sent with the end of its handshake, before the connection was given on.
    """

    def __init__(self, handshakes: Handshakes, then: BoundedConnection) -> None:
        self.early = bytearray()
        self._handshakes = handshakes
        self._then = then

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self._handshakes.begin(transport, self, self._then)

    def data_received(self, data: bytes) -> None:
        self.early += data
