"""What one query reads: a DuckDB session inside one read-only transaction, with its position.

`View` owns its session from pin to close, and lets go of the states behind it when it closes.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence

import duckdb
import pyarrow as pa

from flight_replica.errors import Closed, InvalidStatement, TimedOut
from flight_replica.position import TablePosition
from flight_replica.sql.database import quote

BATCH_ROWS = 8192  # rows a batch out of DuckDB; the server cuts by bytes


class View:
    """An immutable view of some tables at one seq each. One statement at a time; `interrupt` from any thread.

    `session` comes with its transaction already begun and its snapshot taken.
    """

    def __init__(
        self,
        session: duckdb.DuckDBPyConnection,
        positions: Sequence[TablePosition],
        release: Callable[[], None],
    ) -> None:
        self._session = session
        self._release = release
        self._lock = threading.Lock()
        self._is_closed = False
        self.positions = tuple(positions)

    def bind(self, name: str, relation: str) -> None:
        """Let statements of this view call the SQL query `relation` by `name`."""
        self._session.execute(f"CREATE OR REPLACE TEMP VIEW {quote(name)} AS {relation}")

    def bind_data(self, name: str, data: pa.Table | pa.RecordBatchReader) -> None:
        """Let statements of this view read Arrow data by `name`; a reader can be read once."""
        self._session.register(name, data)

    def plan(self, sql: str, parameters: Sequence[object] | Mapping[str, object] = ()) -> pa.Schema:
        """The result's schema, without running the statement. Raises `InvalidStatement`."""
        with _errors():
            relation = self._session.sql(sql, params=parameters or None)
            return relation.limit(0).to_arrow_table().schema if relation is not None else pa.schema([])

    def execute(
        self, sql: str, parameters: Sequence[object] | Mapping[str, object] = ()
    ) -> pa.RecordBatchReader:
        """The statement's rows as a stream. Raises `InvalidStatement`, `TimedOut` when interrupted."""
        if self._is_closed:
            raise Closed("the view is closed")
        with _errors():
            relation = self._session.sql(sql, params=parameters or None)
            return relation.to_arrow_reader(BATCH_ROWS)

    def interrupt(self) -> None:
        """End the running statement; its reader raises."""
        with self._lock:
            if not self._is_closed:
                self._session.interrupt()

    def close(self) -> None:
        """End the transaction and let go of the states. Idempotent."""
        with self._lock:
            if self._is_closed:
                return
            self._is_closed = True
        try:
            self._session.close()
        finally:
            self._release()

    def __enter__(self) -> View:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class _errors:
    """DuckDB's errors in our tree, with the first line of their text."""

    def __enter__(self) -> None:
        pass

    def __exit__(self, _type: object, error: BaseException | None, _trace: object) -> None:
        if isinstance(error, duckdb.InterruptException):
            raise TimedOut("the statement was interrupted") from error
        if isinstance(error, duckdb.Error):
            raise InvalidStatement(str(error).strip()) from error
