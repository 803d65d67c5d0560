"""How long after a commit at the primary is it visible to a Flight SQL client of a replica?

Primary, writer and replica are processes of their own; this one is the client. Each commit of the writer
puts its number into one row beside the others. The client waits at the replica, without polling, for the
next commit after what it has seen, by turns in two ways: by `merutable_wait`, which is answered as soon as
the commit is visible and reads no row, and by a query of that row with `min_seq`, which ends with the row in
the client's hands. So nothing is asked in vain. All are on one machine, so the clocks are one. What the same
query takes when it waits for nothing is the baseline, measured after each.

Such a call is planned and answered after the commit is visible. So a third way is measured last: a client
that follows the replica's own feed, in which an op is once readers see it.

A commit's time is told twice: the stamp that the primary gives it, which is before it is synced, and when the
writer had its acknowledgement. What a disk's sync takes is between them, so the primary lies once on the disk
and once on a file system in memory, where there is one (Linux: /dev/shm).

Run: python -m benchmarks.bench_freshness [--rows N] [--rates 1000,10000] [--seconds S]
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from benchmarks.record import record
from benchmarks.served import LISTEN, running
from benchmarks.waiting import WaitingClient, follow, now_us
from flight_replica.client import connect, query
from flight_replica.demo_orders import CREATE, orders

QUESTION = "How long after a commit at the primary is it visible to a Flight SQL client of a replica?"
MEMORY = Path("/dev/shm")
COMMITS_PER_SECOND = 20
WARM_SECONDS = 3.0
INGEST_ROWS = 250_000
MARKED = 0  # the id of the row that says which commit wrote it, in `customer`
SQL = f"SELECT customer FROM orders WHERE id = {MARKED}"


@dataclass(frozen=True, slots=True)
class Seen:
    """One commit as the client saw it come; times in µs since 1970."""

    number: int  # of the writer's commit
    what: str  # that the client waited for
    stamped_us: int  # by the primary
    seen_us: int
    round_trip_us: int | None  # of the row's query that waits for nothing; None: nothing was asked


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--rates", default="1000,10000", help="ops a second, one run each")
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--writer", metavar="URI", help="be the writer, until stdin ends")
    options = parser.parse_args()
    if options.writer:
        _write(options.writer, options.rows, int(options.rates))
        return
    samples: dict[str, list[float]] = {}
    places = {"on disk": None} | ({"in memory": MEMORY} if os.access(MEMORY, os.W_OK) else {})
    for where, place in places.items():
        for rate in map(int, options.rates.split(",")):
            for name, seconds in _measure(place, options.rows, rate, options.seconds).items():
                samples[f"{where}, {rate} ops/s: {name}"] = seconds
    record(
        "freshness",
        QUESTION,
        {
            "rows": options.rows,
            "seconds": options.seconds,
            "commits_per_second": COMMITS_PER_SECOND,
            "primary": "the reference primary with its data " + " and ".join(places),
            "baseline": "the round trip of the same query when it waits for nothing",
        },
        samples,
        dict.fromkeys(samples, "s"),
    )
    for series, values in samples.items():
        p50, p99 = statistics.median(values), float(np.quantile(values, 0.99))
        print(f"  {series}: p50 {p50 * 1000:.1f} ms, p99 {p99 * 1000:.1f} ms, {len(values)} samples")


def _measure(place: Path | None, row_count: int, rate: int, seconds: float) -> dict[str, list[float]]:
    """Seconds by series; the primary's data lie in `place`, or where temporary files do."""
    with ExitStack() as parts:
        folder = parts.enter_context(tempfile.TemporaryDirectory(dir=place))
        primary = parts.enter_context(running("primary", "--data", f"{folder}/primary", *LISTEN)).uri
        _fill(primary, row_count)
        followed = ("serve", "--primary", primary, *LISTEN)
        replica = parts.enter_context(running(*followed, until="native state built")).uri
        count = query(replica, "SELECT count(*) FROM orders").column(0)[0].as_py()
        assert count == row_count, f"the replica has {count} rows of {row_count}"
        with _writer(primary, row_count, rate) as acknowledged_us:
            seen = [*_watch(replica, seconds), *_followed(replica, seconds / 2)]
        found: dict[str, list[float]] = {}
        for one in seen:
            acknowledged = acknowledged_us[one.number]
            times_us = {
                f"commit's stamp to {one.what}": one.seen_us - one.stamped_us,
                f"acknowledged to {one.what}": one.seen_us - acknowledged,
                "commit's stamp to acknowledged": acknowledged - one.stamped_us,
            }
            if one.round_trip_us is not None:
                times_us["round trip"] = one.round_trip_us
            for name, us in times_us.items():
                found.setdefault(name, []).append(us / 1e6)
        return found


