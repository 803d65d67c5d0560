"""`RecentOps`: a native state's newest ops in memory: all that its table doesn't hold yet, and some more.

A few ops are visible as soon as they are here, and cost the table one transaction for many of them. Who asks
for one key finds it here without a query. What waits lies in a journal, too, where a later process may go on
with it.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import pyarrow as pa

from flight_replica.state.journal import Journal, JournalRecord
from flight_replica.state.op_rows import HeldOps

__all__ = ["RecentOps"]

WAITING_OPS_MAX = 20_000  # ops that the table doesn't hold yet; more at once go there directly …
WAITING_BYTES_MAX = 16 << 20
KEPT_OPS_MAX = 50_000  # … and ops altogether
KEPT_BYTES_MAX = 64 << 20

Place = tuple[HeldOps, int]  # a batch and the op's number in it


class RecentOps:
    """Ops up to `through`, of which those after what was `taken` wait. Thread-safe; one thread adds."""

    def __init__(self, through: int, commit_time_us: int, journal: Journal | None = None) -> None:
        """The owner of `journal` closes it."""
        self._journal = journal
        self._journaling = threading.Lock()  # apart, since who looks for a key isn't to wait for a disk
        self._lock = threading.Lock()
        self.through = through
        self.commit_time_us = commit_time_us  # of `through`; 0 unknown
        self.forgotten_through = through  # no op up to here need be known; all newer ones are
        self._taken = through
        self._waiting: list[pa.RecordBatch] = []
        self._waiting_ops = self._waiting_bytes = 0
        self._kept: deque[pa.RecordBatch] = deque()  # no longer waiting, the oldest first
        self._kept_ops = self._kept_bytes = 0
        self._places: dict[bytes, Place] = {}  # of each key's newest op

    @property
    def is_waiting(self) -> bool:
        """Whether the table is behind `through`."""
        return self._taken < self.through

    @property
    def is_half_full(self) -> bool:
        """Whether half of what may wait does."""
        return self._waiting_ops * 2 >= WAITING_OPS_MAX or self._waiting_bytes * 2 >= WAITING_BYTES_MAX

    def seen_through(self) -> int:
        """`through`, once the table shows nothing newer: see `overtaken`."""
        with self._lock:
            return self.through

    def has_room(self, ops: pa.RecordBatch) -> bool:
        """Whether `ops` may wait, too."""
        return (
            self._waiting_ops + len(ops) <= WAITING_OPS_MAX
            and self._waiting_bytes + ops.get_total_buffer_size() <= WAITING_BYTES_MAX
        )

    def add(self, ops: pa.RecordBatch, through: int, commit_time_us: int) -> None:
        """Make `ops`, in the feed's schema, visible; `through` is at least their last seq."""
        keys, held = ops.column(2).to_pylist(), HeldOps(ops)
        with self._journaling:
            if self._journal is not None:
                self._journal.append(JournalRecord(self.through, through, commit_time_us, ops))
            with self._lock:
                if len(ops):
                    self._waiting.append(ops)
                    self._waiting_ops += len(ops)
                    self._waiting_bytes += ops.get_total_buffer_size()
                    self._places.update((key, (held, number)) for number, key in enumerate(keys))
                self.through, self.commit_time_us = through, commit_time_us

    def waiting(self) -> tuple[Sequence[pa.RecordBatch], int, int]:
        """What the table lacks: the ops, the seq that it is at with them, and that commit's time (µs)."""
        with self._journaling:
            if self._journal is not None:
                self._journal.turn()
            with self._lock:
                return tuple(self._waiting), self.through, self.commit_time_us

    def take(self, batches: Sequence[pa.RecordBatch], through: int) -> None:
        """The table holds these now, the first ones that waited, and is at `through`."""
        with self._lock:
            del self._waiting[: len(batches)]
            self._taken = through
            for ops in batches:
                self._waiting_ops -= len(ops)
                self._waiting_bytes -= ops.get_total_buffer_size()
                self._kept.append(ops)
                self._kept_ops += len(ops)
                self._kept_bytes += ops.get_total_buffer_size()
            while self._kept_ops > KEPT_OPS_MAX or self._kept_bytes > KEPT_BYTES_MAX:
                self._forget_oldest()
        if self._journal is not None:
            with self._journaling:
                self._journal.forget()

    def _forget_oldest(self) -> None:
        ops = self._kept.popleft()
        self.forgotten_through = ops.column(0)[-1].as_py()
        self._kept_ops -= len(ops)
        self._kept_bytes -= ops.get_total_buffer_size()
        for number, key in enumerate(ops.column(2).to_pylist()):
            place = self._places.get(key)
            if place is not None and place[0].batch is ops and place[1] == number:
                del self._places[key]

    @contextmanager
    def overtaken(self, through: int, commit_time_us: int) -> Iterator[None]:
        """The block makes the table show all that waits and more, through `through`, at one moment.

        Nobody finds anything here meanwhile, so that no key is seen to be older than another one was.
        """
        with self._lock:
            yield
            self._waiting.clear()
            self._kept.clear()
            self._places.clear()
            self._waiting_ops = self._waiting_bytes = self._kept_ops = self._kept_bytes = 0
            self.through, self.commit_time_us = through, commit_time_us
            self._taken = self.forgotten_through = through
        if self._journal is not None:
            with self._journaling:
                self._journal.clear()

    def newest(self, key: bytes) -> Place | None:
        """A key's newest op by now; None where that isn't here."""
        with self._lock:
            return self._places.get(key)

    def find(self, key: bytes) -> tuple[tuple[int, int], pa.RecordBatch | None]:
        """`through` and its commit's time (µs), and a key's newest op by then; None where that isn't here."""
        with self._lock:
            place = self._places.get(key)
            at = self.through, self.commit_time_us
        return at, None if place is None else place[0].batch.slice(place[1], 1)
