"""An engine's ops in the feed beside it: while its log has them, after a flush, after a compaction.

Each history is read twice: by a feed server that was there from the beginning, and by one that came after it
and finds what log and files have left. Flushes drop older ops of a key, never the newest one.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from flight_replica.beside.engine_feed import EngineFeed
from flight_replica.beside.engine_table import EngineTable
from flight_replica.errors import LogGap
from flight_replica.log.in_process import InProcessLogSource
from tests import samples
from tests.bases import ID_V, delete, put
from tests.engine_directory import changes, engine_at, engine_table, feed_of
from tests.scripted_engine import ScriptedEngine

Found = list[tuple[int, str, int | None, int | None]]  # seq, op, id, v


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[ScriptedEngine]:
    with closing(ScriptedEngine(tmp_path / "engine")) as engine:
        yield engine


@pytest.fixture
def watching(engine: ScriptedEngine, tmp_path: Path) -> Iterator[EngineTable]:
    """A feed server's table that sees whatever the engine does."""
    with engine_table(engine, tmp_path / "watching", ID_V) as table:
        feed_of(table, 0)
        yield table


def flush(engine: ScriptedEngine, watching: EngineTable) -> None:
    """A flush whose ops were read from the log before."""
    feed_of(watching, engine.seq)
    engine.flush()


def ops(feed: EngineFeed, since: int = 0) -> Found:
    found = changes(feed, since).to_pylist()
    return [(op["seq"], op["op"], op["id"], op["v"]) for op in found]


def seen(watching: EngineTable, engine: ScriptedEngine, since: int = 0) -> Found:
    """What the feed has after `since` that was there from the beginning."""
    return ops(feed_of(watching, engine.seq), since)


def left(engine: ScriptedEngine, tmp_path: Path, since: int = 0) -> Found:
    """What a feed has after `since` that begins now, beside an engine with its default level targets."""
    data = Path(tempfile.mkdtemp(dir=tmp_path))
    with engine_table(engine, data, ID_V, level_targets=4) as table:
        return ops(feed_of(table, engine.seq), since)


@pytest.mark.statement(78, 81)
def test_three_puts_and_a_delete_are_four_ops_in_order(
    engine: ScriptedEngine, watching: EngineTable, tmp_path: Path
) -> None:
    for key in (1, 2, 3):
        engine.write(put(key, 10 * key))
    engine.write(delete(2))
    expected = [(1, "INSERT", 1, 10), (2, "INSERT", 2, 20), (3, "INSERT", 3, 30), (4, "DELETE", 2, 20)]
    assert seen(watching, engine) == left(engine, tmp_path) == expected


@pytest.mark.statement(89, 94)
def test_every_put_is_an_insert_since_the_log_doesn_t_know_better(
    engine: ScriptedEngine, watching: EngineTable, tmp_path: Path
) -> None:
    for key, v in ((1, 10), (1, 11), (2, 20)):
        engine.write(put(key, v))
    expected = [(1, "INSERT", 1, 10), (2, "INSERT", 1, 11), (3, "INSERT", 2, 20)]
    assert seen(watching, engine) == left(engine, tmp_path) == expected
    flush(engine, watching)
    assert seen(watching, engine) == expected
    assert left(engine, tmp_path) == expected[1:]  # a flush keeps the newest op of a key


@pytest.mark.statement(86, 87, 88)
@pytest.mark.parametrize("is_compacted", [False, True])
def test_ops_stay_when_they_are_flushed_and_go_on_behind_the_flush(
    engine: ScriptedEngine, watching: EngineTable, tmp_path: Path, is_compacted: bool
) -> None:
    expected = []
    for key in (1, 2, 3):
        expected.append((engine.write(put(key, key)), "INSERT", key, key))
    flush(engine, watching)
    if is_compacted:
        engine.compact()
    assert seen(watching, engine) == left(engine, tmp_path) == expected
    for key in (4, 5):
        expected.append((engine.write(put(key, key)), "INSERT", key, key))
    for since in range(6):
        assert seen(watching, engine, since) == left(engine, tmp_path, since) == expected[since:]


@pytest.mark.statement(85, 90)
@pytest.mark.parametrize("is_flushed", [False, True])
def test_a_delete_in_the_log_has_the_row_that_it_removed(
    engine: ScriptedEngine, watching: EngineTable, tmp_path: Path, is_flushed: bool
) -> None:
    engine.write(put(1, 10))
    if is_flushed:
        flush(engine, watching)
    engine.write(delete(1))
    expected = [(1, "INSERT", 1, 10), (2, "DELETE", 1, 10)]
    assert seen(watching, engine) == left(engine, tmp_path) == expected


