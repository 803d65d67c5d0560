"""`Slots`: how many of something may run at once."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from flight_replica.errors import Busy
from flight_replica.flightsql.call import TICK_SECONDS, Call
from flight_replica.flightsql.observing import Phase


class Slots:
    """So many places. Thread-safe."""

    def __init__(self, what: str, limit: Callable[[], int], wait_seconds: Callable[[], float]) -> None:
        """`what` is the limit's name; the limit may change, and then counts for those that come."""
        self._what = what
        self._limit = limit
        self._wait_seconds = wait_seconds
        self._changed = threading.Condition()
        self._in_use = 0

    @property
    def in_use(self) -> int:
        return self._in_use

    def take(self, call: Call) -> None:
        """Wait for a free place. Raises `Busy` when the wait is over, or the call's reason to end."""
        if not self._is_taken(0.0):
            with call.in_phase(Phase.QUEUED):
                self._wait(call)

    def _wait(self, call: Call) -> None:
        seconds = self._wait_seconds()
        deadline = time.monotonic() + seconds
        while not self._is_taken(min(TICK_SECONDS, max(deadline - time.monotonic(), 0.0))):
            call.check()
            if time.monotonic() >= deadline:
                raise Busy(f"{self._what}: all {self._limit()} are in use, waited {seconds:g} s")

    def _is_taken(self, wait_seconds: float) -> bool:
        with self._changed:
            if self._in_use >= self._limit() and wait_seconds > 0:
                self._changed.wait(wait_seconds)
            if self._in_use >= self._limit():
                return False
            self._in_use += 1
            return True

    def give_back(self) -> None:
        with self._changed:
            self._in_use -= 1
            self._changed.notify()
