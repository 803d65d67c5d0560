"""The reference primary's engine: tables, writes and feeds over one data directory.

The way of a write: `statements.py` (SQL) or `ingest.py` (Arrow data) -> `writer.py` (one thread, shared
durable commits) -> `changes.py` (rows and ops) -> `transaction.py` (seqs) -> here (followers are told).
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TypeVar
from uuid import uuid4

import duckdb
import pyarrow as pa

from flight_replica.errors import Closed, ConfigError, TableNotFound
from flight_replica.flightsql.service import Ending, IngestMode, WriteResult
from flight_replica.position import TablePosition
from flight_replica.primary import store
from flight_replica.primary.feed import PrimaryFeed
from flight_replica.primary.ingest import ingest, read_all
from flight_replica.primary.redo import redo
from flight_replica.primary.redo_file import RedoFile
from flight_replica.primary.settings import PrimarySettings
from flight_replica.primary.statements import prepare
from flight_replica.primary.store import TableRecord
from flight_replica.primary.transaction import Changes, WriteTransaction
from flight_replica.primary.transactions import ClientTransaction
from flight_replica.primary.writer import Writer

logger = logging.getLogger(__name__)
T = TypeVar("T")


def system_clock_us() -> int:
    """µs since 1970."""
    return time.time_ns() // 1000


class Engine:
    """One open data directory. Thread-safe; `close` ends its threads and lets go of the directory."""

    def __init__(
        self,
        directory: Path,
        settings: PrimarySettings,
        clock_us: Callable[[], int],
        root: duckdb.DuckDBPyConnection,
        redo_file: RedoFile,
    ) -> None:
        """Use `open`: the caller holds the directory's lock, `root` is its store, which lacks nothing."""
        self.directory = directory
        self.settings = settings
        self.clock_us = clock_us
        self._held = ExitStack()  # the store and the directory's lock, once `open` hands them over
        self._root = root
        records = store.read_tables(root)
        self._tables = {record.name.casefold(): record for record in records}  # swapped as a whole
        self._feeds = {record.id: self._new_feed(record) for record in records}
        self._writer = Writer(
            root.cursor(),
            redo_file,
            lambda connection: WriteTransaction(connection, self._tables),
            self._publish,
            clock_us,
            settings.group_writes_max,
        )

    @classmethod
    def open(
        cls,
        directory: Path,
        settings: PrimarySettings | None = None,
        *,
        new_lineage: bool = False,
        published_base_seq: Callable[[TableRecord], int] = lambda record: 0,
        clock_us: Callable[[], int] = system_clock_us,
    ) -> Engine:
        """The engine of `directory`, which is made where there is none.

        `new_lineage` begins a new history for every table, as after a restore. Where a table's published
        base (`published_base_seq`) is ahead of its log, there was one, and they begin unasked.
        Raises `ConfigError` where the directory can't be used (in use, another format, no permission).
        """
        settings = settings or PrimarySettings()
        with ExitStack() as stack:
            try:
                directory.mkdir(parents=True, exist_ok=True)
                stack.enter_context(store.lock_directory(directory))
                redo_file = stack.enter_context(closing(RedoFile(directory)))
            except OSError as error:
                raise ConfigError(f"data directory {directory} can't be used: {error.strerror}") from error
            root = store.open_store(directory, settings.memory_limit)
            stack.callback(root.close)
            _take_up(redo_file, root)
            base_seqs = [(record, published_base_seq(record)) for record in store.read_tables(root)]
            # All tables are in one file: where it has lost commits of one, others may have lost some too.
            if new_lineage or any(base_seq > record.high_water for record, base_seq in base_seqs):
                for record, base_seq in base_seqs:
                    _renew_lineage(root, record, base_seq)
            engine = cls(directory, settings, clock_us, root, redo_file)
            engine._held = stack.pop_all()
            return engine

    def close(self) -> None:
        """End the writer after what was submitted, then let go of file and directory. Idempotent."""
        self._writer.close()
        for feed in self._feeds.values():
            feed.wake()
        self._held.close()

    # --- reading ----------------------------------------------------------------------------------

    @property
    def tables(self) -> tuple[TableRecord, ...]:
        """Every table, with its positions as of the newest durable commit."""
        return tuple(self._tables.values())

    def table(self, name: str) -> TableRecord:
        """The table of this name, whatever its case. Raises `TableNotFound`."""
        record = self._tables.get(name.casefold())
        if record is None:
            raise TableNotFound(f"there is no table {name!r}")
        return record

    def feed(self, name: str) -> PrimaryFeed:
        """The feed of this table. Raises `TableNotFound`."""
        record = self.table(name)
        feed = self._feeds.get(record.id)
        if feed is None:
            raise TableNotFound(f"table {record.name!r} was dropped")
        return feed

    def session(self) -> duckdb.DuckDBPyConnection:
        """A session of its own on the store, which has all that was told; the caller closes it.

        Raises `Closed`, and `Unavailable` where the store can't take what it lacks.
        """
        self._writer.settle()
        return self.session_now()

    def session_now(self) -> duckdb.DuckDBPyConnection:
        """As `session`, but of the store as it is. Raises `Closed`."""
        try:
            return self._root.cursor()
        except duckdb.ConnectionException as error:
            raise Closed("the primary is closed") from error

    # --- writing ----------------------------------------------------------------------------------

    def write(
        self, sql: str, parameters: pa.Table | None = None, ending: Ending | None = None
    ) -> WriteResult:
        """Run one statement as one commit, durable on return; see `Service.write`."""
        statement = prepare(sql, parameters, self.tables)
        return self.submit(statement.run, is_alone=statement.is_ddl, ending=ending)

    def ingest(
        self, table: str, mode: IngestMode, data: pa.RecordBatchReader, ending: Ending | None = None
    ) -> WriteResult:
        """Put every row of `data` as one commit; see `Service.ingest`."""
        rows = read_all(data, self.settings.ingest_bytes_max)
        is_alone = mode is not IngestMode.APPEND
        return self.submit(lambda tx: ingest(tx, table, mode, rows), is_alone=is_alone, ending=ending)

    def submit(
        self, work: Callable[[WriteTransaction], T], *, is_alone: bool = False, ending: Ending | None = None
    ) -> T:
        """What `work` returns, once it is durable and published; see `Writer.submit`."""
        return self._writer.submit(work, is_alone=is_alone, ending=ending)

    def try_out(self, work: Callable[[WriteTransaction], T], ending: Ending | None = None) -> T:
        """What `work` returns; what it changes is undone, and nobody ever sees it."""
        return self._writer.submit(work, is_trial=True, ending=ending)

    def begin(self, snapshot: Sequence[TablePosition] | None = None) -> ClientTransaction:
        """A write transaction of a client; see `Service.begin`."""
        return ClientTransaction(self, snapshot)

    @contextmanager
    def still(self) -> Iterator[None]:
        """Nothing is committed inside the block; for milliseconds. Raises as `session`."""
        with self._writer.still():
            yield

    def raise_low_water(self, table_id: int, low_water: int) -> None:
        """Let the feed answer above the durable `low_water` only; for retention."""
        if (feed := self._feeds.get(table_id)) is not None:
            feed.raise_low_water(low_water)

    def checkpoint(self) -> bool:
        """Let the store's file take in its log, for which commits wait; for when nobody writes."""
        session = self.session()
        try:
            return store.checkpoint(session, self.directory)
        finally:
            session.close()

    @property
    def durable_commits_total(self) -> int:
        return self._writer.durable_commits_total

    @property
    def is_writing(self) -> bool:
        """Whether the statements of a write run just now."""
        return self._writer.is_at_work

    @property
    def writes_total(self) -> int:
        return self._writer.writes_total

    def _new_feed(self, record: TableRecord) -> PrimaryFeed:
        return PrimaryFeed(record, self.session, self.clock_us, self.settings.recent_ops_bytes)

    def _publish(self, changes: Changes) -> None:
        """Tell followers and readers what has become durable. On the writer thread."""
        feeds = self._feeds | {id_: self._new_feed(record) for id_, record in changes.created.items()}
        for id_, record in changes.altered.items():
            feeds[id_].change_schema(record.schema)
        for id_, commits in changes.commits.items():
            for commit in commits:
                feeds[id_].publish(commit, changes.commit_time_us)
        tables = {record.id: record for record in self._tables.values()}
        for part in (changes.created, changes.altered, changes.records):
            tables |= part
        for id_ in changes.dropped:
            feeds.pop(id_).drop()
            del tables[id_]
        # After the feeds have it, so that nobody reads of a seq here and doesn't find it there.
        self._feeds = feeds
        self._tables = {record.name.casefold(): record for record in tables.values()}


def _take_up(redo_file: RedoFile, root: duckdb.DuckDBPyConnection) -> None:
    """Let the store have the newest commit that an earlier process made durable. Raises `ConfigError`."""
    newest = redo_file.read()
    if newest is None:
        return
    try:
        redo(root, newest)
    except duckdb.Error as error:
        reason = str(error).strip().partition("\n")[0]
        raise ConfigError(f"the store can't take up its newest commit: {reason}") from error


def _renew_lineage(connection: duckdb.DuckDBPyConnection, record: TableRecord, base_seq: int) -> None:
    """Begin a new history that goes on from the rows as they are; no op of the old one is served.

    Its seqs go on from the old ones, which a new history needn't, but people compare them.
    """
    renewed = replace(record, lineage=uuid4(), low_water=record.high_water)
    connection.execute("BEGIN TRANSACTION")
    store.save_position(connection, renewed)
    store.clear_ops(connection, renewed, record.high_water)
    connection.execute("COMMIT")
    logger.warning(
        "new lineage table=%s lineage=%s seq=%d published_base_seq=%d",
        record.name,
        renewed.lineage,
        record.high_water,
        base_seq,
    )