@pytest.mark.statement(91)
def test_a_flushed_delete_has_the_row_that_it_removed_and_hides_the_put(
    engine: ScriptedEngine, watching: EngineTable, tmp_path: Path
) -> None:
    engine.write(put(1, 10))
    flush(engine, watching)
    engine.write(delete(1))
    flush(engine, watching)
    assert seen(watching, engine) == [(1, "INSERT", 1, 10), (2, "DELETE", 1, 10)]
    assert left(engine, tmp_path) == [(2, "DELETE", 1, 10)]
    engine.compact()
    assert left(engine, tmp_path) == [(2, "DELETE", 1, 10)]


@pytest.mark.statement(92)
def test_a_delete_has_the_row_of_a_put_in_its_own_batch(
    engine: ScriptedEngine, watching: EngineTable, tmp_path: Path
) -> None:
    engine.write(put(2, 20))
    engine.write(put(1, 10), delete(1), put(2, 21), delete(2), delete(2), put(1, 11), put(1, 12), delete(1))
    expected = [
        (1, "INSERT", 2, 20),
        (2, "INSERT", 1, 10),
        (3, "DELETE", 1, 10),
        (4, "INSERT", 2, 21),
        (5, "DELETE", 2, 21),
        (6, "DELETE", 2, 20),  # nothing was there any more: what the engine took down before the batch
        (7, "INSERT", 1, 11),
        (8, "INSERT", 1, 12),
        (9, "DELETE", 1, 12),
    ]
    assert seen(watching, engine) == left(engine, tmp_path) == expected


@pytest.mark.statement(93, 107)
def test_a_delete_of_a_key_that_never_was_is_one_op_without_a_row(
    engine: ScriptedEngine, watching: EngineTable, tmp_path: Path
) -> None:
    engine.write(delete(9))
    assert seen(watching, engine) == left(engine, tmp_path) == [(1, "DELETE", None, None)]
    flush(engine, watching)
    assert left(engine, tmp_path) == [(1, "DELETE", 9, None)]  # the file has its key


@pytest.mark.statement(98)
def test_an_engine_s_feed_read_to_its_end_gives_what_comes_later_from_there(
    engine: ScriptedEngine, watching: EngineTable
) -> None:
    for key in range(1, 51):
        engine.write(put(key, key))
    assert [op[0] for op in seen(watching, engine)] == list(range(1, 51))
    flush(engine, watching)
    for key in range(51, 101):
        engine.write(put(key, key))
    assert [op[0] for op in seen(watching, engine, 50)] == list(range(51, 101))


@pytest.mark.statement("72a")
def test_ops_compacted_away_under_a_reader_are_read_from_the_deeper_level(
    engine: ScriptedEngine, tmp_path: Path
) -> None:
    engine.write(put(1, 10))
    engine.flush()
    for key in (2, 3, 1):
        engine.write(put(key, -key))
    engine.flush()
    engine.compact()
    expected = [(2, "INSERT", 2, -2), (3, "INSERT", 3, -3), (4, "INSERT", 1, -1)]
    assert left(engine, tmp_path, 1) == expected
    engine.write(put(5, 50))
    assert left(engine, tmp_path, 1) == [*expected, (5, "INSERT", 5, 50)]


@pytest.mark.statement("72a")
@samples.needs_samples
def test_the_ops_that_the_engine_s_own_replica_jumped_over_are_in_the_feed(tmp_path: Path) -> None:
    checkpoint = samples.scenario("s12_") / "checkpoints" / "c4_compacted_under_the_replica"
    with engine_table(engine_at(checkpoint, tmp_path), tmp_path / "data") as table:
        batches = list(InProcessLogSource(feed_of(table, 20)).stream(16))
    found = [record for batch in batches for record in batch.records()]
    assert [(record.seq, record.row) for record in found] == [
        (17, {"id": 20, "v": 0}),
        (18, {"id": 21, "v": 1}),
        (19, {"id": 22, "v": 2}),
        (20, {"id": 30, "v": 1}),
    ]


@pytest.mark.statement(79, 80)
@samples.needs_samples
def test_below_what_the_files_still_tell_each_read_is_the_same_gap(tmp_path: Path) -> None:
    checkpoint = samples.scenario("s04_") / "checkpoints" / "c6_bottom_level_tombstones_dropped"
    with engine_table(engine_at(checkpoint, tmp_path), tmp_path / "data") as table:
        source = InProcessLogSource(feed_of(table, 64))
        for _ in range(2):
            with pytest.raises(
                LogGap, match=r"requested since 5, earliest available 63: .*no file"
            ) as caught:
                source.stream(5)
            assert (caught.value.requested, caught.value.earliest_available) == (5, 63)
        assert [op.seq for batch in source.stream(63) for op in batch.records()] == [64]


@pytest.mark.statement(4, 84, 99)
def test_an_engine_without_ops_has_an_empty_feed_and_none_above_it(watching: EngineTable) -> None:
    feed = feed_of(watching, 0)
    assert ops(feed) == []
    with pytest.raises(LogGap, match="requested since 1, earliest available 0"):
        ops(feed, 1)
