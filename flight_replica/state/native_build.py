"""`NativeBuild`: a native state in the making, which takes seconds to minutes; how far it is, and its end."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass

import duckdb

from flight_replica.errors import Closed
from flight_replica.schema import TableSchema
from flight_replica.sql.types import sql_type
from flight_replica.state import native_record
from flight_replica.state.native_files import NativeFile
from flight_replica.state.native_record import AppliedThrough, StateRecord
from flight_replica.state.native_state import NativeState, attached
from flight_replica.state.op_rows import column_names
from flight_replica.state.state import ReplicaState
from flight_replica.state.writing import transaction

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
        self, database: duckdb.DuckDBPyConnection, number: int, file: NativeFile, source: ReplicaState
    ) -> None:
        self._database = database
        self._name = f"native_{number}"
        self._file = file
        self._source = source
        self._began = time.monotonic()
        self._lock = threading.Lock()
        self._connection: duckdb.DuckDBPyConnection | None = None  # while it copies
        self._share = 0.0  # of the work, the newest that was known
        self._is_given_up = False

    def run(self) -> NativeState:
        """The state. Raises `Closed` after `interrupt`, `Unavailable`, `duckdb.Error`."""
        try:
            self._source.settle()
            with attached(self._database, self._name, self._file) as connection:
                _tell_progress(connection)
                self._set_connection(connection)
                try:
                    with transaction(connection):
                        record, at = self._copy(connection)
                finally:
                    self._set_connection(None)
                if self._is_given_up:  # an interrupt that comes between two statements is lost
                    raise Closed("a native state was given up just when it was made")
                return NativeState(connection, self._name, self._file, record, at, is_checked=True)
        except duckdb.InterruptException as error:
            self._file.let_go()
            raise Closed("a native state was given up while it was made") from error
        except BaseException:
            self._file.let_go()
            raise

    @property
    def progress(self) -> StateProgress:
        seconds = time.monotonic() - self._began
        with self._lock:
            if self._connection is not None:  # −1 where DuckDB doesn't know, which is so again in the end
                self._share = min(max(self._share, self._connection.query_progress() / 100), 1.0)
            share = self._share
        left = seconds * (1 - share) / share if share > _SHARE_SURE else None
        return StateProgress(share, seconds, left)

    def interrupt(self) -> None:
        """Give it up: `run` ends soon."""
        with self._lock:
            self._is_given_up = True
            if self._connection is not None:
                self._connection.interrupt()

    def _set_connection(self, connection: duckdb.DuckDBPyConnection | None) -> None:
        with self._lock:
            if self._is_given_up and connection is not None:
                raise Closed("a native state was given up before it was made")
            self._connection = connection

    def _copy(self, connection: duckdb.DuckDBPyConnection) -> tuple[StateRecord, AppliedThrough]:
        """The rows, ordered by key, and what they stand for; in the caller's transaction."""
        source = self._source
        position = source.position(connection)
        schema = TableSchema(source.schema.columns[: position.column_count], source.schema.primary_key)
        names = column_names(schema)
        typed = ", ".join(
            f"{name}::{sql_type(column.type)} AS {name}"
            for name, column in zip(names, schema.columns, strict=True)
        )
        key = ", ".join(f"c{schema.names.index(name)}" for name in schema.primary_key)
        ((row_count,),) = connection.execute(
            f"CREATE TABLE {self._name}.rows AS "
            # By position: DuckDB can't tell names apart that differ only by case.
            f"SELECT * FROM (SELECT {typed} FROM ({source.relation(position)}) AS s({', '.join(names)})) "
            f"ORDER BY {key}"
        ).fetchall()
        record = StateRecord(
            source.lineage, schema, source.base_seq, source.base_version, source.is_lower_bound
        )
        at = AppliedThrough(position.visible_seq, position.commit_time_us, source.ops_applied, 0, row_count)
        native_record.create(connection, self._name, record, at)
        return record, at


def _tell_progress(connection: duckdb.DuckDBPyConnection) -> None:
    for setting in ("enable_progress_bar = true", "enable_progress_bar_print = false"):
        connection.execute(f"SET {setting}")
