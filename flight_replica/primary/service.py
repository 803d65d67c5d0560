"""`PrimaryService`: the reference primary as the Flight SQL front serves it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import duckdb
import pyarrow as pa

from flight_replica.errors import InvalidStatement, TableNotFound
from flight_replica.flightsql.service import Ending, IngestMode, Known, PendingWrites, TableEntry, WriteResult
from flight_replica.log.feed import TableFeed
from flight_replica.log.reading import wait_until_at
from flight_replica.position import Demand, TablePosition
from flight_replica.primary import store
from flight_replica.primary.engine import Engine, system_clock_us
from flight_replica.primary.publisher import PublishedBase, Publisher, published_base_seq
from flight_replica.primary.retention import Retention
from flight_replica.primary.settings import PrimarySettings
from flight_replica.primary.store import TableRecord
from flight_replica.sql.database import check_database
from flight_replica.sql.key_filter import NO_KEYS, Keys
from flight_replica.sql.memory import DatabaseMemory, database_memory
from flight_replica.sql.view import View


class PrimaryService:
    """A `Service` that takes writes. Owns engine, publisher and retention; thread-safe; ends with `close`."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.publisher = Publisher(engine)
        self.publisher.start()
        self._retention = Retention(engine)

    @classmethod
    def open(
        cls,
        directory: Path,
        settings: PrimarySettings | None = None,
        *,
        new_lineage: bool = False,
        clock_us: Callable[[], int] = system_clock_us,
    ) -> PrimaryService:
        """The primary of a data directory. Raises `ConfigError`."""
        engine = Engine.open(
            directory,
            settings,
            new_lineage=new_lineage,
            published_base_seq=partial(published_base_seq, directory),
            clock_us=clock_us,
        )
        return cls(engine)

    def check(self) -> None:
        """Raise `DatabaseLost` when the store answers nothing any more."""
        check_database(self.engine.session_now)

    def memory(self) -> DatabaseMemory:
        """What the store uses now."""
        return database_memory(self.engine.session_now)

    @property
    def data_directory(self) -> Path:
        """Where everything is kept."""
        return self.engine.directory

    def close(self) -> None:
        """End the threads; what was acknowledged is in the directory."""
        self._retention.close()
        self.publisher.close()
        self.engine.close()

    @property
    def product(self) -> str:
        return "primary"

    @property
    def read_only_reason(self) -> str | None:
        return None

    def clock_us(self) -> int:
        return self.engine.clock_us()

    # --- reading ----------------------------------------------------------------------------------

    def tables(self) -> Sequence[TableEntry]:
        return [self._entry(record) for record in self.engine.tables]

    def table_names(self) -> Sequence[str]:
        return [record.name for record in self.engine.tables]

    def made_of(self, tables: Sequence[str]) -> Sequence[object] | None:
        return None

    def _entry(self, record: TableRecord) -> TableEntry:
        base = self.publisher.published(record.id)
        return TableEntry(
            name=record.name,
            schema=record.schema,
            table_uuid=str(record.table_uuid),
            low_water=record.low_water,
            position=_position(record, base),
            base_kind="iceberg" if base else None,
            base_uri=base.uri if base else None,
            base_version=base.version if base else None,
            base_seq=base.base_seq if base else None,
        )

    def known(self, table: str, key: Sequence[object] | None) -> Known | None:
        return None

    def feed(self, table: str) -> TableFeed:
        return self.engine.feed(table)

    def open_view(self, tables: Sequence[str], keys: Keys = NO_KEYS) -> View:
        session = self.engine.session()
        session.execute("BEGIN TRANSACTION READ ONLY")
        (view,) = self._views([session], tables)
        try:
            view.take_up([at.table for at in view.positions])
        except BaseException:
            view.close()
            raise
        return view

    def open_together(self, tables: Sequence[str], count: int) -> Sequence[View]:
        with self.engine.still():
            sessions = [self.engine.session() for _ in range(count)]
            for session in sessions:
                session.execute("BEGIN TRANSACTION READ ONLY")
                session.execute('SELECT 1 FROM "$meta"').fetchall()  # takes the snapshot
        return self._views(sessions, tables)

    def _views(self, sessions: Sequence[duckdb.DuckDBPyConnection], tables: Sequence[str]) -> list[View]:
        """A view on each session, whose transactions see the same, with the tables on offer.

        The sessions are closed on errors.
        """
        with ExitStack() as undo:
            for session in sessions:
                undo.callback(session.close)
            # The first read fixes what a transaction sees, so rows and positions can't be apart.
            records = _chosen(sessions[0], tables)
            positions = [_position(record, self.publisher.published(record.id)) for record in records]
            views = [View(session, positions, release=_nothing) for session in sessions]
            for view in views:
                for record in records:
                    view.offer(record.name, f"SELECT {record.columns_sql} FROM {record.rows}")
            undo.pop_all()
            return views

    def open_view_as_of(self, tables: Sequence[str], seqs: Mapping[str, int]) -> View:
        view = self.open_view(tables)
        for at in view.positions:
            if seqs.get(at.table, at.visible_seq) != at.visible_seq:
                view.close()
                raise InvalidStatement(
                    f"as_of_seq {seqs[at.table]}: a primary holds table {at.table!r} at its newest seq "
                    f"alone, which is {at.visible_seq}; ask a replica"
                )
        return view

    def wait_for(self, demand: Demand, timeout_seconds: float, ending: Ending) -> None:
        """A primary's age is 0 by nature, so only a seq is waited for."""
        feed = self.feed(demand.table)
        ending.on_end(feed.wake)
        wait_until_at(feed, demand.min_seq, timeout_seconds, lambda: ending.is_ended)

    # --- writing ----------------------------------------------------------------------------------

    def begin(self, snapshot: Sequence[TablePosition] | None = None) -> PendingWrites:
        return self.engine.begin(snapshot)

    def write(
        self, sql: str, parameters: pa.Table | None = None, ending: Ending | None = None
    ) -> WriteResult:
        return self.engine.write(sql, parameters, ending)

    def ingest(
        self, table: str, mode: IngestMode, data: pa.RecordBatchReader, ending: Ending | None = None
    ) -> WriteResult:
        return self.engine.ingest(table, mode, data, ending)


def _chosen(session: duckdb.DuckDBPyConnection, names: Sequence[str]) -> list[TableRecord]:
    found = {record.name.casefold(): record for record in store.read_tables(session)}
    chosen: dict[int, TableRecord] = {}
    for name in names:
        record = found.get(name.casefold())
        if record is None:
            raise TableNotFound(f"there is no table {name!r}")
        chosen[record.id] = record
    return list(chosen.values())


def _position(record: TableRecord, base: PublishedBase | None) -> TablePosition:
    """A primary is where the ops are born: nothing is newer than what it shows, its lag is 0."""
    return TablePosition(
        table=record.name,
        lineage=record.lineage,
        base_seq=base.base_seq if base else 0,
        visible_seq=record.high_water,
        commit_time_us=record.commit_time_us,
        lag_us=0,
        high_water=record.high_water,
    )


def _nothing() -> None:
    """The session is all that a primary's view holds."""
