"""Logs that are damaged beside a running feed server: what it says, serves and goes on with."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from flight_replica.beside import engine_log, history
from flight_replica.beside.engine_feed import EngineFeed
from flight_replica.beside.engine_table import EngineTable
from flight_replica.errors import DamagedLog, LogGap, ReplicaError
from tests.bases import ID_V, put
from tests.engine_directory import changes, engine_table, feed_of
from tests.processes import until
from tests.scripted_engine import ScriptedEngine


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[ScriptedEngine]:
    with closing(ScriptedEngine(tmp_path / "engine")) as engine:
        yield engine


def write(engine: ScriptedEngine, keys: range) -> None:
    for key in keys:
        engine.write(put(key, 7))


def flip(path: Path) -> None:
    """One byte amid the file."""
    data = path.read_bytes()
    with path.open("r+b") as file:
        file.seek(len(data) // 2)
        file.write(bytes([data[len(data) // 2] ^ 1]))


def read_two_logs(engine: ScriptedEngine, table: EngineTable) -> EngineFeed:
    """Ops of two logs that aren't flushed, after some that are."""
    write(engine, range(5))
    feed_of(table, 5)
    engine.flush()
    write(engine, range(5, 25))
    feed_of(table, 25)
    engine.restart()
    write(engine, range(25, 30))
    return feed_of(table, 30)


def keys(table: EngineTable) -> list[int]:
    return changes(table.feed, 0).column("id").to_pylist()


def next_feed(table: EngineTable, old: EngineFeed | None, high_water: int) -> EngineFeed:
    """Another feed than `old`, without trouble."""

    def is_there() -> bool:
        try:
            return table.feed is not old and not table.trouble and table.feed.high_water == high_water
        except ReplicaError:
            return False

    until(is_there, f"another feed is served: {table.trouble}")
    return table.feed


def is_damage_told(table: EngineTable) -> bool:
    try:
        table.feed.check_since(30, None)
    except DamagedLog as damage:
        return "000002.wal, offset" in str(damage) and "checksum" in str(damage)
    except ReplicaError:
        pass
    return False


def test_a_byte_of_a_log_that_was_read_changes_and_the_engine_starts_again_without_those_ops(
    engine: ScriptedEngine, tmp_path: Path
) -> None:
    with engine_table(engine, tmp_path / "data", ID_V) as table:
        old = read_two_logs(engine, table)
        flip(engine.log / "000002.wal")
        lost = range(15, 25)
        engine.restart(lost=lost)
        until(lambda: is_damage_told(table), f"readers hear of the damage: {table.trouble}")
        assert table.feed is old and "000002.wal, offset" in table.trouble
        engine.flush()  # the damaged log goes: what is left is the engine's table
        new = next_feed(table, old, 30)
        assert new.lineage != old.lineage
        assert keys(table) == [*range(15), *range(25, 30)]
        with pytest.raises(LogGap) as gap:
            old.check_since(30, None)
        assert gap.value.lineage == new.lineage


def test_accepted_damage_of_a_log_that_was_read_begins_one_new_lineage(
    engine: ScriptedEngine, tmp_path: Path
) -> None:
    with engine_table(engine, tmp_path / "data", ID_V, accept_damage=True) as table:
        old = read_two_logs(engine, table)
        flip(engine.log / "000002.wal")
        engine.restart(lost=range(15, 25))
        write(engine, range(30, 32))
        new = next_feed(table, old, 32)
        assert new.lineage != old.lineage and keys(table) == [*range(15), *range(25, 32)]
        engine.flush()
        write(engine, range(32, 33))
        assert feed_of(table, 33) is new


def test_a_change_that_was_undone_before_it_was_read_again_changes_nothing(
    engine: ScriptedEngine, tmp_path: Path
) -> None:
    """An engine that starts again over sound logs, one of which was restored from a copy."""
    with engine_table(engine, tmp_path / "data", ID_V) as table:
        feed = read_two_logs(engine, table)
        copy = engine.log / "copy"
        copy.write_bytes((engine.log / "000002.wal").read_bytes())
        copy.replace(engine.log / "000002.wal")
        engine.restart()
        write(engine, range(30, 32))
        assert feed_of(table, 32) is feed
        until(lambda: table.trouble == "", f"all is well: {table.trouble}")
        assert keys(table) == list(range(32))


def test_damage_at_the_start_ends_with_the_flush_that_removes_the_log(
    engine: ScriptedEngine, tmp_path: Path
) -> None:
    write(engine, range(10))
    engine.restart()
    write(engine, range(10, 12))
    flip(engine.log / "000001.wal")
    with engine_table(engine, tmp_path / "data", ID_V) as table:
        until(lambda: "checksum" in table.trouble, "it is told")
        with pytest.raises(DamagedLog, match=r"000001.wal, offset \d+: the checksum"):
            table.feed  # noqa: B018
        engine.restart(lost=range(5, 10))
        engine.flush()
        write(engine, range(12, 13))
        assert next_feed(table, None, 13) and keys(table) == [*range(5), *range(10, 13)]


def test_a_restart_over_a_log_longer_than_one_read_keeps_the_lineage(
    engine: ScriptedEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The files are known long before the log is read to its end: no op counts as gone until then."""
    with engine_table(engine, tmp_path / "data", ID_V) as table:
        write(engine, range(5))
        feed_of(table, 5)
        engine.flush()
        write(engine, range(5, 200))
        lineage = feed_of(table, 200).lineage
    monkeypatch.setattr(engine_log, "CALL_BYTES_MAX", 200)
    monkeypatch.setattr(engine_log, "READ_BYTES", 200)
    monkeypatch.setattr(history, "DRAINED_BYTES", 100)
    settings = history.EngineTableSettings(engine.catalog, engine.log, ID_V)
    again = history.History("t", settings, tmp_path / "data" / "t", lambda: 0)
    try:
        again.look()
        steps = 0
        while not again.is_served.is_set():  # a step that loses the lineage raises
            again.step()
            steps += 1
        assert steps > 10 and again.feed.lineage == lineage and again.feed.high_water == 200
    finally:
        again.close()
