"""Metrics of the process: what it is, what its clients hold, and what it uses of memory and disk."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path

from cryptography import x509
from prometheus_client.core import Metric

from flight_replica.errors import DatabaseLost
from flight_replica.flightsql.stats import ServerStats
from flight_replica.flightsql.tls import ServerTls
from flight_replica.metrics.families import gauge, one
from flight_replica.sql.memory import DatabaseMemory


def build_families(product: str, is_draining: bool) -> Iterator[Metric]:
    yield gauge(
        "build_info",
        "1; the labels say what this is.",
        [((version("flight-replica"), product), 1.0)],
        ("version", "product"),
    )
    yield gauge("draining", "1 while the server is shutting down.", one(float(is_draining)))


def client_families(stats: ServerStats) -> Iterator[Metric]:
    """What clients hold and use now."""
    for name, text, value in (
        ("calls", "Calls under way that are watched.", stats.calls),
        ("follows", "Feeds that are followed from here.", stats.follows),
        ("query_places", "Places under queries_max that are taken.", stats.queries),
        ("planned_statements", "Statements that wait to be fetched, each with a view.", stats.planned),
        ("prepared_statements", "Prepared statements.", stats.prepared),
        ("transactions", "Transactions that are open.", stats.transactions),
        ("transactions_holding", "Transactions with writes or a snapshot.", stats.transactions_holding),
        ("pins", "Views that are pinned, those of transactions too.", stats.pins),
        ("sessions", "Sessions with something set.", stats.sessions),
    ):
        yield gauge(name, text, one(value))


def database_families(read: Callable[[], DatabaseMemory]) -> Iterator[Metric]:
    """DuckDB's memory, as DuckDB counts it. A lost database is 0 and has none."""
    try:
        memory = read()
    except DatabaseLost:
        yield gauge("database_up", "1 while the process's database answers.", one(0.0))
        return
    yield gauge("database_up", "1 while the process's database answers.", one(1.0))
    yield gauge("database_memory_bytes", "Memory that DuckDB uses.", one(memory.used))
    yield gauge("database_memory_limit_bytes", "Memory that DuckDB may use.", one(memory.limit))
    yield gauge("database_spilled_bytes", "What DuckDB keeps in temporary files.", one(memory.spilled))


def disk_families(directory: Path) -> Iterator[Metric]:
    """The file system in which the server keeps its files; none where the folder is gone."""
    try:
        found = os.statvfs(directory)
    except OSError:  # a folder below /tmp that was tidied up; everything else is still to be told
        return
    yield gauge(
        "data_free_bytes", "Free for this user where the files are.", one(found.f_bavail * found.f_frsize)
    )
    yield gauge(
        "data_size_bytes",
        "Size of the file system where the files are.",
        one(found.f_blocks * found.f_frsize),
    )


def certificate_families(tls: ServerTls) -> Iterator[Metric]:
    """The certificate that clients are shown."""
    ends_at = x509.load_pem_x509_certificate(tls.certificate).not_valid_after_utc.timestamp()
    yield gauge("tls_certificate_expiry_timestamp_seconds", "When the certificate ends.", one(ends_at))
