"""`EngineTable`: one table of a running engine as a feed, from lineage to lineage, until it is closed.

How one lineage is followed: `history.py`.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote
from uuid import UUID

from flight_replica.beside.engine_feed import EngineFeed
from flight_replica.beside.history import EngineTableSettings, History, HistoryOver
from flight_replica.errors import ReplicaError, Unavailable, without_table
from flight_replica.log.backoff import Backoff, BackoffConfig

_log = logging.getLogger(__name__)


class EngineTable:
    """Owns its threads and its folder below `directory` until `close`. Everything else is for any thread."""

    def __init__(
        self, name: str, settings: EngineTableSettings, directory: Path, clock_us: Callable[[], int]
    ) -> None:
        """`clock_us`: this host's, µs since 1970; commit times are when an op was seen here."""
        self.name = name
        self.settings = settings
        self._directory = directory / quote(name, safe="")
        self._directory.mkdir(parents=True, exist_ok=True)
        self._clock_us = clock_us
        self._stop = threading.Event()
        self._lock = threading.Lock()
        # Everything below is guarded by `_lock`.
        self._history: History | None = None
        self._trouble: ReplicaError = Unavailable(f"table {name!r}: its log is being read")
        self._thread = threading.Thread(target=self._run, name=f"log-{name}", daemon=True)
        self._thread.start()

    @property
    def feed(self) -> EngineFeed:
        """The feed of the present lineage. Raises why there is none."""
        with self._lock:
            history, trouble = self._history, self._trouble
        if history is None:
            raise trouble
        if not history.is_served.is_set():
            raise self._final(history.trouble) if history.trouble is not None else trouble
        return history.feed

    @property
    def table_uuid(self) -> UUID | None:
        """The engine's, None before its first commit and while there is no feed."""
        with self._lock:
            history = self._history
        return history.table_uuid if history is not None else None

    @property
    def trouble(self) -> str:
        """What is wrong, for people; empty when all is well."""
        with self._lock:
            history, trouble = self._history, self._trouble
        if history is None:
            return str(trouble)
        return str(history.trouble or "")

    def close(self) -> None:
        self._stop.set()
        with self._lock:
            history = self._history
        if history is not None:
            history.wake()
        self._thread.join()

    # --- the thread -------------------------------------------------------------------------------

    def _run(self) -> None:
        backoff = Backoff(BackoffConfig(max_seconds=5.0))
        while not self._stop.is_set():
            try:
                self._follow(backoff)
            except HistoryOver as reason:
                _log.warning("lineage over table=%s reason=%s", self.name, reason)
            except Exception as error:  # whatever the engine's directories hold: they may be mended
                self._say(error)
                self._stop.wait(backoff.next_seconds())

    def _follow(self, backoff: Backoff) -> None:
        """Follow one lineage until it is over, or `close`."""
        history = History(self.name, self.settings, self._directory, self._clock_us)
        backoff.reset()
        try:
            with self._lock:
                self._history = history
            history.follow(self._stop)
        finally:
            with self._lock:
                self._history = None
                self._trouble = Unavailable(f"table {self.name!r}: its log is being read")
            history.close()

    def _final(self, error: Exception) -> ReplicaError:
        """What a caller gets for it: `Unavailable` for what may pass."""
        if isinstance(error, ReplicaError) and not error.retryable:
            return error
        return Unavailable(f"table {self.name!r}: {without_table(self.name, str(error))}")

    def _say(self, error: Exception) -> None:
        """Keep and log why there is no feed, once as long as it stays so."""
        trouble = self._final(error)
        with self._lock:
            is_new = str(trouble) != str(self._trouble)
            self._trouble = trouble.with_traceback(None)
        if is_new:
            _log.warning("feed not served table=%s error=%s", self.name, trouble)
