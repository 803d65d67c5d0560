"""Commits that are durable before the store has them: who is told, who waits, what a later process finds."""

from __future__ import annotations

import logging
import random
import shutil
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import closing
from pathlib import Path

import duckdb
import pytest

from flight_replica.errors import ConfigError, Unavailable
from flight_replica.primary import redo_file, store, writer
from flight_replica.primary.engine import Engine
from flight_replica.primary.redo_file import FILE_NAME, RedoFile
from flight_replica.primary.transaction import Changes, WriteTransaction
from tests.faults import full_disk
from tests.processes import until

BYTES = 1 << 22
CREATE = "CREATE TABLE t (id BIGINT PRIMARY KEY, a VARCHAR)"
Content = dict[str, tuple[list[object], list[object], tuple[int, int]]]


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    engine = Engine.open(tmp_path / "data")
    engine.write(CREATE)
    yield engine
    engine.close()


def copy_of(directory: Path, target: Path) -> Path:
    """What a process that is killed just now leaves."""
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(directory, target, ignore=shutil.ignore_patterns(store.LOCK_NAME))
    return target


def content(engine: Engine) -> Content:
    """Of each table the rows, the ops with their commits' ends and times, and where it stands."""
    found: Content = {}
    with closing(engine.session()) as session:
        for record in sorted(engine.tables, key=lambda record: record.name):
            rows = session.sql(f"SELECT {record.columns_sql} FROM {record.rows} ORDER BY ALL").fetchall()
            ends = f"SELECT DISTINCT through, commit_time_us FROM {record.commit_ends}"
            query = f"FROM {record.ops} o ASOF JOIN ({ends}) e ON e.through >= o.seq ORDER BY seq"
            ops = session.sql(query).fetchall()
            found[record.name] = (rows, ops, (record.high_water, record.commit_time_us))
    return found


def content_of_a_still_store(engine: Engine) -> Content:
    with engine.still():
        return content(engine)


