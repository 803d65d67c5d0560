"""`BatchQueue`: from the thread that reads the network to the one that applies, joined on the way.

Bounded by bytes: the reader waits while it is full. The consumer takes all that is there as one
batch, so one that is slower than the commits sees few large batches instead of many small ones.
"""

from __future__ import annotations

import threading
from dataclasses import replace

import pyarrow as pa

from flight_replica.log.batches import concat
from flight_replica.log.source import FeedMark, OpBatch


class BatchQueue:
    """Thread-safe. Any number of producers one after the other: `renew` makes the last one stale."""

    def __init__(self, position: int, bytes_max: int) -> None:
        self._bytes_max = bytes_max
        self._changed = threading.Condition()
        # Everything below is guarded by `_changed`.
        self._position = position  # everything up to this seq was put
        self._pieces: list[pa.RecordBatch] = []
        self._mark: FeedMark | None = None  # of all that is queued; None: nothing is
        self._byte_count = 0
        self._schema = pa.schema([])  # of the batches
        self._turn = 0  # the producer that may put
        self._is_ended = False
        self._error: Exception | None = None
        self._is_closed = False

    @property
    def position(self) -> int:
        with self._changed:
            return self._position

    @property
    def byte_count(self) -> int:
        """Arrow bytes queued: below the limit, or over it by less than one batch."""
        with self._changed:
            return self._byte_count

    def renew(self) -> int:
        """The turn of a new producer; the former one's is over."""
        with self._changed:
            self._turn += 1
            self._changed.notify_all()
            return self._turn

    def put(self, turn: int, ops: pa.RecordBatch, mark: FeedMark) -> bool:
        """Add a batch that joins what was put before, waiting for room. False: this turn is over."""
        with self._changed:
            self._changed.wait_for(lambda: self._byte_count < self._bytes_max or not self._may_put(turn))
            if not self._may_put(turn):
                return False
            assert mark.after == self._position, f"put after {mark.after}, expected {self._position}"
            self._mark = mark if self._mark is None else merged(self._mark, mark)
            if ops.num_rows:
                self._pieces.append(ops)
                self._byte_count += ops.nbytes
            self._schema = ops.schema
            self._position = mark.through
            self._changed.notify_all()
            return True

    def end(self, turn: int, error: Exception | None = None) -> None:
        """Nothing more will come; `error` is raised to the consumer after what is queued."""
        with self._changed:
            if self._may_put(turn):
                self._is_ended = True
                self._error = error
                self._changed.notify_all()

    def wait(self, timeout_seconds: float) -> bool:
        """Until `take` has something to say; False when the time is up."""
        with self._changed:
            return self._changed.wait_for(
                lambda: self._mark is not None or self._is_ended or self._is_closed, timeout_seconds
            )

    def take(self) -> OpBatch | None:
        """All that is queued as one batch, None at the end and after `close`. Call after `wait`.

        Raises the producer's error once the queue is empty.
        """
        with self._changed:
            pieces, mark = self._pieces, self._mark
            self._pieces, self._mark, self._byte_count = [], None, 0
            self._changed.notify_all()
            if mark is None and self._error is not None and not self._is_closed:
                raise self._error
        return None if mark is None else OpBatch(concat(pieces, self._schema), mark)

    def close(self) -> None:
        """Let go of everything queued; producer and consumer stop waiting."""
        with self._changed:
            self._is_closed = True
            self._pieces, self._mark, self._byte_count = [], None, 0
            self._changed.notify_all()

    def _may_put(self, turn: int) -> bool:
        return turn == self._turn and not self._is_ended and not self._is_closed


def merged(first: FeedMark, second: FeedMark) -> FeedMark:
    """The mark of two batches, `second` right after `first`."""
    commit_through = max(first.commit_through, second.commit_through)
    return replace(second, after=first.after, commit_through=commit_through)
