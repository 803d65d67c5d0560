"""How long after the real engine acknowledged an op is it in a follow stream of the feed server beside it?

Engine and feed server are processes of their own; this one follows the feed. A sample is the time when the
batch with the last op of a commit arrived minus the time when the engine had acknowledged that commit. All
are on one machine, so the clocks are one. It is negative where the op arrived first: the feed server reads
the log while the engine waits for the disk. The baseline is a reader of the log in this process, without a
server. Each run's ops are checked: every acknowledged one arrived once, in order.

Single ops at this rate need a disk that syncs in less than a millisecond; so they are measured in memory
(/dev/shm), and on disk commits of 1 to 9 ops. The engine is built first where needed (tests/engine).

Run: python -m benchmarks.bench_engine_feed [--rate N] [--seconds S]
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from bisect import bisect_left
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from threading import Event, Thread

import numpy as np

from benchmarks.record import record
from flight_replica.beside.engine_log import EngineLog
from tests.engine.driver import Engine, Truth, schema, until_true
from tests.engine.watching import FeedFollower
from tests.processes import Server, is_answered, running, until

QUESTION = "How long after the engine has acknowledged an op is it in a follow stream of the feed server?"
WARM_SECONDS = 2.0
MEMORY = Path("/dev/shm")
KEYS = 100_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rate", type=int, default=1000, help="ops a second")
    parser.add_argument("--seconds", type=float, default=20.0)
    options = parser.parse_args()
    places: list[tuple[str, Path | None, int]] = [("commits of 1 to 9 ops, on disk", None, 9)]
    if MEMORY.is_dir():
        places.append(("single ops, in memory", MEMORY, 1))
    samples: dict[str, list[float]] = {}
    for name, place, batch_max in places:
        for what, measure in (("to feed", _measure_feed), ("to a reader of the log", _measure_log)):
            with tempfile.TemporaryDirectory(dir=place) as folder:
                write = {"rate": options.rate, "keys": KEYS, "batch_max": batch_max, "deletes": 0.1}
                ops = int(options.rate * (WARM_SECONDS + options.seconds))
                samples[f"{name}: acknowledged {what}"] = measure(Path(folder), {**write, "ops": ops})
    record(
        "engine_feed",
        QUESTION,
        {
            "ops/s": options.rate,
            "seconds": options.seconds,
            "table": "id int64, v int64, note bytes of up to 20",
            "baseline": "a reader of the log in the process that measures",
        },
        samples,
        dict.fromkeys(samples, "s"),
    )
    for series, values in samples.items():
        p50, p99 = statistics.median(values), float(np.quantile(values, 0.99))
        print(f"  {series}: p50 {p50 * 1000:.2f} ms, p99 {p99 * 1000:.2f} ms, {len(values)} samples")


def _measure_feed(folder: Path, write: dict[str, object]) -> list[float]:
    truth = Truth(schema("id"))
    table = folder / "t"
    with Engine(table, truth=truth) as engine:
        engine.write(100, keys=KEYS)
        engine.do("flush")
        begun = truth.last_seq
        server = Server("feed", "--table", f"events={table},{table / 'wal'}", "--data", str(folder / "feed"))
        with running(server):
            until(is_answered(server.uri, "SELECT count(*) > 0 FROM events", [(True,)]), "the feed serves")
            with FeedFollower(server.uri, "events", begun) as follower:
                assert isinstance(follower, FeedFollower)
                last_seq = _written(engine, write)
                until_true(follower.has_seen(last_seq), f"seq {last_seq}")
    assert follower.ops(truth.schema) == [op for op in truth.ops() if op[0] > begun]
    arrivals = [(mark.through, at_us) for mark, at_us, _ in follower.arrived]
    return _samples(truth, begun, arrivals)


def _measure_log(folder: Path, write: dict[str, object]) -> list[float]:
    truth = Truth(schema("id"))
    arrivals: list[tuple[int, int]] = []
    is_over = Event()
    with closing(EngineLog(folder / "t" / "wal")) as log:

        def read() -> None:
            while not is_over.is_set():
                for batch in log.read_new():
                    arrivals.append((batch.last_seq, time.time_ns() // 1000))
                log.wait(0.5)

        reader = Thread(target=read, name="log-reader")
        reader.start()
        try:
            with Engine(folder / "t", truth=truth) as engine:
                last_seq = _written(engine, write)
                until_true(lambda: log.newest_seq >= last_seq, f"seq {last_seq}")
        finally:
            is_over.set()
            log.wake()
            reader.join()
    assert [seq for seq, _ in arrivals] == [commit.last_seq for commit in truth.commits]
    return _samples(truth, 0, arrivals)


def _written(engine: Engine, write: dict[str, object]) -> int:
    engine.start_writing(**write)
    return engine.wait_written()


def _samples(truth: Truth, since: int, arrivals: Sequence[tuple[int, int]]) -> list[float]:
    """Seconds from acknowledgement to arrival of the commits after seq `since` and the warm-up.

    `arrivals`: the newest seq of each batch, and when it arrived (µs since 1970).
    """
    commits = [commit for commit in truth.commits if commit.first_seq > since]
    warm_us = commits[0].at_us + int(WARM_SECONDS * 1e6)
    seqs = [seq for seq, _ in arrivals]
    return [
        (arrivals[bisect_left(seqs, commit.last_seq)][1] - commit.at_us) / 1e6
        for commit in commits
        if commit.at_us > warm_us
    ]


if __name__ == "__main__":
    main()
