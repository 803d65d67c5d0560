"""How long after kill -9 does a replica give its first right answer, and what does it read again?

A replica with a data folder has applied a tenth as many ops as the table has rows to its native state, and
is killed. While it is down the feed goes on by a few ops. The time runs from the start of the process to the
first answer, which has to be what the ops make of the whole table, the new ones included. What lies between
the seq that the process goes on from and the one that the killed process had answered at is read again. The
baseline is a replica that starts with an empty folder.

Run: python -m benchmarks.bench_restart [--rows N] [--repetitions N]
"""

from __future__ import annotations

import argparse
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from benchmarks.bench_catch_up import catch_up
from benchmarks.counted_feed import CountedFeed, counted_feed
from benchmarks.counted_ops import WHOLE
from benchmarks.orders_table import SEED
from benchmarks.record import record
from benchmarks.served import LISTEN, Served, iceberg_orders, running, until
from flight_replica.client import position_of, query

QUESTION = "How long after kill -9 until the first right answer, and what is read again?"
NEW_OPS = 10_000  # while it is down
_UNITS = {
    "kept": "s",
    "kept: processor": "s",
    "afresh": "s",
    "afresh: processor": "s",
    "ops read again": "ops",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--repetitions", type=int, default=7)
    options = parser.parse_args()
    samples: dict[str, list[float]] = {name: [] for name in _UNITS}
    with ExitStack() as parts:
        folder = Path(parts.enter_context(tempfile.TemporaryDirectory()))
        feed = parts.enter_context(counted_feed(options.rows, iceberg_orders(folder, options.rows)))
        served = ["serve", "--primary", feed.uri, *LISTEN, "--data"]
        with running(*served, f"{folder}/kept", until="native state built") as first:
            catch_up(feed, first, options.rows // 10)
            shown = feed.seq
            os.kill(first.pid, signal.SIGKILL)
        for number in range(options.repetitions):
            for name, data in (("kept", "kept"), ("afresh", f"afresh-{number}")):
                feed.add(NEW_OPS)
                start = _start([*served, f"{folder}/{data}"], feed)
                samples[name].append(start.seconds)
                samples[f"{name}: processor"].append(start.processor)
                if name == "kept":
                    assert start.reopened_at is not None, "it began afresh"
                    samples["ops read again"].append(max(0, shown - start.reopened_at))
                    shown = start.answered_at
    record(
        "restart",
        QUESTION,
        {
            "rows": options.rows,
            "ops": options.rows // 10,
            "new_ops": f"{NEW_OPS} before each start",
            "time": "from the start of the process to the first answer, which has all",
            "baseline": "a replica that starts with an empty folder, on merge on read",
            "repetitions": options.repetitions,
            "seed": SEED,
        },
        samples,
        _UNITS,
    )


@dataclass(frozen=True, slots=True)
class _Start:
    seconds: float  # until the first answer
    processor: float  # seconds of it
    reopened_at: int | None  # the seq that it goes on from, None with an empty folder
    answered_at: int


def _start(command: list[str], feed: CountedFeed) -> _Start:
    """Start it, until its first answer, which must be right; then it is killed."""
    seq = feed.seq
    began = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-m", "flight_replica", *command],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None and process.stderr is not None
    lines: list[str] = []
    watcher = threading.Thread(target=lambda: lines.extend(process.stderr or ()), daemon=True)
    watcher.start()
    try:
        uri = process.stdout.readline().strip().removeprefix("listening on ")
        until(lambda: _is_right(uri, feed, seq), "it answers")
        seconds, used = time.perf_counter() - began, Served(uri, process.pid).processor_seconds
        (position,) = position_of(query(uri, WHOLE))
        reopened = re.search(r"native state reopened table=\w+ visible_seq=(\d+)", "".join(lines))
        return _Start(
            seconds, used, int(reopened[1]) if reopened else None, int(str(position["visible_seq"]))
        )
    finally:
        process.kill()
        process.wait()
        watcher.join()
        process.stdout.close()
        process.stderr.close()


def _is_right(uri: str, feed: CountedFeed, seq: int) -> bool:
    """Raises `Unavailable` until it answers."""
    rows = query(uri, WHOLE)
    at = int(str(position_of(rows)[0]["visible_seq"]))
    assert at >= seq, f"it answers at seq {at}, the feed was at {seq} when it started"
    expected = feed.ops.whole(at)
    assert rows.to_pydict() == expected, f"{rows.to_pydict()} at seq {at}, not {expected}"
    return True


if __name__ == "__main__":
    main()
