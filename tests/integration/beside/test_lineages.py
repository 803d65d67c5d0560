"""When a feed goes on under its lineage, and when it can't: seqs given out again, damage, other tables."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from uuid import UUID

import pytest

from flight_replica.beside.engine_feed import EngineFeed
from flight_replica.beside.engine_table import EngineTable
from flight_replica.errors import DamagedLog, LogGap, ReplicaError, Unavailable
from tests import samples
from tests.engine_directory import (
    EngineDirectory,
    SampleEngine,
    changes,
    engine_at,
    engine_table,
    feed_of,
)
from tests.log_writing import PUT, LogWriter, int_key, row
from tests.processes import until

pytestmark = samples.needs_samples


def crash(name: str) -> Path:
    return samples.scenario("s11") / "checkpoints" / name


def engine_of_crash(name: str, root: Path) -> EngineDirectory:
    """The log of a checkpoint with the catalog that it goes with."""
    facts = samples.checkpoint_facts(crash(name))
    engine = EngineDirectory(root)
    engine.commit(crash(facts["crash"].get("catalog_from", name)))
    for path in (crash(name) / "wal").glob("*.wal"):
        shutil.copy(path, engine.log)
    return engine


def table_uuid(engine: EngineDirectory) -> UUID:
    """Of the s11 table: all its checkpoints have the same one."""
    manifest = json.loads((crash("k1_right_after_first_kill") / "manifest.json").read_text())
    return UUID(manifest["table_uuid"])


def write_again(engine: EngineDirectory, value: int) -> None:
    """What an engine does that lost its last op, seq 73, and recovered: the seq again, in a new log."""
    shutil.copy(crash("t04_last_record_missing") / "wal" / "000005.wal", engine.log)
    number = 1 + max(int(path.stem) for path in engine.log.glob("*.wal"))
    writer = LogWriter(engine.log, number)
    writer.write([(PUT, int_key(value), row(value, b"again", None, None))], first_seq=73)
    writer.close()


def replaced(table: EngineTable, old: EngineFeed) -> EngineFeed:
    """The feed of the next lineage."""

    def is_there() -> bool:
        try:
            return table.feed is not old
        except Unavailable:
            return False

    until(is_there, f"another feed is served: {table.trouble}")
    return table.feed


def test_a_table_s_lineage_is_its_uuid(tmp_path: Path) -> None:
    engine = engine_of_crash("k2_right_after_second_kill", tmp_path)
    with engine_table(engine, tmp_path / "data") as table:
        assert feed_of(table, 73).lineage == table_uuid(engine)


def test_a_seq_with_other_bytes_while_it_is_followed_begins_a_new_lineage(tmp_path: Path) -> None:
    engine = engine_of_crash("k2_right_after_second_kill", tmp_path)
    with engine_table(engine, tmp_path / "data") as table:
        old = feed_of(table, 73)
        write_again(engine, value=1)
        new = replaced(table, old)
        assert new.lineage != old.lineage
        with pytest.raises(LogGap, match="gave the seqs out again") as gap:
            old.check_since(73, old.lineage)
        assert gap.value.lineage == new.lineage
        with pytest.raises(LogGap) as gap:
            new.check_since(73, old.lineage)
        assert gap.value.lineage == new.lineage


@pytest.mark.parametrize("is_flushed", [False, True], ids=["in the log", "flushed meanwhile"])
def test_a_seq_with_other_bytes_while_nobody_looked_begins_a_new_lineage(
    is_flushed: bool, tmp_path: Path
) -> None:
    engine = engine_of_crash("k2_right_after_second_kill", tmp_path)
    data = tmp_path / "data"
    if is_flushed:  # seq 73 of the files is the other op
        write_again(engine, value=1)
    with engine_table(engine, data) as table:
        before = feed_of(table, 73).lineage
    if is_flushed:
        engine.commit(crash("k4_flushed"))
        for path in engine.log.iterdir():
            path.unlink()
    else:
        write_again(engine, value=1)
    with engine_table(engine, data) as table:
        assert feed_of(table, 73).lineage != before


def test_ops_that_were_read_and_are_gone_begin_a_new_lineage_before_their_seqs_come_again(
    tmp_path: Path,
) -> None:
    engine = engine_of_crash("k2_right_after_second_kill", tmp_path)
    with engine_table(engine, tmp_path / "data") as table:
        before = feed_of(table, 73).lineage
    shutil.copy(crash("t04_last_record_missing") / "wal" / "000005.wal", engine.log)
    with engine_table(engine, tmp_path / "data") as table:
        assert feed_of(table, 72).lineage != before


def test_restarting_the_feed_server_alone_keeps_the_lineage_also_the_second_one(tmp_path: Path) -> None:
    engine = engine_of_crash("k2_right_after_second_kill", tmp_path)
    with engine_table(engine, tmp_path / "data") as table:
        old = feed_of(table, 73)
        write_again(engine, value=1)
        second = replaced(table, old).lineage
    for _ in range(3):
        with engine_table(engine, tmp_path / "data") as table:
            assert feed_of(table, 73).lineage == second


def test_a_record_that_is_there_twice_changes_nothing(tmp_path: Path) -> None:
    engine = engine_of_crash("t15_last_record_doubled", tmp_path)
    with engine_table(engine, tmp_path / "data") as table:
        feed = feed_of(table, 73)
        assert feed.lineage == table_uuid(engine)
        assert changes(feed, 12).num_rows == 73 - 12


@pytest.mark.parametrize(
    "name", ["t05_flipped_payload_byte_newest_log_middle", "t06_flipped_payload_byte_older_log"]
)
def test_damage_of_the_log_ends_the_feed_until_it_is_accepted_under_a_new_lineage(
    name: str, tmp_path: Path
) -> None:
    engine = engine_of_crash(name, tmp_path)

    def says_damage(table: EngineTable) -> bool:
        try:
            table.feed.check_since(0, None)
        except DamagedLog as damage:
            return "checksum" in str(damage) and ".wal, offset" in str(damage)
        except ReplicaError:
            pass
        return False

    with engine_table(engine, tmp_path / "data") as table:
        until(lambda: says_damage(table), "the damage is told")
        assert "checksum" in table.trouble
    lineages = set()
    for _ in range(2):  # restarting alone changes nothing
        with engine_table(engine, tmp_path / "data", accept_damage=True) as table:
            feed = feed_of(table, samples.read_seq(samples.expected(crash(name))))
            lineages.add(feed.lineage)
    assert len(lineages) == 1
    assert lineages != {table_uuid(engine)}


def test_damage_that_comes_while_it_is_followed_reaches_the_followers(tmp_path: Path) -> None:
    engine = engine_of_crash("k2_right_after_second_kill", tmp_path)
    with engine_table(engine, tmp_path / "data") as table:
        feed = feed_of(table, 73)
        number = 2 + max(int(path.stem) for path in engine.log.glob("*.wal"))  # one log is missing
        writer = LogWriter(engine.log, number)
        writer.write([(PUT, int_key(1), row(1, None, None, None))], first_seq=80)
        writer.close()

        def is_told() -> bool:
            try:
                feed.read(73, None, 1000)
            except DamagedLog as damage:
                return "74 to 79" in str(damage)
            return False

        until(is_told, "the ops between are missing")
        assert "74 to 79" in table.trouble


def test_a_table_that_was_created_anew_has_its_own_lineage(tmp_path: Path) -> None:
    first = samples.scenario("s04") / "checkpoints" / "c1_before_l0_to_l1"
    other = samples.scenario("s01") / "checkpoints" / "c2_two_files_and_log"
    engine = engine_at(first, tmp_path)
    with engine_table(engine, tmp_path / "data") as table:
        old = feed_of(table, 54)
        for directory in (engine.catalog, engine.log):
            directory.rename(tmp_path / f"old_{directory.name}")
        anew = engine_at(other, tmp_path / "anew")
        anew.log.rename(engine.log)
        anew.catalog.rename(engine.catalog)
        new = replaced(table, old)
        uuid = json.loads((other / "manifest.json").read_text())["table_uuid"]
        assert new.lineage == UUID(uuid)
        with pytest.raises(LogGap, match="created anew"):
            old.check_since(54, None)


def test_a_catalog_that_was_put_back_has_a_new_lineage(tmp_path: Path) -> None:
    scenario = samples.scenario("s04")
    later, earlier = (
        scenario / "checkpoints" / n for n in ("c4_before_second_compaction", "c1_before_l0_to_l1")
    )
    with engine_table(engine_at(later, tmp_path / "1"), tmp_path / "data") as table:
        before = feed_of(table, 63).lineage
    with engine_table(engine_at(earlier, tmp_path / "2"), tmp_path / "data") as table:
        assert feed_of(table, 54).lineage != before


def test_after_the_machine_went_down_under_it_a_feed_has_a_new_lineage(tmp_path: Path) -> None:
    engine = engine_of_crash("k2_right_after_second_kill", tmp_path)
    record = tmp_path / "data" / "t" / "lineage.json"
    with engine_table(engine, tmp_path / "data") as table:
        before = feed_of(table, 73).lineage
        left = json.loads(record.read_text())
    assert not left["is_closed"]
    record.write_text(json.dumps(left))  # as a kill leaves it
    with engine_table(engine, tmp_path / "data") as table:
        assert feed_of(table, 73).lineage == before
    record.write_text(json.dumps(left | {"boot_id": "another run of the machine"}))
    with engine_table(engine, tmp_path / "data") as table:
        assert feed_of(table, 73).lineage != before


def test_a_table_without_a_commit_keeps_its_lineage_through_its_first_one(tmp_path: Path) -> None:
    scenario = samples.scenario("s01")
    engine = SampleEngine(tmp_path, scenario)
    engine.become(scenario / "checkpoints" / "c0_log_only")
    with engine_table(engine, tmp_path / "data", engine.schema) as table:
        feed = feed_of(table, 20)
        engine.become(scenario / "checkpoints" / "c1_one_file")
        until(lambda: feed.newest_snapshot == (1, 20), "the first flush is known")
        assert table.feed is feed
