"""`FailedLogins`: how often a login may fail before the next one has to wait.

Counted per user name, and in all: pyarrow doesn't tell a login who its peer is, so guesses at many names
from one host end at the second count.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from flight_replica.errors import Unauthenticated

USER_FAILURES_MAX = 5.0  # in a row, of one user name
USER_SECONDS = 10.0  # after which one more may be tried
ALL_FAILURES_MAX = 200.0  # of all names
ALL_SECONDS = 0.1  # so checking wrong passwords takes two cores at most


class FailedLogins:
    """Thread-safe. Holds a name for as long as its failures count, so about a thousand names at most."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._lock = threading.Lock()
        self._failures: dict[str, tuple[float, float]] = {}  # user name -> failures then, monotonic seconds
        self._all = (0.0, now())

    @property
    def names(self) -> int:
        """How many user names are held."""
        with self._lock:
            return len(self._failures)

    def check(self, name: str) -> None:
        """Raises `Unauthenticated` with the time to wait where too many logins failed."""
        with self._lock:
            now = self._now()
            user = _left(self._failures.get(name, (0.0, now)), USER_SECONDS, now)
            every = _left(self._all, ALL_SECONDS, now)
        wait = max(
            (user - USER_FAILURES_MAX + 1) * USER_SECONDS, (every - ALL_FAILURES_MAX + 1) * ALL_SECONDS
        )
        if wait > 0:
            raise Unauthenticated(f"too many logins failed, try again in {max(wait, 0.1):.1f} s")

    def failed(self, name: str) -> None:
        """Count one."""
        with self._lock:
            now = self._now()
            self._forget(now)
            self._failures[name] = (_left(self._failures.get(name, (0.0, now)), USER_SECONDS, now) + 1, now)
            self._all = (_left(self._all, ALL_SECONDS, now) + 1, now)

    def succeeded(self, name: str) -> None:
        """The user's own count begins anew."""
        with self._lock:
            self._failures.pop(name, None)

    def _forget(self, now: float) -> None:
        """Let go of names whose failures count no more."""
        over = [name for name, count in self._failures.items() if _left(count, USER_SECONDS, now) == 0]
        for name in over:
            del self._failures[name]


def _left(count: tuple[float, float], seconds: float, now: float) -> float:
    """What is left of the failures: one less every `seconds`."""
    failures, at = count
    return max(failures - (now - at) / seconds, 0.0)
