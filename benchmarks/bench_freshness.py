"""How long after a commit at the primary is it visible to a Flight SQL client of a replica?

Primary, writer and replica are processes of their own; this one is the client. It asks the replica for
its position in a loop, and takes a sample whenever a newer commit shows: the time of the answer minus the
commit's stamp. All are on one machine, so the clocks are one. The loop's own round trip is in the
figure; it is measured beside it, as the baseline.

Run: python -m benchmarks.bench_freshness [--rows N] [--rates 1000,10000] [--seconds S]
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import numpy as np

from benchmarks.record import record
from benchmarks.served import LISTEN, running
from flight_replica._pb import feed_pb2
from flight_replica.client import connect, query
from flight_replica.demo_orders import CREATE, orders
from flight_replica.log.feed_client import Endpoint, FeedClient

QUESTION = "How long after a commit at the primary is it visible to a Flight SQL client of a replica?"
SQL = "SELECT id FROM orders LIMIT 0"
WARM_SECONDS = 3.0
INGEST_ROWS = 250_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--rates", default="1000,10000", help="ops a second, one run each")
    parser.add_argument("--seconds", type=float, default=20.0)
    options = parser.parse_args()
    samples: dict[str, list[float]] = {}
    for rate in map(int, options.rates.split(",")):
        fresh, trips = _measure(options.rows, rate, options.seconds)
        samples[f"{rate} ops/s: commit to visible"] = fresh
        samples[f"{rate} ops/s: round trip"] = trips
    record(
        "freshness",
        QUESTION,
        {
            "rows": options.rows,
            "seconds": options.seconds,
            "writer": "flight_replica.demo_writer: two commits per step, ten steps a second",
            "baseline": "the round trip of the query that shows it",
        },
        samples,
        dict.fromkeys(samples, "s"),
    )
    for series, values in samples.items():
        p50, p99 = statistics.median(values), float(np.quantile(values, 0.99))
        print(f"  {series}: p50 {p50 * 1000:.1f} ms, p99 {p99 * 1000:.1f} ms, {len(values)} samples")


def _measure(row_count: int, rate: int, seconds: float) -> tuple[list[float], list[float]]:
    with ExitStack() as parts:
        folder = parts.enter_context(tempfile.TemporaryDirectory())
        primary = parts.enter_context(running("primary", "--data", f"{folder}/primary", *LISTEN)).uri
        _fill(primary, row_count)
        replica = parts.enter_context(running("serve", "--primary", primary, *LISTEN)).uri
        _until_served(replica, row_count)
        parts.enter_context(_writer(primary, row_count, rate))
        return _sample(replica, seconds)


def _sample(replica: str, seconds: float) -> tuple[list[float], list[float]]:
    """Freshness of each commit seen to appear, and the round trips, in seconds."""
    fresh: list[float] = []
    trips: list[float] = []
    seen = 0
    began = time.monotonic()
    with FeedClient(Endpoint(replica)) as client:
        while (now := time.monotonic()) < began + WARM_SECONDS + seconds:
            info = client.plan(SQL)
            client.open(info).read_all()
            answered_us, trip = time.time_ns() // 1000, time.monotonic() - now
            at = feed_pb2.Positions.FromString(info.app_metadata).tables[0]
            if at.visible_seq > seen and seen and now > began + WARM_SECONDS:
                fresh.append((answered_us - at.commit_time_us) / 1e6)
                trips.append(trip)
            seen = at.visible_seq
    return fresh, trips


@contextmanager
def _writer(primary: str, row_count: int, rate: int) -> Iterator[None]:
    """The demo's writer at work while the block runs."""
    options = (f"--rows={row_count}", f"--rate={rate}")
    process = subprocess.Popen([sys.executable, "-m", "flight_replica", "demo-writer", primary, *options])
    try:
        yield
    finally:
        process.terminate()
        process.wait()


def _fill(primary: str, row_count: int) -> None:
    random = np.random.default_rng(0)
    with connect(primary) as connection, connection.cursor() as cursor:
        cursor.execute(CREATE)
        cursor.fetchall()
        for first in range(0, row_count, INGEST_ROWS):
            rows = orders(np.arange(first, min(first + INGEST_ROWS, row_count)), random)
            cursor.adbc_ingest("orders", rows, mode="append")


def _until_served(replica: str, row_count: int) -> None:
    deadline = time.monotonic() + 60
    while "serving" not in _states(replica) and time.monotonic() < deadline:
        time.sleep(0.1)
    count = query(replica, "SELECT count(*) FROM orders").column(0)[0].as_py()
    assert count == row_count, f"the replica has {count} rows of {row_count}"


def _states(replica: str) -> list[str]:
    states: list[str] = query(replica, "SELECT state FROM merutable_status()").column(0).to_pylist()
    return states


if __name__ == "__main__":
    main()
