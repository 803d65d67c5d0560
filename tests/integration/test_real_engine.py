"""Tables that the real engine writes while we look, against what the engine itself reads.

The samples are frozen; these tables are written now, by a program on the unmodified crate
(tests/engine). Select with `-m engine`; the first run builds the program.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from flight_replica.base.merutable import MerutableBase
from flight_replica.errors import BaseNotUsable
from tests.engine.driver import Engine, Truth, schema, until_true
from tests.engine.reading import rows_of_snapshot

pytestmark = pytest.mark.engine

MANY_KEYS = 400
KINDS = ["id", "composite", "types"]


def base_of(engine: Engine) -> MerutableBase:
    return MerutableBase(engine.directory, table="events")


@pytest.mark.parametrize("kind", KINDS)
def test_the_engine_reads_what_it_acknowledged(kind: str, tmp_path: Path) -> None:
    truth = Truth(schema(kind))
    with Engine(tmp_path / "t", truth=truth, kind=kind) as engine:
        engine.write(3000, keys=MANY_KEYS, deletes=0.2, batch_max=10, flush_every=300)
        scan = engine.scan(tmp_path / "scan")

    assert scan.rows == truth.rows()
    assert scan.read_seq == truth.last_seq


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "shape",
    [
        pytest.param({}, id="defaults"),
        pytest.param({"compaction_workers": 0}, id="level-0-only"),
        pytest.param({"dual_format_max_level": None}, id="columnar"),
        pytest.param({"dual_format_max_level": 3, "l0_compaction_trigger": 2}, id="row-blobs-deep"),
        pytest.param({"level_target_bytes": [], "l0_compaction_trigger": 2}, id="tombstones-dropped"),
        pytest.param({"level_target_bytes": [4096, 16384, 65536], "l0_compaction_trigger": 2}, id="deep"),
    ],
)
def test_a_base_equals_the_engine_s_scan_after_flushes_and_compactions(
    kind: str, shape: dict[str, object], tmp_path: Path
) -> None:
    with Engine(tmp_path / "t", kind=kind, **shape) as engine:
        for round_number in range(6):
            engine.write(500, keys=MANY_KEYS, deletes=0.3, batch_max=20, flush_every=120, seed=round_number)
            engine.do("flush")
            if round_number % 2:
                engine.do("compact")
            scan = engine.scan(tmp_path / "scan")

            snapshot = base_of(engine).load()

            assert rows_of_snapshot(snapshot) == scan.rows
            assert snapshot.base_seq <= scan.read_seq
            assert snapshot.schema == engine.schema


def test_a_base_read_while_the_engine_writes_flushes_and_compacts_is_one_moment(tmp_path: Path) -> None:
    truth = Truth(schema("id"))
    seen: list[tuple[int, dict[bytes, tuple[object, ...]]]] = []
    with Engine(
        tmp_path / "t", truth=truth, l0_compaction_trigger=2, level_target_bytes=[20_000, 100_000]
    ) as engine:
        base = base_of(engine)
        engine.start_writing(ops=4000, rate=1000, keys=MANY_KEYS, deletes=0.2, batch_max=5, flush_every=100)
        until_true(has_snapshot(base), "the first flush")
        while len(truth.commits) < 1000:
            snapshot = base.load()
            seen.append((snapshot.base_seq, rows_of_snapshot(snapshot)))
        engine.wait_written()

    assert len({seq for seq, _ in seen}) > 5
    table = truth.table()
    for seq, rows in seen:
        table.move_to(seq)
        assert rows == table.rows, f"base at seq {seq}"


def has_snapshot(base: MerutableBase) -> Callable[[], bool]:
    def holds() -> bool:
        try:
            return base.poll() is not None
        except BaseNotUsable:  # the very first commit is under way
            return False

    return holds


def test_columns_that_are_added_reach_the_base_with_the_engine_s_own_defaults(tmp_path: Path) -> None:
    directory = tmp_path / "t"
    for added in range(4):
        with Engine(directory, added_columns=added, compaction_workers=0) as engine:
            engine.write(200, keys=MANY_KEYS, deletes=0.1, seed=added)
            engine.do("flush")
            scan = engine.scan(tmp_path / "scan")
            snapshot = base_of(engine).load()

            assert snapshot.schema == engine.schema
            assert rows_of_snapshot(snapshot) == scan.rows
            if added < 3:
                engine.do("add_column", number=added)
            engine.close()


def test_a_killed_engine_comes_back_with_all_it_acknowledged(tmp_path: Path) -> None:
    truth = Truth(schema("id"))
    for life in range(5):
        with Engine(tmp_path / "t", truth=truth, memtable_mb=1) as engine:
            is_enough = truth.has_grown(200)
            engine.start_writing(keys=MANY_KEYS, deletes=0.2, batch_max=5, flush_every=200, seed=life)
            until_true(is_enough, "200 more commits")
            engine.kill()
    with Engine(tmp_path / "t", truth=truth) as engine:
        assert engine.scan(tmp_path / "scan").rows == truth.rows()
        engine.do("flush")
        assert rows_of_snapshot(base_of(engine).load()) == truth.rows()


def test_rows_that_wait_in_the_log_while_columns_are_added_get_the_engine_s_defaults(tmp_path: Path) -> None:
    with Engine(tmp_path / "t") as engine:
        engine.write(100, keys=MANY_KEYS, deletes=0.1)
        engine.kill()
    with Engine(tmp_path / "t", added_columns=3, compaction_workers=0, l0_compaction_trigger=1) as engine:
        engine.write(50, keys=MANY_KEYS, seed=2)
        for verb in ("flush", "compact"):
            engine.do(verb)
            scan = engine.scan(tmp_path / "scan")
            assert {len(row) for row in scan.rows.values()} == {6}
            assert rows_of_snapshot(base_of(engine).load()) == scan.rows, verb


def test_a_mirror_s_base_is_a_moment_of_the_table(tmp_path: Path) -> None:
    truth = Truth(schema("id"))
    mirror = tmp_path / "mirror"
    with Engine(tmp_path / "t", truth=truth, mirror=str(mirror), l0_compaction_trigger=2) as engine:
        base = MerutableBase(mirror, table="events")
        table = truth.table()
        engine.write(50, keys=MANY_KEYS)
        for seed in range(6):
            engine.start_writing(
                ops=300, keys=MANY_KEYS, deletes=0.2, batch_max=9, flush_every=100, seed=seed
            )
            engine.do("flush")
            engine.do("await_mirror")
            snapshot = base.load()
            engine.wait_written()

            table.move_to(snapshot.base_seq)
            assert rows_of_snapshot(snapshot) == table.rows
