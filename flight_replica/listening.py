"""A server process of any kind: where it listens, how long it serves, how it ends."""

from __future__ import annotations

import gc
import logging
import os
import sys
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING, NoReturn, Protocol

from flight_replica.admin_port import open_admin
from flight_replica.errors import ConfigError, DatabaseLost
from flight_replica.http_port import open_http
from flight_replica.stopping import HangUps, StopSignal, end_at_once
from flight_replica.systemd import Systemd

if TYPE_CHECKING:
    from flight_replica.access import ServerAccess
    from flight_replica.config import Loaded, ServerConfig
    from flight_replica.control.steering import Steering
    from flight_replica.flightsql.server import FlightSqlServer
    from flight_replica.metrics.source import MeasuredService
    from flight_replica.tracing.exporter import Tracing

    class ClosableService(MeasuredService, Protocol):
        def check(self) -> None:
            """Raise `DatabaseLost` when no statement can be answered any more."""
            ...

        def close(self) -> None: ...


logger = logging.getLogger(__name__)

DRAIN_TICK_SECONDS = 0.02


def serve_until_signal(
    service: ClosableService,
    loaded: Loaded[ServerConfig],
    access: ServerAccess,
    hang_ups: HangUps,
    steering: Steering | None = None,
) -> int:
    """Serve until SIGTERM or SIGINT, then end every stream and close the service; the exit code.

    At SIGHUP it takes a changed configuration. What is beside the Flight port, by its section, starts and
    ends here. `steering`: what an operator can do with the tables.
    """
    from flight_replica.control.control import Control
    from flight_replica.control.slow_queries import SLOW_SECONDS
    from flight_replica.flightsql.port import in_uri
    from flight_replica.flightsql.server import FlightSqlServer
    from flight_replica.logs.query_text import QueryText
    from flight_replica.logs.slow_queries import SlowQueryLog
    from flight_replica.reloading import Reloading
    from flight_replica.tracing.starting import start_tracing

    config = loaded.config
    address = config.listen
    stop = StopSignal(end_at_once)
    hang_ups.wake = stop.wake
    systemd = Systemd()
    with ExitStack() as closing:
        closing.callback(service.close)
        tracing = start_tracing(config.tracing.endpoint, QueryText(config.log.query_text))
        if tracing is not None:
            closing.callback(tracing.close)
        _check_listen(address)
        server = FlightSqlServer(service, *address, access.limits, logins=access.logins, tls=access.tls)
        closing.callback(server.close)
        control = Control(server, service, steering)
        uri = f"{access.scheme}://{in_uri(address[0])}:{server.port}"
        control.serves("flight", uri)
        reloading = Reloading(loaded, access, server)
        http = open_http(closing, server, service, control, config, access, reloading)
        slow_queries = SlowQueryLog(config.log.slow_query_ms, QueryText(config.log.query_text))
        server.activities.add_observer(slow_queries)

        def use_log(newer: ServerConfig) -> None:
            """What SIGHUP may change about slow queries and the text of all."""
            control.slow.slow_seconds = newer.log.slow_query_ms / 1000 or SLOW_SECONDS  # 0: none is logged
            slow_queries.slow_query_ms = newer.log.slow_query_ms
            slow_queries.query_text = QueryText(newer.log.query_text)
            if tracing is not None:
                tracing.queries.query_text = slow_queries.query_text

        use_log(config)
        reloading.on_config(use_log)
        if tracing is not None:
            _trace(tracing, server, service)
        admin = open_admin(closing, control, config, access, reloading)
        print(f"listening on {uri}", flush=True)
        if http is not None:
            control.serves("http", http.url)
            print(f"http on {http.url}", flush=True)
        if admin is not None:
            print(f"admin on {admin.uri}", flush=True)
        systemd.ready(f"serving on port {server.port}")
        # What there is now stays: a full look at it for garbage would hold everybody up for 60 ms.
        gc.freeze()
        while not stop.wait(1.0):
            if hang_ups.take():
                reloading.reload()
            _end_if_lost(service)
            systemd.alive()
        systemd.stopping("draining")
        control.begin_draining()
        if http is not None:
            http.drain()
        _drain(server, config.lifecycle.drain_seconds)
    if server.has_open_calls:
        _end_now(0)  # pyarrow would wait for them
    return 0


def _trace(tracing: Tracing, server: FlightSqlServer, service: ClosableService) -> None:
    from flight_replica.replica.service import ReplicaService

    server.activities.add_observer(tracing.queries)
    if isinstance(service, ReplicaService):
        service.observe_applied(tracing.applies)


def _drain(server: FlightSqlServer, seconds: float) -> None:
    """Let no more calls in, and those that are under way come to their end, for so long."""
    logger.info("draining seconds=%g calls=%d", seconds, server.stats.calls)
    server.drain()
    deadline = time.monotonic() + seconds
    while not server.is_idle and time.monotonic() < deadline:
        time.sleep(DRAIN_TICK_SECONDS)
    left = server.stats.calls
    if left:
        logger.warning("drain over, calls are ended seconds=%g calls=%d", seconds, left)
    else:
        logger.info("drained")


def _end_if_lost(service: ClosableService) -> None:
    """End the process when its database is lost: only a new process mends that, and nothing is unsaved."""
    try:
        service.check()
    except DatabaseLost as error:
        logger.error("database lost error=%s", error)
        print(f"flight-replica: {error}", file=sys.stderr, flush=True)
        _end_now(1)  # to close things in order needs the database


def _end_now(code: int) -> NoReturn:
    """End the process without what Python does at its end."""
    logging.shutdown()
    sys.stdout.flush()
    os._exit(code)


def _check_listen(address: tuple[str, int]) -> None:
    """Raise `ConfigError` where the address can't be listened on: the Flight server doesn't say why."""
    from flight_replica.flightsql.port import check_free

    host, port = address
    try:
        check_free(address)
    except OSError as error:
        raise ConfigError(f"--listen {host}:{port}: {error.strerror or error}") from error
