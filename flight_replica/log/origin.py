"""`Origin`: what a replica knows about the table at the other end of its feed, and about its clock."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass
from uuid import UUID

import pyarrow as pa

from flight_replica.errors import FeedError, LogGap, ReplicaError
from flight_replica.log.feed_client import Endpoint, FeedClient
from flight_replica.log.source import FeedMark
from flight_replica.log.wire import decode_feed_metadata
from flight_replica.schema import TableSchema

_log = logging.getLogger(__name__)

CLOCK_SECONDS = 60.0  # how long a reading of the origin's clock is good (CF 5)


@dataclass(frozen=True, slots=True)
class ClockReading:
    """The origin's clock (µs since 1970) minus ours (monotonic), and the most it can be wrong by."""

    offset_us: int
    error_us: int
    read_at: float  # monotonic seconds


class Origin:
    """Shared by the streams of one source. Thread-safe; holds no connection.

    The lineage is that of the constructor, or the first one heard of, for good.
    """

    def __init__(
        self, endpoint: Endpoint, table: str, lineage: UUID | None, monotonic: Callable[[], float]
    ) -> None:
        self.endpoint = endpoint
        self.table = table
        self._monotonic = monotonic
        self._lock = threading.Lock()
        # Everything below is guarded by `_lock`.
        self._lineage = lineage
        self._schema: TableSchema | None = None
        self._last: tuple[FeedMark, float] | None = None
        self._clock: ClockReading | None = None
        self._last_error: ReplicaError | None = None
        self._failure_count = 0

    @property
    def lineage(self) -> UUID | None:
        with self._lock:
            return self._lineage

    @property
    def schema(self) -> TableSchema | None:
        """The newest one heard of."""
        with self._lock:
            return self._schema

    @property
    def last(self) -> tuple[FeedMark, float] | None:
        """The newest mark and when it arrived, in monotonic seconds."""
        with self._lock:
            return self._last

    @property
    def clock(self) -> ClockReading | None:
        with self._lock:
            return self._clock

    @property
    def last_error(self) -> ReplicaError | None:
        """Why the feed isn't flowing; None while it is."""
        with self._lock:
            return self._last_error

    @property
    def failure_count(self) -> int:
        """How often the feed was interrupted; attempts that fail after that are no interruptions more."""
        with self._lock:
            return self._failure_count

    def learn(self, arrow_schema: pa.Schema, since: int) -> tuple[UUID, TableSchema]:
        """Lineage and schema out of a stream's schema. Raises `LogGap` for another lineage than ours."""
        _, lineage, schema = decode_feed_metadata(arrow_schema.metadata)
        if not arrow_schema.types == schema.feed_schema.types:
            raise FeedError(f"feed of table {self.table!r}: its columns aren't those of merutable.schema")
        with self._lock:
            if self._lineage is not None and self._lineage != lineage:
                reason = f"table {self.table!r} has lineage {lineage}, not {self._lineage}"
                raise LogGap(since, None, reason, lineage)
            self._lineage = lineage
            self._schema = schema
        return lineage, schema

    def arrived(self, mark: FeedMark, at: float) -> None:
        """Keep the newest mark, and log where it ends an interruption."""
        with self._lock:
            self._last = (mark, at)
            was_interrupted = self._last_error is not None
            self._last_error = None
        if was_interrupted:
            _log.info("feed flows again table=%s seq=%d", self.table, mark.through)

    def failed(self, error: ReplicaError) -> None:
        """Keep why the feed doesn't flow; count and log what interrupted it."""
        with self._lock:
            is_first = self._last_error is None
            self._last_error = error.with_traceback(None)  # frames would keep the connection alive
            self._failure_count += is_first
        level = logging.WARNING if is_first else logging.DEBUG
        _log.log(level, "feed interrupted table=%s error=%s", self.table, error)

    def renew_clock(self, client: FeedClient) -> None:
        """Ask the origin for its time if the last reading is old. Without an answer the old one stays."""
        began = self._monotonic()
        known = self.clock
        if known is not None and began - known.read_at < CLOCK_SECONDS:
            return
        try:
            answer = client.query("SELECT * FROM merutable_clock()")
            origin_us = int(answer.column(0).cast(pa.int64())[0].as_py())
        except (ReplicaError, pa.ArrowException, IndexError, TypeError) as error:
            _log.debug("origin's clock unknown table=%s error=%s", self.table, error)
            return
        ended = self._monotonic()
        middle_us = round((began + ended) / 2 * 1e6)
        error_us = round((ended - began) / 2 * 1e6)
        with self._lock:
            self._clock = ClockReading(origin_us - middle_us, error_us, ended)
