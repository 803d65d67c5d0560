"""Which rows of a table's overlapping data files are dead, in one sweep through all of them by key.

A file is open only while the sweep is in its key range, and of each open file some batches of keys are in
memory: the cost goes with the files in flight, not with the table. Source: merutable format, section 9.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa

from flight_replica.base.data_files import CheckedFile, VersionBatch
from flight_replica.base.deletion_vectors import Positions
from flight_replica.base.newest import Versions, dead_rows

_NOTHING: Positions = np.empty(0, np.int64)

Read = Callable[[CheckedFile], Iterator[VersionBatch]]
Masked = Callable[[CheckedFile], Positions]


@dataclass(slots=True)
class SweptFile:
    """What the sweep found about one file: rows that aren't in the table, and rows that are short."""

    dead: Positions = field(default_factory=lambda: _NOTHING)  # sorted
    short_by_count: dict[int, Positions] = field(default_factory=dict)  # number of fields -> rows, dead too


def sweep(files: Sequence[CheckedFile], read: Read, masked: Masked) -> list[SweptFile]:
    """Of each file its dead rows: masked, superseded, or tombstones. Raises what `read` raises."""
    found = [SweptFile() for _ in files]
    waiting = deque(sorted(range(len(files)), key=lambda number: files[number].entry.key_min))
    running: list[_Cursor] = []
    while waiting or running:
        next_key = files[waiting[0]].entry.key_min if waiting else None
        if next_key is not None and all(next_key <= cursor.first_key for cursor in running):
            number = waiting.popleft()
            running.append(_Cursor(files[number], read, masked, found[number]))
        else:
            ends = [cursor.last_key for cursor in running if not cursor.is_exhausted]
            _judge(running, min([*ends, *([next_key] if next_key is not None else [])], default=None))
        running = [cursor for cursor in running if not cursor.is_done()]
    return found


def _judge(running: Sequence[_Cursor], bound: bytes | None) -> None:
    """Settle every row whose key is below `bound`, None: every row that is left."""
    taken = [(cursor, *cursor.take(bound)) for cursor in running]
    taken = [(cursor, start, versions) for cursor, start, versions in taken if len(versions)]
    masked = [cursor.masked_rows(start, len(versions)) for cursor, start, versions in taken]
    dead = dead_rows([versions for _, _, versions in taken], masked)
    for (cursor, start, _), positions in zip(taken, dead, strict=True):
        cursor.dead_parts.append(positions + start)


class _Cursor:
    """One file on its way through the sweep. Its buffer holds at least two keys until the file has ended:
    more rows of the last one may follow."""

    def __init__(self, file: CheckedFile, read: Read, masked: Masked, result: SweptFile) -> None:
        self._batches = read(file)
        self._masked = masked(file)
        self._result = result
        self._buffer = Versions.none()
        self._start = 0  # row number of the buffer's first row
        self._short_parts: dict[int, list[Positions]] = {}
        self.dead_parts: list[Positions] = []
        self.is_exhausted = False
        self._fill()

    @property
    def first_key(self) -> bytes:
        key: bytes = self._buffer.keys[0].as_py()
        return key

    @property
    def last_key(self) -> bytes:
        key: bytes = self._buffer.keys[-1].as_py()
        return key

    def _fill(self) -> None:
        while not self.is_exhausted and (not len(self._buffer) or self.first_key == self.last_key):
            batch = next(self._batches, None)
            if batch is None:
                self.is_exhausted = True
                return
            end = self._start + len(self._buffer)
            for count, rows in batch.short.items():
                self._short_parts.setdefault(count, []).append(rows + end)
            self._buffer = self._buffer.followed_by(batch.versions)

    def take(self, bound: bytes | None) -> tuple[int, Versions]:
        """(row number of the first, the rows below `bound`), which leave the buffer."""
        count = len(self._buffer) if bound is None else _count_below(self._buffer.keys, bound)
        start, taken = self._start, self._buffer[:count]
        self._buffer, self._start = self._buffer[count:], start + count
        self._fill()
        return start, taken

    def masked_rows(self, start: int, count: int) -> Positions:
        """Masked ones of `count` rows, numbered from `start`."""
        first, last = np.searchsorted(self._masked, [start, start + count])
        return self._masked[first:last] - start

    def is_done(self) -> bool:
        """Whether every row is settled; the result is complete then."""
        if len(self._buffer) or not self.is_exhausted:
            return False
        self._result.dead = np.concatenate([_NOTHING, *self.dead_parts])
        self._result.short_by_count = {n: np.concatenate(parts) for n, parts in self._short_parts.items()}
        return True


def _count_below(keys: pa.LargeBinaryArray, bound: bytes) -> int:
    """How many of the ascending keys are below `bound`."""
    low, high = 0, len(keys)
    while low < high:
        middle = (low + high) // 2
        if keys[middle].as_py() < bound:
            low = middle + 1
        else:
            high = middle
    return low
