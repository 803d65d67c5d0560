"""`NativeBuild`: a native state in the making, which takes seconds to minutes; how far it is, and its end."""

from __future__ import annotations

import threading
import time
from contextlib import closing
from dataclasses import dataclass

import duckdb

from flight_replica.errors import Closed
from flight_replica.schema import TableSchema
from flight_replica.sql.types import sql_type
from flight_replica.state import native_record
from flight_replica.state.file_writer import FileWriter
from flight_replica.state.key_slices import key_slices
from flight_replica.state.native_files import NativeFile
from flight_replica.state.native_record import AppliedThrough, StateRecord
from flight_replica.state.native_state import NativeState, attached
from flight_replica.state.op_rows import column_names
from flight_replica.state.state import ReplicaState
from flight_replica.state.writing import transaction

BATCH_ROWS = 8192  # rows that go from one database to the other at once
READ_SHARE = 0.4  # of the work, until all rows are read; sorting and writing is the rest
_SHARE_MAX = 0.99  # until it is done
_ROWS = "incoming"
_SHARE_SURE = 0.02  # below it, nothing is said of the time that is left


@dataclass(frozen=True, slots=True)
class StateProgress:
    """How far a state that is being made is."""

    share: float  # of the work, from 0 to 1
    seconds: float  # since it was begun
    seconds_left: float | None  # as it looks now; None while that isn't known

    def __str__(self) -> str:
        left = "" if self.seconds_left is None else f", about {self.seconds_left:.0f} s left"
        return f"{self.share:.0%} after {self.seconds:.0f} s{left}"


class NativeBuild:
    """Copies all that `source` shows at one seq. `run` once; the rest from any thread.

    `source` must be pinned until `run` returns; it may go on applying. `number` names the database.
    """

    def __init__(
        self,
        database: duckdb.DuckDBPyConnection,
        number: int,
        file: NativeFile,
        source: ReplicaState,
        *,
        gives_way: bool = False,
    ) -> None:
        self._gives_way = gives_way
        self._database = database
        self._name = f"native_{number}"
        self._file = file
        self._source = source
        self._began = time.monotonic()
        self._lock = threading.Lock()
        self._reading: duckdb.DuckDBPyConnection | None = None  # while it copies
        self._writer: FileWriter[tuple[StateRecord, AppliedThrough]] | None = None  # likewise
        self._slice = (0, 1, 0.0)  # what is sorted now, of how many, and since when in monotonic seconds
        self._read_seconds = 0.0  # after which rows of the slice were last seen to be read
        self._share = 0.0  # of the work, the newest that was known
        self._is_given_up = False

    def run(self) -> NativeState:
        """The state. Raises `Closed` after `interrupt`, `Unavailable`, `duckdb.Error`."""
        try:
            self._source.settle()
            record, at = self._write()
            with attached(self._database, self._name, self._file) as connection:
                if self._is_given_up:  # an interrupt that comes between two statements is lost
                    raise Closed("a native state was given up just when it was made")
                return NativeState(connection, self._name, self._file, record, at, is_checked=True)
        except duckdb.Error as error:
            self._file.let_go()
            if self._is_given_up:
                raise Closed("a native state was given up while it was made") from error
            raise
        except BaseException:
            self._file.let_go()
            raise

    @property
    def progress(self) -> StateProgress:
        seconds = time.monotonic() - self._began
        with self._lock:
            number, count, began = self._slice
            share = (number + self._slice_share(time.monotonic() - began)) / count
            self._share = share = max(self._share, min(share, _SHARE_MAX))
        left = seconds * (1 - share) / share if share > _SHARE_SURE else None
        return StateProgress(share, seconds, left)

    def _slice_share(self, seconds: float) -> float:
        """What DuckDB tells while the rows are read; then what that took tells of the time for the rest."""
        if self._reading is None:
            return 0.0
        read = self._reading.query_progress() / 100  # below 0 where DuckDB doesn't know
        if read > 0:
            self._read_seconds = seconds
            return min(read, 1.0) * READ_SHARE
        return min(READ_SHARE * seconds / self._read_seconds, 1.0) if self._read_seconds else 0.0

    def _begin_slice(self, number: int, count: int) -> None:
        with self._lock:
            if self._is_given_up:  # an interrupt that comes between two statements is lost
                raise Closed("a native state was given up while it was made")
            self._slice, self._read_seconds = (number, count, time.monotonic()), 0.0

    def interrupt(self) -> None:
        """Give it up: `run` ends soon."""
        with self._lock:
            self._is_given_up = True
            reading, writer = self._reading, self._writer
            if writer is not None:
                writer.interrupt()
            if reading is not None:
                reading.interrupt()

    def _write(self) -> tuple[StateRecord, AppliedThrough]:
        """Make the file: the rows, ordered by key, and what they stand for."""
        with closing(self._database.cursor()) as reading:
            _tell_progress(reading)
            with transaction(reading):
                writer = FileWriter(
                    self._database,
                    self._name,
                    self._file,
                    lambda writing: self._copy(reading, writing),
                    gives_way=self._gives_way,
                )
                self._set_work(reading, writer)
                try:
                    return writer.run()
                finally:
                    self._set_work(None, None)

    def _set_work(
        self,
        reading: duckdb.DuckDBPyConnection | None,
        writer: FileWriter[tuple[StateRecord, AppliedThrough]] | None,
    ) -> None:
        with self._lock:
            if self._is_given_up and reading is not None:
                raise Closed("a native state was given up before it was made")
            self._reading, self._writer = reading, writer

    def _copy(
        self, reading: duckdb.DuckDBPyConnection, writing: duckdb.DuckDBPyConnection
    ) -> tuple[StateRecord, AppliedThrough]:
        """Out of the transaction of one database into that of the other."""
        source = self._source
        position = source.position(reading)
        schema = TableSchema(source.schema.columns[: position.column_count], source.schema.primary_key)
        names = column_names(schema)
        typed = ", ".join(
            f"{name}::{sql_type(column.type)} AS {name}"
            for name, column in zip(names, schema.columns, strict=True)
        )
        key = ", ".join(f"c{schema.names.index(name)}" for name in schema.primary_key)
        # By position: DuckDB can't tell names apart that differ only by case.
        rows = f"SELECT {typed} FROM ({source.relation(position)}) AS s({', '.join(names)})"
        slices = ["true"]
        if isinstance(source, NativeState):
            assert position.row_count is not None, "a native state counts its rows"
            slices = key_slices(reading, source.table, schema, position.row_count)
        row_count = 0
        for number, condition in enumerate(slices):
            self._begin_slice(number, len(slices))
            into = f"INSERT INTO {self._name}.rows" if number else f"CREATE TABLE {self._name}.rows AS"
            found = reading.sql(f"{rows} WHERE {condition}")
            writing.register(_ROWS, found.to_arrow_reader(BATCH_ROWS))
            # Again by type: Arrow has fewer of them.
            ((count,),) = writing.execute(f"{into} SELECT {typed} FROM {_ROWS} ORDER BY {key}").fetchall()
            writing.unregister(_ROWS)
            row_count += count
        record = StateRecord(
            source.lineage, schema, source.base_seq, source.base_version, source.is_lower_bound
        )
        at = AppliedThrough(position.visible_seq, position.commit_time_us, source.ops_applied, 0, row_count)
        native_record.create(writing, self._name, record, at)
        return record, at


def _tell_progress(connection: duckdb.DuckDBPyConnection) -> None:
    for setting in ("enable_progress_bar = true", "enable_progress_bar_print = false"):
        connection.execute(f"SET {setting}")
