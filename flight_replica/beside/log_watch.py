"""`LogWatch`: waits until something in a directory may have changed.

By the system's file notification where it can be had (library watchdog), and by looking: now and then
beside the notification, since network file systems don't notify, and often without it.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from pathlib import Path

from watchdog.events import (
    FileCreatedEvent,
    FileModifiedEvent,
    FileMovedEvent,
    FileSystemEvent,
    FileSystemEventHandler,
)
from watchdog.observers import Observer
from watchdog.observers.api import BaseObserver

from flight_replica.errors import ReplicaError

__all__ = ["LogWatch"]

POLL_SECONDS = 0.002  # without notification: half of the lag this costs on average is 1 ms
POLL_BESIDE_SECONDS = 0.1  # with it
_EVENTS: list[type[FileSystemEvent]] = [FileCreatedEvent, FileModifiedEvent, FileMovedEvent]

_log = logging.getLogger(__name__)


class LogWatch:
    """Watches one directory. `wait` for one thread, everything else for any; `close()` ends its threads.

    `look` is called when a file appeared, on a thread of the watch. `mark` gives a value that differs
    when something has changed since; `clear` remembers it.
    """

    def __init__(self, path: Path, look: Callable[[], None], mark: Callable[[], object]) -> None:
        self._path = path
        self._look = look
        self._mark = mark
        self._seen: object = None
        self._news = threading.Event()
        self._lock = threading.Lock()
        self._observer: BaseObserver | None = None
        self._is_closed = False
        self._may_notify = True

    def clear(self) -> None:
        """From here on everything that changes is news; call it before reading."""
        self._news.clear()
        self._seen = self._mark()

    def wake(self) -> None:
        self._news.set()

    def wait(self, timeout_seconds: float) -> bool:
        """Whether there may be news; False when the time is up without."""
        deadline = time.monotonic() + timeout_seconds
        while not self._news.is_set():
            self._start()
            left = deadline - time.monotonic()
            if left <= 0 or self._is_closed:
                return self._is_closed
            pause = POLL_SECONDS if self._observer is None else POLL_BESIDE_SECONDS
            if not self._news.wait(min(left, pause)) and self._mark() != self._seen:
                return True
        return True

    def close(self) -> None:
        with self._lock:
            self._is_closed = True
            observer, self._observer = self._observer, None
        self._news.set()
        if observer is not None:
            observer.stop()
            observer.join()

    def _start(self) -> None:
        """Begin to be notified, if that is possible and the directory is there."""
        with self._lock:
            if (
                self._observer is not None
                or self._is_closed
                or not self._may_notify
                or not self._path.is_dir()
            ):
                return
            observer = Observer()
            observer.name = f"log-watch {self._path.name}"
            try:
                observer.schedule(_Handler(self._on_event), str(self._path), event_filter=_EVENTS)
                observer.start()
            except OSError as error:  # no inotify here, or its limit of watches is reached
                self._may_notify = False
                _log.warning(
                    "log directory is polled path=%s seconds=%s reason=%s", self._path, POLL_SECONDS, error
                )
                return
            self._observer = observer
        self._news.set()  # what happened before the watch was there

    def _on_event(self, is_new_file: bool) -> None:
        if is_new_file:
            try:
                self._look()
            except ReplicaError as error:  # the reader's own look meets it too, and raises it
                _log.debug("log directory look failed path=%s error=%s", self._path, error)
        self._news.set()


class _Handler(FileSystemEventHandler):
    def __init__(self, on_event: Callable[[bool], None]) -> None:
        self._on_event = on_event

    def on_any_event(self, event: FileSystemEvent) -> None:
        self._on_event(not isinstance(event, FileModifiedEvent))
