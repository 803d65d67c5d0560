"""What is aimed at, and which series of which results file tells how far it is reached."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

Document = Mapping[str, Any]  # a results file, see record.py
Measure = Callable[[Document], float]


@dataclass(frozen=True, slots=True)
class Target:
    """One figure that is aimed at: at most `bound`, or at least where `is_floor`."""

    what: str
    file: str  # of benchmarks/results, without .json
    measure: Measure
    bound: float
    unit: str = "x"
    is_floor: bool = False

    def is_reached(self, value: float) -> bool:
        return value >= self.bound if self.is_floor else value <= self.bound


def median(series: str, scale: float = 1.0) -> Measure:
    return lambda document: statistics.median(document["samples"][series]) * scale


def p99(series: str, scale: float = 1.0) -> Measure:
    return lambda document: float(np.quantile(document["samples"][series], 0.99)) * scale


def ratio(series: str, baseline: str) -> Measure:
    """Of medians."""
    return lambda document: median(series)(document) / median(baseline)(document)


def _scan(query: str, kind: str, ops: int) -> Measure:
    return ratio(f"{query}, {ops} ops: {kind}", f"{query}, {ops} ops: pure scan")


def _rebuilt_to_fresh(document: Document) -> float:
    """The median over the queries of: rebuilt after 1 M ops ÷ freshly loaded."""
    queries = ("count", "sum", "group by", "1 % range", "point", "rows out")
    fresh, rebuilt = "{}, 0 ops: merge on apply", "{}, 1000000 ops: merge on apply, rebuilt"
    return statistics.median(ratio(rebuilt.format(q), fresh.format(q))(document) for q in queries)


def largest(series: str, scale: float = 1.0) -> Measure:
    return lambda document: max(document["samples"][series]) * scale


def _merge_on_read_growth(document: Document) -> float:
    """The worst query of merge on read after 1 M ops ÷ the same after 10 k ops."""
    many, few = "{}, 1000000 ops: merge on read", "{}, 10000 ops: merge on read"
    return max(ratio(many.format(q), few.format(q))(document) for q in _APPLIED if q != "count")


def _p99_beside_swaps(document: Document) -> float:
    """By how many ms the p99 of queries is larger while a state is swapped."""
    during, otherwise = p99("query while a state is swapped", _MS), p99("query otherwise", _MS)
    return during(document) - otherwise(document)


def _cost_by_ops_applied(document: Document) -> float:
    """The processor's time per op, the later bursts ÷ the earlier ones, at the worst size of the table."""
    return max(median(f"{size}: {_LATER_TO_FIRST}")(document) for size in _SIZES)


def _worst(document: Document, peer: str) -> float:
    """The largest ratio of all queries that the peer could run."""
    ratios = [name for name in document["samples"] if name.endswith(f"÷ {peer}")]
    return max(median(name)(document) for name in ratios)


_APPLIED = {"sum": 0.5, "group by": 0.7, "1 % range": 0.4, "point": 0.25, "rows out": 0.7, "count": 1.5}
_LATER_TO_FIRST = "processor until idle, later half ÷ first half"
_SIZES = ("1 M rows", "10 M rows", "50 M rows")
_MS = 1000.0
_FRESHNESS = (  # where the primary's data lie, and from when on time counts
    ("on disk", "commit's stamp to visible"),
    ("on disk", "acknowledged to visible"),
    ("in memory", "commit's stamp to visible"),
    ("in memory", "commit's stamp to the row in hand"),
    ("in memory", "commit's stamp to the op at a follower"),
)

