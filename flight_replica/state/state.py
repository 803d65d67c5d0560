"""The seam between a replica and how it holds a table: a base plus everything applied since, at one seq.

A `ReplicaState` lives in tables of the process's DuckDB database. Its position is a row of one of them,
written in the transaction that applies the ops, so whoever reads both in one transaction can't get them
apart. Kinds: `parquet_state.py` (merge on read).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol
from uuid import UUID

import duckdb
import pyarrow as pa

from flight_replica.schema import TableSchema

Row = dict[str, object]  # column name -> value
Session = Callable[[], duckdb.DuckDBPyConnection]


class StateKind(StrEnum):
    """How base and tail become one table."""

    MERGE_ON_READ = "merge on read"
    MERGE_ON_APPLY = "merge on apply"


@dataclass(frozen=True, slots=True)
class StatePosition:
    """What a transaction sees of a state."""

    visible_seq: int
    commit_time_us: int  # of visible_seq; 0 unknown
    tail_rows: int  # keys in the tail, tombstones included
    column_count: int  # columns of the table; a column may be added while the transaction is open
    tail_version: int = 0  # grows with every change of the tail
    row_count: int | None = None  # of the table, where a state keeps it with its rows


@dataclass(frozen=True, slots=True)
class KeyNow:
    """What is known of one key without a transaction, at `visible_seq`."""

    visible_seq: int
    commit_time_us: int  # of visible_seq; 0 unknown
    rows: pa.Table | None  # its row or none, internal columns; None: what a transaction sees that begins now


@dataclass(frozen=True, slots=True)
class CountNow:
    """How many rows there are at `visible_seq`, known without a transaction."""

    visible_seq: int
    commit_time_us: int  # of visible_seq; 0 unknown
    row_count: int


class ReplicaState(Protocol):
    """One table at one seq, growing by `apply`. One writer; readers, each in its own transaction."""

    @property
    def kind(self) -> StateKind: ...

    @property
    def lineage(self) -> UUID: ...

    @property
    def schema(self) -> TableSchema: ...

    @property
    def base_seq(self) -> int: ...

    @property
    def base_version(self) -> int:
        """The snapshot's version, as its source names it."""
        ...

    @property
    def is_lower_bound(self) -> bool:
        """Whether the base may hold ops above base_seq, as nobody vouches for it."""
        ...

    @property
    def visible_seq(self) -> int:
        """The newest seq applied and committed; never goes back."""
        ...

    @property
    def commit_time_us(self) -> int: ...

    @property
    def ops_applied(self) -> int:
        """Ops taken since this state was made, not distinct keys."""
        ...

    @property
    def tail_bytes(self) -> int:
        """Arrow bytes of the ops applied since this state was made."""
        ...

    def apply(self, ops: pa.RecordBatch | pa.Table, through: int, commit_time_us: int = 0) -> None:
        """Take whole commits: every op in `(visible_seq, through]`, in the feed's schema. All or nothing.

        A table is many ops in the batches that they came in.
        Raises `SchemaMismatch` for ops with a column that the state lacks; missing ones have their default.
        """
        ...

    @property
    def is_settling_due(self) -> bool:
        """Whether so much waits for `settle` that what comes soon may have to wait for it, too."""
        ...

    def settle(self) -> None:
        """A transaction that begins after this sees at least what `visible_seq` stood for before it.

        Raises `Unavailable` where that can't be; what transactions see then is older.
        """
        ...

    def add_columns(self, schema: TableSchema) -> None:
        """Go on with `schema`, which appends columns to the present one; older rows have their defaults."""
        ...

    def key_now(self, key: Sequence[object]) -> KeyNow:
        """One key (values in key order) at `visible_seq`. Raises `SchemaMismatch`."""
        ...

    def look_up(self, key: Sequence[object]) -> KeyNow | None:
        """As `key_now`, always with rows; None where only a transaction tells them."""
        ...

    def count_now(self) -> CountNow | None:
        """None where only a transaction tells it."""
        ...

    def position(self, session: duckdb.DuckDBPyConnection) -> StatePosition:
        """Where the transaction open on `session` sees this state."""
        ...

    def count_rows(self, position: StatePosition, session: duckdb.DuckDBPyConnection) -> int | None:
        """How many rows the table has for the transaction on `session` that gave `position`.

        None where a query has to find it out, since it takes long.
        """
        ...

    def relation(
        self, position: StatePosition, rows: str | None = None, own_session: Session | None = None
    ) -> str:
        """The table as an SQL query, to be run in the transaction that gave `position`.

        `rows`: what `KeyNow.rows` is called in SQL, to be read in the place of the table.
        `own_session`: gives the session that it will be run in, by which it may become cheaper. What it reads
        is bound there then, so nobody else may go on with that session.
        """
        ...

    def get(self, key: Sequence[object]) -> Row | None:
        """The row of one key (values in key order), None where there is none. Raises `SchemaMismatch`."""
        ...

    def close(self) -> None:
        """Drop the state's tables and files; no reader may be left."""
        ...
