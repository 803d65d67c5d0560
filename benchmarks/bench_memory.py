"""What memory and disk does a replica take, at rest and while ops flow under readers that always overlap?

A replica of a large table follows a feed of 50 000 ops a second. Two clients read the whole table as a
stream, slowly and again and again, so that some view is always open and no checkpoint finds a moment without
readers. A third one asks for a row ten times a second; it tells the longest query, and how late what it is
shown is. Each client is a process, and every answer is compared with what the ops up to its seq make of the
table. The baseline is the file of the fresh native state; since the table grows meanwhile, by a quarter in
ten minutes, what the disk holds is compared with a fresh one of as many rows, and with the one at the start.

Run: python -m benchmarks.bench_memory [--rows N] [--seconds S]
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np
import pyarrow.compute as pc

from benchmarks.counted_feed import CountedFeed, counted_feed
from benchmarks.counted_ops import ONE, WHOLE, CountedOps
from benchmarks.orders_table import SEED
from benchmarks.record import record
from benchmarks.served import LISTEN, Served, iceberg_orders, running
from benchmarks.waiting import WaitingClient
from flight_replica.client import connect, position_of, query

QUESTION = "What memory and disk does a replica take, at rest and under ops and readers that never pause?"
OPS_PER_SECOND = 50_000
LONG_SECONDS = 600.0  # what the target is about; a shorter run is kept beside it
STREAM_SECONDS = 8.0  # that a reader takes for the whole table
PROBES_PER_SECOND = 10
SETTLE_SECONDS = 3.0
MB = 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--seconds", type=float, default=LONG_SECONDS)
    parser.add_argument("--client", nargs=2, metavar=("KIND", "URI"), help="read or probe until stdin ends")
    options = parser.parse_args()
    if options.client:
        kind, uri = options.client
        print(json.dumps({"read": _read_on, "probe": _probe}[kind](uri, options.rows)))
        return
    with ExitStack() as parts:
        folder = Path(parts.enter_context(tempfile.TemporaryDirectory()))
        feed = parts.enter_context(counted_feed(options.rows, iceberg_orders(folder, options.rows)))
        data = folder / "replica"
        followed = ("serve", "--primary", feed.uri, *LISTEN, "--data", str(data))
        replica = parts.enter_context(running(*followed, until="native state built"))
        query(replica.uri, WHOLE)
        time.sleep(SETTLE_SECONDS)  # what was there before the native state goes
        fresh = disk_bytes(data)
        at_rest = _rss(replica)
        feed.flow(OPS_PER_SECOND)
        with _clients(replica.uri, options.rows) as told:
            sizes = list(_watch(feed, replica, data, options.seconds))
        feed.flow(0)
    _record(options, fresh, at_rest, sizes, told)


def disk_bytes(folder: Path) -> int:
    """What all files below `folder` take."""
    found = 0
    for path in folder.rglob("*"):
        try:
            found += path.stat().st_size if path.is_file() else 0
        except FileNotFoundError:  # a state's file that just went
            continue
    return found


def _rss(replica: Served) -> int:
    return sum(replica.memory_bytes.values())


def _watch(feed: CountedFeed, replica: Served, data: Path, seconds: float) -> Iterator[tuple[int, int, int]]:
    """RSS and disk, in bytes, and the rows of the table, each second."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        time.sleep(1.0)
        yield _rss(replica), disk_bytes(data), feed.ops.row_count(feed.seq)


def _record(
    options: argparse.Namespace,
    fresh: int,
    at_rest: int,
    sizes: list[tuple[int, int, int]],
    told: list[dict[str, list[float]]],
) -> None:
    *readers, probe = told
    allowed = 1.5 * fresh + 300 * MB
    memory, disk = [float(rss) for rss, *_ in sizes], [float(size) for _, size, _ in sizes]
    of_as_many_rows = [fresh * rows / options.rows for *_, rows in sizes]
    samples = {
        "fresh native table": [fresh / MB],
        "RSS at rest": [at_rest / MB],
        "RSS while ops flow": [rss / MB for rss in memory],
        "disk while ops flow": [size / MB for size in disk],
        "RSS at rest ÷ allowed": [at_rest / allowed],
        "RSS while ops flow ÷ allowed": [rss / allowed for rss in memory],
        "disk while ops flow ÷ fresh native table of as many rows": [
            size / like for size, like in zip(disk, of_as_many_rows, strict=True)
        ],
        "disk while ops flow ÷ fresh native table at the start": [size / fresh for size in disk],
        "RSS, last quarter ÷ second quarter": [_growth(memory)],
        "disk, last quarter ÷ second quarter": [_growth(disk)],
        "point query": probe["seconds"],
        "age of what is shown": probe["ages"],
        "stream of the whole table": [seconds for reader in readers for seconds in reader["seconds"]],
    }
    units = {
        name: "x" if "÷" in name else "MB" if name.startswith(("fresh", "RSS", "disk")) else "s"
        for name in samples
    }
    data = {
        "rows": options.rows,
        "seconds": options.seconds,
        "ops_per_second": OPS_PER_SECOND,
        "readers": f"2 streams of the whole table, {STREAM_SECONDS:g} s each, and {PROBES_PER_SECOND} point "
        "queries a second",
        "baseline": "the files of the fresh native state; allowed is 1.5 of these and 300 MB",
        "seed": SEED,
    }
    name = "memory" if options.seconds >= LONG_SECONDS else "memory_short"
    record(name, QUESTION, data, samples, units)


