"""Merge on apply: the whole table in a DuckDB table of its own, ordered by key, changed by each batch.

Queries see one plain table; the price is paid once per batch: delete the keys that come, insert the
newest rows, set the position, in one transaction. No PRIMARY KEY and no index (docs/decisions/0005). A few
ops wait in memory (recent_ops.py) until there are more, some time has passed, or a query wants the table
(docs/decisions/0013). The table lies in a database file of its own, attached to the process's database, so
that it can be as large as the disk, and a later process goes on with it (native_files.py, native_record.py).
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager, nullcontext, suppress
from dataclasses import replace

import duckdb
import pyarrow as pa

from flight_replica.errors import SchemaMismatch, StateNotUsable, Unavailable
from flight_replica.keys import KeyCodec
from flight_replica.log.batches import HEAD_COLUMNS, between, concat, gathered, pieces_of
from flight_replica.log.source import Op
from flight_replica.schema import TableSchema
from flight_replica.sql.database import literal, quote
from flight_replica.sql.parsed import Parsed
from flight_replica.sql.types import sql_type
from flight_replica.state import native_record
from flight_replica.state.key_lookup import KeyLookup
from flight_replica.state.native_files import NativeFile
from flight_replica.state.native_record import AppliedThrough, StateRecord
from flight_replica.state.op_rows import OpRows, column_names, having_keys_of
from flight_replica.state.recent_ops import RecentOps
from flight_replica.state.state import CountNow, KeyNow, Row, Session, StateKind, StatePosition
from flight_replica.state.writing import registered, transaction

_log = logging.getLogger(__name__)

_SEQ_MAX = 2**64 - 1
_CORRUPT = "Corrupt database file"  # how DuckDB begins when a block's checksum is another one
_LOST = "has been invalidated"  # … and what it says of a database of which a checkpoint failed
PIECE_OPS = 8192  # at least, where ops are written in several pieces: each costs something by itself
BESIDE_OPS_MIN = 100_000  # what is fewer is looked at sooner than a thread is made for it
CHECKED_AT_ONCE_BYTES = 128 << 20  # a larger file is read through once the table is served


class NativeState:
    """A `ReplicaState` in an attached database file: by `NativeBuild` (native_build.py), `reopen_native`."""

    kind = StateKind.MERGE_ON_APPLY

    def __init__(
        self,
        connection: duckdb.DuckDBPyConnection,
        database: str,
        file: NativeFile,
        record: StateRecord,
        at: AppliedThrough,
        *,
        is_checked: bool,
    ) -> None:
        """`connection` is its own, `database` the name under which `file` is attached."""
        self._connection = connection
        self._database = database
        self._position = Parsed(
            f"SELECT seq, commit_time_us, 0, column_count, 0, row_count FROM {database}.position"
        )
        self.file = file
        self.lineage = record.lineage
        self.schema = record.schema
        self.base_seq = record.base_seq
        self.base_version = record.base_version
        self.is_lower_bound = record.is_lower_bound
        self._rows = OpRows(record.schema)
        self._keys = KeyCodec(record.schema)
        self._lookup = KeyLookup(record.schema, f"{database}.rows", connection.cursor)
        self._journal = file.journal()
        self._recent = RecentOps(at.seq, at.commit_time_us, self._journal)
        self._folding = threading.Lock()  # held by whoever writes on the connection
        self._ops_applied = at.ops_applied
        self._ops_since_copied = at.ops_since_copied
        self._counted = CountNow(at.seq, at.commit_time_us, at.row_count)  # as committed last
        self._idle: list[duckdb.DuckDBPyConnection] = []  # sessions that read single keys, in between
        self.is_checked = is_checked  # every value of it was written or read in this process
        self.can_be_written = True  # whether the last write went well

    @property
    def visible_seq(self) -> int:
        return self._recent.through

    @property
    def commit_time_us(self) -> int:
        return self._recent.commit_time_us

    @property
    def ops_applied(self) -> int:
        return self._ops_applied

    @property
    def tail_bytes(self) -> int:
        """There is no tail: what is applied is no burden."""
        return 0

    @property
    def table(self) -> str:
        """What its rows are called in SQL, with the internal columns."""
        return f"{self._database}.rows"

    @property
    def ops_since_copied(self) -> int:
        """Ops taken since the table was in key order throughout."""
        return self._ops_since_copied

    @property
    def row_count(self) -> int:
        """As committed now."""
        return self._counted.row_count

    def stand_on(self, base_seq: int, base_version: int) -> None:
        """Take a newer base whose ops are all applied already: nothing but its name changes."""
        assert base_seq <= self.visible_seq, f"base at {base_seq}, applied through {self.visible_seq}"
        with self._folding:
            self._fold()  # so that a later process finds no base that is newer than the rows
            with transaction(self._connection):
                native_record.write_base(self._connection, self._database, base_seq, base_version)
        self.base_seq, self.base_version = base_seq, base_version

    def apply(self, ops: pa.RecordBatch | pa.Table, through: int, commit_time_us: int = 0) -> None:
        seen = self.visible_seq
        pieces = [between(self._rows.conformed(piece), seen, _SEQ_MAX) for piece in pieces_of(ops)]
        count = sum(map(len, pieces))
        if through <= seen:
            through, commit_time_us = seen, self.commit_time_us
        if count < BESIDE_OPS_MIN:
            pieces = [concat(pieces, self.schema.feed_schema)]
        if len(pieces) == 1 and self._recent.has_room(pieces[0]):
            self._recent.add(pieces[0], through, commit_time_us)
        else:
            with self._folding:
                waiting, *_ = self._recent.waiting()
                at_once = self._recent.overtaken(through, commit_time_us)
                self._write([*waiting, *pieces], through, commit_time_us, at_once)
        self._ops_applied += count
        self._ops_since_copied += count

    def resume(self) -> None:
        """Take what an earlier process had in memory. Raises `SchemaMismatch`, `duckdb.Error`."""
        if self._journal is None:
            return
        try:
            for record in self._journal.read(self.visible_seq):
                self.apply(record.ops, record.through, record.commit_time_us)
            with suppress(Unavailable):  # then it waits, which whoever folds says
                self.settle()
                self._journal.clear()
        except BaseException:
            self._journal.close()
            raise

    @property
    def is_settling_due(self) -> bool:
        return self._recent.is_half_full

    def settle(self) -> None:
        """Put what waits into the table. Raises `Unavailable` where the file can't take it."""
        if not self._recent.is_waiting:
            return
        with self._folding:
            self._fold()

    def _fold(self) -> None:
        """As `settle`, within `_folding`."""
        waiting, through, commit_time_us = self._recent.waiting()
        if not self._recent.is_waiting:
            return
        try:
            self._write(waiting, through, commit_time_us, nullcontext())
        except duckdb.Error as error:
            reason = str(error).partition("\n")[0]
            raise Unavailable(f"the newest rows can't be written to the native state: {reason}") from error
        self._recent.take(waiting, through)

    def _write(
        self,
        batches: Sequence[pa.RecordBatch],
        through: int,
        commit_time_us: int,
        committing: AbstractContextManager[None],
    ) -> None:
        """Bring the table to `through` in one transaction, which is committed within `committing`."""
        # Older ones may lack columns that were added since. What is large isn't copied to be joined.
        pieces = gathered([self._rows.conformed(ops) for ops in batches if len(ops)], PIECE_OPS)
        count = sum(map(len, pieces))
        with self._noticing_damage(), transaction(self._connection, committing):
            row_count = self._counted.row_count + (self._replace(pieces) if pieces else 0)
            native_record.write_position(
                self._connection, self._database, through, commit_time_us, count, row_count
            )
        self._counted = CountNow(through, commit_time_us, row_count)

    def _replace(self, pieces: Sequence[pa.RecordBatch]) -> int:
        """Put the newest of these ops in place of the rows with their keys; how many rows more that makes."""
        rows = pa.Table.from_batches([self._rows.named(ops) for ops in pieces])
        keys = pa.chunked_array([ops.column(2) for ops in pieces])
        if len(rows) < BESIDE_OPS_MIN:
            with registered(self._connection, self._rows.with_lives(rows, keys)) as name:
                deleted = self._delete(name)
                return self._insert(name) - deleted
        # The delete needs every key, but not which op is its newest: that is found out beside it.
        with ThreadPoolExecutor(1, "newest-ops") as beside:
            living = beside.submit(self._rows.with_lives, rows, keys)
            with registered(self._connection, rows) as name:
                deleted = self._delete(name)
            with registered(self._connection, living.result()) as name:
                return self._insert(name) - deleted

    def _delete(self, name: str) -> int:
        """Remove the rows whose keys are in the relation `name`; how many."""
        keys = having_keys_of(self.schema, "r", name)
        ((count,),) = self._connection.execute(f"DELETE FROM {self.table} r {keys}").fetchall()
        return int(count)

    def _insert(self, name: str) -> int:
        """Add what lives of the relation `name`; how many rows."""
        columns = ", ".join(column_names(self.schema))
        ((count,),) = self._connection.execute(
            f"INSERT INTO {self.table} ({columns}) SELECT {columns} FROM {name} WHERE lives"
        ).fetchall()
        return int(count)

    @contextmanager
    def _noticing_damage(self) -> Iterator[None]:
        """What the disk doesn't give back as it was written, or take, is a reason to look at all of it."""
        try:
            yield
        except duckdb.Error as error:
            self.can_be_written = False
            if _CORRUPT in str(error) or self._is_lost():
                self.is_checked = False
            raise
        self.can_be_written = True

    def _is_lost(self) -> bool:
        """Whether DuckDB refuses the database from now on, as it does after a checkpoint that failed."""
        with closing(self._connection.cursor()) as session:
            try:
                self.position(session)
            except duckdb.Error:
                return True
        return False

    def give_up(self, reason: str) -> None:
        """A later process is not to go on with it. A damaged file is set aside when it is let go.

        One that the disk had no room for goes: nothing is wrong with it, and room is what is wanted.
        """
        if _LOST in reason:
            _log.warning("native state given up file=%s reason=%s", self.file.path.name, reason)
            self.file.forget()
        else:
            self.file.condemn(reason)

    def add_columns(self, schema: TableSchema) -> None:
        with self._folding:  # what waits is written either without the columns, or with their defaults
            self._widen_table(schema)
            self._take_schema(schema)

    def _widen_table(self, schema: TableSchema) -> None:
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
                run(f"ALTER TABLE {self.table} ADD COLUMN c{number} {sql_type(column.type)}")
                run(f"UPDATE {self.table} SET c{number} = (SELECT c{number} FROM {name})")
            native_record.write_schema(self._connection, self._database, schema)

    def _take_schema(self, schema: TableSchema) -> None:
        """Go on with what the table has now."""
        self.schema = schema
        self._rows = OpRows(schema)
        self._lookup.close()
        self._lookup = KeyLookup(schema, self.table, self._connection.cursor)

    def position(self, session: duckdb.DuckDBPyConnection) -> StatePosition:
        return StatePosition(*self._position.run(session).fetchall()[0])

    def count_rows(self, position: StatePosition, session: duckdb.DuckDBPyConnection) -> int | None:
        return position.row_count

    def relation(
        self, position: StatePosition, rows: str | None = None, own_session: Session | None = None
    ) -> str:
        columns = self.schema.columns[: position.column_count]
        if rows is None:
            names = ", ".join(f"c{number} AS {quote(column.name)}" for number, column in enumerate(columns))
            return f"SELECT {names} FROM {self.table}"
        typed = ", ".join(
            f"c{number}::{sql_type(column.type)} AS {quote(column.name)}"
            for number, column in enumerate(columns)
        )
        return f"SELECT {typed} FROM {quote(rows)}"

    def key_now(self, key: Sequence[object]) -> KeyNow:
        at, op = self._recent.find(self._keys.encode_row(key))
        if op is None:
            return KeyNow(*at, None)
        columns = self._rows.conformed(op).columns[HEAD_COLUMNS:]
        names = [f"c{number}" for number in range(len(columns))]
        return KeyNow(*at, pa.table(columns, names).slice(0, 0 if _is_delete(op) else 1))

    def look_up(self, key: Sequence[object]) -> KeyNow | None:
        found = self.key_now(key)
        if found.rows is not None:
            return found
        try:
            with self._reading() as session:
                rows = self._lookup.rows(session, key)
        except duckdb.Error:  # which is told to who opens a transaction
            return None
        # The table may have been newer; but nothing has happened to this key if all newer ops are known.
        if self.key_now(key).rows is not None or self._recent.forgotten_through > found.visible_seq:
            return None
        return replace(found, rows=rows)

    def count_now(self) -> CountNow | None:
        self.settle()
        counted = self._counted
        return counted if counted.visible_seq == self._recent.seen_through() else None

    @contextmanager
    def _reading(self) -> Iterator[duckdb.DuckDBPyConnection]:
        """A session outside of any transaction, kept for the next one that reads a key."""
        try:
            session = self._idle.pop()
        except IndexError:
            session = self._connection.cursor()
        try:
            yield session
        except BaseException:
            session.close()
            raise
        self._idle.append(session)

    def get(self, key: Sequence[object]) -> Row | None:
        place = self._recent.newest(self._keys.encode_row(key))
        return self._get_from_table(key) if place is None else self._rows.row(*place)

    def _get_from_table(self, key: Sequence[object]) -> Row | None:
        with self._reading() as session:
            return self._lookup.get(session, key)

    def check(self) -> None:
        """Read every value once. Raises `StateNotUsable` for what the disk doesn't give back as written."""
        hashes = ", ".join(f"bit_xor(hash({name}))" for name in column_names(self.schema))
        with closing(self._connection.cursor()) as session:
            try:
                ((count, counted, *_),) = session.execute(
                    f"SELECT count(*), (SELECT row_count FROM {self._database}.position), {hashes} "
                    f"FROM {self.table}"
                ).fetchall()
            except duckdb.Error as error:
                raise StateNotUsable(str(error).partition("\n")[0]) from error
        if count != counted:
            raise StateNotUsable(f"it has {count} rows, its record says {counted}")
        self.is_checked = True

    def close(self) -> None:
        """Let go of the file, which stays for the next process if it counts."""
        self._lookup.close()
        for session in self._idle:
            session.close()
        self._connection.execute(f"DETACH {self._database}")
        self._connection.close()
        if self._journal is not None:
            self._journal.close()
        self.file.let_go()


