"""`RedoRecord`: a small transaction whose ops are durable before the store has them; and `redo`.

Followers and writers are told as soon as that is so (writer.py). Should the process end before the store has
committed, the next one puts the same ops in, which get the same seqs.
"""

from __future__ import annotations

import logging
from contextlib import suppress
from dataclasses import dataclass
from uuid import UUID

import duckdb

from flight_replica.log.batches import seqs_of
from flight_replica.primary.changes import living, newest_of, replace_rows, without_seqs
from flight_replica.primary.store import TableRecord, read_tables
from flight_replica.primary.transaction import Changes, Commit, WriteTransaction

__all__ = ["RedoRecord", "TableRedo", "redo"]

logger = logging.getLogger(__name__)

OPS_BYTES_MAX = 1 << 20  # a larger transaction takes its time anyway


@dataclass(frozen=True, slots=True)
class TableRedo:
    """What a transaction did to one table."""

    table_id: int
    lineage: UUID
    low_water: int
    commits: tuple[Commit, ...]  # at least one

    @property
    def after(self) -> int:
        """The table's high_water before."""
        return int(seqs_of(self.commits[0].ops)[0]) - 1

    @property
    def through(self) -> int:
        """… and afterwards."""
        return self.commits[-1].through


@dataclass(frozen=True, slots=True)
class RedoRecord:
    """One transaction: at least one table."""

    commit_time_us: int
    tables: tuple[TableRedo, ...]

    @classmethod
    def of(cls, changes: Changes) -> RedoRecord | None:
        """All of `changes`; None where they are more than ops, or too many of them."""
        is_more = changes.created or changes.altered or changes.dropped
        if is_more or not changes.commits or changes.records.keys() != changes.commits.keys():
            return None
        if sum(c.ops.nbytes for commits in changes.commits.values() for c in commits) > OPS_BYTES_MAX:
            return None
        return cls(
            changes.commit_time_us,
            tuple(
                TableRedo(id_, changes.records[id_].lineage, changes.records[id_].low_water, tuple(commits))
                for id_, commits in changes.commits.items()
            ),
        )


def redo(connection: duckdb.DuckDBPyConnection, record: RedoRecord) -> None:
    """Commit what the store lacks of `record`. Raises `duckdb.Error`, then nothing has changed.

    What doesn't follow on the store's own seqs is left out, all tables together: the directory was restored,
    or has a new history.
    """
    connection.execute("BEGIN TRANSACTION")
    try:
        tables = {table.id: table for table in read_tables(connection)}
        tx = WriteTransaction(connection, {table.name.casefold(): table for table in tables.values()})
        parts = [(tables.get(part.table_id), part) for part in record.tables]
        lacking = [(table, part) for table, part in parts if table is not None and _is_lacking(table, part)]
        if len(lacking) == len(parts):
            for table, part in lacking:
                _redo_table(tx, part, table)
        tx.flush(lambda: record.commit_time_us)
        tx.write_positions()
        connection.execute("COMMIT")
    except BaseException:
        with suppress(duckdb.TransactionException):  # a COMMIT that failed has ended it
            connection.execute("ROLLBACK")
        raise


def _is_lacking(table: TableRecord, part: TableRedo) -> bool:
    if table.lineage != part.lineage or table.high_water >= part.through:
        return False
    if table.high_water == part.after:
        return True
    logger.warning(
        "newest commit left out table=%s store_at=%d commit_after=%d",
        table.name,
        table.high_water,
        part.after,
    )
    return False


def _redo_table(tx: WriteTransaction, part: TableRedo, table: TableRecord) -> None:
    if part.low_water > table.low_water:
        tx.raise_low_water(table, part.low_water)
    for commit in part.commits:
        ops = without_seqs(commit.ops)
        newest = newest_of(ops)
        replace_rows(tx, table, newest.column(1), living(newest))
        tx.log(table, ops)
        tx.end_commit()
    logger.info("newest commit taken up table=%s through=%d", table.name, part.through)
