"""Ops on their way from the log to level 0 and deeper, under a feed server that runs, or restarts.

The engine's directories go through a scenario's checkpoints in the engine's order of steps; a consumer
follows and shows what it has at each end of a commit, as a replica does.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import UUID

import pytest

from flight_replica.beside.engine_table import EngineTable
from flight_replica.errors import LogGap, Unavailable
from flight_replica.log.in_process import InProcessLogSource
from flight_replica.log.source import OpBatch
from tests import samples
from tests.engine_directory import (
    SampleEngine,
    changes,
    checkpoints_in_order,
    engine_table,
    feed_of,
)
from tests.processes import until

SCENARIOS = ["s01", "s02", "s03", "s04", "s05_", "s06", "s08", "s11", "s12", "s15"]
each_scenario = pytest.mark.parametrize(
    "scenario", [pytest.param(path, id=path.name) for path in samples.scenarios(SCENARIOS)]
)
pytestmark = samples.needs_samples


class Consumer:
    """Follows a table's feed as a replica does: it shows rows as of ends of commits only."""

    def __init__(self, table: EngineTable) -> None:
        self._table = table
        self._log: InProcessLogSource | None = None
        self._is_stopped = threading.Event()
        self.rows: dict[bytes, int] = {}  # pk_bytes -> seq of the newest op, as of `seq`
        self.seq = 0
        self.lineages: list[UUID] = []
        self.error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._is_stopped.set()
        if self._log is not None:
            self._log.close()
        self._thread.join()
        if self.error is not None:
            raise self.error

    def _run(self) -> None:
        try:
            while not self._is_stopped.is_set():
                self._follow()
        except BaseException as error:
            self.error = error

    def _follow(self) -> None:
        try:
            feed = self._table.feed
        except Unavailable:
            self._is_stopped.wait(0.01)
            return
        if feed.lineage not in self.lineages:
            self.lineages.append(feed.lineage)
            self.rows, self.seq = {}, 0
        self._log = InProcessLogSource(feed)
        position, pending = self.seq, []
        try:
            for batch in self._log.follow(self.seq):
                if self._is_stopped.is_set():
                    return
                assert batch.mark.after == position, f"{batch.mark} at {position}"
                position = batch.mark.through
                pending += [(r.seq, r.op, r.pk_bytes) for r in batch.records()]
                self._show(batch, pending)
        except LogGap as gap:
            assert gap.lineage != feed.lineage, gap
        except Unavailable:  # files that are gone were to be read: from here again
            pass

    def _show(self, batch: OpBatch, pending: list[tuple[int, str, bytes]]) -> None:
        end = batch.mark.commit_through
        if end <= self.seq:
            return
        rows = dict(self.rows)
        while pending and pending[0][0] <= end:
            seq, op, key = pending.pop(0)
            assert seq > self.seq, f"seq {seq} again, at {self.seq}"
            if op == "DELETE":
                rows.pop(key, None)
            else:
                rows[key] = seq
        self.rows, self.seq = rows, end


@contextmanager
def consumer(table: EngineTable) -> Iterator[Consumer]:
    found = Consumer(table)
    try:
        yield found
    finally:
        found.close()


def expected_rows(checkpoint: Path) -> dict[bytes, int]:
    """Key -> seq of its newest version in the engine's own scan."""
    table = samples.expected(checkpoint)
    return dict(zip(table.column("pk_bytes").to_pylist(), table.column("seq").to_pylist(), strict=True))


def assert_shows(found: Consumer, checkpoint: Path) -> None:
    read_seq = samples.read_seq(samples.expected(checkpoint))
    until(
        lambda: found.seq >= read_seq or found.error is not None,
        f"the consumer is at {read_seq} ({checkpoint.name}), not {found.seq}",
    )
    assert found.error is None, found.error
    assert (found.seq, found.rows) == (read_seq, expected_rows(checkpoint)), checkpoint.name


@each_scenario
def test_a_follower_sees_every_state_of_the_engine_while_ops_move_to_files(
    scenario: Path, tmp_path: Path
) -> None:
    engine = SampleEngine(tmp_path, scenario)
    with engine_table(engine, tmp_path / "data", engine.schema) as table, consumer(table) as found:
        for checkpoint in checkpoints_in_order(scenario):
            engine.become(checkpoint)
            assert_shows(found, checkpoint)
        assert len(found.lineages) == 1


@each_scenario
def test_a_feed_server_that_looks_between_any_two_steps_loses_nothing(scenario: Path, tmp_path: Path) -> None:
    engine = SampleEngine(tmp_path, scenario)
    with engine_table(engine, tmp_path / "data", engine.schema) as table, consumer(table) as found:
        for checkpoint in checkpoints_in_order(scenario):
            for _ in engine.run_to(checkpoint):
                let_it_look(table, engine)
            assert_shows(found, checkpoint)
        assert len(found.lineages) == 1


def let_it_look(table: EngineTable, engine: SampleEngine) -> None:
    """Until the table has read the log, and knows the files that the hint names now."""
    hint = engine.catalog / "version-hint.text"
    number, end = int(hint.read_text()) if hint.exists() else 0, engine.writer.next_seq - 1

    def knows() -> bool:
        feed = feed_of(table)
        newest = feed.newest_snapshot
        return newest is not None and newest[0] == number and feed.high_water >= end

    until(knows, f"version {number} is known: {table.trouble}")


@each_scenario
def test_a_restart_at_every_checkpoint_keeps_the_lineage_and_goes_on_where_it_was(
    scenario: Path, tmp_path: Path
) -> None:
    engine = SampleEngine(tmp_path, scenario)
    lineages, rows, seq = set(), {}, 0
    for checkpoint in checkpoints_in_order(scenario):
        engine.become(checkpoint)
        with engine_table(engine, tmp_path / "data", engine.schema) as table:
            feed = feed_of(table, samples.read_seq(samples.expected(checkpoint)))
            lineages.add(feed.lineage)
            for op in changes(feed, seq).select([0, 1, 2]).to_pylist():
                rows.pop(op["pk_bytes"], None)
                if op["op"] != "DELETE":
                    rows[op["pk_bytes"]] = op["seq"]
            seq = feed.high_water
        assert rows == expected_rows(checkpoint), checkpoint.name
    assert len(lineages) == 1
