"""`History`: one lineage of an engine's table being followed: its log is read, its files are looked at.

Two threads. The one that calls `follow` is the only writer of the recent ops: it reads the log and takes what
the other one finds. `catalog-NAME` looks whether the engine has committed new files, and what they tell.

The order proves that nothing is lost where ops move from log to files: a version of the files is taken once
the log has been read to where it was after that version was. What the log then hasn't given it had no more,
and the files have it: the recent ops begin anew behind them. Source: merutable format, section 13.
"""

from __future__ import annotations

import logging
import shutil
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn
from uuid import UUID

import pyarrow as pa

from flight_replica.beside.engine_catalog import BYTES, CatalogVersion, EngineCatalog
from flight_replica.beside.engine_feed import EngineFeed
from flight_replica.beside.engine_log import CALL_BYTES_MAX, EngineLog
from flight_replica.beside.file_changes import FileChanges
from flight_replica.beside.hand_over import contradiction
from flight_replica.beside.lineage_record import LineageRecord
from flight_replica.beside.log_file import WriteBatch
from flight_replica.beside.log_ops import SeqsReused, byte_estimate, decoded, hashes_of, new_batches
from flight_replica.beside.recent_ops import RecentOps
from flight_replica.beside.table_changes import TableChanges
from flight_replica.beside.tombstones import LostTombstones
from flight_replica.errors import (
    BaseError,
    ChangedLog,
    Closed,
    ConfigError,
    DamagedLog,
    LogGap,
    MissedLog,
    ReplicaError,
    SchemaMismatch,
    Unavailable,
    without_table,
)
from flight_replica.log.backoff import Backoff, BackoffConfig
from flight_replica.replica.widening import wider
from flight_replica.schema import TableSchema
from flight_replica.text_columns import TextColumns

_log = logging.getLogger(__name__)

CATALOG_SECONDS = 0.25  # between two looks at the version hint
LOG_SECONDS = 0.1  # between two looks at a log that says nothing, each of which proves that
DRAINED_BYTES = CALL_BYTES_MAX // 2  # a call that gives less has given all there was
READ_BYTES = 8 << 20


@dataclass(frozen=True, slots=True)
class EngineTableSettings:
    """Where a table's engine keeps it, and what is stated about it."""

    catalog: Path
    log: Path
    schema: TableSchema | None = None
    level_targets: int | None = None  # the smallest number of them the engine was ever opened with
    texts: TextColumns = BYTES  # byte columns that are strings throughout
    accept_damage: bool = False
    retain_bytes: int = 1 << 30  # of recent ops on disk; what isn't flushed stays in any case

    def check(self, name: str) -> None:
        """Raise `ConfigError` for what is stated of table `name` and its files say otherwise."""
        if (self.log / "metadata").is_dir():
            raise ConfigError(
                f"table {name!r}: the log directory {self.log} holds metadata/, so it is a catalog's"
            )
        try:
            version = EngineCatalog(self.catalog, name, self.schema, self.texts).read()
            self.texts.check(version.schema)
            LostTombstones(name, self.level_targets).check(version)
        except (ConfigError, SchemaMismatch) as error:
            raise ConfigError(f"table {name!r}: {without_table(name, str(error))}") from error
        except BaseError:  # nothing is committed yet, or damaged: whoever opens the table says so
            return


class HistoryOver(ReplicaError):
    """What was read isn't the table's history any more: the record names the lineage that follows."""


@dataclass(frozen=True, slots=True)
class _Look:
    """What the files of one version tell beside recent ops that begin after `start`."""

    version: CatalogVersion
    start: int
    keep_after: int  # older recent ops may be forgotten
    lost_through: int  # the newest seq that may be a lost tombstone, when they are


