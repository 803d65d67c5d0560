"""Random histories of one table, its base and its replica, compared with the model after every step.

Invariants:
- by query and by get, a replica shows the model's table at `visible_seq`, which is the end of a commit;
- `visible_seq` and `base_seq` never go back in the life of a replica, and base_seq <= visible_seq;
- what a refused or failed call leaves is what was there before it;
- an open view stays the model's table at its own seq until it is closed;
- the history served to other replicas ends at `visible_seq` and holds every op after its `low_water`.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from flight_replica.errors import BaseNotUsable, FeedError, LogGap, NotCaughtUp
from flight_replica.keys import KeyCodec
from flight_replica.log.source import Op
from flight_replica.replica.known import known
from flight_replica.replica.reopened import reopened
from flight_replica.replica.replica import Replica
from flight_replica.replica.stats import ReplicaStats
from flight_replica.replica.swaps import StateSwaps
from flight_replica.replica.view import open_view
from flight_replica.schema import Column, TableSchema
from flight_replica.sql.database import quote
from flight_replica.sql.types import equal_key_sql, sql_type
from flight_replica.sql.view import View
from flight_replica.state import key_slices, native_state, recent_ops, row_bits
from flight_replica.state.state import StateKind
from flight_replica.state.workspace import Workspace
from tests.bases import ID_V, Change, Fault, FaultyLog, SmallTable, assert_same, delete, put, sorted_by_key

FLOAT_KEY = TableSchema((Column("v", pa.string()), Column("k", pa.float64(), False)), ("k",))
TWO_KEYS = TableSchema(
    (Column("b", pa.string(), False), Column("a", pa.int8(), False), Column("seq", pa.int64())), ("a", "b")
)
# Few keys, so that ops meet; values that DuckDB or Parquet could take for one another.
VALUES: dict[str, st.SearchStrategy[Any]] = {
    "id": st.integers(0, 7),
    "k": st.sampled_from([-0.0, 0.0, 1.5, float("inf")]),
    "a": st.integers(-1, 1),
    "b": st.sampled_from(["", "x", "x\x00"]),
    "v": st.none() | st.integers(0, 3),
    "seq": st.none() | st.integers(0, 3),
}
TEXTS = st.none() | st.sampled_from(["", "new"])


REBASES = [
    StateSwaps.rebase,
    StateSwaps.rebase_hotswap,
    StateSwaps.rebase_beside,
    StateSwaps.recover_from_log_gap,
]


class ReplicaHistories(RuleBasedStateMachine):
    """One primary and one replica; the feed comes by `advance` or batch by batch."""

    def __init__(self) -> None:
        super().__init__()
        self.undo = ExitStack()
        directory = Path(self.undo.enter_context(tempfile.TemporaryDirectory()))
        self.workspace = Workspace(directory / "data")
        self.base_directory = directory / "base"
        self.views: list[tuple[View, int, TableSchema]] = []
        self.steps = 0

    @initialize(
        schema=st.sampled_from([ID_V, FLOAT_KEY, TWO_KEYS]),
        waiting=st.sampled_from([0, 6, recent_ops.WAITING_OPS_MAX]),
        kept=st.sampled_from([0, 6, recent_ops.KEPT_OPS_MAX]),
        beside=st.sampled_from([0, native_state.BESIDE_OPS_MIN]),
        slice_rows=st.sampled_from([1, key_slices.SLICE_ROWS]),
    )
    def open(self, schema: TableSchema, waiting: int, kept: int, beside: int, slice_rows: int) -> None:
        patch = self.undo.enter_context(pytest.MonkeyPatch.context())
        patch.setattr(recent_ops, "WAITING_OPS_MAX", waiting)
        patch.setattr(recent_ops, "KEPT_OPS_MAX", kept)
        patch.setattr(native_state, "BESIDE_OPS_MIN", beside)
        patch.setattr(key_slices, "SLICE_ROWS", slice_rows)
        patch.setattr(key_slices, "SAMPLE_ROWS", 1)
        self.primary = SmallTable(self.base_directory, schema)
        self._open()

    def _open(self) -> None:
        self.log: FaultyLog = self.primary.log(batch_size=3)
        self.replica = Replica.open(self.primary.base, self.log, workspace=self.workspace)
        self.seen = (0, 0)

    def teardown(self) -> None:
        for view, _, _ in self.views:
            view.close()
        if hasattr(self, "replica"):
            self.replica.close()
        tables = self.workspace.database.execute("SELECT table_name FROM duckdb_tables()").fetchall()
        files = list((self.workspace.directory / "states").iterdir())
        native = list((self.workspace.directory / "native").rglob("*.duckdb"))
        self.workspace.close()
        self.undo.close()
        assert (tables, files) == ([], [])
        assert len(native) <= 1, "only what a later process goes on with is left"

    # --- the primary ------------------------------------------------------------------------------

    @rule(data=st.data(), count=st.integers(1, 6), parts=st.integers(1, 3), skipped=st.integers(0, 2))
    def commit(self, data: st.DataObject, count: int, parts: int, skipped: int) -> None:
        changes = [self._change(data) for _ in range(count)]
        self.primary.commit(*changes, parts=parts, first_seq=self.primary.seq + 1 + skipped)

    def _change(self, data: st.DataObject) -> Change:
        schema = self.primary.schema
        values = {name: data.draw(self._values(name)) for name in schema.names}
        if data.draw(st.integers(0, 3)) == 0:
            return delete(*(values[name] for name in schema.primary_key), schema=schema)
        return put(*values.values(), schema=schema)

    def _values(self, name: str) -> st.SearchStrategy[Any]:
        column = next(c for c in self.primary.schema.columns if c.name == name)
        return TEXTS if column.type == pa.string() and column.nullable else VALUES[name]

    @rule(data=st.data())
    def flush(self, data: st.DataObject) -> None:
        base_seq = self.primary.base.snapshot.base_seq
        self.primary.flush(data.draw(st.sampled_from([s for s in self.primary.commit_ends if s >= base_seq])))

    @rule(data=st.data())
    def trim(self, data: st.DataObject) -> None:
        self.primary.feed.trim(data.draw(st.sampled_from(self.primary.commit_ends)))

    @precondition(lambda self: len(self.primary.schema.columns) < 5)
    @rule(default=TEXTS)
    def add_column(self, default: str | None) -> None:
        number = len(self.primary.schema.columns)
        self.primary.add_column(Column(f"w{number}", pa.string(), True, default))

    # --- the feed ---------------------------------------------------------------------------------

    @rule()
    def advance(self) -> None:
        is_gap = self.replica.visible_seq < self.primary.feed.low_water
        try:
            self.replica.advance()
        except LogGap:
            assert is_gap
            return
        assert not is_gap
        assert self.replica.visible_seq == self.primary.seq

    @rule(count=st.integers(1, 4), byte_limit=st.sampled_from([1, 1 << 20]))
    def receive(self, count: int, byte_limit: int) -> None:
        """Follow: commits come whole, in parts, several at once, and heartbeats between."""
        self.replica.change_schema(self.primary.schema)
        for _ in range(count):
            since = self.replica.history.newest_seq
            if since < self.primary.feed.low_water:
                return
            self.replica.receive(self.primary.feed.read(since, None, byte_limit))

    @rule()
    def reconnect(self) -> None:
        assert self.replica.begin_following() == self.replica.visible_seq

    @rule(fault=st.sampled_from([Fault.ERROR_AT_OPEN, Fault.ERROR_AFTER_ONE, Fault.GAP]))
    def failing_advance(self, fault: Fault) -> None:
        self.log.fault = fault
        with pytest.raises(FeedError):  # what came before the failure stays
            self.replica.advance()
        self.log.fault = Fault.NONE

    @rule(fault=st.sampled_from([Fault.DUPLICATE, Fault.FROM_ZERO]))
    def repeating_advance(self, fault: Fault) -> None:
        if self.primary.feed.low_water == 0:
            self.log.fault = fault
            self.replica.advance()
            self.log.fault = Fault.NONE
            assert self.replica.visible_seq == self.primary.seq

    @precondition(lambda self: self.replica.visible_seq < self.primary.seq)
    @rule()
    def failing_batch(self) -> None:
        """Another transaction holds the position's row, so that no apply can commit."""
        is_native = self.replica.state.kind is StateKind.MERGE_ON_APPLY
        names = (
            "SELECT database_name || '.' || table_name FROM duckdb_tables() WHERE table_name LIKE 'position%'"
            f" AND (database_name <> 'memory') = {is_native} ORDER BY length(database_name), database_name"
        )
        found = self.workspace.database.execute(names).fetchall()
        blocker = self.workspace.session()
        blocker.execute("BEGIN")
        waiting = recent_ops.WAITING_OPS_MAX
        recent_ops.WAITING_OPS_MAX = 0
        for (name,) in found[-1:] if is_native else found:  # a transaction writes to one database only
            # What an apply does with the row, too: DuckDB lets an update and a delete of one row pass.
            blocker.execute(f"DELETE FROM {name}" if is_native else f"UPDATE {name} SET commit_time_us = 1")
        before = self.replica.stats
        with pytest.raises(Exception, match=r"[Cc]onflict|log gap"):
            self.replica.advance()
        recent_ops.WAITING_OPS_MAX = waiting
        blocker.execute("ROLLBACK")
        blocker.close()
        assert self.replica.stats == before

    # --- bases ------------------------------------------------------------------------------------

    @rule(rebase=st.sampled_from(REBASES))
    def rebase(self, rebase: Callable[[StateSwaps], object]) -> None:
        before, base_seq = self.replica.stats, self.primary.base.snapshot.base_seq
        is_native = self.replica.state.kind is StateKind.MERGE_ON_APPLY
        try:
            rebase(self.replica.swaps)
        except NotCaughtUp as error:
            assert base_seq < self.primary.feed.low_water
            assert error.served_seq == before.visible_seq > error.offered_seq == base_seq
            assert self.replica.stats == before
            return
        assert self.replica.base_seq == base_seq
        if rebase is StateSwaps.rebase_beside and is_native:  # reads no log where the history is enough
            assert self.replica.visible_seq >= max(before.visible_seq, base_seq)
        elif base_seq >= self.primary.feed.low_water:
            assert self.replica.visible_seq == self.primary.seq

    @rule()
    def merge_on_apply(self) -> None:
        """The other kind of state, or that kind anew; it shows the same, at the same seq."""
        before = self.replica.stats
        self.replica.swaps.merge_on_apply()
        assert self.replica.state.kind is StateKind.MERGE_ON_APPLY
        assert self.replica.stats == before

    @precondition(lambda self: self.primary.base.snapshot.base_seq >= self.primary.feed.low_water)
    @rule()
    def stand_on_newer_base(self) -> None:
        self.replica.swaps.stand_on_newer_base()
        assert self.replica.base_seq == self.primary.base.snapshot.base_seq

    @rule()
    def advance_or_recover(self) -> None:
        before = self.replica.stats
        try:
            self.replica.advance_or_recover()
        except NotCaughtUp:
            assert self.replica.stats == before

    @precondition(lambda self: self.primary.base.snapshot.base_seq >= self.primary.feed.low_water)
    @rule(fault=st.sampled_from([Fault.ERROR_AT_OPEN, Fault.ERROR_AFTER_ONE]))
    def failing_rebase(self, fault: Fault) -> None:
        self.log.fault = fault
        before = self.replica.stats
        with pytest.raises(FeedError):
            self.replica.swaps.rebase_hotswap()
        self.log.fault = Fault.NONE
        assert self.replica.stats == before

    @precondition(lambda self: self.primary.base.snapshot.files)
    @rule()
    def rebase_on_files_that_are_gone(self) -> None:
        self.primary.base.remove_files()
        before = self.replica.stats
        with pytest.raises(BaseNotUsable):
            self.replica.swaps.rebase_hotswap()
        assert self.replica.stats == before
        self.primary.flush(self.primary.base.snapshot.base_seq)

    @rule()
    def reopen(self) -> None:
        self.replica.close()
        self._open()

    @rule(is_killed=st.booleans())
    def go_on_with_the_native_state(self, is_killed: bool) -> None:
        """As a later process does: nothing is loaded, nothing is read twice, nothing is lost."""
        before, schema = self.replica.stats, self.replica.schema
        is_native = self.replica.state.kind is StateKind.MERGE_ON_APPLY
        with pytest.MonkeyPatch.context() as patch:
            if is_killed:  # what waits isn't written
                patch.setattr(Replica, "settle", lambda self: None)
            self.replica.close()
        self.log = self.primary.log(batch_size=3)
        state = reopened(self.workspace, "t", self.log, 1 << 40)
        if state is None:
            assert not is_native or self.views  # whose file is still read
            self._open()
            return
        assert is_native
        self.replica = Replica("t", self.primary.base, self.log, self.workspace, start_seq=state.visible_seq)
        self.replica.begin_with(state)
        now = self.replica.stats
        assert (now.visible_seq, now.base_seq) == (before.visible_seq, before.base_seq)
        assert now.tail_length == before.tail_length
        assert self.replica.schema.names[: len(schema.names)] == schema.names

    # --- readers ----------------------------------------------------------------------------------

    @precondition(lambda self: len(self.views) < 3)
    @rule()
    def open_view(self) -> None:
        self.views.append((self.replica.view(), self.replica.visible_seq, self.replica.schema))

    @precondition(lambda self: self.views)
    @rule(data=st.data(), is_last_look=st.booleans())
    def look_at_view(self, data: st.DataObject, is_last_look: bool) -> None:
        view, seq, schema = entry = data.draw(st.sampled_from(self.views))
        assert view.positions[0].visible_seq == seq
        found = sorted_by_key(view.execute("SELECT * FROM t").read_all(), schema)
        assert_same(found, self.primary.rows_at(seq, schema))
        assert view.row_count("t") == len(found)
        if is_last_look:
            view.close()
            self.views.remove(entry)

    # --- after every step -------------------------------------------------------------------------

    @invariant()
    def shows_the_model_s_table_at_its_seq(self) -> None:
        if not hasattr(self, "replica"):
            return
        replica, schema = self.replica, self.replica.schema
        seq = replica.visible_seq
        assert seq in self.primary.commit_ends
        expected = self.primary.rows_at(seq, schema)
        for number, row in enumerate(expected.slice(0, 2).to_pylist()):
            key = [row[name] for name in schema.primary_key]
            assert replica.get(*key) == row
            self._assert_found(key, expected.slice(number, 1))
        for gone in self._deleted(seq):
            assert replica.get(*gone) is None
            self._assert_found(gone, expected.slice(0, 0))
        self.steps += 1
        if self.steps % 3:
            counted = known(replica, None)
            assert counted is None or (counted.position.visible_seq, counted.content) == (seq, len(expected))
        if self.steps % 3:  # else what waits in memory goes on waiting
            with replica.view() as view:
                is_counted_first = self.steps % 2 == 0
                counts = [view.row_count("t")] if is_counted_first else []
                assert_same(sorted_by_key(view.execute("SELECT * FROM t").read_all(), schema), expected)
                assert {*counts, view.row_count("t")} == {len(expected)}

    def _assert_found(self, key: Sequence[object], expected: pa.Table) -> None:
        """Who asks for one key by query finds it at the seq that is shown."""
        terms = " AND ".join(
            equal_key_sql(quote(column.name), f"${number}::{sql_type(column.type)}", column.type)
            for number, column in enumerate(self.replica.schema.key_columns, start=1)
        )
        names = (name.lower() for name in self.replica.schema.primary_key)
        demanded = {"t": dict(zip(names, key, strict=True))}
        with open_view(self.workspace, {"t": self.replica}, demanded) as view:
            assert view.positions[0].visible_seq == self.replica.visible_seq
            assert_same(view.execute(f"SELECT * FROM t WHERE {terms}", list(key)).read_all(), expected)
        found = known(self.replica, key)
        assert (found is not None) == (self.replica.state.kind is StateKind.MERGE_ON_APPLY)
        if found is not None:
            assert found.position.visible_seq == self.replica.visible_seq
            assert isinstance(found.content, pa.Table)
            rows = found.content.rename_columns(list(found.schema.names))
            assert_same(sorted_by_key(rows, found.schema), expected)

    def _deleted(self, seq: int) -> list[tuple[object, ...]]:
        """Two keys that were deleted last, as of `seq`."""
        newest = {record.pk_bytes: record for record in self.primary.model.as_of(seq).ops}
        gone = [record.pk_bytes for record in newest.values() if record.op is Op.DELETE][-2:]
        columns = KeyCodec(self.primary.schema).decode(pa.array(gone, pa.binary()))
        return list(zip(*(column.to_pylist() for column in columns), strict=True))

    @invariant()
    def positions_never_go_back(self) -> None:
        if not hasattr(self, "replica"):
            return
        stats: ReplicaStats = self.replica.stats
        assert stats.base_seq <= stats.visible_seq
        assert self.seen <= (stats.visible_seq, stats.base_seq)
        assert self.seen[1] <= stats.base_seq
        self.seen = (stats.visible_seq, stats.base_seq)

    @invariant()
    def serves_its_history(self) -> None:
        if not hasattr(self, "replica"):
            return
        history = self.replica.history
        assert history.high_water == self.replica.visible_seq
        batch = history.read(history.low_water, None, 1 << 30)
        assert batch.mark.commit_through == batch.mark.through == self.replica.visible_seq
        found = [(record.seq, record.op, record.pk_bytes) for record in batch.records()]
        model = self.primary.model.as_of(batch.mark.through)
        assert found == [(r.seq, r.op, r.pk_bytes) for r in model.ops if r.seq > history.low_water]


@pytest.fixture(autouse=True)
def bitmaps_of_small_files_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(row_bits, "ROWS_MIN", 0)


def run(examples: int, steps: int) -> None:
    profile = settings(
        max_examples=examples,
        stateful_step_count=steps,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    run_state_machine_as_test(ReplicaHistories, settings=profile)  # type: ignore[no-untyped-call]


def test_random_histories_of_a_replica() -> None:
    run(examples=25, steps=25)


@pytest.mark.long
def test_long_random_histories_of_a_replica() -> None:
    run(examples=200, steps=60)
