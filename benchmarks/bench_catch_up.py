"""How many ops a second does a replica take that is five million behind?

The ops are made before the first one is to be seen; the time runs from then until a query that waits for the
last one is planned. Replica and feed are processes of their own. Once the replica has a base of as many rows
as stated and its native state is built, once it begins with nothing: there is no base, and the log begins at
0. Afterwards the whole table is compared with what the ops make of it.

Run: python -m benchmarks.bench_catch_up [--rows N] [--ops N] [--repetitions N]
"""

from __future__ import annotations

import argparse
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

from benchmarks.counted_feed import CountedFeed, counted_feed
from benchmarks.counted_ops import WHOLE
from benchmarks.orders_table import SEED
from benchmarks.record import record
from benchmarks.served import LISTEN, Served, iceberg_orders, running, until
from benchmarks.waiting import WaitingClient
from flight_replica.client import query

QUESTION = "How many ops a second does a replica take that is millions behind?"
NOTHING = "SELECT id FROM orders LIMIT 0"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--ops", type=int, default=5_000_000)
    parser.add_argument("--repetitions", type=int, default=3)
    options = parser.parse_args()
    samples: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        metadata = iceberg_orders(Path(folder), options.rows)
        for _ in range(options.repetitions):
            for name, row_count, base in (
                ("with a base", options.rows, metadata),
                ("without a base", options.ops * 2 // 5, None),
            ):
                seconds, used = _measure(row_count, base, options.ops)
                samples.setdefault(name, []).append(options.ops / seconds)
                samples.setdefault(f"{name}: the replica's processor", []).append(used)
                print(f"  {name}: {options.ops / seconds:,.0f} ops/s", flush=True)
    record(
        "catch_up",
        QUESTION,
        {
            "rows": options.rows,
            "ops": options.ops,
            "without a base": "two fifths of the ops insert a row, the others are as with a base",
            "with a base": "60 % updates, 25 % inserts, 15 % deletes, native state",
            "repetitions": options.repetitions,
            "baseline": "each other, in turns",
            "seed": SEED,
        },
        samples,
        {name: "s" if "processor" in name else "ops/s" for name in samples},
    )


def _measure(row_count: int, metadata: str | None, op_count: int) -> tuple[float, float]:
    """Seconds until the last op is visible, and of the replica's processor."""
    with ExitStack() as parts:
        feed = parts.enter_context(counted_feed(row_count, metadata))
        said = "native state built" if metadata is not None else "table serving"
        replica = parts.enter_context(running("serve", "--primary", feed.uri, *LISTEN, until=said))
        until(lambda: not len(query(replica.uri, NOTHING)), "it answers")
        seconds, used, _ = catch_up(feed, replica, op_count)
        return seconds, used


def catch_up(feed: CountedFeed, replica: Served, op_count: int) -> tuple[float, float, int]:
    """Let the replica take `op_count` ops more: seconds, those of its processor, and the last seq."""
    used = replica.processor_seconds
    seq, began = feed.add(op_count)
    with WaitingClient(replica.uri) as client:
        client.ask(NOTHING, seq)
        seconds, used = time.monotonic() - began, replica.processor_seconds - used
        position, _, rows = client.ask(WHOLE, seq)
    expected = feed.ops.whole(position.visible_seq)
    assert rows.to_pydict() == expected, f"{rows.to_pydict()} at {position.visible_seq}, not {expected}"
    return seconds, used, seq


if __name__ == "__main__":
    main()
