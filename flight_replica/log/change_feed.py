"""`ChangeFeedLogSource`: a table's log from a primary, a feed server or another replica, over Flight.

The way of a batch: `feed_client.py` (the calls) → `feed_reader.py` (the thread that reads, checks by
`checks.py` and connects again) → `batch_queue.py` (bounded, joins) → the stream's consumer.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from uuid import UUID

import pyarrow.flight as flight

from flight_replica.errors import Closed, FeedError, LogGap, ReplicaError, Unavailable
from flight_replica.log.backoff import Backoff, BackoffConfig
from flight_replica.log.batch_queue import BatchQueue
from flight_replica.log.feed_client import Endpoint, FeedClient, changes_sql
from flight_replica.log.feed_reader import STALL_SECONDS_MIN, BoundedReader, FollowReader, ReadClock, Reader
from flight_replica.log.origin import Origin
from flight_replica.log.source import FeedMark, OpBatch
from flight_replica.log.wire import decode_positions
from flight_replica.schema import TableSchema

QUEUE_BYTES_MAX = 64 << 20
BOUNDED_STALL_SECONDS = 30.0  # a bounded stream has no heartbeats; its server may work before it answers
_PROBES_MAX = 5  # retention may pass a probe; five times in a row it doesn't


class ChangeFeedLogSource:
    """The `LogSource` of one table behind a Flight SQL endpoint.

    Every stream has one thread, named `feed-follow-<table>` or `feed-read-<table>`, that ends with it.
    A follow stream survives whatever may pass (network, restart, a feed that contradicts itself): it
    connects again from its own position, and `last_error` says what is wrong meanwhile. It raises
    `LogGap` and `TableNotFound`, and ends normally when the table's schema changes.
    """

    def __init__(
        self,
        at: Endpoint | str,
        table: str,
        *,
        lineage: UUID | None = None,
        queue_bytes_max: int = QUEUE_BYTES_MAX,
        stall_seconds_min: float = STALL_SECONDS_MIN,
        backoff: BackoffConfig | None = None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """Connects at the first call. `at` may be a bare URI.

        Raises `ConfigError` for a URI or certificates that can't work.
        """
        endpoint = Endpoint(at) if isinstance(at, str) else at
        self._origin = Origin(endpoint, table, lineage, monotonic)
        self._client = FeedClient(endpoint)  # for plans; each stream has a connection of its own
        self._queue_bytes_max = queue_bytes_max
        self._stall_seconds_min = stall_seconds_min
        self._backoff = backoff or BackoffConfig()
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._streams: set[_QueuedStream] = set()
        self._is_closed = False
        self._low_water = 0  # the newest one heard of in a plan

    @property
    def lineage(self) -> UUID:
        """Asks the origin the first time, unless it was given. Raises `Unavailable`, `TableNotFound`."""
        known = self._origin.lineage
        return known if known is not None else self._probe()[1].lineage

    @property
    def schema(self) -> TableSchema:
        """The newest one that the origin told; asks it the first time. Raises as `lineage` does."""
        if self._origin.schema is None:
            self._probe()
        schema = self._origin.schema
        assert schema is not None, "a plan gives the schema"
        return schema

    @property
    def last_mark(self) -> FeedMark | None:
        last = self._origin.last
        return last[0] if last else None

    @property
    def last_mark_at(self) -> float | None:
        last = self._origin.last
        return last[1] if last else None

    @property
    def primary_low_water(self) -> int:
        """The smallest `since` that the origin answered when it was heard last."""
        last = self._origin.last
        return max(self._low_water, last[0].low_water if last else 0)

    @property
    def clock_offset_us(self) -> int | None:
        clock = self._origin.clock
        return clock.offset_us if clock else None

    @property
    def clock_error_us(self) -> int | None:
        clock = self._origin.clock
        return clock.error_us if clock else None

    @property
    def last_error(self) -> ReplicaError | None:
        """Why the follow stream isn't flowing; None while it is."""
        return self._origin.last_error

    @property
    def failure_count(self) -> int:
        """How often following was interrupted by an error or a stall."""
        return self._origin.failure_count

    def latest_seq(self) -> int:
        return self._probe()[1].through

    def stream(self, since: int) -> _QueuedStream:
        """As the protocol says. Batches have the schema that `schema` gives after this call.

        Raises `LogGap`, `TableNotFound`, `Unavailable` at once where the plan fails.
        """
        info, mark = self._plan(since)
        queue = BatchQueue(since, self._queue_bytes_max)
        clock = ReadClock(self._monotonic, BOUNDED_STALL_SECONDS)
        client = FeedClient(self._origin.endpoint)
        reader = BoundedReader(self._origin.table, client, info, mark, self.schema, queue, clock)
        return self._open(_QueuedStream(queue, reader, self._forget, _give_up))

    def follow(self, since: int) -> _QueuedStream:
        """As the protocol says; reading begins at once, up to `queue_bytes_max` ahead of the consumer.

        What is queued is handed on together, small batches of it joined. When iteration ends without
        an error, the schema changed: `schema` gives the new one; follow again from the position reached.
        """
        queue = BatchQueue(since, self._queue_bytes_max)
        backoff = Backoff(self._backoff)
        schema = self._origin.schema

        def new_reader() -> Reader:
            clock = ReadClock(self._monotonic, self._stall_seconds_min)
            return FollowReader(self._origin, queue, clock, backoff, schema)

        def replace_stalled(stalled: Reader) -> Reader:
            seconds = stalled.clock.limit_seconds
            self._origin.failed(Unavailable(f"{self._origin.endpoint.uri}: nothing came for {seconds:.1f} s"))
            return new_reader()

        return self._open(_QueuedStream(queue, new_reader(), self._forget, replace_stalled))

    def close(self) -> None:
        """End every stream. Returns at once; a thread that hangs in a call ends with the call."""
        with self._lock:
            self._is_closed = True
            streams = list(self._streams)
        for stream in streams:
            stream.close()
        self._client.close()

    def _open(self, stream: _QueuedStream) -> _QueuedStream:
        with self._lock:
            if self._is_closed:
                raise Closed(f"the log source of table {self._origin.table!r} is closed")
            self._streams.add(stream)
        stream.start()
        return stream

    def _forget(self, stream: _QueuedStream) -> None:
        with self._lock:
            self._streams.discard(stream)

    def _plan(self, since: int) -> tuple[flight.FlightInfo, FeedMark]:
        """A bounded stream's plan and the range that it states."""
        if self._is_closed:
            raise Closed(f"the log source of table {self._origin.table!r} is closed")
        info = self._client.plan(changes_sql(self._origin.table, since), self._origin.lineage)
        lineage, _ = self._origin.learn(info.schema, since)
        _, mark = decode_positions(info.app_metadata)
        if mark is None:
            raise FeedError(f"feed of table {self._origin.table!r}: a bounded plan without a mark")
        if mark.lineage != lineage or mark.after != since or mark.through < since:
            raise FeedError(
                f"feed of table {self._origin.table!r}: asked since {since}, planned {mark.after} to "
                f"{mark.through} of lineage {mark.lineage}"
            )
        self._low_water = max(self._low_water, mark.low_water)
        return info, mark

    def _probe(self) -> tuple[flight.FlightInfo, FeedMark]:
        """A plan from the oldest seq that the origin still answers."""
        gap: LogGap | None = None
        since = self.primary_low_water
        for _ in range(_PROBES_MAX):
            try:
                return self._plan(since)
            except LogGap as error:
                known = self._origin.lineage
                is_other = None not in (known, error.lineage) and error.lineage != known
                if error.earliest_available is None or is_other:
                    raise
                since, gap = error.earliest_available, error
        raise Unavailable(f"table {self._origin.table!r}: retention outruns every look at the log") from gap


