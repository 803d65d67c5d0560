"""`ReloadedFile`: what stands in a file, read again when the file changes."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Generic, TypeVar

from flight_replica.errors import ConfigError

logger = logging.getLogger(__name__)
T = TypeVar("T")


class ReloadedFile(Generic[T]):
    """Thread-safe. Looks at the file at each use, which takes some µs.

    A file that has become unreadable or wrong changes nothing: what was read last counts, and an error is
    logged once. A file that is replaced whole (renamed over the old one) is never seen half written.
    """

    def __init__(self, path: Path, load: Callable[[Path], T]) -> None:
        """Raises what `load` raises: `ConfigError` naming the file and what is wrong in it."""
        self._path = path
        self._load = load
        self._lock = threading.Lock()
        self._stamp = _stamp(path)
        self._found = load(path)

    @property
    def last(self) -> T:
        """What was read last."""
        return self._found

    def read(self) -> T:
        """What stands in the file now."""
        stamp = _stamp(self._path)
        with self._lock:
            if stamp != self._stamp:
                self._stamp = stamp
                self._reload()
            return self._found

    def _reload(self) -> None:
        try:
            self._found = self._load(self._path)
        except ConfigError as error:
            logger.error("file not taken, what was read last counts error=%s", error)
        else:
            logger.info("file read again path=%s", self._path)


def _stamp(path: Path) -> tuple[int, int, int] | None:
    """What changes with the file; None where it isn't there."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino
