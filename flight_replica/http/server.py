"""`HttpServer`: the HTTP side port of a server process, in a thread of its own.

What passes: guard.py, connections.py, handshakes.py. Who asks: visitors.py, login.py. What is answered:
probes.py, and the routes that its owner gives.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import ssl
import threading
from collections.abc import Callable, Sequence

import uvicorn
from starlette.applications import Starlette
from starlette.routing import BaseRoute

from flight_replica.errors import ConfigError, ReplicaError
from flight_replica.flightsql.auth import Logins, OpenLogins
from flight_replica.flightsql.port import in_uri
from flight_replica.flightsql.service import Service
from flight_replica.flightsql.tls import ServerTls
from flight_replica.http.connections import BoundedConnection
from flight_replica.http.guard import Guard
from flight_replica.http.handshakes import Handshakes
from flight_replica.http.hosts import Hosts
from flight_replica.http.limits import DEFAULT_HTTP_LIMITS, HttpLimits
from flight_replica.http.login import login_routes
from flight_replica.http.probes import probe_routes
from flight_replica.http.replies import failed, failed_unexpectedly
from flight_replica.http.site import Site
from flight_replica.http.streams import Streams
from flight_replica.http.tls import http_context, load_certificate
from flight_replica.http.visitors import Visitors

_log = logging.getLogger(__name__)

CLOSE_SECONDS = 5  # how long `close` waits for requests under way
_BACKLOG = 128


class HttpServer:
    """Serves from creation to `close`. Owns the thread `http`, not the service."""

    def __init__(
        self,
        service: Service,
        check: Callable[[], None],
        host: str,
        port: int,
        *,
        logins: Logins | None = None,
        tls: ServerTls | None = None,
        limits: HttpLimits = DEFAULT_HTTP_LIMITS,
        hosts: Sequence[str] = (),
        routes: Sequence[BaseRoute] = (),
    ) -> None:
        """`check` raises where the process's database is lost. `port` 0: a free one, see `.port`.

        `hosts`: names that lead here, besides the host's own. `routes`: what is served besides probes and
        login. Raises `ConfigError` when the address can't be used.
        """
        self._socket = _listening(host, port)
        self.port: int = self._socket.getsockname()[1]
        self._scheme, self._host = "https" if tls else "http", host
        self._tls = http_context(tls) if tls is not None else None
        self.site = Site(
            service, check, Visitors(logins or OpenLogins(), limits), Streams(limits.streams_max)
        )
        app = Starlette(
            routes=[*probe_routes(), *login_routes(), *routes],
            exception_handlers={ReplicaError: failed, Exception: failed_unexpectedly},
        )
        app.state.site = self.site
        self._server = _Server(_config(Guard(app, Hosts(host, hosts), limits), limits, self._tls))
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread = threading.Thread(target=self._run, name="http", daemon=True)
        self._thread.start()
        self._server.is_up.wait()

    @property
    def url(self) -> str:
        return f"{self._scheme}://{in_uri(self._host)}:{self.port}"

    @property
    def connections(self) -> int:
        """Open connections."""
        return len(self._server.server_state.connections)

    def renew(self, tls: ServerTls) -> None:
        """Show a renewed certificate to those who connect from now on; connections that are open stay."""
        assert self._tls is not None, "a certificate for a server without TLS"
        load_certificate(self._tls, tls)

    def drain(self) -> None:
        """Be ready no longer: `/readyz` says so, everything else goes on."""
        self.site.is_draining = True

    def close(self) -> None:
        """End every stream, let requests that are under way end, then the thread. Idempotent."""
        self.drain()
        if self._loop is not None and self._thread.is_alive():
            self._loop.call_soon_threadsafe(self.site.streams.close)
        self._server.should_exit = True
        self._thread.join()
        self._socket.close()

    def _run(self) -> None:
        try:
            asyncio.run(self._serve())
        except Exception:
            _log.exception("http server failed")
        finally:
            self._server.is_up.set()

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        await self._server.serve([self._socket])


class _Server(uvicorn.Server):
    """Tells when it listens."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.is_up = threading.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.is_up.set()


def _config(app: Guard, limits: HttpLimits, tls: ssl.SSLContext | None) -> uvicorn.Config:
    connection = BoundedConnection.under(limits)
    return uvicorn.Config(
        app,
        http=connection if tls is None else Handshakes(connection, tls),  # type: ignore[arg-type]
        ws="none",
        loop="asyncio",
        lifespan="off",
        log_config=None,
        log_level="warning",
        access_log=False,
        proxy_headers=False,  # whoever connects could say that he is somebody else
        server_header=False,
        timeout_keep_alive=limits.idle_seconds,
        timeout_graceful_shutdown=CLOSE_SECONDS,
        h11_max_incomplete_event_size=limits.header_bytes_max,
    )


def _listening(host: str, port: int) -> socket.socket:
    """A socket that listens there. Raises `ConfigError` with the reason why none can."""
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, port), family=family, backlog=_BACKLOG)
    except socket.gaierror as error:
        raise ConfigError(f"--http-listen {host}:{port}: {error.strerror}") from error
    except OSError as error:  # whose own text says the address once more
        reason = os.strerror(error.errno) if error.errno else str(error)
        raise ConfigError(f"--http-listen {host}:{port}: {reason}") from error