def _growth(values: list[float]) -> float:
    """The mean of the last quarter of the time ÷ that of the second one: the first is for warming up."""
    quarter = max(1, len(values) // 4)
    return statistics.fmean(values[-quarter:]) / statistics.fmean(values[quarter : 2 * quarter])


# --- clients, a process each --------------------------------------------------------------------------


@contextmanager
def _clients(uri: str, row_count: int) -> Iterator[list[dict[str, list[float]]]]:
    """Two readers and who probes, while the block runs; then the list has what they tell."""
    told: list[dict[str, list[float]]] = []
    with ExitStack() as started:
        running = []
        for number, kind in enumerate(("read", "read", "probe")):
            command = [sys.executable, "-m", "benchmarks.bench_memory", "--client", kind, uri]
            process = subprocess.Popen(
                [*command, f"--rows={row_count}"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
            )
            started.callback(process.wait)
            started.callback(process.kill)
            running.append(process)
            if number == 0:
                time.sleep(STREAM_SECONDS / 2)  # so that each stream begins in the middle of the other's
        yield told
        for process in running:
            out, _ = process.communicate(timeout=STREAM_SECONDS * 10)
            told.append(json.loads(out))


def _stdin_ended() -> threading.Event:
    """Set once stdin ends."""
    ended = threading.Event()

    def watch() -> None:
        sys.stdin.read()
        ended.set()

    threading.Thread(target=watch, name="stdin", daemon=True).start()
    return ended


def _read_on(uri: str, row_count: int) -> dict[str, list[float]]:
    """Read the whole table at a steady pace, again and again."""
    ended, ops, found = _stdin_ended(), CountedOps(row_count), []
    with connect(uri) as connection, connection.cursor() as cursor:
        while not ended.is_set():
            began = time.monotonic()
            cursor.execute("SELECT * FROM orders")
            reader = cursor.fetch_record_batch()
            seq = int(str(position_of(reader.schema)[0]["visible_seq"]))
            rows = ids = 0
            for batch in reader:
                rows += len(batch)
                ids += pc.sum(batch.column("id")).as_py()
                due = began + rows / row_count * STREAM_SECONDS
                time.sleep(max(0.0, due - time.monotonic()))
            found.append(time.monotonic() - began)
            expected = ops.whole(seq)
            assert [rows] == expected["rows"] and [ids] == expected["ids"], f"{rows} rows, {ids} at seq {seq}"
    return {"seconds": found}


def _probe(uri: str, row_count: int) -> dict[str, list[float]]:
    """Ask for a row now and then: how long it took, and how old what is shown was."""
    ended, ops, random = _stdin_ended(), CountedOps(row_count), np.random.default_rng(SEED)
    seconds, ages, seen = [], [], 0
    with WaitingClient(uri) as client:
        while not ended.wait(1 / PROBES_PER_SECOND):
            key = int(random.integers(0, row_count))
            began = time.monotonic()
            position, planned_us, rows = client.ask(ONE.format(key=key))
            seconds.append(time.monotonic() - began)
            ages.append((planned_us - position.commit_time_us) / 1e6)
            assert position.visible_seq >= seen, f"seq {position.visible_seq} after {seen}"
            assert ops.is_right(key, position.visible_seq, rows.to_pydict()), f"key {key}: {rows.to_pydict()}"
            seen = position.visible_seq
    # In the beginning nothing may have been committed yet, and what is shown is as old as the base.
    return {"seconds": seconds, "ages": ages[PROBES_PER_SECOND:]}


if __name__ == "__main__":
    main()
