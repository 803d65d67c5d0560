"""`RestrictedService`: a service as one user sees it. The one place that holds anybody to his rights.

A table that the user may not read isn't there for him: not by name, not in a list, not in an error.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pyarrow as pa

from flight_replica.errors import Forbidden, TableNotFound
from flight_replica.flightsql.service import (
    Ending,
    IngestMode,
    Known,
    PendingWrites,
    Service,
    TableEntry,
    WriteResult,
)
from flight_replica.flightsql.users import User
from flight_replica.log.feed import TableFeed
from flight_replica.position import Demand, TablePosition
from flight_replica.sql.dml import AddColumn, CreateTable, parse_ddl, parse_dml
from flight_replica.sql.key_filter import NO_KEYS, Keys
from flight_replica.sql.statement import fold, kind_of, single
from flight_replica.sql.view import View


def as_seen_by(user: User, service: Service) -> Service:
    """The service itself for who may do all."""
    return service if user.may_all else RestrictedService(service, user)


class RestrictedService:
    """A `Service` within the rights of one user. Made for each call; holds nothing."""

    def __init__(self, service: Service, user: User) -> None:
        self._service = service
        self._user = user

    @property
    def product(self) -> str:
        return self._service.product

    @property
    def read_only_reason(self) -> str | None:
        reason = self._service.read_only_reason
        if reason is None and not self._user.write.patterns:
            return f"user {self._user.name!r} may only read"
        return reason

    def clock_us(self) -> int:
        return self._service.clock_us()

    # --- reading ----------------------------------------------------------------------------------

    def tables(self) -> Sequence[TableEntry]:
        return [entry for entry in self._service.tables() if entry.name in self._user.read]

    def table_names(self) -> Sequence[str]:
        return [name for name in self._service.table_names() if name in self._user.read]

    def made_of(self, tables: Sequence[str]) -> Sequence[object] | None:
        for table in tables:
            self._check_read(table)
        return self._service.made_of(tables)

    def feed(self, table: str) -> TableFeed:
        self._check_read(table)
        return self._service.feed(table)

    def open_view(self, tables: Sequence[str], keys: Keys = NO_KEYS) -> View:
        for table in tables:
            self._check_read(table)
        return self._service.open_view(tables, keys)

    def known(self, table: str, key: Sequence[object] | None) -> Known | None:
        self._check_read(table)
        return self._service.known(table, key)

    def open_together(self, tables: Sequence[str], count: int) -> Sequence[View]:
        for table in tables:
            self._check_read(table)
        return self._service.open_together(tables, count)

    def open_view_as_of(self, tables: Sequence[str], seqs: Mapping[str, int]) -> View:
        for table in tables:
            self._check_read(table)
        return self._service.open_view_as_of(tables, seqs)

    def wait_for(self, demand: Demand, timeout_seconds: float, ending: Ending) -> None:
        self._check_read(demand.table)
        self._service.wait_for(demand, timeout_seconds, ending)

    def _check_read(self, table: str) -> None:
        if table not in self._user.read:
            raise TableNotFound(f"there is no table {table!r}")

    # --- writing ----------------------------------------------------------------------------------

    def write(
        self, sql: str, parameters: pa.Table | None = None, ending: Ending | None = None
    ) -> WriteResult:
        self.check_write(sql)
        return self._service.write(sql, parameters, ending)

    def begin(self, snapshot: Sequence[TablePosition] | None = None) -> PendingWrites:
        return _RestrictedWrites(self._service.begin(snapshot), self)

    def check_write(self, sql: str) -> None:
        """Raises `Forbidden` for a write that isn't the user's to do, and what parsing it raises."""
        if kind_of(single(sql)) in ("CREATE", "DROP", "ALTER"):
            change = parse_ddl(sql)
            is_new = isinstance(change, CreateTable)
            self._check_change(change.table if isinstance(change, AddColumn) else change.name, is_new)
        else:
            self._check_rows(parse_dml(sql, self._resolve).table)

    def _resolve(self, name: str) -> str | None:
        return next((served for served in self.table_names() if fold(served) == fold(name)), None)

    def ingest(
        self, table: str, mode: IngestMode, data: pa.RecordBatchReader, ending: Ending | None = None
    ) -> WriteResult:
        if mode is IngestMode.APPEND:
            self._check_rows(table)
        else:
            self._check_change(table, is_new=mode is not IngestMode.REPLACE)
        return self._service.ingest(table, mode, data, ending)

    def _check_rows(self, table: str) -> None:
        self._check_read(table)
        if table not in self._user.write:
            raise Forbidden(f"user {self._user.name!r} may not write to table {table!r}")

    def _check_change(self, table: str, is_new: bool) -> None:
        """CREATE, DROP, ALTER. Says the same of a name whether there is such a table or not."""
        if not is_new:
            self._check_read(table)
        may = self._user.may_change_tables and table in self._user.read and table in self._user.write
        if not may:
            raise Forbidden(f"user {self._user.name!r} may not create, drop or alter table {table!r}")


class _RestrictedWrites:
    """A transaction's writes, within the rights that its user had when it began to write."""

    def __init__(self, writes: PendingWrites, service: RestrictedService) -> None:
        self._writes = writes
        self._service = service

    @property
    def is_empty(self) -> bool:
        return self._writes.is_empty

    def write(
        self, sql: str, parameters: pa.Table | None = None, ending: Ending | None = None
    ) -> WriteResult:
        self._service.check_write(sql)
        return self._writes.write(sql, parameters, ending)

    def cover(self, view: View) -> None:
        self._writes.cover(view)

    def commit(self) -> Mapping[str, int]:
        return self._writes.commit()
