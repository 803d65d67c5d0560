"""`ReplicaService`: every table of one replica process, as the Flight SQL front wants them.

It follows the list of tables upstream, or serves the ones it is told.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from uuid import UUID

import pyarrow as pa

from flight_replica.base.on_demand import OnDemandBase
from flight_replica.errors import (
    AlreadyExists,
    Closed,
    ConfigError,
    ReadOnly,
    ReplicaError,
    TableNotFound,
    Unavailable,
)
from flight_replica.flightsql.service import Ending, IngestMode, Known, PendingWrites, TableEntry, WriteResult
from flight_replica.log.feed import TableFeed
from flight_replica.position import Demand, TablePosition
from flight_replica.replica.as_of import OlderViews
from flight_replica.replica.known import known
from flight_replica.replica.measures import Applied, MeasuredTable
from flight_replica.replica.published import FLIGHT, PublishedTable
from flight_replica.replica.replica import Replica
from flight_replica.replica.stats import DEFAULT_SETTINGS, ReplicaSettings
from flight_replica.replica.table import Origin, TableReplica
from flight_replica.replica.upstream import Upstream
from flight_replica.replica.view import open_view, open_views
from flight_replica.replica.waits import wait_for
from flight_replica.sql.database import check_database
from flight_replica.sql.key_filter import NO_KEYS, Keys
from flight_replica.sql.memory import DatabaseMemory, database_memory
from flight_replica.sql.view import View
from flight_replica.state.workspace import Workspace

_log = logging.getLogger(__name__)

LIST_SECONDS = 1.0  # how often the list of tables is asked for


class ReplicaService:
    """Implements `Service`. Owns its tables, the workspace they share and the thread `tables`."""

    product = "replica"

    def __init__(
        self,
        workspace: Workspace,
        *,
        upstream: Upstream | None = None,
        names: Sequence[str] = (),
        fixed: Mapping[str, Origin] | None = None,
        settings: ReplicaSettings = DEFAULT_SETTINGS,
    ) -> None:
        """Serves `names` of `upstream`, all it lists if there are none, and the tables of `fixed` origin."""
        self._workspace = workspace
        self._older_views = OlderViews(workspace)
        self._upstream = upstream
        self._settings = settings
        self._origins = dict(fixed or {})  # tables that are served whatever is listed
        if upstream is not None:
            self._origins |= {name: partial(upstream.open, name, workspace.new_folder) for name in names}
        self._follows_list = upstream is not None and not names
        self._lock = threading.Lock()
        self._tables: dict[str, TableReplica] = {}
        self._changing = threading.RLock()  # held while tables come and go
        self._removed: set[str] = set()  # listed upstream, and not served since an operator said so
        self._on_applied: Callable[[Applied], None] | None = None
        self._published: Mapping[str, PublishedTable] = {}  # as last listed
        self._stop = threading.Event()
        self._look_now = threading.Event()
        for name, origin in self._origins.items():
            self._add(name, origin)
        self._thread = threading.Thread(target=self._follow_list, name="tables", daemon=True)
        if upstream is not None:
            self._look()
            self._thread.start()

    @property
    def read_only_reason(self) -> str | None:
        where = f"; write to the primary at {self._upstream.uri}" if self._upstream is not None else ""
        return f"this is a read-only replica{where}"

    # --- the list of tables -----------------------------------------------------------------------

    def _follow_list(self) -> None:
        while not self._stop.is_set():
            self._look_now.wait(LIST_SECONDS)
            self._look_now.clear()
            if not self._stop.is_set():
                self._look()

    def _look(self) -> None:
        """See what is listed upstream now. Its silence changes nothing: it isn't an empty list."""
        assert self._upstream is not None, "nobody to ask"
        try:
            listed = self._upstream.tables()
        except ReplicaError as error:
            _log.debug("tables can't be listed error=%s", error)
            return
        self._published = listed
        if self._follows_list:
            with self._changing:
                self._adapt(self._upstream, listed)

    def _adapt(self, upstream: Upstream, listed: Mapping[str, PublishedTable]) -> None:
        """Serve what is listed, and no longer what isn't."""
        with self._lock:
            gone = [name for name in self._tables if name not in listed and name not in self._origins]
            new = [name for name in listed if name not in self._tables and name not in self._removed]
        for name in gone:
            self._drop(name)
            self._workspace.native_folder(name).forget()
            _log.info("table gone table=%s", name)
        self._workspace.forget_others({*listed, *self._origins})
        for name in new:
            self._add(name, partial(upstream.open, name, self._workspace.new_folder))

    def _drop(self, name: str) -> None:
        with self._lock:
            table = self._tables.pop(name)
        table.close()

    def _add(self, name: str, origin: Origin) -> None:
        table = TableReplica(name, origin, self._workspace, self._settings, lambda _: self._look_now.set())
        table.measures.on_applied = self._on_applied
        with self._lock:
            self._tables[name] = table

    def add_followed(self, name: str) -> None:
        """Serve one more table of the primary. Raises `TableNotFound`, `AlreadyExists`, `ConfigError`,
        `Unavailable`."""
        if self._upstream is None:
            raise ConfigError(f"table {name!r}: this server follows no primary; state the table's base")
        found = self._upstream.table(name).name
        with self._changing:
            self._removed.discard(found)
            origin = partial(self._upstream.open, found, self._workspace.new_folder)
            self._add_origin(found, origin, is_listed=True)

    def add_stated(self, name: str, origin: Origin) -> None:
        """Serve one more table of an origin of its own, whatever is listed. Raises `AlreadyExists`."""
        with self._changing:
            self._add_origin(name, origin, is_listed=False)

    def _add_origin(self, name: str, origin: Origin, *, is_listed: bool) -> None:
        with self._lock:
            if name in self._tables:
                raise AlreadyExists(f"table {name!r} is served already")
        if not (self._follows_list and is_listed):
            self._origins[name] = origin
        self._add(name, origin)

    def remove(self, name: str) -> None:
        """Serve a table no longer; views that are open end with their readers. Raises `TableNotFound`."""
        with self._changing:
            self.table(name)
            self._removed.add(name)
            self._origins.pop(name, None)
            self._drop(name)

    def observe_applied(self, observer: Callable[[Applied], None]) -> None:
        """Tell `observer` of all that becomes visible out of the feeds from now on. It must not raise."""
        self._on_applied = observer
        for table in self.every_table():
            table.measures.on_applied = observer

    def every_table(self) -> Sequence[TableReplica]:
        with self._lock:
            return [table for _, table in sorted(self._tables.items())]

    def table(self, name: str) -> TableReplica:
        """Raises `TableNotFound`."""
        with self._lock:
            table = self._tables.get(name)
        if table is None:
            raise TableNotFound(f"there is no table {name!r}")
        return table

    # --- what the front asks ----------------------------------------------------------------------

    def tables(self) -> Sequence[TableEntry]:
        published = self._published
        return [_entry(table, published.get(table.name)) for table in self.every_table()]

    def table_names(self) -> Sequence[str]:
        with self._lock:
            return sorted(self._tables)

    def made_of(self, tables: Sequence[str]) -> Sequence[object] | None:
        states = [self.table(name).replica.state for name in tables]
        return [part for state in states for part in (state.kind, state.schema)]

    def feed(self, table: str) -> TableFeed:
        return self.table(table).replica.history

    def open_view(self, tables: Sequence[str], keys: Keys = NO_KEYS) -> View:
        replicas: dict[str, Replica] = {name: self.table(name).replica for name in tables}
        return open_view(self._workspace, replicas, keys, is_checked=True)

    def known(self, table: str, key: Sequence[object] | None) -> Known | None:
        return known(self.table(table).replica, key)

    def open_together(self, tables: Sequence[str], count: int) -> Sequence[View]:
        return open_views(self._workspace, {name: self.table(name).replica for name in tables}, count)

    def open_view_as_of(self, tables: Sequence[str], seqs: Mapping[str, int]) -> View:
        replicas = {name: self.table(name).replica for name in tables}
        return self._older_views.open(replicas, seqs)

    def wait_for(self, demand: Demand, timeout_seconds: float, ending: Ending) -> None:
        wait_for(self.table(demand.table).replica, demand, time.monotonic() + timeout_seconds, ending)

    def write(
        self, sql: str, parameters: pa.Table | None = None, ending: Ending | None = None
    ) -> WriteResult:
        raise ReadOnly(str(self.read_only_reason))

    def ingest(
        self, table: str, mode: IngestMode, data: pa.RecordBatchReader, ending: Ending | None = None
    ) -> WriteResult:
        raise ReadOnly(str(self.read_only_reason))

    def begin(self, snapshot: Sequence[TablePosition] | None = None) -> PendingWrites:
        raise ReadOnly(str(self.read_only_reason))

    def measured(self) -> Sequence[MeasuredTable]:
        """What has happened to each table."""
        with self._lock:
            tables = [table for _, table in sorted(self._tables.items())]
        return [table.measured() for table in tables]

    def memory(self) -> DatabaseMemory:
        """What the states' database uses now."""
        return database_memory(self._workspace.session)

    @property
    def data_directory(self) -> Path:
        """Where its files are."""
        return self._workspace.directory

    def clock_us(self) -> int:
        """The origin's clock, whose times the feed's marks carry on; this host's while it isn't known.

        Ahead of it by at most twice what the reading may be wrong: lag downstream is never understated.
        """
        with self._lock:
            tables = list(self._tables.values())
        for table in tables:
            reading = table.origin_clock_us()
            if reading is not None:
                return reading
        return time.time_ns() // 1000

    def check(self) -> None:
        """Raise `DatabaseLost` when the states' database answers nothing any more."""
        check_database(self._workspace.session)

    def close(self) -> None:
        """End every table and let go of the workspace; views must be closed before."""
        self._stop.set()
        self._look_now.set()
        if self._upstream is not None:
            self._thread.join()
            self._upstream.close()
        with self._lock:
            tables, self._tables = list(self._tables.values()), {}
        for table in tables:
            table.close()
        self._workspace.close()


