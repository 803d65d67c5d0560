"""`QueryMeasures`: the statements of a server that have ended, by what they were and how they ended."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import product

from prometheus_client.core import Metric

from flight_replica.distribution import BYTES, COUNTS, SECONDS, Distribution
from flight_replica.flightsql.observing import Outcome, Phase, QueryKind, QueryRecord, RunningQuery
from flight_replica.metrics.families import counter, gauge, histogram, one

_PHASES = ("plan", "wait", "execute", "stream")
# A feed that is followed has no time of its own: it ends when its reader does.
_TIMED = tuple(kind for kind in QueryKind if kind is not QueryKind.FOLLOW)


class QueryMeasures:
    """A `QueryObserver`: give it to `FlightSqlServer.activities`. Thread-safe; it costs some microseconds."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._ended: Counter[tuple[QueryKind, Outcome]] = Counter()
        self._seconds = {kind: Distribution(SECONDS) for kind in _TIMED}
        self._phase_seconds = {phase: Distribution(SECONDS) for phase in _PHASES}
        self._rows = {kind: Distribution(COUNTS) for kind in QueryKind}
        self._bytes = {kind: Distribution(BYTES) for kind in QueryKind}
        self._lag_seconds = Distribution(SECONDS)

    def query_ended(self, record: QueryRecord) -> None:
        with self._lock:
            self._ended[record.kind, record.outcome] += 1
        self._rows[record.kind].observe(record.rows)
        self._bytes[record.kind].observe(record.bytes)
        if record.kind is QueryKind.FOLLOW:
            return
        self._seconds[record.kind].observe(record.seconds)
        phases = self._phase_seconds
        phases["plan"].observe(record.plan_seconds)
        phases["wait"].observe(record.wait_seconds)
        phases["execute"].observe(record.execute_seconds)
        phases["stream"].observe(record.stream_seconds)
        if record.lag_us >= 0:
            self._lag_seconds.observe(record.lag_us / 1e6)

    def families(self) -> Iterator[Metric]:
        with self._lock:
            ended = dict(self._ended)
        yield counter(
            "queries",
            "Statements that have ended.",
            [((kind, how), ended.get((kind, how), 0)) for kind, how in product(QueryKind, Outcome)],
            ("kind", "outcome"),
        )
        for name, text, measured in (
            ("query_seconds", "From a statement's first call to its end.", self._seconds),
            ("query_rows", "Rows that a statement has sent or changed.", self._rows),
            ("query_bytes", "Arrow bytes that a statement has sent.", self._bytes),
        ):
            readings = [((kind,), found.read()) for kind, found in measured.items()]
            yield histogram(name, text, readings, ("kind",))
        yield histogram(
            "query_phase_seconds",
            "What a statement spent planned, waiting, executing, and streaming to its client.",
            [((phase,), found.read()) for phase, found in self._phase_seconds.items()],
            ("phase",),
        )
        yield histogram(
            "query_lag_seconds",
            "How old the tables that a statement read were proven to be at most.",
            [((), self._lag_seconds.read())],
        )


def running_families(running: Sequence[RunningQuery]) -> Iterator[Metric]:
    """The statements under way, without feeds that are followed."""
    found = [query for query in running if query.kind is not QueryKind.FOLLOW]
    count = Counter(query.phase for query in found)
    yield gauge(
        "queries_running",
        "Statements under way, by where they are.",
        [((phase,), count[phase]) for phase in Phase],
        ("phase",),
    )
    oldest = max((query.seconds for query in found), default=0.0)
    yield gauge("query_oldest_seconds", "How long the oldest statement runs that is under way.", one(oldest))
