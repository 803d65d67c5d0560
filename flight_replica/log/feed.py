"""The seam on the serving side: what a server needs of a table to answer `merutable_changes`.

The reference primary's tables, a replica's tables (cascading) and tests implement `TableFeed`;
the Flight server and `InProcessLogSource` read it.
"""

from __future__ import annotations

from typing import Protocol
from uuid import UUID

from flight_replica.log.source import OpBatch
from flight_replica.schema import TableSchema


class TableFeed(Protocol):
    """One table's ordered ops, readable from any seq that is still held. Thread-safe."""

    @property
    def table(self) -> str: ...

    @property
    def lineage(self) -> UUID: ...

    @property
    def schema(self) -> TableSchema: ...

    @property
    def schema_version(self) -> int:
        """Grows with every change of the schema; a follow stream ends after the last op of the old one."""
        ...

    @property
    def low_water(self) -> int: ...

    @property
    def high_water(self) -> int: ...

    def check_since(self, since: int, lineage: UUID | None) -> None:
        """Raise `LogGap` where `(since, …]` can't be answered in full, or `lineage` isn't this feed's."""
        ...

    def read(self, since: int, through: int | None, byte_limit: int) -> OpBatch:
        """The next ops after `since`, at most about `byte_limit` bytes of Arrow data or one row.

        `through` bounds the range (None: high_water now). The batch may be empty: then the mark says
        how far nothing happened. Raises `LogGap` when retention has passed `since`, `TableNotFound`
        after a drop.
        """
        ...

    def wait(self, since: int, timeout_seconds: float) -> bool:
        """Block until something is newer than `since`, the table goes away, or the time is up."""
        ...
