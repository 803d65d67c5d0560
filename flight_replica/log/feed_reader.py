"""The threads that read the network: one stream's batches, checked, into its queue.

A reader is given up by `abandon`, from any thread and without waiting for it: a new one may take its
turn while it still hangs in a call. `FollowReader` connects again after anything that may pass;
`BoundedReader` reads one planned stream.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import replace

import pyarrow as pa
import pyarrow.flight as flight

from flight_replica.errors import FeedError, LogGap, ReplicaError, TableNotFound
from flight_replica.log.backoff import Backoff
from flight_replica.log.batch_queue import BatchQueue
from flight_replica.log.batches import seqs_of
from flight_replica.log.checks import FeedCheck
from flight_replica.log.feed_client import FeedClient, changes_sql
from flight_replica.log.origin import Origin
from flight_replica.log.source import FeedMark
from flight_replica.log.wire import decode_mark
from flight_replica.schema import TableSchema

_log = logging.getLogger(__name__)

STALL_SECONDS_MIN = 2.0  # CF 2
_HEARTBEAT_MS_DEFAULT = 500


class ReadClock:
    """How long a read has waited, and when that means that the stream is dead (CF 2).

    Nothing for max(2 heartbeats, `stall_seconds_min`, 4 times the slowest batch). Written by the reader's
    thread, read by the consumer's; each field is one reference.
    """

    def __init__(self, monotonic: Callable[[], float], stall_seconds_min: float) -> None:
        self._monotonic = monotonic
        self._minimum = stall_seconds_min
        self._slowest_seconds = 0.0
        self._heartbeat_ms = _HEARTBEAT_MS_DEFAULT
        self._began: float | None = None  # None: no read is under way

    def begin(self) -> None:
        self._began = self._monotonic()

    def pause(self) -> None:
        self._began = None

    def arrived(self, heartbeat_ms: int | None = None) -> float:
        """End the read; the time of the arrival."""
        now = self._monotonic()
        if self._began is not None:
            self._slowest_seconds = max(self._slowest_seconds, now - self._began)
        if heartbeat_ms is not None:
            self._heartbeat_ms = heartbeat_ms
        self._began = None
        return now

    @property
    def limit_seconds(self) -> float:
        return max(2 * self._heartbeat_ms / 1000, self._minimum, 4 * self._slowest_seconds)

    def remaining_seconds(self) -> float:
        """Until the read that is under way counts as stalled; never longer than the limit."""
        began = self._began
        return self.limit_seconds - (self._monotonic() - began if began is not None else 0.0)


class Reader:
    """A thread that fills a queue. Subclasses say what it does in `_read`."""

    def __init__(self, name: str, queue: BatchQueue, clock: ReadClock) -> None:
        self.clock = clock
        self._queue = queue
        self._turn = queue.renew()
        self._over = threading.Event()
        self._lock = threading.Lock()
        self._stream: flight.FlightStreamReader | None = None  # guarded by `_lock`; what `abandon` cancels
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def abandon(self) -> None:
        """End the thread: at once out of a read, else when the call it is in returns. Doesn't wait."""
        self._over.set()
        self._queue.renew()
        with self._lock:
            if self._stream is not None:
                self._stream.cancel()

    def _run(self) -> None:
        error: Exception | None = None
        try:
            self._read()
        except ReplicaError as failure:
            error = failure
        except Exception as failure:  # the consumer must hear of it, or it would wait for ever
            _log.exception("feed reader failed thread=%s", self._thread.name)
            error = failure
        self._queue.end(self._turn, error)

    def _read(self) -> None:
        raise NotImplementedError

    def _keep(self, stream: flight.FlightStreamReader | None) -> None:
        """Let `abandon` reach this stream; the one before is over, cancelled unless it has ended."""
        with self._lock:
            former, self._stream = self._stream, stream
            if former is not None:
                former.cancel()
            if stream is not None and self._over.is_set():
                stream.cancel()


