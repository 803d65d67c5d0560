"""`BatchQueue`: from the thread that reads the network to the one that applies, joined on the way.

Bounded by bytes: the reader waits while it is full. The consumer takes all that is there as one
batch, so one that is slower than the commits sees few large batches instead of many small ones. What is
there of a commit whose end isn't stays behind that batch: it would have to be copied once more, to be joined
with the rest of its commit.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, field, replace

import pyarrow as pa

from flight_replica.log.batches import concat
from flight_replica.log.source import FeedMark, OpBatch


@dataclass(slots=True)
class _Joined:
    """Batches that follow one upon the other, and the mark of them all."""

    mark: FeedMark
    pieces: list[pa.RecordBatch] = field(default_factory=list)  # those with rows
    byte_count: int = 0  # Arrow data

    def add(self, other: _Joined) -> None:
        self.mark = merged(self.mark, other.mark)
        self.pieces += other.pieces
        self.byte_count += other.byte_count


class BatchQueue:
    """Thread-safe. Any number of producers one after the other: `renew` makes the last one stale."""

    def __init__(self, position: int, bytes_max: int) -> None:
        self._bytes_max = bytes_max
        self._changed = threading.Condition()
        # Everything below is guarded by `_changed`.
        self._position = position  # everything up to this seq was put
        self._whole: _Joined | None = None  # what is queued up to the newest end of a batch and a commit …
        self._part: _Joined | None = None  # … and after it
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
            return self._bytes()

    def renew(self) -> int:
        """The turn of a new producer; the former one's is over."""
        with self._changed:
            self._turn += 1
            self._changed.notify_all()
            return self._turn

    def put(self, turn: int, ops: pa.RecordBatch, mark: FeedMark) -> bool:
        """Add a batch that joins what was put before, waiting for room. False: this turn is over."""
        with self._changed:
            self._changed.wait_for(lambda: self._bytes() < self._bytes_max or not self._may_put(turn))
            if not self._may_put(turn):
                return False
            assert mark.after == self._position, f"put after {mark.after}, expected {self._position}"
            new = _Joined(mark, [ops], ops.nbytes) if ops.num_rows else _Joined(mark)
            self._part = _after(self._part, new)
            if mark.commit_through == mark.through:
                self._whole, self._part = _after(self._whole, self._part), None
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
                lambda: (
                    self._whole is not None or self._part is not None or self._is_ended or self._is_closed
                ),
                timeout_seconds,
            )

    def take(self) -> OpBatch | None:
        """All that is queued up to the end of a commit as one batch; without such an end all that is queued.

        None at the end and after `close`. Call after `wait`. Raises the producer's error once the queue is
        empty.
        """
        with self._changed:
            taken = self._whole or self._part
            if self._whole is None:
                self._part = None
            self._whole = None
            self._changed.notify_all()
            if taken is None and self._error is not None and not self._is_closed:
                raise self._error
        return None if taken is None else OpBatch(concat(taken.pieces, self._schema), taken.mark)

    def close(self) -> None:
        """Let go of everything queued; producer and consumer stop waiting."""
        with self._changed:
            self._is_closed = True
            self._whole = self._part = None
            self._changed.notify_all()

    def _bytes(self) -> int:
        return sum(queued.byte_count for queued in (self._whole, self._part) if queued is not None)

    def _may_put(self, turn: int) -> bool:
        return turn == self._turn and not self._is_ended and not self._is_closed


def _after(first: _Joined | None, second: _Joined) -> _Joined:
    """Both as one, in `first` where there is one."""
    if first is None:
        return second
    first.add(second)
    return first


def merged(first: FeedMark, second: FeedMark) -> FeedMark:
    """The mark of two batches, `second` right after `first`."""
    commit_through = max(first.commit_through, second.commit_through)
    return replace(second, after=first.after, commit_through=commit_through)