def _watch(replica: str, seconds: float) -> list[Seen]:
    """Each commit that appears after a while of warming up."""
    found: list[Seen] = []
    seen_seq = 0
    with WaitingClient(replica) as client:
        began = time.monotonic()
        for turn in itertools.count():
            now = time.monotonic()
            if now > began + WARM_SECONDS + seconds:
                break
            is_row = turn % 2 == 0
            if is_row:
                at, _, rows = client.ask(SQL, seen_seq + 1)
                visible_seq, seen_us = at.visible_seq, now_us()
            else:
                visible_seq, seen_us = client.wait("orders", seen_seq + 1)
                at, _, rows = client.ask(SQL, visible_seq)  # whose commit it was, and its stamp
            assert at.visible_seq >= visible_seq > seen_seq, (
                f"{at.visible_seq}, {visible_seq} after {seen_seq}"
            )
            asked_us = now_us()
            again, _, _ = client.ask(SQL)
            round_trip_us = now_us() - asked_us
            assert again.visible_seq >= at.visible_seq, "the replica went back"
            (number,) = rows.column(0).to_pylist()
            # Where another commit came in between, the row is of that one.
            if seen_seq and now > began + WARM_SECONDS and at.visible_seq == visible_seq:
                what = "the row in hand" if is_row else "visible"
                found.append(Seen(number, what, at.commit_time_us, seen_us, round_trip_us))
            seen_seq = again.visible_seq
    assert len({one.what for one in found}) == 2, "no commit was seen"
    return found


def _followed(replica: str, seconds: float) -> list[Seen]:
    """Each commit that comes to a follower of the replica's feed; where several come at once, the last."""
    with WaitingClient(replica) as client:
        at, _, _ = client.ask(SQL)
    found, ends = [], time.monotonic() + seconds
    with closing(follow(replica, "orders", at.visible_seq)) as batches:
        for mark, seen_us, ops in batches:
            if time.monotonic() > ends:
                break
            marked = ops.filter(pc.equal(ops.column("id"), MARKED))
            if marked.num_rows and mark.through == mark.commit_through:
                number = marked.column("customer")[-1].as_py()
                found.append(Seen(number, "the op at a follower", mark.commit_time_us, seen_us, None))
    assert found, "no commit came by the feed"
    return found


def _fill(primary: str, row_count: int) -> None:
    random = np.random.default_rng(0)
    with connect(primary) as connection, connection.cursor() as cursor:
        cursor.execute(CREATE)
        cursor.fetchall()
        for first in range(0, row_count, INGEST_ROWS):
            rows = orders(np.arange(first, min(first + INGEST_ROWS, row_count)), random)
            cursor.adbc_ingest("orders", rows, mode="append")


# --- the writer, a process of its own -----------------------------------------------------------------


@contextmanager
def _writer(primary: str, row_count: int, rate: int) -> Iterator[dict[int, int]]:
    """It writes while the block runs. Then the dictionary has, by commit, when it was acknowledged."""
    command = [sys.executable, "-m", "benchmarks.bench_freshness", f"--writer={primary}"]
    command += [f"--rows={row_count}", f"--rates={rate}"]
    acknowledged_us: dict[int, int] = {}
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        yield acknowledged_us
        out, _ = process.communicate(timeout=60)
        acknowledged_us.update(enumerate(json.loads(out)))
    finally:
        process.kill()
        process.wait()


def _write(uri: str, row_count: int, rate: int) -> None:
    """Commit at `rate` ops a second, until stdin ends; print when each commit was acknowledged, in µs."""
    random = np.random.default_rng(1)
    acknowledged_us: list[int] = []
    due = time.monotonic()
    os.set_blocking(sys.stdin.fileno(), False)
    with connect(uri) as connection, connection.cursor() as cursor:
        while sys.stdin.buffer.read(1) is None:  # b"" at its end
            count = max(1, rate // COMMITS_PER_SECOND)
            others = np.unique(random.integers(MARKED + 1, row_count, count - 1))
            rows = orders(np.concatenate([[MARKED], others]), random)
            customers = rows.column(1).to_numpy().copy()
            customers[0] = len(acknowledged_us)
            rows = rows.set_column(1, "customer", pa.array(customers))
            cursor.adbc_ingest("orders", rows, mode="append")
            acknowledged_us.append(now_us())
            due = max(due + 1 / COMMITS_PER_SECOND, time.monotonic())
            time.sleep(max(0.0, due - time.monotonic()))
    print(json.dumps(acknowledged_us))


if __name__ == "__main__":
    main()
