"""The published base: every so many seconds or ops, each table's changes go into its Iceberg mirror.

One thread per engine. A mirror lives in `base/<table id>-<lineage>[.N]/`; N counts the times that it had
to begin anew, because ops were trimmed before it had them or its files are damaged. What fails is logged
once, counted and tried again with backoff; the writer never waits for it.
"""

from __future__ import annotations

import logging
import random
import shutil
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import duckdb
import pyarrow as pa

from flight_replica.errors import BaseError, ConfigError
from flight_replica.primary import store
from flight_replica.primary.engine import Engine
from flight_replica.primary.mirror import IcebergMirror
from flight_replica.primary.store import PK_BYTES, TableRecord

logger = logging.getLogger(__name__)
BASE_FOLDER = "base"
POLL_SECONDS = 0.25  # how often the thread looks whether a table is due
BACKOFF_SECONDS_MAX = 60.0


@dataclass(frozen=True, slots=True)
class PublishedBase:
    """Where a table's base lies and how far it reaches."""

    uri: str  # the Iceberg metadata file
    version: int  # snapshot id
    base_seq: int


@dataclass(slots=True)
class _Mirrored:
    """One table's mirror and when it was last seen to."""

    mirror: IcebergMirror
    directory: Path
    published_at: float  # monotonic
    expired_at: float


class Publisher:
    """The thread that keeps an engine's bases. Owned by the service; `close` ends it."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._mirrors: dict[int, _Mirrored] = {}  # table id -> its mirror; the thread's own
        self._retry: dict[int, tuple[int, float]] = {}  # table id -> failures in a row, next try (monotonic)
        self._unused_since: dict[Path, float] = {}  # folders that no table needs -> seen since (monotonic)
        self._published: Mapping[int, PublishedBase] = {}  # swapped as a whole
        self._closing = threading.Event()
        self._busy = threading.Lock()  # one pass at a time
        self.failures_total = 0
        self._thread = threading.Thread(target=self._run, name="primary-publisher", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        """End the thread after the commit it is at; let go of the mirrors."""
        self._closing.set()
        if self._thread.is_alive():
            self._thread.join()
        for mirrored in self._mirrors.values():
            mirrored.mirror.close()
        self._mirrors.clear()

    def published(self, table_id: int) -> PublishedBase | None:
        """The newest base of this table; None until there is one. From any thread."""
        return self._published.get(table_id)

    def publish_all(self) -> None:
        """Bring every base up to its table's newest seq now. Raises what goes wrong."""
        with self._busy:
            for record in self._engine.tables:
                self._publish(record)

    # --- the thread -------------------------------------------------------------------------------

    def _run(self) -> None:
        while not self._closing.wait(POLL_SECONDS):
            with self._busy:
                for record in self._engine.tables:
                    if self._closing.is_set():
                        return
                    self._publish_if_due(record)
                self._clear_up()

    def _publish_if_due(self, record: TableRecord) -> None:
        failures, next_try = self._retry.get(record.id, (0, 0.0))
        if time.monotonic() < next_try:
            return
        try:
            if self._is_due(record):
                self._publish(record)
            self._retry.pop(record.id, None)
        except Exception as error:
            self.failures_total += 1
            self._close_mirror(record.id)
            delay = min(BACKOFF_SECONDS_MAX, 2.0**failures) * random.uniform(0.5, 1.0)
            self._retry[record.id] = (failures + 1, time.monotonic() + delay)
            if failures == 0:
                logger.warning("publishing failed, it goes on table=%s error=%s", record.name, error)

    def _is_due(self, record: TableRecord) -> bool:
        mirrored = self._mirrors.get(record.id)
        if mirrored is None:
            return record.high_water > 0
        settings, behind = self._engine.settings, record.high_water - mirrored.mirror.base_seq
        is_altered = len(mirrored.mirror.schema.columns) < len(record.schema.columns)
        age = time.monotonic() - mirrored.published_at
        return behind >= settings.publish_ops or (
            age >= settings.publish_seconds and (behind > 0 or is_altered)
        )

    def _publish(self, record: TableRecord) -> None:
        """Bring one base up to a consistent state of its table."""
        if record.high_water == 0:
            return
        mirrored = self._mirrors.get(record.id) or self._open_mirror(record)
        started = time.monotonic()
        current = _copy(self._engine, record, mirrored.mirror)
        if current is None:
            mirrored = self._begin_anew(record)
            current = _copy(self._engine, record, mirrored.mirror)
            assert current is not None, f"{record.name!r}: a fresh mirror takes everything"
        mirrored.mirror.compact_if_needed()
        mirrored.published_at = time.monotonic()
        self._expire(mirrored)  # may write a newer metadata file, which is then the one to publish
        self._note(record.id, mirrored.mirror)
        logger.info(
            "base published table=%s base_seq=%d seconds=%.3f",
            record.name,
            mirrored.mirror.base_seq,
            time.monotonic() - started,
        )

    def _note(self, table_id: int, mirror: IcebergMirror) -> None:
        if mirror.snapshot_id is not None:
            base = PublishedBase(mirror.metadata_location, mirror.snapshot_id, mirror.base_seq)
            self._published = {**self._published, table_id: base}

    def _expire(self, mirrored: _Mirrored) -> None:
        grace = self._engine.settings.base_grace_seconds
        now = time.monotonic()
        if now - mirrored.expired_at >= min(grace, 30.0):  # it reads every manifest
            mirrored.mirror.expire(grace)
            mirrored.expired_at = now

    # --- folders ----------------------------------------------------------------------------------

    def _open_mirror(self, record: TableRecord) -> _Mirrored:
        try:
            return self._adopt(record, mirror_directory(self._engine.directory, record))
        except (BaseError, ConfigError) as error:
            logger.warning("base can't be used, it begins anew table=%s error=%s", record.name, error)
            return self._begin_anew(record)

    def _begin_anew(self, record: TableRecord) -> _Mirrored:
        self._close_mirror(record.id)
        return self._adopt(record, _next_directory(self._engine.directory, record))

    def _adopt(self, record: TableRecord, directory: Path) -> _Mirrored:
        mirror = IcebergMirror(directory, name=record.name, schema=record.schema, lineage=record.lineage)
        mirrored = _Mirrored(mirror, directory, time.monotonic(), float("-inf"))
        self._mirrors[record.id] = mirrored
        self._note(record.id, mirror)
        return mirrored

    def _close_mirror(self, table_id: int) -> None:
        if (mirrored := self._mirrors.pop(table_id, None)) is not None:
            mirrored.mirror.close()

    def _clear_up(self) -> None:
        """Let go of dropped tables, and of their folders after the grace period."""
        live = {record.id for record in self._engine.tables}
        for id_ in [id_ for id_ in self._mirrors if id_ not in live]:
            self._close_mirror(id_)
        self._published = {id_: base for id_, base in self._published.items() if id_ in live}
        used = {mirror_directory(self._engine.directory, record) for record in self._engine.tables}
        root = self._engine.directory / BASE_FOLDER
        unused = [path for path in root.iterdir() if path not in used] if root.is_dir() else []
        now = time.monotonic()
        self._unused_since = {path: self._unused_since.get(path, now) for path in unused}
        for path, since in self._unused_since.items():
            if now - since >= self._engine.settings.base_grace_seconds:
                shutil.rmtree(path, ignore_errors=True)  # what stays is tried again


