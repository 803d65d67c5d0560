"""Group commit: writes that wait together share a durable commit, and fail alone."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from flight_replica.errors import Closed, ConstraintViolation, LogGap
from flight_replica.primary import redo
from flight_replica.primary.engine import Engine
from flight_replica.primary.settings import PrimarySettings
from flight_replica.primary.transaction import Changes, WriteTransaction

BYTES = 1 << 20


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    engine = Engine.open(tmp_path, PrimarySettings())
    engine.write("CREATE TABLE t (id BIGINT PRIMARY KEY, a VARCHAR)")
    yield engine
    engine.close()


class Held:
    """Holds the writer thread inside a write until `release`, so that others queue up behind it."""

    def __init__(self, engine: Engine, pool: ThreadPoolExecutor) -> None:
        self._let_go = threading.Event()
        self._engine = engine
        entered = threading.Event()

        def hold(tx: WriteTransaction) -> None:
            entered.set()
            self._let_go.wait(10)

        self.future = pool.submit(engine.submit, hold, is_alone=True)
        assert entered.wait(10)

    def release_after(self, queued: int) -> None:
        queue = self._engine._writer._queue
        while queue.qsize() < queued:
            threading.Event().wait(0.001)
        self._let_go.set()


def run_together(engine: Engine, statements: list[str]) -> list[object]:
    """The results (or errors) of statements that are all in the queue before the first one runs."""

    def attempt(sql: str) -> object:
        try:
            return engine.write(sql)
        except Exception as error:
            return error

    with ThreadPoolExecutor(len(statements) + 1) as pool:
        held = Held(engine, pool)
        futures = []
        for number, sql in enumerate(statements):
            futures.append(pool.submit(attempt, sql))
            _wait(lambda expected=number + 1: engine._writer._queue.qsize() == expected)  # type: ignore[misc]
        held.release_after(len(statements))
        return [future.result() for future in futures]


def _wait(is_so: Callable[[], bool]) -> None:
    while not is_so():
        threading.Event().wait(0.001)


def stored_ids(engine: Engine) -> list[int]:
    session = engine.session()
    found = session.execute(f"SELECT id FROM {engine.table('t').rows} ORDER BY id").fetchall()
    session.close()
    return [row[0] for row in found]


def test_writes_that_wait_together_share_one_commit(engine: Engine) -> None:
    before = engine.durable_commits_total
    results = run_together(engine, [f"INSERT INTO t VALUES ({n}, 'a'), ({100 + n}, 'b')" for n in range(8)])
    assert engine.durable_commits_total - before == 2  # the held one and the group
    assert [result.seq for result in results] == [2 * (n + 1) for n in range(8)]  # type: ignore[attr-defined]


def test_each_write_of_a_group_is_a_commit_of_its_own_in_the_feed(engine: Engine) -> None:
    run_together(engine, [f"INSERT INTO t VALUES ({n}, 'a'), ({100 + n}, 'b')" for n in range(3)])
    feed = engine.feed("t")
    ends = [feed.read(0, through, BYTES).mark.commit_through for through in range(1, 7)]
    assert ends == [0, 2, 2, 4, 4, 6]


def test_a_failing_write_of_a_group_fails_alone(engine: Engine) -> None:
    statements = [f"INSERT INTO t VALUES ({n}, '')" for n in (1, 2, 1, 3)]
    results = run_together(engine, statements)
    assert isinstance(results[2], ConstraintViolation)
    assert (stored_ids(engine), engine.feed("t").high_water) == ([1, 2, 3], 3)


def test_a_write_sees_the_ones_before_it_in_its_group(engine: Engine) -> None:
    run_together(engine, ["INSERT INTO t VALUES (1, '')", "UPDATE t SET id = 2", "UPDATE t SET id = id + 1"])
    assert stored_ids(engine) == [3]


def test_ddl_runs_alone_between_other_writes(engine: Engine) -> None:
    results = run_together(
        engine,
        [
            "INSERT INTO t VALUES (1, '')",
            "ALTER TABLE t ADD COLUMN b INTEGER DEFAULT 5",
            "INSERT INTO t VALUES (2, '', 6)",
        ],
    )
    assert [getattr(result, "seq", result) for result in results] == [1, 1, 2]
    assert [record.row["b"] for record in engine.feed("t").read(0, None, BYTES).records() if record.row] == [
        5,
        6,
    ]


def test_many_threads_get_durable_writes_with_fewer_commits(engine: Engine) -> None:
    before = engine.durable_commits_total

    def insert(thread: int) -> None:
        for number in range(20):
            engine.write(f"INSERT INTO t VALUES ({thread * 1000 + number}, '')")

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(insert, range(8)))
    assert engine.durable_commits_total - before < 160
    engine.close()
    again = Engine.open(engine.directory)
    assert (len(stored_ids(again)), again.feed("t").high_water) == (160, 160)
    again.close()


def test_a_write_is_published_after_it_is_durable(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[int, int, int]] = []
    publish = engine._writer._publish

    def spy(changes: Changes) -> None:
        session = engine.session_now()
        ((stored,),) = session.execute('SELECT high_water FROM "$tables"').fetchall()
        session.close()
        newest = engine._writer._redo_file.read()
        durable = newest.tables[0].through if newest else 0
        seen.append((engine.feed("t").high_water, durable, stored))
        publish(changes)

    monkeypatch.setattr(engine._writer, "_publish", spy)
    engine.write("INSERT INTO t VALUES (1, '')")
    engine.write("INSERT INTO t VALUES (2, '')")
    monkeypatch.setattr(redo, "OPS_BYTES_MAX", 0)
    engine.write("INSERT INTO t VALUES (3, '')")
    assert seen == [(0, 1, 0), (1, 2, 1), (2, 2, 3)]


def test_a_feed_waits_for_a_commit_that_readers_of_the_store_have_seen(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(redo, "OPS_BYTES_MAX", 0)  # else its readers wait, not its followers
    durable, may_publish = threading.Event(), threading.Event()
    publish = engine._writer._publish

    def late(changes: Changes) -> None:
        durable.set()
        may_publish.wait(10)
        publish(changes)

    monkeypatch.setattr(engine._writer, "_publish", late)
    feed = engine.feed("t")
    with ThreadPoolExecutor(2) as pool:
        write = pool.submit(engine.write, "INSERT INTO t VALUES (1, '')")
        assert durable.wait(10)
        check = pool.submit(feed.check_since, 1, None)
        with pytest.raises(LogGap):
            feed.check_since(2, None)
        assert (check.done(), feed.high_water) == (False, 0)
        may_publish.set()
        assert (check.result(), write.result().seq) == (None, 1)


def test_a_writer_that_cant_publish_ends_and_a_restart_heals_it(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(changes: Changes) -> None:
        raise RuntimeError("publishing is broken")

    monkeypatch.setattr(engine._writer, "_publish", fail)
    monkeypatch.setattr(threading, "excepthook", lambda arguments: None)
    with pytest.raises(RuntimeError):
        engine.write("INSERT INTO t VALUES (1, '')")
    with pytest.raises(Closed):
        engine.write("INSERT INTO t VALUES (2, '')")
    engine.close()
    again = Engine.open(engine.directory)
    assert (stored_ids(again), again.feed("t").high_water) == ([1], 1)
    again.close()
