"""Does anybody notice a hot swap?

A replica follows a feed of 50 000 ops a second; eight clients, each a process, ask it for rows at a steady
pace, and now and then for sums over all of them. What each answer has to be follows from the seq that it
states (`counted_ops.py`). Meanwhile its native state is swapped again and again, as an operator may ask for:
by compaction, and once a round for one that is made of a newer base. After each swap nothing is swapped for
as long as it took: those queries are the baseline, but for the first ones on the new state.

Run: python -m benchmarks.bench_swaps [--rows N] [--swaps N] [--pace QUERIES_PER_SECOND]
"""

from __future__ import annotations

import argparse
import itertools
import json
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

import adbc_driver_flightsql.dbapi as flightsql
import adbc_driver_manager
import numpy as np

from benchmarks.counted_feed import TABLE, CountedFeed, counted_feed
from benchmarks.counted_ops import ONE, WHOLE, CountedOps
from benchmarks.orders_table import SEED
from benchmarks.record import record
from benchmarks.served import ADMIN_LISTEN, LISTEN, Served, iceberg_base, iceberg_orders, running
from flight_replica._pb import admin_pb2 as pb
from flight_replica.admin.client import AdminClient
from flight_replica.client import connect, position_of, query
from flight_replica.log.feed_client import Endpoint

QUESTION = "Does anybody notice a hot swap?"
CLIENTS = 8
START_SECONDS = 3.0  # of the clients, which takes both cores
OPS_PER_SECOND = 50_000
ROUND = 20  # swaps: one onto a newer base, the others by compaction
PAUSE_SECONDS_MAX = 2.0
AFTER_SECONDS = 0.1  # that a swap's doing may show in queries after it
WHOLE_EVERY = 20  # queries of a client
NATIVE = "merge on apply"


@dataclass(slots=True)
class Asked:
    """What one client saw."""

    queries: list[tuple[float, float]] = field(default_factory=list)  # when asked (monotonic), seconds
    failures: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    backward: int = 0  # answers at a lower seq than the one before
    checked_wholes: int = 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--swaps", type=int, default=200)
    parser.add_argument(
        "--pace", type=float, default=4.0, help="queries a second of each client; 0: no pause"
    )
    parser.add_argument("--client", metavar="URI", help="be a client until stdin ends")
    parser.add_argument("--seed", type=int, default=SEED, help="of a client")
    options = parser.parse_args()
    if options.client:
        print(json.dumps(asdict(_ask_on(options.client, options.rows, options.pace, options.seed))))
        return
    with ExitStack() as parts:
        folder = Path(parts.enter_context(tempfile.TemporaryDirectory()))
        metadata = iceberg_orders(folder, options.rows)
        feed = parts.enter_context(counted_feed(options.rows, metadata))
        followed = ("serve", "--primary", feed.uri, *LISTEN, *ADMIN_LISTEN, "--data", f"{folder}/replica")
        replica = parts.enter_context(running(*followed, until="native state built"))
        admin = parts.enter_context(AdminClient(Endpoint(replica.admin)))
        feed.flow(OPS_PER_SECOND)
        swaps: list[tuple[str, float, float]] = []  # what was done, from when to when (monotonic)
        with _clients(replica.uri, options) as asked:
            time.sleep(START_SECONDS)
            while len(swaps) < options.swaps:
                done = _swap(feed, replica, admin, folder / str(len(swaps)), options.swaps - len(swaps))
                swaps += done
                print(f"  {len(swaps)} swaps", flush=True)
    _record(options, swaps, asked)


def _swap(
    feed: CountedFeed, replica: Served, admin: AdminClient, folder: Path, count: int
) -> list[tuple[str, float, float]]:
    """One round of at most `count` swaps."""
    rows = query(replica.uri, "SELECT * FROM orders ORDER BY id")
    seq = int(str(position_of(rows)[0]["visible_seq"]))
    folder.mkdir()
    feed.publish(seq, iceberg_base(folder, [rows.replace_schema_metadata(None)], seq))
    done: list[tuple[str, float, float]] = []
    asked = pb.TableRequest(table=TABLE)
    for number in range(min(ROUND, count)):
        began = time.monotonic()
        if number == 0:
            name = "onto a newer base"
            rebased = admin.call("RebaseTable", asked)
            assert rebased.base_seq == seq, f"rebased onto {rebased.base_seq}, published {seq}"
        else:
            name = "by compaction"
            rebased = admin.call("CompactTable", asked)
        assert rebased.state_kind == NATIVE, f"swapped to {rebased.state_kind}"
        ended = time.monotonic()
        done.append((name, began, ended))
        time.sleep(min(PAUSE_SECONDS_MAX, ended - began) + AFTER_SECONDS)
    return done


