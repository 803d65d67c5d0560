"""Merge on apply: the whole table in a DuckDB table of its own, ordered by key, changed by each batch.

Queries see one plain table; the price is paid once per batch: delete the keys that come, insert the
newest rows, set the position, in one transaction. No PRIMARY KEY and no index (docs/decisions/0005). The
table lies in a database file of its own, attached to the process's database, so that it can be as large as
the disk.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from uuid import UUID

import duckdb
import pyarrow as pa

from flight_replica.log.batches import between
from flight_replica.schema import TableSchema
from flight_replica.sql.database import literal, quote
from flight_replica.sql.types import sql_type
from flight_replica.state.op_rows import OpRows, column_names, same_key
from flight_replica.state.state import ReplicaState, Row, StateKind, StatePosition
from flight_replica.state.tail import key_row, one_row
from flight_replica.state.writing import registered, transaction

_SEQ_MAX = 2**64 - 1


class NativeState:
    """A `ReplicaState` in a database file in `directory`, which goes with it.

    Made of all that another state of the table shows at one seq. `number` names its database.
    """

    kind = StateKind.MERGE_ON_APPLY

    def __init__(
        self, database: duckdb.DuckDBPyConnection, number: int, directory: Path, source: ReplicaState
    ) -> None:
        """`source` must be pinned until this returns; it may go on applying."""
        self._connection = database.cursor()
        self._directory = directory
        self._database = f"native_{number}"
        self.lineage: UUID = source.lineage
        self.base_seq = source.base_seq
        self.base_version = source.base_version
        self.is_lower_bound = source.is_lower_bound
        self._ops_applied = source.ops_applied
        self._ops_copied = source.ops_applied
        with ExitStack() as undo:
            undo.callback(self._connection.close)
            directory.mkdir(parents=True)
            undo.callback(shutil.rmtree, directory, ignore_errors=True)
            file = literal(str(directory / "table.duckdb"))
            self._connection.execute(f"ATTACH {file} AS {self._database}")
            undo.callback(self._connection.execute, f"DETACH {self._database}")
            with transaction(self._connection):
                at = self._copy(source)
            undo.pop_all()
        self._visible_seq = at.visible_seq
        self._commit_time_us = at.commit_time_us

    def _copy(self, source: ReplicaState) -> StatePosition:
        """The rows of `source`, ordered by key, and the position that they stand for."""
        at = source.position(self._connection)
        schema = TableSchema(source.schema.columns[: at.column_count], source.schema.primary_key)
        names = column_names(schema)
        typed = ", ".join(
            f"{name}::{sql_type(column.type)} AS {name}"
            for name, column in zip(names, schema.columns, strict=True)
        )
        key = ", ".join(f"c{schema.names.index(name)}" for name in schema.primary_key)
        run = self._connection.execute
        run(
            f"CREATE TABLE {self._database}.rows AS "
            # By position: DuckDB can't tell names apart that differ only by case.
            f"SELECT * FROM (SELECT {typed} FROM ({source.relation(at)}) AS s({', '.join(names)})) "
            f"ORDER BY {key}"
        )
        run(
            f"CREATE TABLE {self._database}.position AS SELECT {at.visible_seq}::UBIGINT AS seq, "
            f"{at.commit_time_us}::BIGINT AS commit_time_us, {len(schema.columns)}::BIGINT AS column_count"
        )
        self.schema = schema
        self._rows = OpRows(schema)
        return at

    @property
    def visible_seq(self) -> int:
        return self._visible_seq

    @property
    def commit_time_us(self) -> int:
        return self._commit_time_us

    @property
    def ops_applied(self) -> int:
        return self._ops_applied

    @property
    def tail_bytes(self) -> int:
        """There is no tail: what is applied is no burden."""
        return 0

    @property
    def ops_since_copied(self) -> int:
        """Ops taken since the table was in key order throughout."""
        return self._ops_applied - self._ops_copied

    @property
    def row_count(self) -> int:
        """As committed now; may be asked while another thread applies, which has the connection."""
        with closing(self._connection.cursor()) as session:
            return int(session.execute(f"SELECT count(*) FROM {self._database}.rows").fetchall()[0][0])

    def stand_on(self, base_seq: int, base_version: int) -> None:
        """Take a newer base whose ops are all applied already: nothing but its name changes."""
        assert base_seq <= self.visible_seq, f"base at {base_seq}, applied through {self.visible_seq}"
        self.base_seq, self.base_version = base_seq, base_version

    def apply(self, ops: pa.RecordBatch, through: int, commit_time_us: int = 0) -> None:
        ops = between(self._rows.conformed(ops), self._visible_seq, _SEQ_MAX)
        newest = max(self._visible_seq, through)
        if newest == self._visible_seq:
            commit_time_us = self._commit_time_us
        with transaction(self._connection):
            if len(ops):
                self._replace(self._rows.newest(ops))
            self._connection.execute(
                f"UPDATE {self._database}.position SET seq = ?, commit_time_us = ?", [newest, commit_time_us]
            )
        self._visible_seq, self._commit_time_us = newest, commit_time_us
        self._ops_applied += len(ops)

    def _replace(self, rows: pa.RecordBatch) -> None:
        with registered(self._connection, rows) as name:
            run = self._connection.execute
            same = same_key(self.schema, "r", "n")
            run(f"DELETE FROM {self._database}.rows r USING {name} n WHERE {same}")
            columns = ", ".join(column_names(self.schema))
            run(f"INSERT INTO {self._database}.rows ({columns}) SELECT {columns} FROM {name} WHERE NOT dead")

    def add_columns(self, schema: TableSchema) -> None:
        added = list(enumerate(schema.columns))[len(self.schema.columns) :]
        defaults = pa.RecordBatch.from_arrays(
            [
                pa.nulls(1, column.type)
                if column.default is None
                else pa.array([column.default], column.type)
                for _, column in added
            ],
            [f"c{number}" for number, _ in added],
        )
        run = self._connection.execute
        with transaction(self._connection), registered(self._connection, defaults) as name:
            for number, column in added:
                run(f"ALTER TABLE {self._database}.rows ADD COLUMN c{number} {sql_type(column.type)}")
                run(f"UPDATE {self._database}.rows SET c{number} = (SELECT c{number} FROM {name})")
            run(f"UPDATE {self._database}.position SET column_count = {len(schema.columns)}")
        self.schema = schema
        self._rows = OpRows(schema)

    def position(self, session: duckdb.DuckDBPyConnection) -> StatePosition:
        found = session.execute(
            f"SELECT seq, commit_time_us, 0, column_count FROM {self._database}.position"
        ).fetchall()
        return StatePosition(*found[0])

    def relation(self, position: StatePosition) -> str:
        columns = ", ".join(
            f"c{number} AS {quote(column.name)}"
            for number, column in enumerate(self.schema.columns[: position.column_count])
        )
        return f"SELECT {columns} FROM {self._database}.rows"

    def get(self, key: Sequence[object]) -> Row | None:
        wanted = key_row(self.schema, key)
        session = self._connection.cursor()
        try:
            session.register("wanted", wanted)
            session.execute("BEGIN TRANSACTION READ ONLY")
            columns = ", ".join(f"r.{name}" for name in column_names(self.schema))
            found: pa.Table = session.sql(
                f"SELECT {columns} FROM {self._database}.rows r, wanted w "
                f"WHERE {same_key(self.schema, 'r', 'w')}"
            ).to_arrow_table()
        finally:
            session.close()
        assert len(found) <= 1, f"a key stands {len(found)} times"
        return one_row(found, self.schema) if len(found) else None

    def close(self) -> None:
        self._connection.execute(f"DETACH {self._database}")
        self._connection.close()
        shutil.rmtree(self._directory, ignore_errors=True)
