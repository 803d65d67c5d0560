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

    def schema_at(self, version: int) -> TableSchema:
        """The schema that had this `schema_version`."""
        ...

    def schema_end(self, version: int) -> int | None:
        """The seq of the last op under this `schema_version`; None while it is the current one."""
        ...

    @property
    def low_water(self) -> int:
        """The smallest `since` that `read` still answers."""
        ...

    @property
    def high_water(self) -> int:
        """The newest seq that `read` gives now; bounded streams end there.

        A replica's feed: its visible_seq. The marks of such a feed carry the origin's high_water.
        """
        ...

    def check_since(self, since: int, lineage: UUID | None) -> None:
        """Raise `LogGap` where `(since, …]` can't be answered in full, or `lineage` isn't this feed's.

        Raises `Unavailable` where a replica's feed hasn't heard of `since` yet, `TableNotFound` after a drop.
        """
        ...

    def read(
        self, since: int, through: int | None, byte_limit: int, schema_version: int | None = None
    ) -> OpBatch:
        """The next ops after `since`, at most about `byte_limit` bytes of Arrow data or one row.

        `through` bounds the range (None: high_water now). The batch may be empty: then the mark says
        how far nothing happened. `schema_version` asks for the ops up to the end of that version, in
        its schema (None: the current one). Raises `LogGap` when retention has passed `since`,
        `TableNotFound` after a drop.
        """
        ...

    def wait(self, since: int, timeout_seconds: float) -> bool:
        """Block until something is newer than `since`, and say so.

        Returns early when the schema changes, the table goes away, retention passes `since`, or
        `wake` is called.
        """
        ...

    def wake(self) -> None:
        """Let every `wait` return now, so that its caller looks at its own state again."""
        ...
