"""`Segments`: the ops an `OpLog` holds, as appended, with where each commit ends.

Not thread-safe; the log guards it. Knows nothing of readers, schemas or clocks.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass, replace

import pyarrow as pa

from flight_replica.log import batches

# What the objects around one column of a batch take beside its data (measured: 400 to 600 bytes), so
# that a log of single-row commits keeps its limit too.
COLUMN_OVERHEAD_BYTES = 512


@dataclass(frozen=True, slots=True)
class Segment:
    """The ops of `(previous segment's through, through]`."""

    ops: pa.RecordBatch | None  # None: no ops, such as the bare start of the log
    through: int
    commit_through: int  # the newest commit end at or below `through`
    commit_time_us: int
    byte_count: int  # Arrow data only

    @property
    def held_bytes(self) -> int:
        columns = 0 if self.ops is None else self.ops.num_columns
        return self.byte_count + columns * COLUMN_OVERHEAD_BYTES


class Segments:
    """Ascending segments, of which the first only says where the log begins (`start`). Never empty."""

    def __init__(self, start: int) -> None:
        self._segments = [Segment(None, start, start, 0, 0)]
        self.held_bytes = 0

    @property
    def last_seq(self) -> int:
        return self._segments[-1].through

    def append(
        self, ops: pa.RecordBatch | None, through: int, commit_through: int, commit_time_us: int
    ) -> None:
        """`through` doesn't go back; `commit_through` at or below it, older than the known one is ignored."""
        last = self._segments[-1]
        assert through >= last.through, f"append through {through} after {last.through}"
        assert commit_through <= through, f"commit_through {commit_through} above through {through}"
        held = ops if ops is not None and ops.num_rows else None
        size = 0
        if held is not None:
            _assert_inside(held, last.through, through)
            size = held.nbytes
        newest_end = max(commit_through, last.commit_through)
        segment = Segment(held, through, newest_end, commit_time_us, size)
        if through == last.through:
            self._segments[-1] = replace(last, commit_through=newest_end)
        else:
            self._segments.append(segment)
            self.held_bytes += segment.held_bytes

    def count_through(self, seq: int) -> int:
        """How many segments end at or below `seq`."""
        return bisect_right(self._segments, seq, key=_through)

    def count_beyond(self, bytes_max: int, readable: int) -> int:
        """How many of the oldest segments to forget to get down to `bytes_max`.

        Never the newest one, nor any that ends after `readable`.
        """
        remaining, count = self.held_bytes, 0
        while remaining > bytes_max and count < len(self._segments) - 1:
            if self._segments[count].through > readable:
                break
            remaining -= self._segments[count].held_bytes
            count += 1
        return count

    def start_after(self, count: int) -> int:
        """What the start becomes by `forget(count)`, count at least 1."""
        return self._segments[count - 1].through

    def forget(self, count: int) -> None:
        """Drop the oldest `count` segments, at least 1; the last of them stays as the bare start."""
        start = self._segments[count - 1]
        self.held_bytes -= sum(segment.held_bytes for segment in self._segments[:count])
        self._segments[:count] = [replace(start, ops=None, byte_count=0)]

    def cut_off(self, seq: int) -> None:
        """Drop the ops after `seq`, which is in `[start, last_seq]`."""
        index = self.count_through(seq)
        if index == len(self._segments):
            return
        ops, _ = self._part(index, self._segments[index - 1].through, seq)
        end, _ = self.commit_at(seq)
        self.held_bytes -= sum(segment.held_bytes for segment in self._segments[index:])
        del self._segments[index:]
        if seq > self.last_seq:
            self.append(ops, seq, end, 0)

    def cut(self, since: int, bound: int, byte_limit: int) -> tuple[list[pa.RecordBatch], int]:
        """Slices with the next ops of `(since, bound]`, and the seq through which they are complete.

        `start <= since`, `bound <= last_seq`. Several small segments, or the beginning of a large one.
        """
        pieces: list[pa.RecordBatch] = []
        position, left = since, byte_limit
        index = self.count_through(since)
        while position < bound:
            ops, size = self._part(index, position, bound)
            if ops is not None and ops.num_rows:
                if pieces and size > left:
                    break
                # A batch isn't asked for its size again: pyarrow lets other threads go first then.
                rows = ops.num_rows if size <= left else batches.fitting_rows(ops, left)
                pieces.append(ops.slice(0, rows))
                if rows < ops.num_rows:
                    return pieces, int(batches.seqs_of(pieces[-1])[-1])
            left -= size
            position = min(self._segments[index].through, bound)
            index += 1
        return pieces, position

    def commit_at(self, seq: int) -> tuple[int, int]:
        """The newest known commit end at or below `seq`, and when `seq` was committed (µs, 0 unknown)."""
        holding = self.count_through(seq - 1)
        ended = self._segments[max(self.count_through(seq) - 1, 0)]
        if holding == len(self._segments):
            return ended.commit_through, 0
        segment = self._segments[holding]
        # A segment of several commits tells only its newest end.
        end = segment.commit_through if segment.commit_through <= seq else ended.commit_through
        return end, segment.commit_time_us

    def _part(self, index: int, since: int, bound: int) -> tuple[pa.RecordBatch | None, int]:
        """The ops of one segment in `(since, bound]` and their bytes."""
        segment = self._segments[index]
        if segment.ops is None or (self._segments[index - 1].through >= since and segment.through <= bound):
            return segment.ops, segment.byte_count
        ops = batches.between(segment.ops, since, bound)
        return ops, ops.nbytes


def _through(segment: Segment) -> int:
    return segment.through


def _assert_inside(ops: pa.RecordBatch, after: int, through: int) -> None:
    seqs = batches.seqs_of(ops)
    assert after < seqs[0] and seqs[-1] <= through, f"{seqs[0]}..{seqs[-1]} outside ({after}, {through}]"
    assert bool((seqs[1:] >= seqs[:-1]).all()), f"seqs {seqs[0]}..{seqs[-1]} don't ascend"
