"""Many clients at once at a real replica process: each is answered or told why not, and nothing grows.

A few seconds of 24 connections by default; 200 for a minute with `-m long`.
"""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import adbc_driver_flightsql.dbapi as adbc
import adbc_driver_manager
import pytest

from tests.processes import Server, end, position, rows, until

ROWS = 20_000
ANSWER_SECONDS = 90.0  # after the end of the load every client has its answer by then
GROWTH_BYTES_MAX = 1 << 30  # of the replica, above what it takes at rest; its memory limit is 1 GB
THREADS_MAX_PER_CONNECTION = 3  # a call holds one; the rest are those of gRPC's polling
THREADS_MAX_AT_REST = 100  # what may be left of them once nobody calls

# What a client may be told that did nothing wrong.
_HONEST = ("queries_max", "planned_max", "memory", "cancel")


@pytest.fixture
def replica(tmp_path: Path) -> Iterator[Server]:
    servers: list[Server] = []
    try:
        servers.append(Server("primary", "--data", str(tmp_path / "primary"), "--base-seconds", "0.5"))
        rows(servers[0].uri, "CREATE TABLE t (id BIGINT PRIMARY KEY, kind VARCHAR, price DOUBLE)")
        fill = f"INSERT INTO t SELECT i, 'kind ' || i % 10, i / 7 FROM range({ROWS}) r(i)"
        ((_, seq),) = rows(servers[0].uri, fill)
        servers.append(Server("serve", "--primary", servers[0].uri, "--memory-limit", "1GB"))
        until(lambda: _seq(servers[1]) == seq, "the replica has the rows", 90.0)
        yield servers[1]
    finally:
        end(*servers)


def _seq(server: Server) -> int:
    try:
        return position(server.uri, "t")["visible_seq"]
    except Exception:
        return -1


def threads_of(process: Server) -> int:
    text = Path(f"/proc/{process.pid}/status").read_text()
    return int(text.partition("Threads:")[2].split()[0])


# --- one client -----------------------------------------------------------------------------------------


def _count(cursor: adbc.Cursor, seed: random.Random) -> None:
    cursor.execute("SELECT count(*), sum(id) FROM t")
    assert cursor.fetchall() == [(ROWS, ROWS * (ROWS - 1) // 2)]


def _group(cursor: adbc.Cursor, seed: random.Random) -> None:
    cursor.execute("SELECT kind, count(*) FROM t GROUP BY kind ORDER BY kind")
    assert cursor.fetchall() == [(f"kind {n}", ROWS // 10) for n in range(10)]


def _stream(cursor: adbc.Cursor, seed: random.Random) -> None:
    cursor.execute("SELECT * FROM t")
    assert cursor.fetch_arrow_table().num_rows == ROWS


def _bound(cursor: adbc.Cursor, seed: random.Random) -> None:
    wanted = seed.randrange(ROWS)
    cursor.execute("SELECT id FROM t WHERE id = ?", (wanted,))
    assert cursor.fetchall() == [(wanted,)]


def _dropped(cursor: adbc.Cursor, seed: random.Random) -> None:
    cursor.execute("SELECT a.id, b.id FROM t a, t b")
    cursor.fetchone()
    cursor.adbc_cancel()


def _wrong(cursor: adbc.Cursor, seed: random.Random) -> None:
    with pytest.raises(adbc_driver_manager.Error, match="nope"):
        cursor.execute("SELECT nope FROM t")


def _sorted(cursor: adbc.Cursor, seed: random.Random) -> None:
    cursor.execute("SELECT id FROM t ORDER BY hash(id), price LIMIT 5")
    assert len(cursor.fetchall()) == 5


_WORK: tuple[Callable[[adbc.Cursor, random.Random], None], ...] = (
    _count,
    _group,
    _stream,
    _bound,
    _dropped,
    _wrong,
    _sorted,
)


class Client(threading.Thread):
    """One connection that does one thing after another until its time is over."""

    def __init__(self, uri: str, number: int, until_time: float) -> None:
        super().__init__(name=f"client-{number}", daemon=True)
        self._uri = uri
        self._seed = random.Random(number)
        self._until = until_time
        self.done: Counter[str] = Counter()
        self.faults: list[str] = []

    def run(self) -> None:
        try:
            with closing(adbc.connect(self._uri, autocommit=True)) as connection:
                while time.monotonic() < self._until:
                    self._work(connection)
        except BaseException as error:
            self.faults.append(repr(error))

    def _work(self, connection: adbc.Connection) -> None:
        work = self._seed.choice(_WORK)
        try:
            with connection.cursor() as cursor:
                work(cursor, self._seed)
            self.done[work.__name__] += 1
        except adbc_driver_manager.Error as error:
            told = str(error)
            if not any(word in told.lower() for word in _HONEST):
                self.faults.append(f"{work.__name__}: {told}")
            self.done["refused"] += 1


def load(replica: Server, connections: int, seconds: float) -> Counter[str]:
    """What was done, all clients together, while memory and threads were watched."""
    at_rest = replica.resident_bytes
    end_time = time.monotonic() + seconds
    clients = [Client(replica.uri, number, end_time) for number in range(connections)]
    for client in clients:
        client.start()
    most_bytes = most_threads = 0
    while any(client.is_alive() for client in clients):
        assert time.monotonic() < end_time + ANSWER_SECONDS, "a client hangs"
        most_bytes = max(most_bytes, replica.resident_bytes)
        most_threads = max(most_threads, threads_of(replica))
        time.sleep(0.05)
    faults = [fault for client in clients for fault in client.faults]
    assert not faults, f"{len(faults)} faults: {faults[:5]}"
    assert most_bytes - at_rest < GROWTH_BYTES_MAX
    assert most_threads < THREADS_MAX_AT_REST + THREADS_MAX_PER_CONNECTION * connections
    done = sum((client.done for client in clients), Counter[str]())
    print(f"{connections} connections: {dict(done)}, {most_bytes >> 20} MiB, {most_threads} threads")
    return done


def check_at_rest(replica: Server) -> None:
    """The replica answers as before, and its threads have gone."""
    assert rows(replica.uri, "SELECT count(*) FROM t") == [(ROWS,)]
    until(lambda: threads_of(replica) < THREADS_MAX_AT_REST, "the threads end", ANSWER_SECONDS)


def test_two_dozen_connections_are_all_answered(replica: Server) -> None:
    done = load(replica, 24, 3.0)
    assert done.total() > 24
    check_at_rest(replica)


@pytest.mark.long
def test_two_hundred_connections_for_a_minute_are_all_answered(replica: Server) -> None:
    done = load(replica, 200, 60.0)
    assert set(done) >= {work.__name__ for work in _WORK}
    check_at_rest(replica)
