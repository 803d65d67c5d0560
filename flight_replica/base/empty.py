"""The base of a table whose whole history is in the log: nothing, at seq 0."""

from __future__ import annotations

from uuid import UUID

from flight_replica.base.source import BaseSnapshot
from flight_replica.schema import TableSchema


class EmptyBase:
    """A `BaseSource` without a row. Only for a feed whose low_water is 0."""

    VERSION = 0

    def __init__(self, table: str, lineage: UUID, schema: TableSchema) -> None:
        self._snapshot = BaseSnapshot(table, lineage, 0, self.VERSION, schema, ())

    def poll(self) -> int | None:
        return self.VERSION

    def load(self) -> BaseSnapshot:
        return self._snapshot
