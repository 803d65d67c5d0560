"""`FileChanges`: a table's changes out of its files, read once and kept for a while for those who are at it.

Reading the files may take long, so it happens in a thread for each starting point; who follows gets
heartbeats meanwhile. How the changes are read and sorted: `table_changes.py`.
"""

from __future__ import annotations

import logging
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

from flight_replica.beside.engine_catalog import CatalogVersion
from flight_replica.beside.table_changes import TableChanges
from flight_replica.errors import BaseNotUsable, ReplicaError, Unavailable
from flight_replica.schema import TableSchema

_log = logging.getLogger(__name__)

IDLE_SECONDS = 60.0  # how long changes are kept that nobody reads
READS_MAX = 4  # of the files of one table at a time; each may spool as much as the files hold


@dataclass(slots=True, eq=False)
class _Reading:
    """The changes from one seq on, once they are there."""

    since: int
    through: int
    changes: TableChanges | None = None
    error: ReplicaError | None = None
    used_at: float = field(default_factory=time.monotonic)

    @property
    def is_done(self) -> bool:
        return self.changes is not None or self.error is not None


class FileChanges:
    """One table's. Thread-safe; owns its threads `files-TABLE` until `close`."""

    def __init__(self, table: str, directory: Path) -> None:
        """`directory` is where large readings spool."""
        self._table = table
        self._directory = directory
        self._changed = threading.Condition()
        # Everything below is guarded by `_changed`.
        self._version: CatalogVersion | None = None
        self._through = 0
        self._schema: TableSchema | None = None
        self._readings: list[_Reading] = []
        self._threads: set[threading.Thread] = set()
        self._wakes = 0
        self._is_closed = False

    def show(self, version: CatalogVersion, through: int, schema: TableSchema) -> None:
        """New readings are of this version, which is complete up to `through`, and in this schema."""
        with self._changed:
            self._version, self._through, self._schema = version, through, schema
            is_old = [r for r in self._readings if r.changes is not None and r.changes.schema != schema]
            self._let_go(is_old)
            self._changed.notify_all()

    def begin(self, since: int, joins_at: int) -> None:
        """See to it that the changes after `since` are read, up to `joins_at` at least. Returns at once."""
        with self._changed:
            self._find_or_begin(since, joins_at, None)

    def get(
        self, since: int, joins_at: int, through_max: int | None, timeout_seconds: float
    ) -> TableChanges | None:
        """Changes from `since` or before on, up to `joins_at` or beyond, but not beyond `through_max`.

        None while they are being read, after the timeout. Raises what reading them raised; `Unavailable`
        where the files have moved on past `through_max`.
        """
        deadline = time.monotonic() + timeout_seconds
        with self._changed:
            while True:
                reading = self._find_or_begin(since, joins_at, through_max)
                if reading.is_done:
                    break
                left = deadline - time.monotonic()
                if left <= 0:
                    return None
                self._changed.wait(left)
            if reading.error is not None:
                self._readings.remove(reading)
                raise reading.error
            reading.used_at = time.monotonic()
            return reading.changes

    def wait(self, since: int, joins_at: int, timeout_seconds: float) -> None:
        """Until the changes after `since` are there, `wake`, or the time is up."""
        with self._changed:
            wakes = self._wakes
            reading = self._find_or_begin(since, joins_at, None)
            self._changed.wait_for(
                lambda: reading.is_done or self._wakes != wakes or self._is_closed, timeout_seconds
            )

    def wake(self) -> None:
        with self._changed:
            self._wakes += 1
            self._changed.notify_all()

    def close(self) -> None:
        """End every reading. Idempotent."""
        with self._changed:
            self._is_closed = True
            threads = list(self._threads)
            self._let_go([reading for reading in self._readings if reading.is_done])
            self._changed.notify_all()
        for thread in threads:
            thread.join()

    # --- under the lock ---------------------------------------------------------------------------

    def _find_or_begin(self, since: int, joins_at: int, through_max: int | None) -> _Reading:
        now = time.monotonic()
        idle = [r for r in self._readings if r.is_done and now - r.used_at > IDLE_SECONDS]
        self._let_go(idle)
        for reading in self._readings:
            fits = reading.since <= since and reading.through >= joins_at
            if fits and (through_max is None or reading.through <= through_max):
                return reading
        if self._version is None or self._schema is None:
            raise Unavailable(f"table {self._table!r}: its files aren't known yet")
        if through_max is not None and self._through > through_max:
            raise Unavailable(
                f"table {self._table!r}: its files have moved on to seq {self._through}, "
                f"changes up to {through_max} were planned: plan again"
            )
        if self._is_closed:
            raise Unavailable(f"table {self._table!r}: the feed is closed")
        self._make_room()
        reading = _Reading(since, self._through)
        self._readings.append(reading)
        thread = threading.Thread(
            target=self._read,
            args=(reading, self._version, self._schema),
            name=f"files-{self._table}",
            daemon=True,
        )
        self._threads.add(thread)
        thread.start()
        return reading

    def _make_room(self) -> None:
        if len(self._readings) < READS_MAX:
            return
        done = [reading for reading in self._readings if reading.is_done]
        if not done:
            raise Unavailable(f"table {self._table!r}: {READS_MAX} readings of its files are under way")
        self._let_go([min(done, key=lambda reading: reading.used_at)])

    def _let_go(self, readings: list[_Reading]) -> None:
        """Their spools go when the last reader lets go of them."""
        for reading in readings:
            self._readings.remove(reading)

    # --- in a thread ------------------------------------------------------------------------------

    def _read(self, reading: _Reading, version: CatalogVersion, schema: TableSchema) -> None:
        began = time.monotonic()
        changes: TableChanges | None = None
        error: ReplicaError | None = None
        try:
            changes = TableChanges(
                version.files,
                schema,
                reading.since,
                reading.through,
                self._directory,
                is_over=lambda: self._is_closed,
            )
        except BaseNotUsable as raised:  # compacted away: the next version has the rows
            error = Unavailable(f"table {self._table!r}: {raised}; look again")
        except ReplicaError as raised:
            error = raised
        except OSError as raised:
            error = Unavailable(f"table {self._table!r}: changes can't be spooled: {raised.strerror}")
        with self._changed:
            reading.changes, reading.error, reading.used_at = changes, error, time.monotonic()
            self._threads.discard(threading.current_thread())
            self._changed.notify_all()
        _log.info(
            "changes read from files table=%s since=%d through=%d seconds=%.3f error=%s",
            self._table,
            reading.since,
            reading.through,
            time.monotonic() - began,
            error,
        )
