"""How do apply and freshness grow with the table, and with the number of ops already applied?

For each size of the table: a replica with its native state built follows a feed in memory. Ops flow at a
steady rate in small commits, and a client waits for the next one after what it has seen: to be told that
it is visible, and then for a query of the table, for which it has to be written. Then bursts of ops come
at once, one after the other. Cost is given as time of the processor per op, too, which a busy machine
changes less: until the burst is visible, and until nothing is left to do in the background, such as making
the state anew. That happens by the number of ops, so a small table has more bursts, for both halves to
hold several of these. Bursts with and without one are told apart, and the halves compared as if each had
as many of both kinds as all have: three of twelve in one half and five in the other were chance. After
each burst the whole table is compared with what the ops make of it.

Run: python -m benchmarks.bench_growth [--rows 1000000,10000000,…] [--bursts 24,6,…] [--seconds S]
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

from benchmarks.bench_catch_up import NOTHING
from benchmarks.counted_feed import TABLE, CountedFeed, counted_feed
from benchmarks.counted_ops import WHOLE
from benchmarks.orders_table import SEED
from benchmarks.record import record
from benchmarks.served import LISTEN, Served, iceberg_orders, running
from benchmarks.waiting import WaitingClient, now_us

QUESTION = "How do apply and freshness grow with the table, and with the ops already applied?"
OPS_PER_SECOND = 10_000
COMMIT_OPS = 100
BURST_OPS = 500_000
WARM_SECONDS = 1.0
IDLE_SECONDS_MAX = 120


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", default="1000000,10000000,50000000", help="sizes of the table")
    parser.add_argument("--seconds", type=float, default=5.0, help="that ops flow steadily, each time")
    parser.add_argument("--bursts", default="24,6,6", help="of each size")
    options = parser.parse_args()
    samples: dict[str, list[float]] = {}
    sizes = zip(options.rows.split(","), options.bursts.split(","), strict=True)
    for row_count, bursts in (map(int, size) for size in sizes):
        size = f"{row_count / 1e6:g} M rows"
        for name, found in _measure(row_count, options.seconds, bursts).items():
            samples[f"{size}: {name}"] = found
        print(f"  {size} measured", flush=True)
    units = {
        name: "MB" if name.endswith(", memory") else "ops/s" if "ops a second" in name else "µs/op"
        for name in samples
    }
    units |= {name: "s" for name in samples if ": commit to" in name or name.endswith("native state")}
    units |= {name: "x" for name in samples if "÷" in name}
    record(
        "growth",
        QUESTION,
        {
            "ops_per_second": OPS_PER_SECOND,
            "ops_of_a_commit": COMMIT_OPS,
            "ops_of_a_burst": BURST_OPS,
            "ops": "60 % updates, 25 % inserts, 15 % deletes, spread over the table",
            "seconds": options.seconds,
            "baseline": "the smallest table, and the first burst",
            "seed": SEED,
        },
        samples,
        units,
    )


def _measure(row_count: int, seconds: float, bursts: int) -> dict[str, list[float]]:
    found: dict[str, list[float]] = {}
    with ExitStack() as parts:
        folder = Path(parts.enter_context(tempfile.TemporaryDirectory()))
        feed = parts.enter_context(counted_feed(row_count, iceberg_orders(folder, row_count)))
        followed = ("serve", "--primary", feed.uri, *LISTEN, "--data", f"{folder}/replica")
        began = time.monotonic()
        replica = parts.enter_context(running(*followed, until="native state built"))
        found["from the start to the native state"] = [time.monotonic() - began]
        for name, is_query in (("visible", False), ("the end of a query", True)):
            fresh, cost = _flow(feed, replica, seconds, is_query=is_query)
            found[f"commit to {name}"] = fresh
            found[f"processor while ops flow and a client waits for {name}"] = [cost]
        found |= _bursts(feed, replica, bursts)
        found["afterwards, memory"] = [replica.memory_bytes["RssAnon"] / 1e6]
    return found


def _bursts(feed: CountedFeed, replica: Served, count: int) -> dict[str, list[float]]:
    """Of each burst, and of those in each half with and without a state made anew."""
    found: dict[str, list[float]] = {}
    halves: list[dict[str, list[float]]] = [{}, {}]  # µs an op until idle, of each burst, by its kind
    _settle(replica)
    for number in range(count):
        used, built = replica.processor_seconds, replica.native_states_built(TABLE)
        seq, began = feed.add(BURST_OPS)
        with WaitingClient(replica.uri) as client:
            client.ask(NOTHING, seq)
            taken, until_visible = time.monotonic() - began, replica.processor_seconds - used
            _settle(replica)
            until_idle = (replica.processor_seconds - used) / BURST_OPS * 1e6
            position, _, rows = client.ask(WHOLE, seq)
        assert rows.to_pydict() == feed.ops.whole(position.visible_seq), f"at {position.visible_seq}"
        before = f"after {number * BURST_OPS / 1e6:g} M ops"
        found[f"burst {before}, ops a second"] = [BURST_OPS / taken]
        found[f"burst {before}, processor"] = [until_visible / BURST_OPS * 1e6]
        half = number * 2 // count
        kind = "with" if replica.native_states_built(TABLE) > built else "without"
        halves[half].setdefault(kind, []).append(until_idle)
        name = f"{('first', 'later')[half]} half, bursts {kind} a state made anew, processor until idle"
        found.setdefault(name, []).append(until_idle)
    kinds = halves[0].keys() & halves[1].keys()
    weights = {kind: sum(len(half[kind]) for half in halves) for kind in kinds}
    first, later = (
        sum(weights[kind] * statistics.fmean(half[kind]) for kind in kinds) / sum(weights.values())
        for half in halves
    )
    found["processor until idle, later half ÷ first half"] = [later / first]
    return found


def _flow(feed: CountedFeed, replica: Served, seconds: float, *, is_query: bool) -> tuple[list[float], float]:
    """Seconds from commit to seen of each commit seen, and µs of the replica's processor per op."""
    seen_us: dict[int, int] = {}  # by seq
    first = feed.flow(OPS_PER_SECOND, COMMIT_OPS)
    with WaitingClient(replica.uri) as client:
        seen, used, began = first, replica.processor_seconds, time.monotonic()
        while (now := time.monotonic()) < began + WARM_SECONDS + seconds:
            if is_query:
                position, _, _ = client.ask(NOTHING, seen + 1)
                seq, at_us = position.visible_seq, now_us()
            else:
                seq, at_us = client.wait(TABLE, seen + 1)
            assert seq > seen, f"seq {seq} after {seen}"
            seen = seq
            if now > began + WARM_SECONDS:
                seen_us[seq] = at_us
        last = feed.flow(0)
        client.ask(NOTHING, last)
        cost = (replica.processor_seconds - used) / (last - first) * 1e6
    stamp_us = feed.stamps()
    return [(at - stamp_us[seq]) / 1e6 for seq, at in seen_us.items()], cost


def _settle(replica: Served) -> None:
    """Wait until the replica has nothing to do in the background, as making its state anew."""
    deadline = time.monotonic() + IDLE_SECONDS_MAX
    while time.monotonic() < deadline:
        used = replica.processor_seconds
        time.sleep(0.5)
        if replica.processor_seconds - used < 0.1:
            return
    raise TimeoutError(f"the replica is busy after {IDLE_SECONDS_MAX} s without an op")


if __name__ == "__main__":
    main()
