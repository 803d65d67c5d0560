"""What do the HTTP port, metrics that are scraped and a page that is open cost a small query?

Two replicas of the same table serve side by side, each in a process of its own: one as it is, one with its
HTTP port, from which `/metrics` is read each second (15 is usual) while a page's event stream is open. One
client asks both in turns, so that whatever else the machine does strikes both.

Run: python -m benchmarks.bench_metrics_cost [--rows N] [--repetitions N] [--queries N]
"""

from __future__ import annotations

import argparse
import socket
import statistics
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.orders_table import SEED
from benchmarks.record import record
from benchmarks.served import LISTEN, iceberg_orders, running
from flight_replica.client import connect

QUESTION = "What do metrics that are scraped and a page that is open cost a small query?"
SCRAPE_SECONDS = 1.0
WARM_UP = 200  # queries at each server before anything is measured


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--repetitions", type=int, default=20)
    parser.add_argument("--queries", type=int, default=200, help="at each server in one repetition")
    options = parser.parse_args()
    samples: dict[str, list[float]] = {"without: latency": [], "with: latency": [], "scrape": []}
    ratios: list[float] = []
    with tempfile.TemporaryDirectory() as folder, ExitStack() as closing:
        metadata = iceberg_orders(Path(folder), options.rows)
        stated = [f"--base=orders=iceberg:{metadata}", "--key=orders=id", f"--base-seq=orders={options.rows}"]
        http = f"127.0.0.1:{_free_port()}"
        plain = closing.enter_context(running("serve", *LISTEN, *stated, until="native state built"))
        told = closing.enter_context(
            running("serve", *LISTEN, *stated, "--http-listen", http, until="native state built")
        )
        without, with_metrics = (closing.enter_context(_asking(at.uri)) for at in (plain, told))
        closing.enter_context(_looked_at(http, samples["scrape"]))
        random = np.random.default_rng(SEED)
        for cursor in (without, with_metrics):
            _ask(cursor, random.integers(0, options.rows, WARM_UP))
        for _ in range(options.repetitions):
            one, other = [], []
            for key in random.integers(0, options.rows, options.queries):
                one += _ask(without, [key])
                other += _ask(with_metrics, [key])
            samples["without: latency"] += one
            samples["with: latency"] += other
            ratios.append(statistics.median(other) / statistics.median(one))
    samples["with ÷ without: median latency of a repetition"] = ratios
    every = [statistics.median(samples[f"{side}: latency"]) for side in ("with", "without")]
    samples["with ÷ without: median latency"] = [every[0] / every[1]]
    units = {name: "x" if "÷" in name else "s" for name in samples}
    record(
        "metrics_cost",
        QUESTION,
        {
            "rows": options.rows,
            "query": "SELECT * FROM orders WHERE id = N",
            "baseline": "a server without HTTP port, asked in turns with the other, query by query",
            "repetitions": options.repetitions,
            "queries": options.queries,
            "scrape_seconds": SCRAPE_SECONDS,
            "pages_open": 1,
        },
        samples,
        units,
    )


def _ask(cursor: Any, keys: Any) -> list[float]:
    """The latency of each query, in seconds."""
    found = []
    for key in keys:
        began = time.perf_counter()
        cursor.execute(f"SELECT * FROM orders WHERE id = {key}")
        rows = cursor.fetch_arrow_table()
        found.append(time.perf_counter() - began)
        assert rows["id"].to_pylist() == [key], f"asked for {key}, got {rows['id']}"
    return found


@contextmanager
def _asking(uri: str) -> Iterator[Any]:
    with connect(uri) as connection, connection.cursor() as cursor:
        yield cursor


@contextmanager
def _looked_at(http: str, scrapes: list[float]) -> Iterator[None]:
    """Metrics are read and a page is open while the block runs; `scrapes` gets the seconds of each."""
    is_over = threading.Event()

    def scrape() -> None:
        while not is_over.wait(SCRAPE_SECONDS):
            began = time.perf_counter()
            with urllib.request.urlopen(f"http://{http}/metrics", timeout=60) as answer:
                answer.read()
            scrapes.append(time.perf_counter() - began)

    def look() -> None:
        with urllib.request.urlopen(f"http://{http}/api/live", timeout=60) as events:
            while not is_over.is_set():
                events.readline()

    threads = [threading.Thread(target=work, name=work.__name__) for work in (scrape, look)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        is_over.set()
        for thread in threads:
            thread.join()


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as found:
        port: int = found.getsockname()[1]
        return port


if __name__ == "__main__":
    main()
