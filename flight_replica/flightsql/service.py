"""What the Flight SQL front needs of whoever it serves: replica, reference primary or feed server."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

import pyarrow as pa

from flight_replica.log.feed import TableFeed
from flight_replica.position import Demand, TablePosition
from flight_replica.schema import TableSchema
from flight_replica.sql.key_filter import NO_KEYS, Keys
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
    seq: int | None  # None: not committed yet, as inside a transaction


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


@dataclass(frozen=True, slots=True)
class Known:
    """What is known of a table without a view, at one position."""

    position: TablePosition
    schema: TableSchema
    content: pa.Table | int  # the row of a key, or none, columns in the schema's order; or how many rows


class Ending(Protocol):
    """Something that can end before its work is done, as a call whose client goes away."""

    @property
    def is_ended(self) -> bool: ...

    def check(self) -> None:
        """Raise why it has ended, if it has."""
        ...

    def on_end(self, interrupt: Callable[[], None]) -> None:
        """Call `interrupt` from another thread when it ends, and again until it is over."""
        ...


class PendingWrites(Protocol):
    """The writes of one transaction: seen by nobody else, until `commit` makes them one commit.

    Used by one thread at a time. It holds no lock on anything, and dropping it undoes it.
    """

    @property
    def is_empty(self) -> bool: ...

    def write(
        self, sql: str, parameters: pa.Table | None = None, ending: Ending | None = None
    ) -> WriteResult:
        """Run one DML statement on the newest rows and the own ones. It happens whole or not at all.

        Raises `Conflict` where another's commit has changed what this transaction changed, `LimitExceeded`.
        """
        ...

    def cover(self, view: View) -> None:
        """Let the view's tables be read as this transaction has changed them. Raises `Conflict`."""
        ...

    def commit(self) -> Mapping[str, int]:
        """table -> its last seq, for the tables changed. Raises `Conflict`, with nothing changed."""
        ...


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

    def table_names(self) -> Sequence[str]:
        """The names that `tables` gives, without a look at each table."""
        ...

    def made_of(self, tables: Sequence[str]) -> Sequence[object] | None:
        """What a view's `made_of` would be now; None where that can't be told without one.

        Raises `TableNotFound`.
        """
        ...

    def feed(self, table: str) -> TableFeed:
        """Raises `TableNotFound`, `Unavailable`."""
        ...

    def open_view(self, tables: Sequence[str], keys: Keys = NO_KEYS) -> View:
        """A view in which each of `tables` is bound by its name. Raises `TableNotFound`, `Unavailable`.

        Of a table in `keys`, only rows with these values need to be right: column, in small letters -> value.
        """
        ...

    def known(self, table: str, key: Sequence[object] | None) -> Known | None:
        """The row of `key`, whose values are of the key's types, or how many rows the table has (None).

        None where only a view tells. Raises `TableNotFound`, `Unavailable`.
        """
        ...

    def open_together(self, tables: Sequence[str], count: int) -> Sequence[View]:
        """`count` views of the very same moment, which offer `tables`: bound as `View.take_up` names them."""
        ...

    def open_view_as_of(self, tables: Sequence[str], seqs: Mapping[str, int]) -> View:
        """As `open_view`, with each table in `seqs` as it was at its seq, the end of a commit.

        Raises `InvalidStatement` that names what is held, for a seq that isn't.
        """
        ...

    def wait_for(self, demand: Demand, timeout_seconds: float, ending: Ending) -> None:
        """Block until `demand` seems to be met, the time is up, or `ending` has ended.

        The caller looks at the position itself then. Raises `Unavailable` where an age can't be proven
        at all, or the table can't be read; `TableNotFound`.
        """
        ...

    def write(
        self, sql: str, parameters: pa.Table | None = None, ending: Ending | None = None
    ) -> WriteResult:
        """Run one DDL or DML statement as one commit, durable on return; one bound row after another
        where `parameters` has several. Where `ending` ends before the commit, nothing is changed.

        Raises `ReadOnly`, `InvalidStatement`, `ConstraintViolation`, and why `ending` has ended.
        """
        ...

    def ingest(
        self, table: str, mode: IngestMode, data: pa.RecordBatchReader, ending: Ending | None = None
    ) -> WriteResult:
        """Put every row of `data` as one commit; `ending` and errors as in `write`."""
        ...

    def begin(self, snapshot: Sequence[TablePosition] | None = None) -> PendingWrites:
        """Begin a write transaction; with `snapshot` its writes are of that moment or a `Conflict`.

        Raises `ReadOnly`.
        """
        ...

    def clock_us(self) -> int:
        """µs since 1970 on this server's clock."""
        ...