def _is_delete(op: pa.RecordBatch) -> bool:
    """Of a batch of one op."""
    return bool(op.column(1)[0].as_py() == Op.DELETE)


def reopen_native(
    database: duckdb.DuckDBPyConnection,
    number: int,
    file: NativeFile,
    check_record: Callable[[StateRecord], None],
) -> NativeState:
    """The state that an earlier process left in `file`, at the seq that it had.

    Raises `StateNotUsable` for a file that is damaged, of another version of the program, or for which
    `check_record` raises it; such a file is set aside.
    """
    name = f"native_{number}"
    try:
        with attached(database, name, file) as connection:
            record, at = native_record.read(connection, name)
            check_record(record)
            state = NativeState(connection, name, file, record, at, is_checked=False)
            if file.byte_count <= CHECKED_AT_ONCE_BYTES:
                state.check()
            state.resume()
            return state
    except (duckdb.Error, StateNotUsable, SchemaMismatch) as error:
        reason = str(error).partition("\n")[0]
        file.condemn(reason)
        file.let_go()
        raise StateNotUsable(reason) from error
    except BaseException:
        file.let_go()
        raise


@contextmanager
def attached(
    database: duckdb.DuckDBPyConnection, name: str, file: NativeFile
) -> Iterator[duckdb.DuckDBPyConnection]:
    """A session of its own with `file` attached, until the block raises."""
    with ExitStack() as undo:
        connection = undo.enter_context(closing(database.cursor()))
        connection.execute(f"ATTACH {literal(str(file.path))} AS {name}")
        undo.callback(connection.execute, f"DETACH {name}")
        yield connection
        undo.pop_all()
