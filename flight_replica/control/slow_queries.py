"""`SlowQueries`: the newest statements that took long, for whoever looks at the server."""

from __future__ import annotations

import threading
from collections import deque

from flight_replica.flightsql.observing import QueryKind, QueryRecord

SLOW_SECONDS = 1.0
KEPT_MAX = 100  # of 4 KiB of text each at most


class SlowQueries:
    """An observer of statements. Thread-safe."""

    def __init__(self, slow_seconds: float = SLOW_SECONDS) -> None:
        self.slow_seconds = slow_seconds
        self._lock = threading.Lock()
        self._kept: deque[QueryRecord] = deque(maxlen=KEPT_MAX)  # the oldest first

    def query_ended(self, record: QueryRecord) -> None:
        """A follow stream is no slow query: it lasts as long as its client wants."""
        if record.kind is not QueryKind.FOLLOW and record.seconds >= self.slow_seconds:
            with self._lock:
                self._kept.append(record)

    def newest_first(self) -> list[QueryRecord]:
        with self._lock:
            return list(reversed(self._kept))