def _entry(table: TableReplica, published: PublishedTable | None) -> TableEntry:
    """What is known of a table now; one that can't be read yet has what the primary says of it."""
    state, reason = table.state
    try:
        replica = table.replica
        position = _with_listed(replica.describe(), published)
    except (Unavailable, Closed):
        replica = None
        state, reason = table.state  # a state read before may be that of a history that has just ended
        lineage = published.lineage if published is not None else UUID(int=0)
        position = TablePosition(
            table.name, lineage, 0, 0, high_water=published.high_water if published else 0
        )
    if published is None and replica is not None:
        published = _from_here(position, replica.history.low_water)
    return TableEntry(
        name=table.name,
        schema=replica.schema if replica is not None else None,
        table_uuid=published.table_uuid if published is not None else str(position.lineage),
        low_water=replica.history.low_water if replica is not None else 0,
        position=position,
        base_kind=published.base_kind if published is not None else None,
        base_uri=published.base_uri if published is not None else None,
        base_version=published.base_version if published is not None else None,
        base_seq=published.base_seq if published is not None else None,
        state=state,
        reason=reason or _remark(replica),
    )


def _with_listed(at: TablePosition, published: PublishedTable | None) -> TablePosition:
    """The position with the newest seq that the list of tables tells of: a paused feed tells of none."""
    if published is None or published.lineage != at.lineage or published.high_water <= at.high_water:
        return at
    return replace(at, high_water=published.high_water)


def _from_here(at: TablePosition, low_water: int) -> PublishedTable:
    """What is published of a table that no primary lists: its base is to be had over Flight, from here."""
    return PublishedTable(
        at.table, at.lineage, str(at.lineage), low_water, at.high_water, FLIGHT, None, None, at.visible_seq
    )


def _remark(replica: Replica | None) -> str:
    """What a reader of a table that is well should know all the same."""
    if replica is not None and replica.is_loaded and replica.state.is_lower_bound:
        return "base_seq is a lower bound: nobody vouches for the catalog's newest op"
    if replica is None:
        return ""
    remark = replica.base.remark if isinstance(replica.base, OnDemandBase) else ""
    return "; ".join(filter(None, (remark, replica.swaps.native_states.remark)))
