"""`LentView`: a view that several statements use one after another, as the one that uses it now has it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import duckdb
import pyarrow as pa

from flight_replica.position import TablePosition
from flight_replica.sql.view import View


class LentView(View):
    """The session of `lender` for one statement. `close` gives it back instead of ending it.

    What the statement had set is taken away then. A failed statement has ended the transaction, which is
    what the session was kept for: such a one is given back as lost.
    """

    def __init__(
        self, lender: View, positions: Sequence[TablePosition], give_back: Callable[[bool], None]
    ) -> None:
        """`give_back` is told whether the session can be lent again."""
        super().__init__(lender._session, positions, _nothing)
        self._counters = dict(lender._counters)  # its own: a transaction may bind other rows
        self._give_back = give_back
        self._data_names: set[str] = set()
        self._undo: list[str] = []

    def bind_data(self, name: str, data: pa.Table | pa.RecordBatchReader) -> None:
        self._data_names.add(name)
        super().bind_data(name, data)

    def set_time_zone(self, zone: str) -> None:
        self._undo.append("SET TimeZone = 'UTC'")
        super().set_time_zone(zone)

    def define_positions(self, names: Mapping[str, str]) -> None:
        self._undo += ["DROP MACRO merutable_seq", "DROP MACRO merutable_lag_ms"]
        super().define_positions(names)

    def close(self) -> None:
        """Give the session back. Idempotent. Close the readers before."""
        with self._lock:  # no interrupt comes after this
            if self._is_closed:
                return
            self._is_closed = True
        self._give_back(self._is_whole())

    def _is_whole(self) -> bool:
        """Take away what the statement had set; whether the transaction still stands."""
        try:
            for name in self._data_names:
                self._session.unregister(name)
            for statement in self._undo:
                self._session.execute(statement)
            self._session.execute("SELECT 1").fetchall()
        except duckdb.Error:
            return False
        return True


def _nothing() -> None:
    """The lender lets go of what is behind the session."""