def _record(options: argparse.Namespace, swaps: list[tuple[str, float, float]], asked: list[Asked]) -> None:
    begins = np.array([began for _, began, _ in swaps])
    ends = np.array([ended + AFTER_SECONDS for *_, ended in swaps])
    during: list[float] = []
    otherwise: list[float] = []
    for client in asked:
        for at, seconds in client.queries:
            is_during = bool(np.any((begins < at + seconds) & (ends > at)))
            (during if is_during else otherwise).append(seconds)
    samples = {
        "query while a state is swapped": during,
        "query otherwise": otherwise,
        **{
            f"swap {name}": [ended - began for kind, began, ended in swaps if kind == name]
            for name in dict.fromkeys(name for name, *_ in swaps)
        },
        "swaps": [float(len(swaps))],
        "failures": [float(sum(len(client.failures) for client in asked))],
        "wrong answers": [float(sum(len(client.wrong) for client in asked))],
        "answers at a lower seq than before": [float(sum(client.backward for client in asked))],
        "answers compared with the model": [
            float(sum(len(client.queries) + client.checked_wholes for client in asked))
        ],
    }
    counted = ("swaps", "failures", "wrong answers", "answers at", "answers compared")
    data = {
        "rows": options.rows,
        "ops_per_second": OPS_PER_SECOND,
        "clients": CLIENTS,
        "queries_per_second_of_each": options.pace or "as many as it gets",
        "baseline": "queries while nothing is swapped, in turns",
        "swaps": len(swaps),
        "said": [text for client in asked for text in [*client.failures, *client.wrong]][:20],
        "seed": SEED,
    }
    units = {name: "" if name.startswith(counted) else "s" for name in samples}
    record("swaps", QUESTION, data, samples, units)
    for text in data["said"]:
        print(f"  {text}")


# --- clients, a process each --------------------------------------------------------------------------


@contextmanager
def _clients(uri: str, options: argparse.Namespace) -> Iterator[list[Asked]]:
    """They ask while the block runs; then the list has what each saw."""
    command = [sys.executable, "-m", "benchmarks.bench_swaps", f"--client={uri}", f"--rows={options.rows}"]
    running = [
        subprocess.Popen(
            [*command, f"--pace={options.pace}", f"--seed={seed}"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for seed in range(CLIENTS)
    ]
    asked: list[Asked] = []
    try:
        yield asked
        for process in running:
            out, _ = process.communicate(timeout=60)
            asked.append(Asked(**json.loads(out)))
    finally:
        for process in running:
            process.kill()
            process.wait()


def _ask_on(uri: str, row_count: int, pace: float, seed: int) -> Asked:
    """Ask until stdin ends."""
    stop = threading.Event()

    def watch() -> None:
        sys.stdin.read()
        stop.set()

    threading.Thread(target=watch, name="stdin", daemon=True).start()
    asked, ops, random = Asked(), CountedOps(row_count), np.random.default_rng(seed)
    seen = 0
    due = time.monotonic() + float(random.random()) / (pace or 1)
    with connect(uri) as connection:
        for number in itertools.count(1):
            if stop.wait(max(0.0, due - time.monotonic())):
                break
            is_whole = number % WHOLE_EVERY == 0
            key = int(random.integers(0, row_count + row_count // 10))
            due = max(due + 1 / pace, time.monotonic()) if pace else 0.0
            try:
                seen = _ask(connection, ops, None if is_whole else key, seen, asked)
            except adbc_driver_manager.Error as error:
                asked.failures.append(str(error).partition("\n")[0][:300])
    return asked


def _ask(connection: flightsql.Connection, ops: CountedOps, key: int | None, seen: int, asked: Asked) -> int:
    """One query, of a row or (None) of the whole; the seq of its answer."""
    began = time.monotonic()
    with connection.cursor() as cursor:
        cursor.execute(WHOLE if key is None else ONE.format(key=key))
        rows = cursor.fetch_arrow_table()
    ended = time.monotonic()
    seq = int(str(position_of(rows)[0]["visible_seq"]))
    asked.backward += seq < seen
    found = rows.to_pydict()
    if key is None:
        asked.checked_wholes += 1
        is_right = found == ops.whole(seq)
    else:
        asked.queries.append((began, ended - began))
        is_right = ops.is_right(key, seq, found)
    if not is_right:
        expected = ops.whole(seq) if key is None else ops.one(key, seq)
        asked.wrong.append(f"at seq {seq}, key {key}: {found}, not {expected}")
    return max(seq, seen)


if __name__ == "__main__":
    main()