class _QueuedStream:
    """One `OpStream`: the consumer's end of a queue, and the reader whose turn it is.

    The consumer's own wait is what notices that a read has stalled, so a dead stream costs no watcher.
    """

    def __init__(
        self,
        queue: BatchQueue,
        reader: Reader,
        on_close: Callable[[_QueuedStream], None],
        on_stall: Callable[[Reader], Reader],
    ) -> None:
        self._queue = queue
        self._on_close = on_close
        self._on_stall = on_stall  # the reader to go on with; may raise instead
        self._lock = threading.Lock()
        self._reader = reader  # guarded by `_lock`
        self._is_closed = False

    @property
    def queued_bytes(self) -> int:
        """Arrow bytes that wait for the consumer: below the limit, or over it by less than one batch."""
        return self._queue.byte_count

    def start(self) -> None:
        self._reader.start()

    def __iter__(self) -> Iterator[OpBatch]:
        try:
            while True:
                clock = self._reader.clock
                if not self._queue.wait(max(clock.remaining_seconds(), 0.0)):
                    if clock.remaining_seconds() <= 0:
                        self._replace_reader()
                    continue
                batches = self._queue.take()
                if not batches:
                    return
                yield from batches
        finally:
            self.close()

    def close(self) -> None:
        with self._lock:
            self._is_closed = True
            reader = self._reader
        self._queue.close()
        reader.abandon()
        self._on_close(self)

    def _replace_reader(self) -> None:
        with self._lock:
            if self._is_closed:
                return
            self._reader.abandon()
            self._reader = self._on_stall(self._reader)
            self._reader.start()


def _give_up(reader: Reader) -> Reader:
    raise Unavailable(f"nothing came for {reader.clock.limit_seconds:.1f} s in a bounded stream")
