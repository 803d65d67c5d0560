"""`Metrics`: everything that one server tells of itself, in the form that Prometheus asks for."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from prometheus_client import ProcessCollector
from prometheus_client.core import Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from flight_replica.flightsql.server import FlightSqlServer
from flight_replica.flightsql.tls import ServerTls
from flight_replica.flightsql.users import User
from flight_replica.metrics.process import (
    build_families,
    certificate_families,
    client_families,
    database_families,
    disk_families,
)
from flight_replica.metrics.queries import QueryMeasures, running_families
from flight_replica.metrics.source import FollowsFeeds, MeasuredService
from flight_replica.metrics.tables import event_families, holding_families, table_families


class Metrics:
    """Of one server. Thread-safe: what is told is collected when it is asked for. Owns what is counted."""

    def __init__(
        self,
        server: FlightSqlServer,
        service: MeasuredService,
        tls: ServerTls | None = None,
        is_draining: Callable[[], bool] = lambda: False,
    ) -> None:
        self.queries = QueryMeasures()
        self.server = server
        self.service = service
        self.tls = tls  # whose certificate is shown; replaced when it is renewed
        self.is_draining = is_draining
        self.process = ProcessCollector(registry=None)
        server.activities.add_observer(self.queries)

    def exposition(self, accept: str, user: User) -> tuple[bytes, str]:
        """One scrape as `accept` wants it, of the tables that the user may read: text and content type."""
        try:
            encode, content_type = choose_encoder(accept)
        except TypeError:  # the library can't compare a version in quotes; everybody reads plain text
            encode, content_type = choose_encoder("")
        return encode(_Scrape(self, user)), content_type


@dataclass(frozen=True, slots=True)
class _Scrape(Collector):
    metrics: Metrics
    user: User

    def collect(self) -> Iterator[Metric]:
        metrics, service = self.metrics, self.metrics.service
        yield from build_families(service.product, metrics.is_draining())
        entries = [entry for entry in service.tables() if entry.name in self.user.read]
        yield from table_families(entries, time.time())
        if isinstance(service, FollowsFeeds):
            measured = [table for table in service.measured() if table.table in self.user.read]
            yield from holding_families(measured)
            yield from event_families(measured)
        yield from metrics.queries.families()
        yield from running_families(metrics.server.activities.running())
        yield from client_families(metrics.server.stats)
        yield from database_families(service.memory)
        yield from disk_families(service.data_directory)
        if metrics.tls is not None:
            yield from certificate_families(metrics.tls)
        yield from metrics.process.collect()
