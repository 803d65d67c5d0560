"""A server of one feed with ops as they are asked for: a primary that costs little and is never late.

It publishes the orders as an Iceberg base, or none, and keeps the ops of `counted_ops.py` in memory; without
a base its first ops insert what would be in it. A real primary commits each statement to its disk, which few
benchmarks are about; those that are use one.

Run: python -m benchmarks.counted_feed --rows N [--metadata FILE]; a line `add N`, `rate OPS COMMIT_OPS` or
`base SEQ FILE`, `look` or `stamps` on stdin is answered by a line of JSON when it is done.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any
from uuid import uuid4

import numpy as np
import pyarrow as pa

from benchmarks.counted_ops import CountedOps
from benchmarks.orders_table import LINEAGE, SEED, orders_schema
from flight_replica.base.iceberg import IcebergBase
from flight_replica.errors import TableNotFound, Unavailable
from flight_replica.flightsql.server import FlightSqlServer
from flight_replica.flightsql.service import TableEntry
from flight_replica.flightsql.status import hide_tracebacks
from flight_replica.log.op_log import OpLog
from flight_replica.position import TablePosition
from flight_replica.sql.database import open_database
from flight_replica.sql.key_filter import NO_KEYS, Keys
from flight_replica.sql.view import View

TABLE = "orders"
LOG_BYTES_MAX = 2 << 30
_BATCH_OPS = 250_000  # of what is added at once: one commit each
_TICK_SECONDS = 0.002


class CountedFeed:
    """One such server as a process, from its start to `close`."""

    def __init__(self, row_count: int, metadata: str | None) -> None:
        command = [sys.executable, "-m", "benchmarks.counted_feed", f"--rows={row_count}"]
        if metadata is not None:
            command.append(f"--metadata={metadata}")
        self.ops = CountedOps(row_count)
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.uri = str(self._answer()["uri"])

    def add(self, count: int) -> tuple[int, float]:
        """Make `count` ops and then commit them one batch after the other.

        The seq that they end at, and when the first one was to be seen (monotonic).
        """
        answer = self._ask(f"add {count}")
        return int(answer["seq"]), float(answer["began"])

    def flow(self, ops_per_second: int, commit_ops: int = 0) -> int:
        """From now on commit so many a second, in commits of about `commit_ops`, or as they are due.

        0 stops it. The newest seq.
        """
        return int(self._ask(f"rate {ops_per_second} {commit_ops}")["seq"])

    def publish(self, seq: int, metadata: str) -> None:
        """Let the table's base be the one at `metadata`, which is at `seq`."""
        self._ask(f"base {seq} {metadata}")

    def stamps(self) -> dict[int, int]:
        """When each commit of a stated size was made, of the last `flow`: its seq -> µs since 1970."""
        return {int(seq): int(at) for seq, at in self._ask("stamps")["stamps"]}

    @property
    def seq(self) -> int:
        return int(self._ask("look")["seq"])

    def _ask(self, line: str) -> dict[str, Any]:
        assert self._process.stdin is not None
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"the feed ended with code {self._process.wait()}")
        return dict(json.loads(line))

    def close(self) -> None:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.close()
        try:
            self._process.wait(30)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()


@contextmanager
def counted_feed(row_count: int, metadata: str | None) -> Iterator[CountedFeed]:
    """While the block runs a feed after the base of `row_count` rows at `metadata`, or from seq 0 on."""
    feed = CountedFeed(row_count, metadata)
    try:
        yield feed
    finally:
        feed.close()


# --- the process ------------------------------------------------------------------------------------


