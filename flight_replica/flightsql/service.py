"""What the Flight SQL front needs of whoever it serves: replica, reference primary or feed server."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

import pyarrow as pa

from flight_replica.log.feed import TableFeed
from flight_replica.position import TablePosition
from flight_replica.schema import TableSchema
from flight_replica.sql.view import View


class IngestMode(StrEnum):
    """ADBC's four ways to ingest; append means put, as the engine's put_batch."""

    CREATE = "create"
    APPEND = "append"
    REPLACE = "replace"
    CREATE_APPEND = "create_append"


@dataclass(frozen=True, slots=True)
class WriteResult:
    """What a committed write says: `seq` is the last one of its commit in `table` (CF 5.4)."""

    rows_affected: int
    table: str
    seq: int


@dataclass(frozen=True, slots=True)
class TableEntry:
    """One row of `merutable_tables()` (CF 1); `position` and `state` make `merutable_status()`."""

    name: str
    schema: TableSchema | None  # None while the table waits for its first base, which says it
    table_uuid: str
    low_water: int
    position: TablePosition
    base_kind: str | None = None
    base_uri: str | None = None
    base_version: int | None = None
    base_seq: int | None = None
    state: str = "serving"  # or loading, degraded, waiting; for people
    reason: str = ""  # why it isn't serving


class Service(Protocol):
    """Tables, views and feeds; thread-safe. Names are matched exactly, then without regard to case."""

    @property
    def product(self) -> str:
        """`primary` or `replica`, for SqlInfo."""
        ...

    @property
    def read_only_reason(self) -> str | None:
        """What a writer is told (names the primary's address); None where writes are taken."""
        ...

    def tables(self) -> Sequence[TableEntry]: ...

    def feed(self, table: str) -> TableFeed:
        """Raises `TableNotFound`, `Unavailable`."""
        ...

    def open_view(self, tables: Sequence[str]) -> View:
        """A view in which each of `tables` is bound by its name. Raises `TableNotFound`, `Unavailable`."""
        ...

    def write(self, sql: str, parameters: pa.Table | None = None) -> WriteResult:
        """Run one DDL or DML statement as one commit, durable on return; one bound row after another
        where `parameters` has several. Raises `ReadOnly`, `InvalidStatement`, `ConstraintViolation`."""
        ...

    def ingest(self, table: str, mode: IngestMode, data: pa.RecordBatchReader) -> WriteResult:
        """Put every row of `data` as one commit."""
        ...

    def clock_us(self) -> int:
        """µs since 1970 on this server's clock."""
        ...
