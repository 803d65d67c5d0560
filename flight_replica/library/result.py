"""`Result`: the rows of one statement, read once, in whatever form the program wants."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pyarrow as pa

from flight_replica.errors import Closed
from flight_replica.flightsql.direct import DirectAnswer
from flight_replica.position import TablePosition

if TYPE_CHECKING:
    import duckdb
    import pandas
    import polars

__all__ = ["Result"]


class Result:
    """Rows that are computed as they are read, of one moment. They can be read once.

    The statement ends with its last row, with `close`, with the `with` block, or with its replica. For one
    thread at a time; `close` from any.
    """

    def __init__(self, answer: DirectAnswer, ending: ExitStack, leave: Callable[[], None]) -> None:
        """`ending` ends the statement, in the thread that reads; `leave` interrupts it from another one."""
        self._answer = answer
        self._ending = ending
        self._leave = leave
        self._reading = threading.Lock()
        self._is_taken = False
        self._is_closed = False

    @property
    def schema(self) -> pa.Schema:
        """The columns, with the positions as JSON in its metadata (`merutable.position`)."""
        return self._answer.schema

    @property
    def positions(self) -> Sequence[TablePosition]:
        """Where the answer stands: one entry a table that the statement read."""
        return tuple(self._answer.positions)

    def reader(self) -> pa.RecordBatchReader:
        """The rows as a stream of batches. Reading it raises `Cancelled`, `TimedOut`, `LimitExceeded`."""
        return pa.RecordBatchReader.from_batches(self.schema, self._batches())

    def arrow(self) -> pa.Table:
        """All rows as an Arrow table."""
        return pa.Table.from_batches(list(self._batches()), self.schema)

    def rows(self) -> list[tuple[object, ...]]:
        """All rows as Python values."""
        return list(zip(*(column.to_pylist() for column in self.arrow().columns), strict=True))

    def pandas(self) -> pandas.DataFrame:
        """All rows as a pandas frame, which has to be installed."""
        return self.arrow().to_pandas()

    def polars(self) -> polars.DataFrame:
        """All rows as a polars frame, which has to be installed."""
        import polars

        frame = polars.from_arrow(self.arrow())
        assert isinstance(frame, polars.DataFrame), "a table is a frame"
        return frame

    def relation(self, connection: duckdb.DuckDBPyConnection | None = None) -> duckdb.DuckDBPyRelation:
        """All rows as a DuckDB relation, on this connection or on a database of its own in memory."""
        import duckdb

        connection = connection or duckdb.connect()
        return connection.from_arrow(self.arrow())

    def _batches(self) -> Iterator[pa.RecordBatch]:
        if self._is_taken:
            raise Closed("the rows of this result were read already; run the statement again")
        self._is_taken = True
        return self._read()

    def _read(self) -> Iterator[pa.RecordBatch]:
        while True:
            with self._reading:
                if self._is_closed:
                    raise Closed("the result is closed")
                try:
                    batch = next(self._answer.batches, None)
                except BaseException:
                    self._end()
                    raise
                if batch is None:
                    self._end()
                    return
            yield batch

    def close(self) -> None:
        """End the statement, also one whose rows another thread waits for. Idempotent."""
        if not self._reading.acquire(blocking=False):
            self._leave()
            self._reading.acquire()
        try:
            self._end()
        finally:
            self._reading.release()

    def _end(self) -> None:
        if not self._is_closed:
            self._is_closed = True
            self._ending.close()

    def __enter__(self) -> Result:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        self.close()