class FollowReader(Reader):
    """Follows one table from the queue's position on, until the schema changes or nothing can follow."""

    def __init__(
        self,
        origin: Origin,
        queue: BatchQueue,
        clock: ReadClock,
        backoff: Backoff,
        schema: TableSchema | None,
    ) -> None:
        """`schema` is what the consumer believes the table to be; None: whatever it is."""
        super().__init__(f"feed-follow-{origin.table}", queue, clock)
        self._origin = origin
        self._backoff = backoff
        self._schema = schema

    def _read(self) -> None:
        may_go_on = True
        while may_go_on and not self._over.is_set():
            try:
                with FeedClient(self._origin.endpoint) as client:
                    may_go_on = self._follow(client)
            except (LogGap, TableNotFound):
                raise
            except ReplicaError as error:
                if not self._over.is_set():
                    self._origin.failed(error)
            finally:
                self._keep(None)
                self.clock.pause()
            if may_go_on:
                self._over.wait(self._backoff.next_seconds())

    def _follow(self, client: FeedClient) -> bool:
        """Read one connection to its end. False: the table's schema isn't the stream's any more."""
        position = self._queue.position
        info = client.plan(changes_sql(self._origin.table, position, is_following=True), self._origin.lineage)
        lineage, schema = self._origin.learn(info.schema, position)
        if self._schema is not None and schema != self._schema:
            return False
        self._schema = schema
        self._origin.renew_clock(client)
        check = FeedCheck(self._origin.table, lineage, schema)
        self.clock.begin()
        stream = client.open(info, lineage)
        self._keep(stream)
        while not self._over.is_set() and (chunk := client.next_chunk(stream)) is not None:
            position = self._take(chunk, check, position)
            self._origin.renew_clock(client)
            self.clock.begin()
        return True

    def _take(self, chunk: flight.FlightStreamChunk, check: FeedCheck, position: int) -> int:
        """Queue one batch; the position after it."""
        if chunk.app_metadata is None or chunk.data is None:
            raise FeedError(f"feed of table {self._origin.table!r}: a message without a batch or a mark")
        mark = decode_mark(chunk.app_metadata.to_pybytes())
        arrived_at = self.clock.arrived(mark.heartbeat_ms)
        ops = check.check(chunk.data, mark, position)
        self._backoff.reset()
        if self._queue.put(self._turn, ops, mark):
            self._origin.arrived(mark, arrived_at)
        return mark.through


class BoundedReader(Reader):
    """Reads one planned stream, whose range the plan's mark states."""

    def __init__(
        self,
        table: str,
        client: FeedClient,
        info: flight.FlightInfo,
        mark: FeedMark,
        schema: TableSchema,
        queue: BatchQueue,
        clock: ReadClock,
    ) -> None:
        """Owns `client` from here on."""
        super().__init__(f"feed-read-{table}", queue, clock)
        self._client = client
        self._info = info
        self._mark = mark
        self._check = FeedCheck(table, mark.lineage, schema)
        self._empty = pa.RecordBatch.from_pylist([], schema=schema.feed_schema)

    def _read(self) -> None:
        with self._client as client:
            self.clock.begin()
            stream = client.open(self._info, self._mark.lineage)
            self._keep(stream)
            position = self._mark.after
            while (chunk := client.next_chunk(stream)) is not None:
                self.clock.arrived()
                if chunk.data is not None and chunk.data.num_rows:
                    position = self._take(chunk.data, position)
                self.clock.begin()
            self._keep(None)
            self.clock.pause()
        # The stream came to its normal end, so nothing of the range the plan stated is missing.
        if position < self._mark.through:
            self._queue.put(self._turn, self._empty, replace(self._mark, after=position))

    def _take(self, data: pa.RecordBatch, position: int) -> int:
        ops = self._check.check(data, replace(self._mark, after=position), position)
        through = int(seqs_of(ops)[-1])
        # Where commits end within the range isn't said; 0 claims nothing.
        commit_through = self._mark.commit_through if self._mark.commit_through <= through else 0
        mark = replace(self._mark, after=position, through=through, commit_through=commit_through)
        self._queue.put(self._turn, ops, mark)
        return through
