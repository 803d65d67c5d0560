"""A client's SQL at the primary: checked by the sandbox, then run on the table that stores the rows.

UPDATE and DELETE run on it directly, and what they changed is read back; INSERT runs on an empty staging
table of the same columns, whose rows are then put. Tables that a statement reads are temporary views, so it
sees user columns only. Errors speak of the user's table.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

import duckdb
import numpy as np
import pyarrow as pa

from flight_replica.errors import InvalidStatement, NotAllowed, TableNotFound
from flight_replica.flightsql.service import WriteResult
from flight_replica.primary.changes import (
    OnConflict,
    conform_rows,
    one_batch,
    put,
    rows_deleted,
    rows_updated,
)
from flight_replica.primary.naming import check_columns, check_new_table
from flight_replica.primary.store import UPDATED, TableRecord, default_sql
from flight_replica.primary.transaction import WriteTransaction
from flight_replica.primary.values import ORDINAL, PARAMETERS, select_of_values
from flight_replica.sql.bound import bound_values
from flight_replica.sql.database import quote
from flight_replica.sql.dml import (
    AddColumn,
    CreateTable,
    Dml,
    DmlKind,
    DropTable,
    parse_ddl,
    parse_dml,
    retarget,
)
from flight_replica.sql.statement import kind_of, single
from flight_replica.sql.types import sql_type

STAGING = "$staging"
_CONFLICTS = {
    DmlKind.INSERT: OnConflict.REFUSE,
    DmlKind.INSERT_OR_REPLACE: OnConflict.REPLACE,
    DmlKind.INSERT_OR_IGNORE: OnConflict.IGNORE,
}
_Parameters = Sequence[object] | dict[str, object]


class Statement(Protocol):
    """One checked write; `run` is called on the writer thread, perhaps more than once."""

    @property
    def is_ddl(self) -> bool: ...

    def run(self, tx: WriteTransaction) -> WriteResult: ...


def prepare(sql: str, parameters: pa.Table | None, tables: Sequence[TableRecord]) -> Statement:
    """The statement in `sql`, checked against `tables`.

    Raises `InvalidStatement` (`NotAllowed` for what a primary doesn't do), `TableNotFound`, `SchemaMismatch`.
    """
    if kind_of(single(sql)) in ("CREATE", "DROP", "ALTER"):
        if parameters is not None and parameters.num_columns:
            raise InvalidStatement("CREATE, DROP and ALTER take no parameters")
        return DdlStatement(parse_ddl(sql))
    names = {record.name.casefold(): record.name for record in tables}
    dml = parse_dml(sql, lambda name: names.get(name.casefold()))
    if dml.functions:
        raise NotAllowed(f"{dml.functions[0].name}() can't be read by a write")
    given = parameters.num_columns if parameters is not None else 0
    if given != dml.parameter_count:
        raise InvalidStatement(f"the statement takes {dml.parameter_count} parameters, {given} are bound")
    return DmlStatement(dml, parameters if given else None)


# --- tables -----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class DdlStatement:
    """CREATE TABLE, DROP TABLE or ADD COLUMN."""

    ddl: CreateTable | DropTable | AddColumn

    @property
    def is_ddl(self) -> bool:
        return True

    def run(self, tx: WriteTransaction) -> WriteResult:
        match self.ddl:
            case CreateTable():
                return _create(tx, self.ddl)
            case DropTable():
                return _drop(tx, self.ddl)
            case AddColumn():
                return _add_column(tx, self.ddl)


def _create(tx: WriteTransaction, ddl: CreateTable) -> WriteResult:
    record = tx.find(ddl.name)
    if record is None or not ddl.if_not_exists:
        check_new_table(ddl.name, ddl.schema, (other.name for other in tx.tables))
        record = tx.create(ddl.name, ddl.schema)
    return WriteResult(0, record.name, record.high_water)


def _drop(tx: WriteTransaction, ddl: DropTable) -> WriteResult:
    record = tx.find(ddl.name)
    if record is None:
        if ddl.if_exists:
            return WriteResult(0, ddl.name, 0)
        raise TableNotFound(f"there is no table {ddl.name!r}")
    tx.drop(record)
    return WriteResult(0, record.name, record.high_water)


def _add_column(tx: WriteTransaction, ddl: AddColumn) -> WriteResult:
    record = tx.table(ddl.table)
    folded = {name.casefold() for name in record.schema.names}
    if not (ddl.column.name.casefold() in folded and ddl.if_not_exists):
        check_columns(record.name, [*record.schema.columns, ddl.column])
        tx.add_column(record, ddl.column)
    return WriteResult(0, record.name, record.high_water)


# --- rows -------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class DmlStatement:
    """INSERT, UPDATE or DELETE, with one row of parameters or several: one commit in any case."""

    dml: Dml
    parameters: pa.Table | None

    @property
    def is_ddl(self) -> bool:
        return False

    def run(self, tx: WriteTransaction) -> WriteResult:
        record = tx.table(self.dml.table)
        with _errors_of(record):
            for name in self.dml.tables:
                _show(tx, tx.table(name))
            if self.dml.kind in _CONFLICTS:
                count = self._insert(tx, record)
            else:
                count = sum(self._change(tx, record.name, bound) for bound in self._bound())
        return WriteResult(count, record.name, tx.table(record.name).high_water)

    def _bound(self) -> Iterator[_Parameters]:
        """The parameters of each run. A row at a time: each is a statement of its own for DuckDB."""
        if self.parameters is None:
            yield ()
            return
        names = self.dml.parameter_names
        columns = [bound_values(column, None) for column in self.parameters.columns]
        for row in zip(*columns, strict=True):
            yield dict(zip(names, row, strict=True)) if names else list(row)

    def _change(self, tx: WriteTransaction, table: str, bound: _Parameters) -> int:
        record = tx.table(table)
        if self.dml.kind is DmlKind.UPDATE:
            return rows_updated(tx, record, self._update(tx, record, bound))
        sql = retarget(self.dml, record.rows_name, alias=record.name) + "\nRETURNING *"
        return rows_deleted(tx, record, tx.connection.sql(sql, params=bound or None).to_arrow_table())

    def _update(self, tx: WriteTransaction, record: TableRecord, bound: _Parameters) -> pa.Table:
        """The rows as they are after the UPDATE, with the `$pk_bytes` they had before.

        They are marked and read back: on a table with an index and more than one row group, DuckDB
        2.0.1's UPDATE RETURNING changes every row but leaves some out of what it returns.
        """
        mark = f"{UPDATED} = {record.high_water + 1}"
        tx.connection.execute(
            retarget(self.dml, record.rows_name, alias=record.name, assignment=mark), bound or None
        )
        return tx.connection.sql(f"SELECT * FROM {record.rows} WHERE {mark}").to_arrow_table()

    def _insert(self, tx: WriteTransaction, record: TableRecord) -> int:
        columns = ", ".join(
            f"{quote(column.name)} {sql_type(column.type)} DEFAULT {default_sql(column)}"
            for column in record.schema.columns
        )
        tx.connection.execute(f"CREATE TEMP TABLE {quote(STAGING)} ({columns})")
        self._fill_staging(tx)
        # Rows are numbered as they were inserted; RETURNING gives them in any order.
        staged = tx.connection.sql(f"SELECT {record.columns_sql} FROM {quote(STAGING)} ORDER BY rowid")
        rows = conform_rows(record, one_batch(staged.to_arrow_table()))
        tx.connection.execute(f"DROP TABLE {quote(STAGING)}")
        return put(tx, record, rows, _CONFLICTS[self.dml.kind])

    def _fill_staging(self, tx: WriteTransaction) -> None:
        sql = retarget(self.dml, STAGING, alias=None)
        at_once = select_of_values(sql, self.dml.parameter_names) if self._has_many_rows() else None
        if at_once is None or self.parameters is None:
            for bound in self._bound():
                tx.connection.execute(sql, bound or None)
            return
        names = [f"p{number}" for number in range(self.parameters.num_columns)]
        ordinals = pa.array(np.arange(self.parameters.num_rows))
        bound_rows = pa.Table.from_arrays([*self.parameters.columns, ordinals], names=[*names, ORDINAL])
        with tx.data(PARAMETERS, bound_rows):
            tx.connection.execute(at_once)

    def _has_many_rows(self) -> bool:
        return self.parameters is not None and self.parameters.num_rows > 1


def _show(tx: WriteTransaction, record: TableRecord) -> None:
    """Let statements of this transaction read the table by its name."""
    tx.connection.execute(
        f"CREATE OR REPLACE TEMP VIEW {quote(record.name)} AS SELECT {record.columns_sql} FROM {record.rows}"
    )


@contextmanager
def _errors_of(record: TableRecord) -> Iterator[None]:
    """DuckDB's errors in our tree, speaking of the user's table. What DuckDB itself broke is passed on."""
    try:
        yield
    except (duckdb.FatalException, duckdb.InternalException, duckdb.IOException):
        raise
    except duckdb.Error as error:
        raise InvalidStatement(_user_text(str(error), record)) from error


def _user_text(text: str, record: TableRecord) -> str:
    """The first line of DuckDB's message, with the table's own name in it."""
    first = text.strip().partition("\n")[0]
    return re.sub(rf"{re.escape(record.rows_name)}(?!\d)|{re.escape(STAGING)}", lambda _: record.name, first)
