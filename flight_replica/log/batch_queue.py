"""`BatchQueue`: from the thread that reads the network to the one that applies, joined on the way.

Bounded by bytes: the reader waits while it is full. The consumer takes all that is there, small batches
joined to larger ones, so one that is slower than the commits sees few batches instead of many. Large ones
are handed on as they came: to copy them costs more than most of what is done with them. What is there of a
commit whose end isn't stays behind whole ones, to go with its rest.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, field, replace

import pyarrow as pa

from flight_replica.log.batches import concat
from flight_replica.log.source import FeedMark, OpBatch

JOINED_BYTES = 256 << 10  # of Arrow data; what follows upon so much is a batch of its own


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
        self._whole: list[_Joined] = []  # what is queued up to the newest end of a batch and a commit …
        self._part: list[_Joined] = []  # … and after it
        self._byte_count = 0  # of both
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
            new = _Joined(mark, [ops], ops.nbytes) if ops.num_rows else _Joined(mark)
            self._byte_count += new.byte_count
            _append(self._part, new)
            if mark.commit_through == mark.through:
                for queued in self._part:
                    _append(self._whole, queued)
                self._part = []
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
                lambda: bool(self._whole or self._part) or self._is_ended or self._is_closed, timeout_seconds
            )

    def take(self) -> list[OpBatch]:
        """All that is queued up to the end of a commit; without such an end all that is queued.

        Nothing at the end and after `close`. Call after `wait`. Raises the producer's error once the queue
        is empty.
        """
        with self._changed:
            taken = self._whole or self._part
            if not self._whole:
                self._part = []
            self._whole = []
            self._byte_count -= sum(queued.byte_count for queued in taken)
            self._changed.notify_all()
            if not taken and self._error is not None and not self._is_closed:
                raise self._error
            schema = self._schema
        return [
            OpBatch(concat(queued.pieces, schema), queued.mark, is_more_ready=queued is not taken[-1])
            for queued in taken
        ]

    def close(self) -> None:
        """Let go of everything queued; producer and consumer stop waiting."""
        with self._changed:
            self._is_closed = True
            self._whole, self._part, self._byte_count = [], [], 0
            self._changed.notify_all()

    def _may_put(self, turn: int) -> bool:
        return turn == self._turn and not self._is_ended and not self._is_closed


def _append(queued: list[_Joined], new: _Joined) -> None:
    """Put `new` behind `queued`, joined with the last of it where one of both is small."""
    if queued and min(queued[-1].byte_count, new.byte_count) < JOINED_BYTES:
        queued[-1].add(new)
    else:
        queued.append(new)


def merged(first: FeedMark, second: FeedMark) -> FeedMark:
    """The mark of two batches, `second` right after `first`."""
    commit_through = max(first.commit_through, second.commit_through)
    return replace(second, after=first.after, commit_through=commit_through)