def published_base_seq(directory: Path, record: TableRecord) -> int:
    """The base_seq of the mirror that lies in a data directory for this table and lineage; 0 without one."""
    path = mirror_directory(directory, record)
    if not path.is_dir():
        return 0
    try:
        mirror = IcebergMirror(path, name=record.name, schema=record.schema, lineage=record.lineage)
    except (BaseError, ConfigError) as error:
        logger.warning("base can't be read table=%s error=%s", record.name, error)
        return 0
    try:
        return mirror.base_seq
    finally:
        mirror.close()


def mirror_directory(directory: Path, record: TableRecord) -> Path:
    """The folder of the table's newest mirror, whether or not it is there."""
    first = directory / BASE_FOLDER / f"{record.id}-{record.lineage}"
    later = [int(path.suffix[1:]) for path in first.parent.glob(f"{first.name}.*")]
    return first.with_name(f"{first.name}.{max(later)}") if later else first


def _next_directory(directory: Path, record: TableRecord) -> Path:
    newest = mirror_directory(directory, record)
    number = int(newest.suffix[1:]) + 1 if newest.suffix else 2
    return newest.with_name(f"{record.id}-{record.lineage}.{number}")


# --- copying ----------------------------------------------------------------------------------------


def _copy(engine: Engine, record: TableRecord, mirror: IcebergMirror) -> TableRecord | None:
    """Commit the table's newest state to `mirror`; the state as it was copied.

    None where that can't be done, because the mirror has rows but ops after its base_seq are trimmed.
    """
    session = engine.session()
    try:
        session.execute("BEGIN TRANSACTION READ ONLY")
        found = [current for current in store.read_tables(session) if current.id == record.id]
        if not found or found[0].lineage != record.lineage:
            return record  # dropped meanwhile
        current = found[0]
        is_fresh = mirror.snapshot_id is None
        if not is_fresh and mirror.base_seq < current.low_water:
            return None
        for column in current.schema.columns[len(mirror.schema.columns) :]:
            mirror.add_column(column)
        if is_fresh or mirror.base_seq < current.high_water:
            keys, where = _changed_keys(session, current, None if is_fresh else mirror.base_seq)
            puts = session.sql(f"SELECT {current.columns_sql} FROM {current.rows}{where}").to_arrow_reader()
            mirror.commit(puts, keys, current.high_water, current.commit_time_us)
        return current
    finally:
        session.close()


def _changed_keys(
    session: duckdb.DuckDBPyConnection, current: TableRecord, base_seq: int | None
) -> tuple[pa.ChunkedArray, str]:
    """The keys changed after `base_seq` (None: all), and a WHERE for the rows that have one of them."""
    if base_seq is None:
        return session.sql(f"SELECT {PK_BYTES} FROM {current.rows}").to_arrow_table().column(0), ""
    changed = f"SELECT DISTINCT pk_bytes FROM {current.ops} WHERE seq > {base_seq}"
    return session.sql(changed).to_arrow_table().column(0), f" WHERE {PK_BYTES} IN ({changed})"
