"""`ReplicaTail`: the ops after a base, newest op per key, in one DuckDB table.

Columns of `tail_N`: `seq`, `dead` (a tombstone), `version` (which apply it came with), then the table's
columns as `c0, c1, …` (op_rows.py). A key stands once. `position_N` holds the tail's position.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing

import duckdb
import numpy as np
import pyarrow as pa

from flight_replica.conform import conform
from flight_replica.errors import SchemaMismatch
from flight_replica.keys import KeyCodec
from flight_replica.log.source import LogSource
from flight_replica.schema import TableSchema
from flight_replica.sql.parsed import Parsed
from flight_replica.sql.types import sql_type
from flight_replica.state.op_rows import OpRows, column_names, same_key
from flight_replica.state.state import Row, StatePosition
from flight_replica.state.writing import OWN, registered, transaction


class ReplicaTail:
    """Ops by key, the newest per key. One writer; readers open a transaction of their own.

    Made at `visible_seq` 0 (`seed_visible_seq` raises it to a base's); dropped by `close`. `on_rows` is
    called with each batch of rows before readers may see them.
    """

    def __init__(
        self,
        database: duckdb.DuckDBPyConnection,
        number: int,
        schema: TableSchema,
        on_rows: Callable[[pa.RecordBatch], None] = lambda _: None,
    ) -> None:
        self._connection = database.cursor()
        self._on_rows = on_rows
        self.schema = schema
        self._rows = OpRows(schema)
        self.table = f"{OWN}tail_{number}"
        self._position_table = f"{OWN}position_{number}"
        self._position = Parsed(f"SELECT * FROM {self._position_table}")
        self._defaults_table = f"{OWN}defaults_{number}"
        self._visible_seq = 0
        self._commit_time_us = 0
        self._ops_applied = 0
        self._version = 0  # counts the applies that brought rows
        self.bytes_applied = 0
        try:
            with transaction(self._connection):
                self._create()
        except BaseException:
            self._connection.close()
            raise

    def _create(self) -> None:
        types = [f"c{number} {sql_type(c.type)}" for number, c in enumerate(self.schema.columns)]
        run = self._connection.execute
        run(f"CREATE TABLE {self.table} (seq UBIGINT, dead BOOLEAN, version UBIGINT, {', '.join(types)})")
        run(
            f"CREATE TABLE {self._position_table} "
            "(seq UBIGINT, commit_time_us BIGINT, row_count BIGINT, column_count BIGINT, version UBIGINT)"
        )
        run(f"INSERT INTO {self._position_table} VALUES (0, 0, 0, {len(types)}, 0)")
        run(f"CREATE TABLE {self._defaults_table} ({', '.join(types)})")
        self._write_defaults(self.schema)

    def _write_defaults(self, schema: TableSchema) -> None:
        """One row with each column's default, for files and ops that lack the column."""
        arrays = [
            pa.nulls(1, c.type) if c.default is None else pa.array([c.default], c.type)
            for c in schema.columns
        ]
        row = pa.RecordBatch.from_arrays(arrays, column_names(schema))
        self._connection.execute(f"DELETE FROM {self._defaults_table}")
        with registered(self._connection, row) as name:
            self._connection.execute(f"INSERT INTO {self._defaults_table} SELECT * FROM {name}")

    @property
    def visible_seq(self) -> int:
        return self._visible_seq

    @property
    def commit_time_us(self) -> int:
        return self._commit_time_us

    @property
    def ops_applied(self) -> int:
        return self._ops_applied

    def seed_visible_seq(self, seq: int, commit_time_us: int = 0) -> None:
        """Start from a base that holds everything up to `seq`; not above the present one does nothing."""
        if seq > self._visible_seq:
            self._connection.execute(
                f"UPDATE {self._position_table} SET seq = ?, commit_time_us = ?", [seq, commit_time_us]
            )
            self._visible_seq, self._commit_time_us = seq, commit_time_us

    def apply(self, ops: pa.RecordBatch, through: int | None = None, commit_time_us: int = 0) -> None:
        """Take ops (feed schema, ascending seq) in one transaction; readers see all of them or none.

        An op whose key is held with an equal or newer seq is dropped. `through` is the seq that readers
        may say they see afterwards: the last op's by default. Ops from before a column was added have
        its default. Raises `SchemaMismatch` for ops with a column that the table lacks.
        """
        ops = self._rows.conformed(ops)
        seqs = ops.column(0)
        newest = max(self._visible_seq, through or 0, seqs[-1].as_py() if len(ops) else 0)
        if newest == self._visible_seq:
            commit_time_us = self._commit_time_us
        if len(ops) and seqs[0].as_py() <= self._visible_seq:
            ops = self._without_known(ops)
        rows = self._rows.newest(ops)
        self._on_rows(rows)
        with transaction(self._connection):
            version = self._version + (1 if len(rows) else 0)
            added = self._replace(rows, version) if len(rows) else 0
            self._connection.execute(
                f"UPDATE {self._position_table} SET seq = ?, commit_time_us = ?, row_count = row_count + ?, "
                "version = ?",
                [newest, commit_time_us, added, version],
            )
        self._version = version
        self._visible_seq = newest
        self._commit_time_us = commit_time_us
        self._ops_applied += len(ops)
        self.bytes_applied += ops.nbytes

    def _without_known(self, ops: pa.RecordBatch) -> pa.RecordBatch:
        """`ops` without those that the tail holds already, or something newer of the same key."""
        numbered = self._rows.named(ops).append_column("i", pa.array(np.arange(len(ops))))
        with registered(self._connection, numbered) as name:
            known = self._connection.execute(
                f"SELECT n.i FROM {name} n JOIN {self.table} t "
                f"ON {same_key(self.schema, 't', 'n')} WHERE t.seq >= n.seq"
            ).fetchnumpy()["i"]
        keep = np.ones(len(ops), dtype=bool)
        keep[known] = False
        return ops.filter(pa.array(keep))

    def _replace(self, rows: pa.RecordBatch, version: int) -> int:
        """Put `rows` in place of those with their keys; how many keys are new."""
        with registered(self._connection, rows) as name:
            replaced = self._connection.execute(
                f"DELETE FROM {self.table} t USING {name} n WHERE {same_key(self.schema, 't', 'n')}"
            ).fetchall()[0][0]
            self._connection.execute(
                f"INSERT INTO {self.table} SELECT seq, dead, {version}, * EXCLUDE (seq, dead) FROM {name}"
            )
        return len(rows) - int(replaced)

    def advance(self, source: LogSource) -> None:
        """Take everything that `source` holds after `visible_seq` now. Batches before an error stay."""
        stream = source.stream(self._visible_seq)
        with closing(stream):
            for batch in stream:
                self.apply(batch.ops, batch.mark.through, batch.mark.commit_time_us)

    def get(self, key: Sequence[object]) -> tuple[bool, Row | None]:
        """(whether the tail knows the key, its row or None for a tombstone)."""
        with registered(self._connection, key_row(self.schema, key)) as name:
            found: pa.Table = self._connection.sql(
                f"SELECT t.* FROM {self.table} t, {name} k WHERE {same_key(self.schema, 't', 'k')}"
            ).to_arrow_table()
        if not len(found):
            return False, None
        if found["dead"][0].as_py():
            return True, None
        return True, one_row(found.drop_columns(["seq", "dead", "version"]), self.schema)

    def add_columns(self, schema: TableSchema) -> None:
        """Go on under `schema`, which appends columns; rows already here get their defaults."""
        added = [(f"c{n}", schema.columns[n]) for n in range(len(self.schema.columns), len(schema.columns))]
        run = self._connection.execute
        with transaction(self._connection):
            for name, column in added:
                for table in (self.table, self._defaults_table):
                    run(f"ALTER TABLE {table} ADD COLUMN {name} {sql_type(column.type)}")
            self._write_defaults(schema)
            for name, _ in added:
                run(f"UPDATE {self.table} SET {name} = {self.default(name)} WHERE NOT dead")
            run(f"UPDATE {self._position_table} SET column_count = {len(schema.columns)}")
        self.schema = schema
        self._rows = OpRows(schema)

    def default(self, name: str) -> str:
        """The default of internal column `name` as an SQL expression."""
        return f"(SELECT {name} FROM {self._defaults_table})"

    def position(self, session: duckdb.DuckDBPyConnection) -> StatePosition:
        """Where the transaction open on `session` sees the tail."""
        return StatePosition(*self._position.run(session).fetchall()[0])

    def close(self) -> None:
        for table in (self.table, self._position_table, self._defaults_table):
            self._connection.execute(f"DROP TABLE {table}")
        self._connection.close()


def one_row(found: pa.Table, schema: TableSchema) -> Row:
    """The one row of `found`, whose columns are the table's first ones, in the table's own types."""
    columns = schema.columns[: found.num_columns]  # a column may have been added since the query
    shape = TableSchema(columns, schema.primary_key)
    (batch,) = found.rename_columns(list(shape.names)).to_batches()
    return dict(conform(batch, shape).to_pylist()[0])


def key_row(schema: TableSchema, key: Sequence[object]) -> pa.RecordBatch:
    """One key as a row of internal key columns. Raises `SchemaMismatch` for wrong arity or types."""
    KeyCodec(schema).encode_row(key)
    names = [f"c{schema.names.index(name)}" for name in schema.primary_key]
    try:
        arrays = [pa.array([v], c.type) for v, c in zip(key, schema.key_columns, strict=True)]
    except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
        raise SchemaMismatch(f"key {key!r} doesn't fit {schema.primary_key}: {error}") from error
    return pa.RecordBatch.from_arrays(arrays, names)