class HeldStore:
    """Lets a writer tell of its commits, but not store them, until `release`."""

    def __init__(self, engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
        self._released = threading.Event()
        stored = engine._writer._store

        def late(transaction: WriteTransaction) -> None:
            assert self._released.wait(60)
            stored(transaction)

        monkeypatch.setattr(engine._writer, "_store", late)

    def release(self) -> None:
        self._released.set()


def test_writers_and_followers_are_told_first_and_readers_of_the_store_wait(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = HeldStore(engine, monkeypatch)
    with ThreadPoolExecutor(2) as pool:
        assert engine.write("INSERT INTO t VALUES (1, 'x')").seq == 1
        assert [op.seq for op in engine.feed("t").read(0, None, BYTES).records()] == [1]
        reader = pool.submit(content, engine)
        together = pool.submit(content_of_a_still_store, engine)
        assert not wait([reader, together], timeout=0.2).done
        held.release()
        assert reader.result()["t"][0] == together.result()["t"][0] == [(1, "x")]


@pytest.mark.parametrize(
    "want",
    [
        content,
        content_of_a_still_store,
        lambda engine: engine.write("DELETE FROM t"),
        lambda engine: engine.close(),
    ],
    ids=["reader", "still", "write", "close"],
)
def test_followers_have_time_until_somebody_wants_the_store(
    engine: Engine, monkeypatch: pytest.MonkeyPatch, want: Callable[[Engine], object]
) -> None:
    monkeypatch.setattr(writer, "FOLLOWERS_SECONDS", 3600.0)
    engine.write("INSERT INTO t VALUES (1, 'x')")
    with closing(engine.session_now()) as store_as_it_is:
        rows = f"SELECT id FROM {engine.table('t').rows}"
        assert store_as_it_is.execute(rows).fetchall() == []
        want(engine)
    engine.close()
    with closing(Engine.open(engine.directory)) as again:
        assert next(again.feed("t").read(0, None, BYTES).records()).seq == 1


def test_writes_that_fail_together_are_not_held_up_by_followers(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer, "FOLLOWERS_SECONDS", 3600.0)
    entered, let_go = threading.Event(), threading.Event()

    def hold(tx: WriteTransaction) -> None:
        entered.set()
        assert let_go.wait(60)

    with ThreadPoolExecutor(4) as pool:
        pool.submit(engine.submit, hold, is_alone=True)
        assert entered.wait(60)
        sql = (
            "INSERT INTO t VALUES (1, 'x')",
            "INSERT INTO t VALUES (1, 'y')",
            "INSERT INTO t VALUES (2, 'z')",
        )
        writes = [pool.submit(engine.write, text) for text in sql]
        until(lambda: engine._writer._queue.qsize() == len(sql), "they wait together")
        let_go.set()
        assert sum(write.exception() is not None for write in writes) == 1
    assert len(content(engine)["t"][0]) == 2


def test_a_process_that_is_killed_in_between_has_it_at_its_next_start(
    engine: Engine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    engine.write("INSERT INTO t VALUES (1, 'x'), (2, 'y')")
    content(engine)
    held = HeldStore(engine, monkeypatch)
    engine.write("UPDATE t SET a = 'z' WHERE id = 2")
    copy = copy_of(engine.directory, tmp_path / "copy")
    held.release()
    expected = content(engine)
    for _ in range(2):
        with closing(Engine.open(copy)) as again, caplog.at_level(logging.INFO):
            assert content(again) == expected
    with closing(Engine.open(copy)) as again:
        assert again.write("DELETE FROM t WHERE id = 1").seq == 4
        assert content(again)["t"][0] == [(2, "z")]


WRITES: tuple[Callable[[random.Random], str], ...] = (
    lambda r: (
        f"INSERT OR REPLACE INTO t SELECT {r.randrange(9)} + range, 'n' FROM range({r.randrange(1, 4)})"
    ),
    lambda r: f"UPDATE t SET a = a || 'u' WHERE id < {r.randrange(9)}",
    lambda r: f"UPDATE t SET id = 20 - id WHERE id BETWEEN {r.randrange(9)} AND {r.randrange(5, 15)}",
    lambda r: f"DELETE FROM t WHERE id % 5 = {r.randrange(5)}",
    lambda r: (
        f"INSERT OR REPLACE INTO wide VALUES ('k{r.randrange(3)}', -0.0, [1, NULL], {{'x': 'é'}}, NULL)"
    ),
    lambda r: "UPDATE wide SET d = 'nan', e = 12.50 WHERE k <> 'k1'",
    lambda r: f"DELETE FROM wide WHERE k = 'k{r.randrange(3)}'",
)


@pytest.mark.parametrize("seed", range(3))
def test_random_writes_are_the_same_whether_the_store_has_committed_them_or_not(
    seed: int, engine: Engine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Each time a commit is told, the directory is as a kill would leave it: opened, it has all."""
    choose, copies = random.Random(seed), iter(tmp_path / f"copy-{number}" for number in range(100))
    engine.write(
        "CREATE TABLE wide "
        "(k VARCHAR PRIMARY KEY, d DOUBLE, l INTEGER[], s STRUCT(x VARCHAR), e DECIMAL(6, 2))"
    )
    publish, left = engine._writer._publish, []

    def copying(changes: Changes) -> None:
        left.append(copy_of(engine.directory, next(copies)))
        publish(changes)

    monkeypatch.setattr(engine._writer, "_publish", copying)
    for _ in range(8):
        if choose.random() < 0.7:
            engine.write(choose.choice(WRITES)(choose))
        else:
            transaction = engine.begin()
            for _ in range(3):
                transaction.write(choose.choice(WRITES)(choose))
            if not transaction.is_empty:
                transaction.commit()
        expected = content(engine)
        for copy in left:
            with closing(Engine.open(copy)) as again:
                assert repr(content(again)) == repr(expected)  # NaN is itself there, and −0.0 isn't 0.0
        left.clear()


def test_what_the_store_can_not_take_is_owed_until_it_can(
    engine: Engine, caplog: pytest.LogCaptureFixture
) -> None:
    engine.write("INSERT INTO t VALUES (1, 'x')")
    with closing(engine.session()) as blocker:  # its change of the position lets no other one be written
        blocker.execute("BEGIN TRANSACTION")
        blocker.execute('UPDATE "$tables" SET high_water = high_water')
        assert engine.write("INSERT INTO t VALUES (2, 'y')").seq == 2
        assert engine.feed("t").read(1, None, BYTES).mark.through == 2
        with pytest.raises(Unavailable, match="the primary's store failed"):
            engine.session()
        with pytest.raises(Unavailable), engine.still():
            pass
        for write in (engine.write, engine.begin().write):
            with pytest.raises(Unavailable):
                write("INSERT INTO t VALUES (3, 'z')")
        assert "newest commit not in the store yet error=" in caplog.text
        blocker.execute("ROLLBACK")
    assert content(engine)["t"][0] == [(1, "x"), (2, "y")]
    assert engine.write("INSERT INTO t VALUES (3, 'z')").seq == 3
    with engine.still(), closing(engine.session()) as session:
        assert session.execute(f"SELECT count(*) FROM {engine.table('t').rows}").fetchall() == [(3,)]


def lose(store: duckdb.DuckDBPyConnection) -> None:
    """A checkpoint that the disk has no room for: DuckDB refuses the database from then on."""
    with full_disk(), pytest.raises(duckdb.Error):
        store.execute("CHECKPOINT")


def test_a_store_that_is_lost_with_a_commit_to_come_leaves_nobody_waiting(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored = engine._writer._store

    def lost(transaction: WriteTransaction) -> None:
        transaction.connection.execute("ROLLBACK")
        lose(transaction.connection)
        stored(transaction)

    monkeypatch.setattr(engine._writer, "_store", lost)
    assert engine.write("INSERT INTO t VALUES (1, 'x')").seq == 1
    for ask in (engine.session, engine.write, engine.begin().write, engine.session):
        with pytest.raises(Unavailable, match="the primary's store failed"):
            ask(*[] if ask == engine.session else ["INSERT INTO t VALUES (2, 'y')"])
    engine.close()
    with closing(Engine.open(engine.directory)) as again:
        assert content(again)["t"][0] == [(1, "x")]


def test_a_store_that_is_lost_with_no_commit_to_come_leaves_nobody_waiting(engine: Engine) -> None:
    with closing(engine.session()) as session:
        lose(session)
    for _ in range(2):
        for write in (engine.begin().write, engine.write):
            with pytest.raises(Unavailable, match="the primary's store failed"):
                write("INSERT INTO t VALUES (1, 'x')")


def test_what_is_large_or_more_than_ops_is_told_after_the_store_has_it(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def newest() -> int | None:
        record = engine._writer._redo_file.read()
        return record.tables[0].through if record else None

    assert newest() is None
    engine.write("INSERT INTO t VALUES (1, 'x')")
    engine.write("ALTER TABLE t ADD COLUMN b INTEGER")
    engine.write("CREATE TABLE u (id BIGINT PRIMARY KEY)")
    engine.write("INSERT INTO t SELECT range, repeat('x', 1000), 0 FROM range(10, 2000)")
    assert newest() == 1
    with full_disk(), pytest.raises(Unavailable):
        engine.write("INSERT INTO u VALUES (1)")
    assert newest() is None
    engine.write("INSERT INTO u VALUES (1)")
    assert newest() == 1


@pytest.mark.parametrize("size", [0, 1, 19, 21, 300, -1])
def test_a_record_that_was_written_in_part_is_none(engine: Engine, size: int) -> None:
    engine.write("INSERT INTO t VALUES (1, 'x')")
    path = engine.directory / FILE_NAME
    whole = path.read_bytes()
    for broken in (whole[:size], whole[:40] + bytes([whole[40] ^ 1]) + whole[41:]):
        path.write_bytes(broken)
        with closing(RedoFile(engine.directory)) as file:
            assert file.read() is None


def test_a_commit_that_does_not_follow_on_the_store_is_left_out(
    engine: Engine, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    engine.write("INSERT INTO t VALUES (1, 'x')")
    content(engine)
    backup = copy_of(engine.directory, tmp_path / "backup")
    engine.write("INSERT INTO t VALUES (2, 'y')")
    engine.write("INSERT INTO t VALUES (3, 'z')")
    engine.close()
    shutil.copy(engine.directory / FILE_NAME, backup)
    with closing(Engine.open(backup)) as restored:
        assert content(restored)["t"][0] == [(1, "x")]
    assert "newest commit left out table=t store_at=1 commit_after=2" in caplog.text
    with closing(Engine.open(engine.directory, new_lineage=True)) as renewed:
        expected = content(renewed)
    with closing(Engine.open(engine.directory)) as again:
        assert content(again) == expected


def test_a_commit_to_two_tables_of_which_one_follows_is_left_out_as_a_whole(
    engine: Engine, tmp_path: Path
) -> None:
    engine.write("CREATE TABLE u (id BIGINT PRIMARY KEY, a VARCHAR)")
    content(engine)
    backup = copy_of(engine.directory, tmp_path / "backup")
    engine.write("INSERT INTO u VALUES (1, 'x')")
    transaction = engine.begin()
    transaction.write("INSERT INTO t VALUES (2, 'y')")
    transaction.write("INSERT INTO u VALUES (2, 'y')")
    transaction.commit()
    engine.close()
    shutil.copy(engine.directory / FILE_NAME, backup)
    with closing(Engine.open(backup)) as restored:
        assert {name: rows for name, (rows, *_) in content(restored).items()} == {"t": [], "u": []}


def test_a_store_that_can_not_take_up_its_newest_commit_is_not_opened(
    engine: Engine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    copy = copy_with_a_commit_of_the_redo_file(engine, monkeypatch, tmp_path / "copy")
    with full_disk(), pytest.raises(ConfigError, match="can't take up its newest commit"):
        Engine.open(copy)
    with closing(Engine.open(copy)) as again:
        assert content(again) == content(engine)


def test_a_store_of_the_format_before_is_taken_over(engine: Engine) -> None:
    engine.write("INSERT INTO t VALUES (1, 'x')")
    engine.close()
    (engine.directory / FILE_NAME).unlink()
    with duckdb.connect(str(engine.directory / store.FILE_NAME)) as connection:
        connection.execute('UPDATE "$meta" SET format_version = 2')
    with closing(Engine.open(engine.directory)) as again:
        assert content(again)["t"][0] == [(1, "x")]
        with closing(again.session()) as session:
            assert session.execute('SELECT format_version FROM "$meta"').fetchall() == [(3,)]


def remove(path: Path) -> None:
    path.unlink()


def move(path: Path) -> None:
    path.rename(path.with_suffix(".old"))


def replace(path: Path) -> None:
    shutil.copy(path, path.with_suffix(".old"))
    path.with_suffix(".old").replace(path)


def copy_with_a_commit_of_the_redo_file(
    engine: Engine, monkeypatch: pytest.MonkeyPatch, target: Path
) -> Path:
    """A copy of the engine's directory, after a commit that the store itself doesn't have there."""
    held = HeldStore(engine, monkeypatch)
    engine.write("INSERT INTO t VALUES (2, 'y')")
    copy = copy_of(engine.directory, target)
    held.release()
    return copy


def assert_next_start_finds_a_commit(
    engine: Engine, monkeypatch: pytest.MonkeyPatch, directory: Path
) -> None:
    copy = copy_with_a_commit_of_the_redo_file(engine, monkeypatch, directory / "copy")
    with closing(Engine.open(copy)) as again:
        assert content(again) == content(engine)


@pytest.mark.parametrize("lose_file", [remove, move, replace])
def test_a_redo_file_that_is_lost_while_the_primary_runs_is_made_anew(
    lose_file: Callable[[Path], None],
    engine: Engine,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    engine.write("INSERT INTO t VALUES (1, 'x')")
    content(engine)
    lose_file(engine.directory / FILE_NAME)
    assert_next_start_finds_a_commit(engine, monkeypatch, tmp_path)
    assert "redo file made anew" in caplog.text


def test_commits_go_without_a_redo_file_that_can_not_be_made_anew(engine: Engine, tmp_path: Path) -> None:
    engine.write("INSERT INTO t VALUES (1, 'x')")
    moved = engine.directory.rename(tmp_path / "moved")
    engine.write("INSERT INTO t VALUES (2, 'y')")
    expected = content(engine)
    with closing(Engine.open(copy_of(moved, tmp_path / "copy"))) as again:
        assert content(again) == expected


def fail(*_: object, **__: object) -> None:
    raise OSError("the disk is failing")


def test_a_refused_write_does_not_come_back_where_its_record_can_not_be_cut_off(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk says no after it has taken all of the record, and the store can't commit either."""

    def fail_to_store(_: object) -> None:
        raise duckdb.IOException("the disk is failing")

    with monkeypatch.context() as failing:
        failing.setattr(redo_file.os, "fdatasync", fail)
        failing.setattr(redo_file.os, "ftruncate", fail)
        engine.write("INSERT INTO t VALUES (1, 'x')")  # the store has it
        failing.setattr(engine._writer, "_store", fail_to_store)
        with pytest.raises(Unavailable, match="the primary's store failed"):
            engine.write("INSERT INTO t VALUES (2, 'y')")
    expected = content(engine)
    engine.close()
    with closing(Engine.open(engine.directory)) as again:
        assert content(again) == expected


def test_a_redo_file_that_fails_in_every_way_says_so_and_works_again(
    engine: Engine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with monkeypatch.context() as failing:
        for name in ("fdatasync", "ftruncate", "unlink"):
            failing.setattr(redo_file.os, name, fail)
        engine.write("INSERT INTO t VALUES (1, 'x')")
    assert "redo record not taken back, the next start may find it" in caplog.text
    content(engine)
    assert_next_start_finds_a_commit(engine, monkeypatch, tmp_path)
