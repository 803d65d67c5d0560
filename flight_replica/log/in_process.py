"""`InProcessLogSource`: the log of a `TableFeed` that lives in this process, without a network."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from uuid import UUID

from flight_replica.errors import Closed, ReplicaError
from flight_replica.log import batches
from flight_replica.log.feed import TableFeed
from flight_replica.log.reading import read_on, read_range
from flight_replica.log.source import FeedMark, OpBatch
from flight_replica.schema import TableSchema

BATCH_ROWS = 4096
READ_BYTES = 8 << 20  # of one read of the feed, before it is cut into batches


def _wall_us() -> int:
    return time.time_ns() // 1000


class InProcessLogSource:
    """A `LogSource` over `feed`, which it doesn't own. Starts no thread: iterating reads the feed."""

    last_error: ReplicaError | None = None  # there is no connection that could fail
    failure_count = 0

    def __init__(
        self,
        feed: TableFeed,
        *,
        batch_size: int = BATCH_ROWS,
        clock_us: Callable[[], int] = _wall_us,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """`batch_size` in rows, at least 1 (less acts as 1); `clock_us` is the clock of the feed's marks."""
        self._feed = feed
        self._batch_size = max(batch_size, 1)
        self._clock_us = clock_us
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._streams: set[_FeedStream] = set()
        self._last: tuple[FeedMark, float] | None = None  # newest mark and when it was read
        self._is_closed = False

    def with_batch_size(self, rows: int) -> InProcessLogSource:
        """Another source over the same feed."""
        return InProcessLogSource(
            self._feed, batch_size=rows, clock_us=self._clock_us, monotonic=self._monotonic
        )

    @property
    def lineage(self) -> UUID:
        return self._feed.lineage

    @property
    def schema(self) -> TableSchema:
        return self._feed.schema

    @property
    def primary_low_water(self) -> int:
        return self._feed.low_water

    @property
    def last_mark(self) -> FeedMark | None:
        last = self._last
        return last[0] if last else None

    @property
    def last_mark_at(self) -> float | None:
        last = self._last
        return last[1] if last else None

    @property
    def clock_offset_us(self) -> int | None:
        return self._clock_us() - round(self._monotonic() * 1e6)

    @property
    def clock_error_us(self) -> int | None:
        return 0

    def latest_seq(self) -> int:
        return self._feed.high_water

    def stream(self, since: int) -> _FeedStream:
        self._feed.check_since(since, None)
        version = self._feed.schema_version
        through = max(since, self._feed.high_water)
        return self._open(lambda _: read_range(self._feed, since, through, READ_BYTES, version))

    def follow(self, since: int) -> _FeedStream:
        self._feed.check_since(since, None)
        version = self._feed.schema_version
        return self._open(
            lambda is_over: self._noted(read_on(self._feed, since, is_over, READ_BYTES, version))
        )

    def close(self) -> None:
        with self._lock:
            self._is_closed = True
            streams = list(self._streams)
        for stream in streams:
            stream.close()

    def _open(self, read: Callable[[Callable[[], bool]], Iterator[OpBatch]]) -> _FeedStream:
        closed = threading.Event()
        stream = _FeedStream(read(closed.is_set), self._batch_size, closed, self._on_stream_closed)
        with self._lock:
            if self._is_closed:
                raise Closed(f"the log source of table {self._feed.table!r} is closed")
            self._streams.add(stream)
        return stream

    def _noted(self, following: Iterator[OpBatch]) -> Iterator[OpBatch]:
        for batch in following:
            self._last = (batch.mark, self._monotonic())
            yield batch

    def _on_stream_closed(self, stream: _FeedStream) -> None:
        with self._lock:
            self._streams.discard(stream)
        self._feed.wake()


class _FeedStream:
    """One `OpStream` over the batches of a feed."""

    def __init__(
        self,
        table_batches: Iterator[OpBatch],
        batch_size: int,
        closed: threading.Event,
        on_close: Callable[[_FeedStream], None],
    ) -> None:
        self._batches = table_batches
        self._batch_size = batch_size
        self._closed = closed
        self._on_close = on_close

    def __iter__(self) -> Iterator[OpBatch]:
        commit_end = 0  # newest commit end that was handed on, 0 none yet
        try:
            for batch in self._batches:
                for piece in batches.split(batch, self._batch_size, commit_end):
                    if self._closed.is_set():
                        return
                    commit_end = max(commit_end, piece.mark.commit_through)
                    yield piece
        finally:
            self._on_close(self)

    def close(self) -> None:
        self._closed.set()
        self._on_close(self)
