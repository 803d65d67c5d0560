"""Random histories of writes at the primary against a dict of rows.

Invariants, after every step: the table's rows are the model's; the feed replayed through `TableModel` gives
the same rows; seqs are consecutive and grow by exactly the ops of the step; a failing statement changes
nothing. Restarts come at any point.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from flight_replica.errors import ConstraintViolation, InvalidStatement, ReplicaError
from flight_replica.flightsql.service import IngestMode
from flight_replica.primary.engine import Engine
from flight_replica.primary.settings import PrimarySettings
from tests.model import Row, TableModel

KEYS = st.integers(-4, 12)
TEXTS = st.sampled_from(["a", "b", None])
ROWS = st.lists(st.tuples(KEYS, TEXTS), min_size=1, max_size=6)
Key = int


class PrimaryHistory(RuleBasedStateMachine):
    """One table `t (id, a, …)` whose model is `rows`: id -> row."""

    @initialize(recent_bytes=st.sampled_from([1, 20_000, 1 << 20]))
    def open(self, recent_bytes: int) -> None:
        self.folder = tempfile.TemporaryDirectory()
        self.settings = PrimarySettings(recent_ops_bytes=recent_bytes)
        self.engine = Engine.open(Path(self.folder.name), self.settings)
        self.rows: dict[Key, Row] = {}
        self.extra: dict[str, int] = {}  # added column -> default
        self.create()

    def create(self) -> None:
        self.engine.write("CREATE TABLE t (id BIGINT PRIMARY KEY, a VARCHAR)")
        self.rows, self.extra = {}, {}
        self.replayed = TableModel()
        self.lineage = self.engine.feed("t").lineage

    def teardown(self) -> None:
        if hasattr(self, "engine"):
            self.engine.close()
            self.folder.cleanup()

    def row(self, key: Key, text: str | None) -> Row:
        return {"id": key, "a": text, **self.extra}

    def succeed(
        self, sql: str, expected: dict[Key, Row], op_count: int, bound: pa.Table | None = None
    ) -> None:
        before = self.engine.feed("t").high_water
        result = self.engine.write(sql, bound)
        assert result.seq == before + op_count
        self.rows = expected

    def fail(self, sql: str, error: type[ReplicaError], bound: pa.Table | None = None) -> None:
        before = self.engine.feed("t").high_water
        with pytest.raises(error):
            self.engine.write(sql, bound)
        assert self.engine.feed("t").high_water == before

    # --- inserts ----------------------------------------------------------------------------------

    @rule(rows=ROWS, is_bound=st.booleans())
    def insert(self, rows: list[tuple[Key, str | None]], is_bound: bool) -> None:
        sql, bound = _insert("INSERT", rows, is_bound)
        keys = [key for key, _ in rows]
        if len(set(keys)) < len(keys) or set(keys) & set(self.rows):
            self.fail(sql, ConstraintViolation, bound)
        else:
            added = {key: self.row(key, text) for key, text in rows}
            self.succeed(sql, {**self.rows, **added}, len(rows), bound)

    @rule(rows=ROWS, is_bound=st.booleans())
    def insert_or_replace(self, rows: list[tuple[Key, str | None]], is_bound: bool) -> None:
        sql, bound = _insert("INSERT OR REPLACE", rows, is_bound)
        put = {key: self.row(key, text) for key, text in rows}
        self.succeed(sql, {**self.rows, **put}, len(put), bound)

    @rule(rows=ROWS, is_bound=st.booleans())
    def insert_or_ignore(self, rows: list[tuple[Key, str | None]], is_bound: bool) -> None:
        sql, bound = _insert("INSERT OR IGNORE", rows, is_bound)
        new = {key: self.row(key, text) for key, text in reversed(rows) if key not in self.rows}
        self.succeed(sql, {**self.rows, **new}, len(new), bound)

    @rule(rows=ROWS)
    def ingest(self, rows: list[tuple[Key, str | None]]) -> None:
        data = _table(rows)
        self.engine.ingest("t", IngestMode.APPEND, data.to_reader())
        self.rows = {**self.rows, **{key: self.row(key, text) for key, text in rows}}

    @rule(step=st.integers(1, 20))
    def insert_from_itself(self, step: int) -> None:
        copies = {key + step: {**row, "id": key + step} for key, row in self.rows.items()}
        sql = f"INSERT INTO t SELECT id + {step}, * EXCLUDE (id) FROM t"
        if set(copies) & set(self.rows):
            self.fail(sql, ConstraintViolation)
        elif len(copies) < 30:
            self.succeed(sql, {**self.rows, **copies}, len(copies))

    # --- updates and deletes ----------------------------------------------------------------------

    @rule(low=KEYS, text=TEXTS)
    def update(self, low: Key, text: str | None) -> None:
        hit = {key: {**row, "a": text} for key, row in self.rows.items() if key >= low}
        value = "NULL" if text is None else f"'{text}'"
        self.succeed(f"UPDATE t SET a = {value} WHERE id >= {low}", {**self.rows, **hit}, len(hit))

    @rule(low=KEYS, high=KEYS, step=st.integers(-3, 3))
    def update_keys(self, low: Key, high: Key, step: int) -> None:
        hit = [key for key in self.rows if low <= key <= high]
        rest = {key: row for key, row in self.rows.items() if key not in hit}
        moved = {key + step: {**self.rows[key], "id": key + step} for key in hit}
        sql = f"UPDATE t SET id = id + {step} WHERE id BETWEEN {low} AND {high}"
        if set(moved) & set(rest):
            self.fail(sql, ConstraintViolation)
        else:
            self.succeed(sql, {**rest, **moved}, len(hit) * (2 if step else 1))

    @rule(low=KEYS, high=KEYS, key=KEYS)
    def update_keys_to_one(self, low: Key, high: Key, key: Key) -> None:
        hit = [found for found in self.rows if low <= found <= high]
        sql = f"UPDATE t SET id = {key} WHERE id BETWEEN {low} AND {high}"
        if len(hit) > 1 or (hit and key in self.rows and key != hit[0]):
            self.fail(sql, ConstraintViolation)
        else:
            moved = [{**self.rows[found], "id": key} for found in hit]  # one or none
            rest = {found: row for found, row in self.rows.items() if found not in hit}
            expected = {**rest, key: moved[0]} if moved else rest
            self.succeed(sql, expected, 0 if not hit else 1 if hit == [key] else 2)

    @rule(keys=st.lists(KEYS, min_size=1, max_size=4))
    def delete(self, keys: list[Key]) -> None:
        rest = {key: row for key, row in self.rows.items() if key not in keys}
        bound = pa.table({"id": keys})
        self.succeed("DELETE FROM t WHERE id = ?", rest, len(self.rows) - len(rest), bound)

    @rule()
    def delete_with_sub_select(self) -> None:
        rest = {key: row for key, row in self.rows.items() if key != max(self.rows)}
        sql = "DELETE FROM t WHERE id IN (SELECT max(id) FROM t)"
        self.succeed(sql, rest, len(self.rows) - len(rest))

    @rule(
        sql=st.sampled_from(
            ["UPDATE t SET x = 1", "INSERT INTO t(id) VALUES ('x')", "DELETE FROM t WHERE a > [1]"]
        )
    )
    def nonsense(self, sql: str) -> None:
        self.fail(sql, InvalidStatement)

    # --- tables and restarts ----------------------------------------------------------------------

    @rule(default=st.integers(0, 9))
    def add_column(self, default: int) -> None:
        if len(self.extra) < 3:
            name = f"x{len(self.extra)}"
            self.succeed(f"ALTER TABLE t ADD COLUMN {name} BIGINT DEFAULT {default}", self.rows, 0)
            self.extra[name] = default
            self.rows = {key: {**row, name: default} for key, row in self.rows.items()}
            # Older ops are read with the new column from now on.
            self.replayed = TableModel()

    @rule()
    def drop_and_create(self) -> None:
        self.engine.write("DROP TABLE t")
        old = self.lineage
        self.create()
        assert self.lineage != old

    @rule()
    def reopen(self) -> None:
        self.engine.close()
        self.engine = Engine.open(Path(self.folder.name), self.settings)
        assert self.engine.feed("t").lineage == self.lineage

    # --- what holds always ------------------------------------------------------------------------

    @invariant()
    def rows_are_the_models(self) -> None:
        record, session = self.engine.table("t"), self.engine.session()
        table = session.sql(f"SELECT {record.columns_sql} FROM {record.rows} ORDER BY id").to_arrow_table()
        session.close()
        assert table.to_pylist() == [row for _, row in sorted(self.rows.items())]

    @invariant()
    def the_feed_leads_to_the_same_rows(self) -> None:
        feed = self.engine.feed("t")
        while self.replayed.visible_seq < feed.high_water:
            self.replayed.apply_batch(feed.read(self.replayed.visible_seq, None, 700))
        assert self.replayed.sorted_rows() == [row for _, row in sorted(self.rows.items())]
        assert [record.seq for record in self.replayed.ops] == list(range(1, feed.high_water + 1))


def _insert(verb: str, rows: list[tuple[Key, str | None]], is_bound: bool) -> tuple[str, pa.Table | None]:
    if is_bound:
        return f"{verb} INTO t(id, a) VALUES (?, ?)", _table(rows)
    values = ", ".join(f"({key}, {'NULL' if text is None else repr(text)})" for key, text in rows)
    return f"{verb} INTO t(id, a) VALUES {values}", None


def _table(rows: list[tuple[Key, str | None]]) -> pa.Table:
    return pa.table(
        {"id": pa.array([r[0] for r in rows], pa.int64()), "a": pa.array([r[1] for r in rows], pa.string())}
    )


def _run(examples: int, steps: int) -> None:
    run_state_machine_as_test(
        PrimaryHistory,
        settings=settings(
            max_examples=examples,
            stateful_step_count=steps,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )


def test_random_histories_equal_the_model() -> None:
    _run(examples=12, steps=20)


@pytest.mark.long
def test_many_long_random_histories_equal_the_model() -> None:
    _run(examples=300, steps=60)
