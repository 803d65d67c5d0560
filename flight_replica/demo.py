"""`flight-replica demo`: primary, writer and replica as real processes, watched through ADBC.

The last line on stdout is the verdict: whether replica and primary agree, row by row, at one seq.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np
import pyarrow as pa

from flight_replica.client import connect, position_of, query, told
from flight_replica.demo_orders import CREATE, orders
from flight_replica.errors import ReplicaError, Unavailable
from flight_replica.stopping import StopSignal

START_SECONDS = 30.0  # for a server to listen
CATCH_UP_SECONDS = 60.0  # for the replica to reach the primary, at the end
STOP_SECONDS = 20.0  # for a process to end by itself
_INGEST_ROWS = 250_000
_SEED = 1
_SETTINGS = "FLIGHT_REPLICA_"

ALL_ROWS = "SELECT * FROM orders ORDER BY id"
NO_ROWS = "SELECT * FROM orders LIMIT 0"  # for the position alone
QUERIES = {
    "count": "SELECT count(*) FROM orders",
    "revenue by country": "SELECT country, sum(amount) s FROM orders GROUP BY ALL ORDER BY s DESC LIMIT 1",
    "one order": "SELECT status, amount FROM orders WHERE id = 4711",
}


def run_demo(seconds: float | None, row_count: int, ops_per_second: int) -> int:
    """The exit code: 0 when replica and primary agree, 1 on a mismatch or when a part failed."""
    stop = StopSignal()
    with ExitStack() as parts:
        folder = Path(parts.enter_context(tempfile.TemporaryDirectory(prefix="flight-replica-demo-")))
        try:
            return _Demo(parts, folder, stop, row_count, ops_per_second).run(seconds)
        except _Stopped:
            print("stopped before the replica was up")
            return 1
        except ReplicaError as error:  # told on stderr; the verdict is stdout's last line in any case
            print(f"MISMATCH not compared: {error}", flush=True)
            raise


class _Stopped(Exception):
    """Ctrl-C while the demo was still being set up."""


class _Demo:
    """One run. The processes end with `parts`, in reverse order of their start."""

    def __init__(
        self, parts: ExitStack, folder: Path, stop: StopSignal, row_count: int, ops_per_second: int
    ) -> None:
        self._parts = parts
        self._folder = folder
        self._stop = stop
        self._row_count = row_count
        self._ops_per_second = ops_per_second
        self._processes: dict[str, subprocess.Popen[str]] = {}

    def run(self, seconds: float | None) -> int:
        began = time.monotonic()
        print("starting a primary", flush=True)
        primary = self._server("primary", "--data", str(self._folder / "primary"), "--base-seconds", "5")
        self._fill(primary)
        print("starting a replica", flush=True)
        replica = self._server("serve", "--primary", primary, "--data", str(self._folder / "replica"))
        self._first_answer(replica, began)
        self._start("demo-writer", primary, f"--rows={self._row_count}", f"--rate={self._ops_per_second}")
        print(
            f"writing about {self._ops_per_second} ops a second\n\n{_how_to_connect(replica)}\n", flush=True
        )
        self._watch(primary, replica, None if seconds is None else time.monotonic() + seconds)
        self._end("demo-writer")
        return _verdict(primary, replica)

    # --- processes --------------------------------------------------------------------------------

    def _server(self, *arguments: str) -> str:
        """Start a server; its address."""
        process = self._start(*arguments, "--listen", "127.0.0.1:0")
        assert process.stdout is not None, "a server's output is read"
        timer = threading.Timer(START_SECONDS, process.kill)
        timer.start()
        line = process.stdout.readline()
        timer.cancel()
        if not line.startswith("listening on "):  # its end; what it had to say stands on stderr
            raise Unavailable(f"the {arguments[0]} process ended before it listened")
        return line.removeprefix("listening on ").strip()

    def _start(self, *arguments: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "flight_replica", "--log-level", "warning", *arguments]
        # A group of its own: Ctrl-C in a terminal reaches the demo alone, which ends its parts in order.
        # Settings in variables are for other servers than these.
        environment = {name: value for name, value in os.environ.items() if not name.startswith(_SETTINGS)}
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, text=True, start_new_session=True, env=environment
        )
        self._processes[arguments[0]] = process
        self._parts.callback(_end, process)
        return process

    def _end(self, name: str) -> None:
        process = self._processes[name]
        if process.poll() is not None:
            raise Unavailable(f"{name} ended early with exit code {process.returncode}")
        _end(process)

    def _check(self) -> None:
        for name, process in self._processes.items():
            if process.poll() is not None:
                raise Unavailable(f"{name} ended early with exit code {process.returncode}")

    # --- what is shown ----------------------------------------------------------------------------

    def _fill(self, primary: str) -> None:
        random = np.random.default_rng(_SEED)
        with told(primary), connect(primary) as connection, connection.cursor() as cursor:
            cursor.execute(CREATE)
            cursor.fetchall()
            for first in range(0, self._row_count, _INGEST_ROWS):
                if self._stop.is_set:
                    raise _Stopped
                last = min(first + _INGEST_ROWS, self._row_count)
                cursor.adbc_ingest("orders", orders(np.arange(first, last), random), mode="append")
                print(f"  {last:,} orders", flush=True)

    def _first_answer(self, replica: str, began: float) -> None:
        """Wait until the replica answers with every order."""
        while not self._stop.wait(0.1):
            self._check()
            try:
                count = query(replica, QUERIES["count"]).column(0)[0].as_py()
            except ReplicaError:  # it isn't up yet
                continue
            if count == self._row_count:
                print(
                    f"first answer {time.monotonic() - began:.1f} s after the start: {count:,} orders",
                    flush=True,
                )
                return
        raise _Stopped

    def _watch(self, primary: str, replica: str, until: float | None) -> None:
        """A line a second: how fresh the replica is, and what a query costs."""
        base_seqs: set[object] = set()
        names = list(QUERIES)
        tick = 0
        print(
            f"{'primary seq':>12} {'replica seq':>12} {'lag':>9} {'base seq':>12} {'rebases':>8}  query",
            flush=True,
        )
        while not self._stop.wait(1.0) and (until is None or time.monotonic() < until):
            self._check()
            newest = _seq(query(primary, NO_ROWS))
            name = names[tick % len(names)]
            with _timed() as took:
                answer = query(replica, QUERIES[name])
            at = position_of(answer)[0]
            base_seqs.add(at["base_seq"])
            where = f"{at['visible_seq']:>12,} {_milliseconds(at['lag_us']):>9} {at['base_seq']:>12,}"
            answered = f"{name}: {_first_row(answer)} ({took[0] * 1000:.0f} ms)"
            print(f"{newest:>12,} {where} {len(base_seqs) - 1:>8}  {answered}", flush=True)
            tick += 1


def _verdict(primary: str, replica: str) -> int:
    """Compare both at one seq, row by row."""
    deadline = time.monotonic() + CATCH_UP_SECONDS
    while True:
        theirs = query(primary, ALL_ROWS)
        seq = _seq(theirs)
        while _seq(query(replica, NO_ROWS)) < seq and time.monotonic() < deadline:
            time.sleep(0.05)
        ours = query(replica, ALL_ROWS)
        if _seq(ours) == seq:
            break
        # The writer's last write may still have been under way at the primary: look again.
        if time.monotonic() > deadline:
            print(f"MISMATCH replica at seq {_seq(ours)}, primary at seq {seq} after {CATCH_UP_SECONDS} s")
            return 1
    difference = _first_difference(ours, theirs)
    if difference is not None:
        print(f"MISMATCH at seq {seq}: {difference}")
        return 1
    print(f"replica and primary agree at seq {seq}: {len(ours)} rows")
    return 0


def _first_difference(ours: pa.Table, theirs: pa.Table) -> str | None:
    """Both sorted by key; None when every row is equal."""
    if ours.equals(theirs):
        return None
    for mine, other in zip(ours.to_pylist(), theirs.to_pylist(), strict=False):
        if mine != other:
            return f"replica has {mine}, primary has {other}"
    return f"replica has {len(ours)} rows, primary has {len(theirs)}"


def _first_row(answer: pa.Table) -> str:
    rows = answer.slice(0, 1).to_pylist()
    return ", ".join(map(str, rows[0].values())) if rows else "no row"


def _seq(answer: pa.Table) -> int:
    seq = position_of(answer)[0]["visible_seq"]
    assert isinstance(seq, int), f"visible_seq {seq!r}"
    return seq


def _milliseconds(lag_us: object) -> str:
    return f"{lag_us / 1000:.0f} ms" if isinstance(lag_us, int) and lag_us >= 0 else "unknown"


@contextmanager
def _timed() -> Iterator[list[float]]:
    """A list that holds the seconds of the block after it."""
    took = [0.0]
    began = time.monotonic()
    yield took
    took[0] = time.monotonic() - began


def _end(process: subprocess.Popen[str]) -> None:
    """Ask the process to end, and wait; one that doesn't is killed."""
    if process.poll() is None:
        process.terminate()
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    if process.stdout is not None:
        process.stdout.close()


def _how_to_connect(uri: str) -> str:
    return f"""connect with your own client, from another terminal:
  flight-replica sql {uri} "SELECT status, count(*) FROM orders GROUP BY status"
  flight-replica status {uri}
  python: adbc_driver_flightsql.dbapi.connect("{uri}", autocommit=True)"""
