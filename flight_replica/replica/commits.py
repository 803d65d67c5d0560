"""`CommitBuffer`: ops as they arrive, handed on a whole commit at a time."""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa

from flight_replica.errors import LimitExceeded
from flight_replica.log.batches import between
from flight_replica.log.source import OpBatch

SEQ_MAX = 2**64 - 1


@dataclass(frozen=True, slots=True)
class Commits:
    """Every op in `(previous through, through]`; a commit ends at `through`."""

    ops: pa.RecordBatch | pa.Table  # a table where they came in several batches, which aren't joined
    through: int
    commit_time_us: int  # of `through`; 0 unknown


class CommitBuffer:
    """Holds ops of a commit whose end isn't known yet, at most `bytes_max` of Arrow data.

    While more batches are ready whole commits are held, too, so that they are handed on together.
    """

    def __init__(self, bytes_max: int, start: int) -> None:
        self._bytes_max = bytes_max
        self.restart(start)

    def restart(self, seq: int) -> None:
        """Forget what is held and go on after `seq`."""
        self.through = seq  # the newest commit end handed on
        self._end = seq  # … and known
        self._end_time_us = 0
        self._pending: list[pa.RecordBatch] = []
        self._open_bytes = 0  # of what is held after `_end`

    def add(self, batch: OpBatch) -> Commits | None:
        """The ops up to the newest commit end known now, None where no further commit has ended.

        Raises `LimitExceeded` when one commit is larger than the limit.
        """
        self._keep(batch)
        if batch.is_more_ready or self._end <= self.through:
            return None
        held, after, through, commit_time_us = self._pending, self.through, self._end, self._end_time_us
        whole = [ops for ops in (between(ops, after, through) for ops in held) if len(ops)]
        self.restart(through)
        for ops in held:
            self._hold(between(ops, through, SEQ_MAX))
        return Commits(_together(whole, batch.ops.slice(0, 0)), through, commit_time_us)

    def _keep(self, batch: OpBatch) -> None:
        mark = batch.mark
        self._hold(batch.ops)
        if mark.commit_through > self._end:
            self._end = mark.commit_through
            self._end_time_us = mark.commit_time_us if mark.commit_through == mark.through else 0
            self._open_bytes = between(batch.ops, self._end, SEQ_MAX).nbytes

    def _hold(self, ops: pa.RecordBatch) -> None:
        if len(ops):
            self._pending.append(ops)
            self._open_bytes += ops.nbytes
        if self._open_bytes > self._bytes_max:
            raise LimitExceeded(
                f"a commit holds more than {self._open_bytes} bytes, limit {self._bytes_max} bytes"
            )


def _together(pieces: list[pa.RecordBatch], empty: pa.RecordBatch) -> pa.RecordBatch | pa.Table:
    if len(pieces) > 1:
        return pa.Table.from_batches(pieces)
    return pieces[0] if pieces else empty
