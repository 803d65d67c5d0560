"""The HTTP port of a server process: probes, metrics and the page, beside the Flight port."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from flight_replica.access import ServerAccess
    from flight_replica.config import ServerConfig
    from flight_replica.control.control import Control
    from flight_replica.flightsql.server import FlightSqlServer
    from flight_replica.flightsql.tls import ServerTls
    from flight_replica.http.server import HttpServer
    from flight_replica.listening import ClosableService
    from flight_replica.reloading import Reloading


def open_http(
    closing: ExitStack,
    server: FlightSqlServer,
    service: ClosableService,
    control: Control,
    config: ServerConfig,
    access: ServerAccess,
    reloading: Reloading,
) -> HttpServer | None:
    """The port as it is configured, until `closing` ends; None where none is.

    Raises `ConfigError` when the address can't be used.
    """
    if config.http.listen is None:
        return None
    from flight_replica.flightsql.auth import OpenLogins
    from flight_replica.http.metrics import metrics_routes
    from flight_replica.http.page.page import Page
    from flight_replica.http.page.snippets import Address
    from flight_replica.http.server import HttpServer
    from flight_replica.metrics.metrics import Metrics

    metrics = Metrics(server, service, access.tls, lambda: control.is_draining)
    flight = Address(
        config.listen[0],
        server.port,
        is_tls=access.tls is not None,
        is_login_needed=not isinstance(access.logins, OpenLogins),
    )
    page = Page(control, server.reads, flight)
    closing.callback(page.close)
    http = HttpServer(
        service,
        service.check,
        *config.http.listen,
        logins=access.logins,
        tls=access.tls,
        hosts=config.http.hosts,
        routes=[*metrics_routes(metrics), *page.routes],
    )
    closing.callback(http.close)

    def renew(tls: ServerTls) -> None:
        http.renew(tls)
        metrics.tls = tls

    reloading.on_tls(renew)
    return http
