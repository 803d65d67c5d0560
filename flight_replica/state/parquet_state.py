"""Merge on read: the base's Parquet files where they lie, minus keys in the tail, plus the tail.

Ready as soon as the files are there, whatever their size; every query pays for the merge of the files that
may hold a key of the tail, and for no others. Filters may go below the anti join, whatever column they
read: the tail's side of it isn't filtered, so a superseded row is hidden even if the newer row doesn't pass.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from contextlib import ExitStack, closing
from dataclasses import replace
from pathlib import Path
from uuid import UUID

import duckdb
import pyarrow as pa

from flight_replica.base.source import BaseSnapshot
from flight_replica.errors import BaseError
from flight_replica.log.batches import concat, pieces_of
from flight_replica.schema import TableSchema
from flight_replica.sql.database import quote
from flight_replica.state.base_files import BaseFiles
from flight_replica.state.op_rows import column_names, same_key
from flight_replica.state.row_bits import RowBits
from flight_replica.state.state import CountNow, KeyNow, Row, Session, StateKind, StatePosition
from flight_replica.state.tail import ReplicaTail, key_row, one_row
from flight_replica.state.touched_files import TouchedFiles

# Rows of joined files that are counted while a statement is planned; more are left to a query, which waits
# for its turn.
ROWS_COUNTED_MAX = 1 << 21


class ParquetState:
    """A `ReplicaState` over files of its own in `directory`, which goes with it.

    `number` names its tables; no two states of one database may share it.
    """

    kind = StateKind.MERGE_ON_READ

    def __init__(
        self, database: duckdb.DuckDBPyConnection, number: int, snapshot: BaseSnapshot, directory: Path
    ) -> None:
        with ExitStack() as undo:
            self._connection = undo.enter_context(closing(database.cursor()))
            undo.callback(shutil.rmtree, directory, ignore_errors=True)
            self.snapshot = snapshot.adopt(directory)
            self._files = undo.enter_context(closing(BaseFiles(database, number, self.snapshot)))
            self._touched = TouchedFiles(self.snapshot.files, snapshot.schema)
            tail = ReplicaTail(database, number, snapshot.schema, self._touched.note)
            self._tail = undo.enter_context(closing(tail))
            self._tail.seed_visible_seq(snapshot.base_seq, snapshot.commit_time_us)
            self._bits = RowBits(number, tail.table, self.snapshot.files, snapshot.schema)
            self._counted: tuple[int, int] | None = None  # version of the tail, rows of the table then
            self._owned = undo.pop_all()  # ended by `close`, or at once when something above fails

    @property
    def lineage(self) -> UUID:
        return self.snapshot.lineage

    @property
    def schema(self) -> TableSchema:
        return self._tail.schema

    @property
    def base_seq(self) -> int:
        return self.snapshot.base_seq

    @property
    def base_version(self) -> int:
        return self.snapshot.version

    @property
    def is_lower_bound(self) -> bool:
        return self.snapshot.is_lower_bound

    @property
    def visible_seq(self) -> int:
        return self._tail.visible_seq

    @property
    def commit_time_us(self) -> int:
        return self._tail.commit_time_us

    @property
    def ops_applied(self) -> int:
        return self._tail.ops_applied

    @property
    def tail_bytes(self) -> int:
        return self._tail.bytes_applied

    @property
    def file_bytes(self) -> int:
        """Of the base's files."""
        return sum(Path(file.path).stat().st_size for file in self.snapshot.files)

    def check_key(self) -> None:
        """Raise `BaseError` where the base has a row without a whole key, or two rows of one."""
        columns = self.schema.columns
        base = self._files.relation(columns, self._tail.default)
        if base is None:
            return
        names = [f"c{self.schema.names.index(name)}" for name in self.schema.primary_key]
        # As text, in which −0.0 is another key than 0.0, as it is here.
        texts = ", ".join(f"{name}::VARCHAR" for name in names)
        is_none = " OR ".join(
            f"{name} IS NULL"
            + (f" OR isnan({name})" if pa.types.is_floating(columns[int(name[1:])].type) else "")
            for name in names
        )
        run = self._connection.execute
        if run(f"SELECT 1 FROM ({base}) WHERE {is_none} LIMIT 1").fetchall():
            raise BaseError(f"table {self.snapshot.table!r}: a row has no value in its key {self._key_text}")
        twice = run(f"SELECT {texts} FROM ({base}) GROUP BY ALL HAVING count(*) > 1 LIMIT 1").fetchall()
        if twice:
            key = f"{self._key_text} {', '.join(map(str, twice[0]))}"
            raise BaseError(f"table {self.snapshot.table!r}: several rows have the key {key}")

    @property
    def _key_text(self) -> str:
        return "(" + ", ".join(self.schema.primary_key) + ")"

    def apply(self, ops: pa.RecordBatch | pa.Table, through: int, commit_time_us: int = 0) -> None:
        self._tail.apply(concat(pieces_of(ops), ops.schema), through, commit_time_us)

    @property
    def is_settling_due(self) -> bool:
        return False

    def settle(self) -> None:
        """Nothing waits."""

    def key_now(self, key: Sequence[object]) -> KeyNow:
        return KeyNow(self.visible_seq, self.commit_time_us, None)

    def look_up(self, key: Sequence[object]) -> KeyNow | None:
        return None

    def count_now(self) -> CountNow | None:
        return None

    def add_columns(self, schema: TableSchema) -> None:
        self._tail.add_columns(schema)
        self.snapshot = replace(self.snapshot, schema=schema)

    def position(self, session: duckdb.DuckDBPyConnection) -> StatePosition:
        return self._tail.position(session)

    def count_rows(self, position: StatePosition, session: duckdb.DuckDBPyConnection) -> int | None:
        if not position.tail_rows:
            return self.snapshot.row_count
        known = self._counted  # another thread may take a newer one in its place at any time
        if known is not None and known[0] == position.tail_version:
            return known[1]
        count = self._count_anew(position, session)
        if count is not None and (known is None or known[0] < position.tail_version):
            self._counted = position.tail_version, count
        return count

    def _count_anew(self, position: StatePosition, session: duckdb.DuckDBPyConnection) -> int | None:
        """By what the files say of themselves, but for those that are joined."""
        files, touched = self.snapshot.files, self._touched.numbers
        hidden = self._bits.hidden(lambda: session, position, sorted(touched), self._scan_of_keys)
        known = hidden.bits_by_file.keys() if hidden is not None else frozenset[int]()
        if sum(files[number].row_count for number in touched - known) > ROWS_COUNTED_MAX:
            return None
        count = sum(
            file.row_count - len(file.deleted) for number, file in enumerate(files) if number not in touched
        )
        if hidden is not None:
            count += sum(files[number].row_count - hidden.left_out(number) for number in known)
        parts = [f"SELECT 1 FROM {self._tail.table} WHERE NOT dead"]
        columns = self.schema.columns[: position.column_count]
        joined = self._files.relation(columns, self._tail.default, lambda number: number in touched - known)
        if joined is not None:
            parts.append(f"SELECT 1 FROM ({self._without_tail(joined)})")
        counts = session.execute(f"SELECT count(*) FROM ({' UNION ALL '.join(parts)})").fetchall()
        return count + int(counts[0][0])

    def relation(
        self, position: StatePosition, rows: str | None = None, own_session: Session | None = None
    ) -> str:
        assert rows is None, "no key is known without a transaction"
        columns = ", ".join(
            f"c{number} AS {quote(column.name)}"
            for number, column in enumerate(self.schema.columns[: position.column_count])
        )
        return f"SELECT {columns} FROM ({self._merged(position, own_session)})"

    def _merged(self, position: StatePosition, own_session: Session | None) -> str:
        """Base and tail as one relation of the internal columns."""
        columns = self.schema.columns[: position.column_count]
        default = self._tail.default
        touched = self._touched.numbers if position.tail_rows else frozenset()
        hidden = None
        if touched and own_session is not None:
            hidden = self._bits.hidden(own_session, position, sorted(touched), self._scan_of_keys)
            if hidden is not None:
                hidden.bind(own_session())
        known = hidden.bits_by_file.keys() if hidden is not None else frozenset[int]()
        parts = [
            self._files.relation(columns, default, lambda number: number not in touched),
            self._files.relation_without(known, hidden.name, columns, default)
            if hidden is not None
            else None,
        ]
        joined = self._files.relation(columns, default, lambda number: number in touched - known)
        if joined is not None:
            parts.append(self._without_tail(joined))
        if position.tail_rows or not any(parts):
            names = ", ".join(column_names(self.schema)[: position.column_count])
            parts.append(f"SELECT {names} FROM {self._tail.table} WHERE NOT dead")
        return " UNION ALL ".join(filter(None, parts))

    def _scan_of_keys(self, number: int) -> str:
        key = f"c{self.schema.names.index(self.schema.primary_key[0])}"
        return self._files.keys_of(number, self.schema.columns, key)

    def _without_tail(self, base: str) -> str:
        """The rows of `base` that no newer op has replaced or deleted."""
        # Not a correlated NOT EXISTS: DuckDB 2.0 looks up distinct keys then, for which −0.0 is 0.0, and
        # keeps the whole base in memory on the way.
        hidden = f"{self._tail.table} t ON ({same_key(self.schema, 'b', 't')})"
        return f"SELECT * FROM ({base}) b ANTI JOIN {hidden}"

    def get(self, key: Sequence[object]) -> Row | None:
        wanted = key_row(self.schema, key)
        with closing(self._connection.cursor()) as session:
            session.register("wanted", wanted)
            session.execute("BEGIN TRANSACTION READ ONLY")
            merged = self._merged(self.position(session), lambda: session)
            found = session.sql(
                f"SELECT m.* FROM ({merged}) m, wanted w WHERE {same_key(self.schema, 'm', 'w')}"
            ).to_arrow_table()
        assert len(found) <= 1, f"a key stands {len(found)} times"
        if not len(found):
            return None
        return one_row(found, self.schema)

    def close(self) -> None:
        self._owned.close()
