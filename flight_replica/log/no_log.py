"""The log of a table that has none here: it is served as its base lies there."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from uuid import UUID

from flight_replica.errors import Closed, ReplicaError
from flight_replica.log.source import FeedMark, OpBatch
from flight_replica.schema import TableSchema


class _Nothing:
    """A stream without ops; a following one waits to be closed."""

    def __init__(self, closed: threading.Event, is_following: bool) -> None:
        self._closed = closed
        self._is_following = is_following

    def __iter__(self) -> Iterator[OpBatch]:
        if self._is_following:
            self._closed.wait()
        return iter(())

    def close(self) -> None:
        self._closed.set()


class NoLog:
    """A `LogSource` without ops. Nothing proves how fresh the base is: lag is unknown."""

    last_mark: FeedMark | None = None
    last_mark_at: float | None = None
    clock_offset_us: int | None = None
    clock_error_us: int | None = None
    last_error: ReplicaError | None = None
    failure_count = 0

    def __init__(self, lineage: UUID, schema: TableSchema) -> None:
        self.lineage = lineage
        self.schema = schema
        self._closed = threading.Event()

    def stream(self, since: int) -> _Nothing:
        self._check_open()
        return _Nothing(threading.Event(), is_following=False)

    def follow(self, since: int) -> _Nothing:
        self._check_open()
        return _Nothing(self._closed, is_following=True)

    def latest_seq(self) -> int:
        return 0

    def close(self) -> None:
        self._closed.set()

    def _check_open(self) -> None:
        """A follower takes a stream that ends for a change of the schema: it must hear that this was all."""
        if self._closed.is_set():
            raise Closed("the log source is closed")
