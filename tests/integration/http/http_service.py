"""A service for HTTP tests whose tables are as the test says."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

from flight_replica.errors import DatabaseLost
from flight_replica.flightsql.service import TableEntry
from flight_replica.position import TablePosition
from tests.integration.flightsql.memory_service import MemoryService


def entry(name: str, state: str = "serving", reason: str = "", lag_us: int = 0) -> TableEntry:
    """A table in this state."""
    position = TablePosition(name, UUID(int=7), 0, 5, 1_700_000_000_000_000, lag_us, 5)
    return TableEntry(name, None, str(UUID(int=7)), 0, position, state=state, reason=reason)


class StatedService(MemoryService):
    """Its list of tables is what the test puts into `entries`."""

    def __init__(self) -> None:
        super().__init__()
        self.entries: list[TableEntry] = []
        self.lost = ""  # why its database is lost

    def tables(self) -> Sequence[TableEntry]:
        return self.entries

    def check(self) -> None:
        if self.lost:
            raise DatabaseLost(self.lost)