class History:
    """Made, followed and closed by one thread; `feed`, `is_served`, `trouble` and `wake` are for any."""

    def __init__(
        self, name: str, settings: EngineTableSettings, directory: Path, clock_us: Callable[[], int]
    ) -> None:
        """Raises `BaseNotUsable` while the table can't be told, `BaseError`, `FeedError`, `ConfigError`."""
        self._name = name
        self._settings = settings
        self._clock_us = clock_us
        self._record_path = directory / "lineage.json"
        self._spool = directory / "spool"
        self._catalog_lock = threading.Lock()  # of reading the next two
        self._catalog = EngineCatalog(settings.catalog, name, settings.schema, settings.texts)
        self._lost = LostTombstones(name, settings.level_targets)
        self._version = self._catalog.read()  # the newest one that was taken
        settings.texts.check(self._version.schema)
        self._record = self._begin()
        if not self._record.has_ops:
            shutil.rmtree(directory / "ops", ignore_errors=True)
        with ExitStack() as undo:
            self._log = EngineLog(settings.log, accept_damage=settings.accept_damage)
            undo.callback(lambda: self._log.close())
            # Read from the log, but not among the recent ops yet.
            self._waiting: Sequence[WriteBatch] = self._log.read_new()
            self._recent = RecentOps(
                name,
                self._record.lineage,
                self._first_schema(),
                directory / "ops",
                start=min([self._version.file_seq, *(batch.first_seq - 1 for batch in self._waiting[:1])]),
                bytes_max=settings.retain_bytes,
                clock_us=clock_us,
            )
            undo.callback(self._recent.close)
            self._files = FileChanges(name, self._spool)
            undo.callback(self._files.close)
            # Until an earlier process's ops are proven to be this log's: where they end.
            self._stored_end = self._recent.end if self._record.has_ops else 0
            self._is_resumed = self._record.has_ops
            self._record = self._record.opened()
            self._record.save(self._record_path)
            self._closing = undo.pop_all()
        self.feed = EngineFeed(name, self._record.lineage, self._recent, self._files)
        self.feed.raise_low_water(self._record.low_water)
        self.is_served = threading.Event()  # all that was there at the start is in the feed
        self.trouble: ReplicaError | None = Unavailable(f"table {name!r}: its log is being read")
        self._log_end = 0  # the newest seq that the log gave
        self._losses: list[DamagedLog] = []  # ops that are in neither log nor files, accepted
        self._is_behind = True  # the log may still give ops from before where the recent ones begin
        self._looked: _Look | None = None  # by the other thread, not taken yet
        self._look_error: Exception | None = None
        self._stop_looking = threading.Event()
        self._looker = threading.Thread(target=self._look_on, name=f"catalog-{name}", daemon=True)

    def _begin(self) -> LineageRecord:
        """The lineage to follow."""
        known = LineageRecord.load(self._record_path)
        if known is None:
            return LineageRecord.first(self._version, self._settings.catalog)
        reason = known.why_over(self._version) or known.why_unknown() or self._why_of_other_types(known)
        return known if reason is None else self._succeed(known, self._version, reason)

    def _succeed(
        self, known: LineageRecord, version: CatalogVersion, reason: str, accepted: tuple[str, ...] = ()
    ) -> LineageRecord:
        """The record of the lineage that follows `known`, put down."""
        record = known.successor(version, accepted)
        record.save(self._record_path)
        _log.warning("new lineage table=%s lineage=%s reason=%s", self._name, record.lineage, reason)
        return record

    def _why_of_other_types(self, known: LineageRecord) -> str | None:
        """Types of a table that is served don't change: text that was bytes before is another history."""
        if known.schema:
            try:
                wider(self._version.schema, TableSchema.from_json(known.schema))
            except SchemaMismatch as error:
                return str(error)
        return None

    def _first_schema(self) -> TableSchema:
        if not self._record.schema:
            return self._version.schema
        return wider(self._version.schema, TableSchema.from_json(self._record.schema))

    @property
    def table_uuid(self) -> UUID | None:
        """The engine's, None before its first commit."""
        return self._record.table_uuid

    def wake(self) -> None:
        self._log.wake()

    def close(self) -> None:
        """Let go of everything. Not while `follow` runs."""
        if self._looker.is_alive():
            self._stop_looking.set()
            self._looker.join()
        self._closing.close()

    # --- following the log --------------------------------------------------------------------------

    def follow(self, stop: threading.Event) -> None:
        """Until `stop`. Raises `HistoryOver`."""
        backoff = Backoff(BackoffConfig(max_seconds=2.0))
        self._looker.start()
        while not stop.is_set():
            try:
                if not self.step():
                    self._log.wait(LOG_SECONDS)
            except HistoryOver:
                raise
            except Exception as error:  # what is wrong with log, files or our own disk may be mended
                self._say(self._told(error))
                if not self._reads_anew(error):
                    stop.wait(backoff.next_seconds())
            else:
                backoff.reset()
        self.end()

    def end(self) -> None:
        """Put down that everything read is stored; readers hear that it is over."""
        self.feed.end(lambda _: Closed(f"the feed of table {self._name!r} is closed"))
        self._save(is_closed=True)

    def _told(self, error: Exception) -> Exception:
        """What an error means here. Raises `HistoryOver` for seqs that were given out again."""
        if not isinstance(error, SeqsReused):
            return error
        if self.is_served.is_set() or self._is_resumed:
            self._end(self._version, str(error))
        # One reading of one log has a seq twice: no other lineage mends that.
        return DamagedLog(str(self._settings.log), None, str(error))

    def _reads_anew(self, error: Exception) -> bool:
        """Whether it begins once more with the oldest log, as after a restart.

        A log that was changed under its reader may be right, and be another history. Once it was read
        again what is wrong stays so, until a flush has removed the file.
        """
        if not isinstance(error, DamagedLog) or isinstance(error, MissedLog):
            return False
        is_first_reading = self.is_served.is_set() and not self._stored_end
        is_mended = not (self._settings.log / error.file).exists()
        if not (is_first_reading or is_mended or isinstance(error, ChangedLog)):
            return False
        self._log.close()
        self._log = EngineLog(self._settings.log, accept_damage=self._settings.accept_damage)
        self._stored_end, self._log_end, self._is_behind, self._waiting = self._recent.end, 0, True, []
        self._is_resumed = True
        return True

    def step(self) -> bool:
        """Read the log once, and take what the files tell if it has come so far; whether there was news."""
        looked_at_us, look = self._clock_us(), self._looked
        if look is not None and look.version.reading < self._version.reading:
            look = self._looked = None  # the files were read again meanwhile
        if look is not None:
            self._raise_if_over(look.version)
            self._widen(look.version.schema)
        was_waiting = bool(self._waiting)
        if not was_waiting:
            self._waiting = self._read()
            self._check_accepted()
        size, has_news = byte_estimate(self._waiting), bool(self._waiting)
        held = self._store_waiting()
        is_drained = not was_waiting and held is None and size < DRAINED_BYTES
        if is_drained and has_news:
            is_drained = self._has_no_trouble_behind()
        # While the log is read anew its end isn't known, and with it whether all that was stored is there.
        is_taken = is_drained or (
            look is not None and not self._stored_end and self._recent.end >= look.version.file_seq
        )
        if look is not None and is_taken and look.version.reading >= self._version.reading:
            self._take(look)
        if is_drained:
            self._check_stored()
            self._is_behind = False
        without_log = self._why_without_log() if is_drained else None
        if is_drained and without_log is None:
            self.feed.confirm(looked_at_us)
        if self.feed.files_reach is not None and (is_drained or held is not None):
            self.is_served.set()
        self._say(held or self._look_error or without_log)
        return has_news and held is None

    def _why_without_log(self) -> Unavailable | None:
        """An engine makes a log when it opens a table: without one nobody can tell what isn't flushed."""
        if self._log.has_files:
            return None
        return Unavailable(
            f"table {self._name!r}: there is no log file in {self._settings.log}, so nothing tells what its "
            "engine has beyond the files"
        )

    def _has_no_trouble_behind(self) -> bool:
        """Whether the log gave all there was, not only what stands before a hole or damage in it."""
        try:
            self._waiting = self._log.read_new()
        except DamagedLog:  # which the next reading raises again
            return False
        return True

    def _read(self) -> Sequence[WriteBatch]:
        try:
            return self._log.read_new()
        except MissedLog as missed:
            self._fill(missed)
            return self._log.read_new()

    def _fill(self, missed: MissedLog) -> None:
        """Logs came and went unread: their ops are in the files, or it is raised again."""
        version = self._read_catalog()
        before = missed.before_seq
        # With no op behind the hole the newest one of all is in the files: it is never dropped.
        covered = before - 1 if before is not None else max(version.file_seq, self._recent.end)
        is_lost = before is not None and version.reach(before) < covered
        if is_lost:
            self._accept(missed)
        self._log.pass_over(covered_through=covered)
        if not is_lost and covered > self._recent.end:
            self._begin_anew(version, covered)

    def _accept(self, loss: DamagedLog) -> None:
        """Go on without what was lost, as the engine does; raise it unless it is to be accepted."""
        if not self._settings.accept_damage:
            raise loss
        if str(loss) not in map(str, self._losses):
            self._losses.append(loss)

    def _check_accepted(self) -> None:
        """Raise `HistoryOver` where damage was passed over that isn't this lineage's."""
        damages = [d for d in self._log.accepted if not isinstance(d, MissedLog)] + self._losses
        known = self._record.accepted
        found = tuple(f"{Path(d.file).name} at {d.offset} after seq {d.after_seq}" for d in damages)
        if not set(found) <= set(known):
            accepted = (*known, *(damage for damage in found if damage not in known))
            self._end(self._version, f"damage was accepted: {damages[-1]}", accepted)

    def _store_waiting(self) -> SchemaMismatch | None:
        """Let what was read become the newest ops; or why it can't, where only newer files help."""
        if not self._waiting:
            return None
        recent, is_first = self._recent, self._log_end == 0
        self._log_end = max(self._log_end, self._waiting[-1].last_seq)
        recent.note(self._log_end)
        fresh = new_batches(
            self._waiting, recent.start, recent.end, recent.hashes, may_be_older=self._is_behind
        )
        # The log vouches for what joins inside it, but not for where it begins.
        if fresh and is_first and fresh[0].first_seq > recent.end + 1:
            self._join(fresh[0].first_seq)
        self._waiting = fresh
        while self._waiting:
            try:
                ops, count = decoded(self._waiting, recent.schema)
            except SchemaMismatch as error:
                return SchemaMismatch(
                    f"table {self._name!r}: ops after seq {recent.end} wait for the flush that says their "
                    f"columns, unless --schema does: {error}"
                )
            recent.append(ops, hashes_of(self._waiting[:count]), self._clock_us())
            self._waiting = self._waiting[count:]
        return None

    def _join(self, first_seq: int) -> None:
        """The log doesn't go on where what is stored ends: the files must fill the hole."""
        version = self._read_catalog()
        reach = max(version.reach(first_seq), self._record.files_reach)
        if reach >= first_seq - 1:
            self._begin_anew(version, first_seq - 1)
            return
        reason = (
            f"it begins with seq {first_seq}, but the files of table {self._name!r} end at seq {reach}: "
            "the ops between are in neither"
        )
        place = str(self._settings.log)
        self._accept(DamagedLog(place, None, reason, after_seq=reach, before_seq=first_seq))
        self._check_accepted()

    # --- taking what the files tell -----------------------------------------------------------------

    def _take(self, look: _Look) -> None:
        """Let the feed know of files up to whose seq the log was read; forget what they make needless."""
        version = look.version
        self._check_stored()
        if self._recent.end < version.file_seq:
            self._begin_anew(version, version.file_seq)
        elif self._recent.start != look.start:  # they began anew since
            self._show(version, self._lost_through(version, self._recent.start))
        else:
            self.feed.raise_low_water(min(look.lost_through, look.keep_after))
            self._recent.trim(look.keep_after)
            self._show(version, look.lost_through)
        if self._looked is look:
            self._looked = None

    def _begin_anew(self, version: CatalogVersion, seq: int) -> None:
        """Let the recent ops begin after `seq`: what is older only the files tell, which reach so far."""
        self._check_stored()
        self._widen(version.schema)  # before anybody reads the files by the narrower one
        _log.warning("recent ops begin anew table=%s end=%d seq=%d", self._name, self._recent.end, seq)
        lost_through = self._lost_through(version, seq)
        self.feed.raise_low_water(min(lost_through, seq))
        self._recent.restart(seq)
        self._is_behind = True
        self._show(version, lost_through, seq)

    def _show(self, version: CatalogVersion, lost_through: int, proven_reach: int = 0) -> None:
        """The recent ops begin where the files reach, which is `proven_reach` at least, or before."""
        unflushed = self._recent.first_after(version.file_seq)
        reach = max(version.reach(unflushed), self._record.files_reach, proven_reach)
        self.feed.show_files(version, reach, lost_through)
        self._version = version
        self._save(is_closed=False)

    def _lost_through(self, version: CatalogVersion, start: int) -> int:
        with self._catalog_lock:
            return self._lost.newest(version, start)

    def _widen(self, schema: TableSchema) -> None:
        result = wider(self._recent.schema, schema)
        if result is not self._recent.schema:
            self._recent.change_schema(result)

    # --- the end of a lineage -----------------------------------------------------------------------

    def _raise_if_over(self, version: CatalogVersion) -> None:
        reason = self._record.why_over(version)
        if reason is not None:
            self._end(version, reason)

    def _check_stored(self) -> None:
        """Once, when the log was read to its end or a hole in it: what was read before is in log or files."""
        stored_end, known_reach = self._stored_end, self._record.files_reach
        if not stored_end:
            return
        version = self._read_catalog()
        reach = max(version.file_seq, known_reach, self._log_end)
        if reach < stored_end:
            self._end(version, f"ops up to seq {stored_end} were read before, log and files end at {reach}")
        since = max(known_reach, self._recent.start)
        through = min(version.file_seq, stored_end)
        if since < through:
            self._compare_stored(version, since, through)
        self._stored_end = 0

    def _compare_stored(self, version: CatalogVersion, since: int, through: int) -> None:
        changes = TableChanges(version.files, self._recent.schema, since, version.file_seq, self._spool)
        lost_through = self._lost_through(version, max(version.file_seq, self._log_end))
        stored = self._stored_ops(since, through)
        reason = contradiction(stored, changes, through, self._recent.schema, lost_through)
        if reason is not None:
            self._end(version, f"{reason}: the engine gave seqs out again while nobody read its log")

    def _stored_ops(self, since: int, through: int) -> Iterator[pa.RecordBatch]:
        position = since
        while position < through:
            batch = self._recent.read(position, through, READ_BYTES, self._recent.schema_version)
            position = batch.mark.through
            yield batch.ops

    def _end(self, version: CatalogVersion, reason: str, accepted: tuple[str, ...] = ()) -> NoReturn:
        """This lineage is over: readers hear of the next one."""
        name, lineage = self._name, self._succeed(self._record, version, reason, accepted).lineage
        self.feed.end(
            lambda since: LogGap(since, None, f"table {name!r} has a new lineage: {reason}", lineage)
        )
        raise HistoryOver(f"table {name!r}: {reason}")

    def _save(self, *, is_closed: bool) -> None:
        record = self._record.at(
            self._version,
            low_water=self.feed.low_water,
            files_reach=self.feed.files_reach or 0,
            schema=self._recent.schema.to_json(),
        )
        self._record = record.closed() if is_closed else record
        self._record.save(self._record_path)

    def _say(self, error: Exception | None) -> None:
        """Keep, and log when it is new, what is wrong; damage of the log is what readers get, too."""
        if error is None or isinstance(error, ReplicaError):
            trouble = error
        else:
            trouble = Unavailable(f"table {self._name!r}: {error!r}")
        if trouble is not None and str(trouble) != str(self.trouble):
            _log.warning("trouble table=%s error=%s", self._name, trouble)
        self.trouble = trouble.with_traceback(None) if trouble is not None else None
        self.feed.say_trouble(self.trouble if isinstance(trouble, DamagedLog) else None)

    # --- looking at the files -----------------------------------------------------------------------

    def _look_on(self) -> None:
        """In a thread of its own: what files tell may take long to read."""
        looked_at: CatalogVersion | None = None  # here: what the other thread has read doesn't count
        while True:
            try:
                if looked_at is None or self._catalog.has_moved(looked_at):
                    looked_at = self.look()
                self._look_error = None
            except Exception as error:  # files that were compacted away meanwhile, or damage
                looked_at, self._look_error = None, error.with_traceback(None)
            if self._stop_looking.wait(CATALOG_SECONDS):
                return

    def look(self) -> CatalogVersion:
        """Read the newest version of the files, for the next `step` to take."""
        with self._catalog_lock:
            version = self._catalog.read()
        start = self._recent.start
        keep_after = self._recent.excess(version.file_seq)
        self._looked = _Look(version, start, keep_after, self._lost_through(version, keep_after))
        self._log.wake()
        return version

    def _read_catalog(self) -> CatalogVersion:
        with self._catalog_lock:
            version = self._catalog.read()
        self._raise_if_over(version)
        return version
