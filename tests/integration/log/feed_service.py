"""A `Service` with one feed and no rows, so that the real Flight SQL server can be a source's other end."""

from __future__ import annotations

import time
from collections.abc import Sequence

from flight_replica.errors import TableNotFound
from flight_replica.flightsql.service import TableEntry
from flight_replica.log.op_log import OpLog
from flight_replica.position import TablePosition
from flight_replica.sql.database import open_database
from flight_replica.sql.key_filter import NO_KEYS, Keys
from flight_replica.sql.view import View


class FeedService:
    """What the server asks of whoever it serves, as far as a feed needs it."""

    product = "feed"
    read_only_reason = "nothing can be written here"

    def __init__(self, log: OpLog) -> None:
        self._log = log
        self._database = open_database()

    def tables(self) -> Sequence[TableEntry]:
        position = TablePosition(self._log.table, self._log.lineage, 0, self._log.high_water)
        return [TableEntry(self._log.table, self._log.schema, "", self._log.low_water, position)]

    def table_names(self) -> Sequence[str]:
        return [entry.name for entry in self.tables()]

    def made_of(self, tables: Sequence[str]) -> None:
        return None

    def known(self, table: str, key: Sequence[object] | None) -> None:
        return None

    def feed(self, table: str) -> OpLog:
        if table != self._log.table:
            raise TableNotFound(f"no table {table!r}")
        return self._log

    def open_view(self, tables: Sequence[str], keys: Keys = NO_KEYS) -> View:
        session = self._database.cursor()
        session.execute("BEGIN TRANSACTION READ ONLY")
        return View(session, [], lambda: None)

    def clock_us(self) -> int:
        return time.time_ns() // 1000

    def close(self) -> None:
        self._database.close()
