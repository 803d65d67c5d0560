"""How soon do those resume who wait for a position, once it is published?

10 000 waiters at as many seqs in one process, in random order; each publication makes up to 50 of them
due, until all have resumed; then 10 000 again, due at once. A sample is the time from the call of `publish`
to the first line that the waiter runs. Two kinds of waiter: a function (what `Waiters` offers), and a blocked
thread behind a `Gate`, as a waiting Flight call is one (as many as `waits_max` allows). The baseline is the
same functions called from a list, without any order to keep.

Run: python -m benchmarks.bench_waiters [--repetitions N]
"""

from __future__ import annotations

import argparse
import random
import threading
import time
from collections.abc import Callable
from functools import partial

import numpy as np

from benchmarks.record import record
from flight_replica.flightsql.limits import DEFAULT_LIMITS
from flight_replica.replica.waiters import Gate, Waiters

QUESTION = "How soon do those resume who wait for a position, once it is published?"
COUNT = 10_000
STEP = 50  # seqs of one publication, so at most as many waiters become due
PAUSE_SECONDS = 0.002  # between publications, for what was resumed to run
SETTLED_SECONDS = 60.0

Samples = dict[str, list[float]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repetitions", type=int, default=3)
    options = parser.parse_args()
    samples: Samples = {}
    for seed in range(options.repetitions):
        for kind, found in (
            ("function", _functions(seed)),
            ("thread", _threads(seed)),
        ):
            steps, whole = found
            samples.setdefault(f"{kind}: publication of {STEP} to resumed", []).extend(steps)
            samples.setdefault(f"{kind}: publication of all to the last resumed", []).append(max(whole))
        samples.setdefault("baseline: 10 000 functions called from a list", []).append(_baseline())
    data = {
        "waiters": COUNT,
        "threads": DEFAULT_LIMITS.waits_max,
        "seqs_per_publication": STEP,
        "repetitions": options.repetitions,
        "pause_seconds": PAUSE_SECONDS,
    }
    record("waiters", QUESTION, data, samples, dict.fromkeys(samples, "ms"))
    for series, values in samples.items():
        print(f"  {series}: p99 {np.quantile(values, 0.99):.3f} ms, {len(values)} samples")


class Clockings:
    """When each waiter resumed, and the publications it is measured from."""

    def __init__(self) -> None:
        self._resumed: dict[int, float] = {}  # seq -> seconds

    def note(self, seq: int) -> None:
        assert seq not in self._resumed, f"the waiter for {seq} resumed twice"
        self._resumed[seq] = time.perf_counter()

    def publish(self, waiters: Waiters, after: int, through: int, pause: Callable[[], None]) -> list[float]:
        """Publish `through`; the ms from there to each resumption. Exactly `(after, through]` resume."""
        began = time.perf_counter()
        waiters.publish(through)
        deadline = began + SETTLED_SECONDS
        while len(self._resumed) < through - after:
            assert time.perf_counter() < deadline, "not everybody resumed"
            pause()
        assert all(after < seq <= through for seq in self._resumed), "somebody resumed who wasn't due"
        found = [round((at - began) * 1000, 4) for at in self._resumed.values()]
        self._resumed.clear()
        return found


def _seqs(count: int, after: int, seed: int) -> list[int]:
    seqs = list(range(after + 1, after + count + 1))
    random.Random(seed).shuffle(seqs)
    return seqs


def _in_steps(waiters: Waiters, clockings: Clockings, count: int) -> list[float]:
    pause = partial(time.sleep, PAUSE_SECONDS)
    found = []
    for after in range(0, count, STEP):
        found += clockings.publish(waiters, after, min(after + STEP, count), pause)
        pause()
    return found


def _functions(seed: int) -> tuple[list[float], list[float]]:
    waiters, clockings = Waiters(), Clockings()
    for seq in _seqs(COUNT, 0, seed):
        waiters.until_seq(seq, partial(clockings.note, seq))
    steps = _in_steps(waiters, clockings, COUNT)
    for seq in _seqs(COUNT, COUNT, seed):
        waiters.until_seq(seq, partial(clockings.note, seq))
    return steps, clockings.publish(waiters, COUNT, 2 * COUNT, partial(time.sleep, PAUSE_SECONDS))


def _threads(seed: int) -> tuple[list[float], list[float]]:
    count = DEFAULT_LIMITS.waits_max
    waiters, clockings = Waiters(), Clockings()

    def wait(seq: int) -> None:
        gate = Gate()
        waiters.until_seq(seq, gate.open)
        assert gate.wait(SETTLED_SECONDS), f"the thread waiting for {seq} was forgotten"
        clockings.note(seq)

    def started(after: int) -> list[threading.Thread]:
        threads = [threading.Thread(target=wait, args=(seq,)) for seq in _seqs(count, after, seed)]
        for thread in threads:
            thread.start()
        while len(waiters) < count:
            time.sleep(PAUSE_SECONDS)
        return threads

    threads = started(0)
    steps = _in_steps(waiters, clockings, count)
    threads += started(count)
    whole = clockings.publish(waiters, count, 2 * count, partial(time.sleep, PAUSE_SECONDS))
    for thread in threads:
        thread.join()
    return steps, whole


def _baseline() -> float:
    """The ms that calling as many functions takes."""
    clockings = Clockings()
    functions = [partial(clockings.note, seq) for seq in range(COUNT)]
    began = time.perf_counter()
    for function in functions:
        function()
    return (time.perf_counter() - began) * 1000


if __name__ == "__main__":
    main()