class _Service:
    """As much of a `Service` as a replica asks for."""

    product = "feed of a benchmark"
    read_only_reason = "this is a feed of a benchmark"

    def __init__(self, feed: OpLog) -> None:
        self._feed = feed
        self._database = open_database()
        self._base: tuple[int, str, int | None] | None = None  # seq, metadata file, version
        self._table_uuid = str(uuid4())

    def publish(self, seq: int, metadata: str) -> None:
        self._base = seq, metadata, IcebergBase(metadata, table=TABLE).poll()

    def tables(self) -> Sequence[TableEntry]:
        feed = self._feed
        seq, metadata, version = self._base or (None, None, None)
        return [
            TableEntry(
                name=TABLE,
                schema=feed.schema,
                table_uuid=self._table_uuid,
                low_water=feed.low_water,
                position=TablePosition(TABLE, feed.lineage, 0, feed.high_water, high_water=feed.high_water),
                base_kind="iceberg" if metadata is not None else None,
                base_uri=metadata,
                base_version=version,
                base_seq=seq,
            )
        ]

    def table_names(self) -> Sequence[str]:
        return [TABLE]

    def made_of(self, tables: Sequence[str]) -> Sequence[object] | None:
        return None

    def known(self, table: str, key: Sequence[object] | None) -> None:
        return None

    def feed(self, table: str) -> OpLog:
        if table != TABLE:
            raise TableNotFound(f"there is no table {table!r}")
        return self._feed

    def open_view(self, tables: Sequence[str], keys: Keys = NO_KEYS) -> View:
        if tables:
            raise Unavailable("rows aren't served here, the feed is")
        session = self._database.cursor()
        session.execute("BEGIN TRANSACTION READ ONLY")
        return View(session, [], lambda: None)

    def clock_us(self) -> int:
        return time.time_ns() // 1000


class _Flow:
    """Commits ops at a rate, on a thread of its own."""

    def __init__(self, feed: OpLog, ops: CountedOps) -> None:
        self._feed = feed
        self._ops = ops
        self._random = np.random.default_rng(SEED)
        self._lock = threading.Lock()
        self._rate, self._commit_ops = 0, 0
        self._began, self._done = 0.0, 0
        self.stamps: list[tuple[int, int]] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="flow")
        self._thread.start()

    def set_rate(self, rate: int, commit_ops: int) -> None:
        with self._lock:
            self._rate, self._commit_ops = rate, commit_ops
            if rate:
                self.stamps = []
            self._began, self._done = time.monotonic(), 0

    def add(self, count: int) -> float:
        """When the first one was to be seen (monotonic)."""
        with self._lock:
            made: list[pa.RecordBatch] = []
            at, end = self._feed.newest_seq, self._feed.newest_seq + count
            while at < end:
                size = min(_BATCH_OPS, end - at)
                if at < self._ops.base_rows:
                    size = min(size, self._ops.base_rows - at)
                made.append(self._ops.ops(at, size, self._random))
                at += size
            began = time.monotonic()
            for batch in made:
                self._append(batch)
            return began

    def _run(self) -> None:
        while not self._stop.wait(_TICK_SECONDS):
            with self._lock:
                due = int((time.monotonic() - self._began) * self._rate) - self._done
                size = self._commit_ops or max(1, due)
                for _ in range(due // size):
                    made = self._append(self._ops.ops(self._feed.newest_seq, size, self._random))
                    self._done += size
                    if self._commit_ops:
                        self.stamps.append(made)

    def _append(self, batch: pa.RecordBatch) -> tuple[int, int]:
        """Its last seq, and its stamp."""
        through, stamp_us = batch.column(0)[-1].as_py(), time.time_ns() // 1000
        self._feed.append(batch, through=through, commit_time_us=stamp_us)
        return through, stamp_us

    def close(self) -> None:
        self._stop.set()
        self._thread.join()


def _serve(row_count: int, metadata: str | None) -> None:
    hide_tracebacks()
    feed = OpLog(
        TABLE,
        LINEAGE,
        orders_schema(),
        start=row_count if metadata is not None else 0,
        bytes_max=LOG_BYTES_MAX,
        clock_us=lambda: time.time_ns() // 1000,
    )
    with ExitStack() as parts:
        flow = _Flow(feed, CountedOps(row_count))
        parts.callback(flow.close)
        service = _Service(feed)
        if metadata is not None:
            service.publish(row_count, metadata)
        server = FlightSqlServer(service, "127.0.0.1", 0)
        parts.callback(server.close)
        print(json.dumps({"uri": f"grpc://127.0.0.1:{server.port}"}), flush=True)
        began = 0.0
        for line in sys.stdin:
            match line.split():
                case "add", count:
                    began = flow.add(int(count))
                case "rate", rate, commit_ops:
                    flow.set_rate(int(rate), int(commit_ops))
                case "base", seq, file:
                    service.publish(int(seq), file)
            answer: dict[str, object] = {"seq": feed.newest_seq, "began": began}
            if line.strip() == "stamps":
                answer["stamps"] = flow.stamps
            print(json.dumps(answer), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, required=True)
    parser.add_argument(
        "--metadata", help="of the base, an Iceberg table at seq N; none: the log begins at 0"
    )
    options = parser.parse_args()
    _serve(options.rows, options.metadata)


if __name__ == "__main__":
    main()
