"""Every metric family of a server, without one that runs."""

from __future__ import annotations

from pathlib import Path

from prometheus_client import Metric, ProcessCollector

from flight_replica.flightsql.stats import ServerStats
from flight_replica.flightsql.tls import ServerTls
from flight_replica.metrics.process import (
    build_families,
    certificate_families,
    client_families,
    database_families,
    disk_families,
)
from flight_replica.metrics.queries import QueryMeasures, running_families
from flight_replica.metrics.tables import event_families, holding_families, table_families
from flight_replica.replica.measures import Holding, MeasuredTable, TableMeasures
from flight_replica.sql.memory import DatabaseMemory
from tests.certificates import Authority
from tests.integration.http.http_service import entry


def every_family(directory: Path) -> list[Metric]:
    """With samples of one table."""
    pair = Authority(directory).signed("server")
    holding = Holding("merge_on_apply", 1, 1, 1, 0, 0, 0.5)
    measured = [MeasuredTable("t", TableMeasures(), True, 0, holding)]
    return [
        *build_families("replica", False),
        *table_families([entry("t")], 0.0),
        *holding_families(measured),
        *event_families(measured),
        *QueryMeasures().families(),
        *running_families([]),
        *client_families(ServerStats(*[0] * 10)),
        *database_families(lambda: DatabaseMemory(1, 0, 2)),
        *disk_families(directory),
        *certificate_families(ServerTls(*pair.texts)),
        *ProcessCollector(registry=None).collect(),
    ]


def every_name(families: list[Metric]) -> dict[str, set[str]]:
    """name of a sample -> its labels."""
    names: dict[str, set[str]] = {}
    for family in families:
        for sample in family.samples:
            names.setdefault(sample.name, set()).update(sample.labels)
    return names