TARGETS = (
    *(
        Target(
            f"{query} with 1 M applied ops ÷ pure Parquet scan",
            "scan",
            _scan(query, "merge on apply", 1_000_000),
            bound,
        )
        for query, bound in _APPLIED.items()
    ),
    *(
        Target(
            f"{query} on merge on read, 1 M ops ÷ pure Parquet scan",
            "scan",
            _scan(query, "merge on read", 1_000_000),
            1.6,
        )
        for query in _APPLIED
    ),
    Target("merge on read, worst query, after 1 M ops ÷ after 10 k ops", "scan", _merge_on_read_growth, 1.25),
    Target("rebuilt after 1 M ops ÷ freshly loaded, median of the queries", "scan", _rebuilt_to_fresh, 1.15),
    Target("sum while 10 k ops/s flow ÷ pure scan", "flow", median("sum: while ops flow ÷ pure scan"), 1.0),
    Target(
        "group by while 10 k ops/s flow ÷ pure scan",
        "flow",
        median("group by: while ops flow ÷ pure scan"),
        1.0,
    ),
    Target("apply, alone", "flow", median("apply alone", 1e-6), 1.5, "M ops/s", is_floor=True),
    Target(
        "apply while one client scans",
        "flow",
        median("apply while one client scans", 1e-6),
        1.0,
        "M ops/s",
        is_floor=True,
    ),
    Target(
        "catch-up of 5 M ops, native state of 10 M rows",
        "catch_up",
        median("with a base", 1e-6),
        2.0,
        "M ops/s",
        is_floor=True,
    ),
    Target(
        "catch-up of 5 M ops, from nothing",
        "catch_up",
        median("without a base", 1e-6),
        2.0,
        "M ops/s",
        is_floor=True,
    ),
    *(
        Target(
            f"{name}, {rate // 1000} k ops/s, {kind}, primary {where}",
            "freshness",
            measure(f"{where}, {rate} ops/s: {name}", _MS),
            bound,
            "ms",
        )
        for where, name in _FRESHNESS
        for rate, kind, measure, bound in (
            (1_000, "p50", median, 3),
            (10_000, "p50", median, 5),
            (10_000, "p99", p99, 25),
        )
    ),
    Target("restart after kill -9, to the first right answer", "restart", median("kept"), 2, "s"),
    Target("ops read twice after kill -9", "restart", largest("ops read again"), 0, "ops"),
    Target(
        "apply of 10 000 ops, (string, int64) key ÷ int64 key",
        "native_keys",
        median("(string, int64): apply of 10000 ÷ int64"),
        2,
    ),
    Target(
        "scan, (string, int64) key ÷ int64 key", "native_keys", median("(string, int64): scan ÷ int64"), 1.1
    ),
    Target("native load of 10 M rows", "load", median("native load"), 4, "s"),
    Target("first answer once the base is known", "load", median("first answer"), 1, "s"),
    Target("point get in process, recent key, p50", "point_get", median("recent key"), 50, "µs"),
    Target("point get in process, any key, p50", "point_get", median("any key"), 600, "µs"),
    Target("point get through ADBC, p50", "small_queries", median("1 clients: latency", _MS), 2, "ms"),
    Target(
        "requests a second, 8 clients ÷ 1",
        "small_queries",
        median("8 clients ÷ 1 client: requests a second"),
        1.2,
        is_floor=True,
    ),
    Target("8 clients, p99 ÷ p50", "small_queries", median("8 clients: p99 ÷ p50"), 10),
    Target("hot swaps under 8 clients and 50 k ops/s", "swaps", median("swaps"), 200, "swaps", is_floor=True),
    *(
        Target(f"hot swaps: {name}", "swaps", median(name), 0, "")
        for name in ("failures", "wrong answers", "answers at a lower seq than before")
    ),
    Target("hot swaps: p99 of queries meanwhile − p99 otherwise", "swaps", _p99_beside_swaps, 10, "ms"),
    Target("RSS at rest ÷ (1.5 native tables + 300 MB)", "memory", median("RSS at rest ÷ allowed"), 1),
    Target(
        "RSS at 50 k ops/s, last quarter of 10 minutes ÷ second one",
        "memory",
        median("RSS, last quarter ÷ second quarter"),
        1.1,
    ),
    Target(
        "disk at 50 k ops/s, last quarter of 10 minutes ÷ second one",
        "memory",
        median("disk, last quarter ÷ second quarter"),
        1.1,
    ),
    Target(
        "most disk at 50 k ops/s ÷ fresh native table of as many rows",
        "memory",
        largest("disk while ops flow ÷ fresh native table of as many rows"),
        3,
    ),
    Target(
        "longest point query at 50 k ops/s, overlapping readers", "memory", largest("point query"), 1, "s"
    ),
    Target(
        "oldest rows shown at 50 k ops/s, overlapping readers",
        "memory",
        largest("age of what is shown"),
        1,
        "s",
    ),
    Target(
        "processor per op, builds included, later half of the ops ÷ first half, worst size",
        "growth",
        _cost_by_ops_applied,
        1.2,
    ),
    Target(
        "small query with metrics and page ÷ without",
        "metrics_cost",
        median("with ÷ without: median latency"),
        1.03,
    ),
    Target(
        "SELECT * through ADBC ÷ prebuilt batches",
        "export",
        median("replica ÷ prebuilt batches"),
        0.9,
        is_floor=True,
    ),
    Target("slowest query ÷ Sail", "peers", lambda document: _worst(document, "sail"), 1.0),
    Target("slowest query ÷ ROAPI", "peers", lambda document: _worst(document, "roapi"), 1.0),
    Target("a base over Flight ÷ an ADBC fetch", "flight_base", median("ratio"), 3),
)
