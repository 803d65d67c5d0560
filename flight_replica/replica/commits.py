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

    ops: pa.RecordBatch
    through: int
    commit_time_us: int  # of `through`; 0 unknown


class CommitBuffer:
    """Holds ops of a commit whose end isn't known yet, at most `bytes_max` of Arrow data."""

    def __init__(self, bytes_max: int, start: int) -> None:
        self._bytes_max = bytes_max
        self.restart(start)

    def restart(self, seq: int) -> None:
        """Forget what is held and go on after `seq`."""
        self.through = seq  # the newest commit end handed on
        self._pending: list[pa.RecordBatch] = []
        self._pending_bytes = 0

    def add(self, batch: OpBatch) -> Commits | None:
        """The ops up to the newest commit end known now, None where no further commit has ended.

        Raises `LimitExceeded` when one commit is larger than the limit.
        """
        through = batch.mark.commit_through
        if len(batch.ops):
            self._keep(batch.ops)
        if through <= self.through:
            return None
        held = self._joined(batch.ops.slice(0, 0))
        ops, rest = between(held, self.through, through), between(held, through, SEQ_MAX)
        self.restart(through)
        if len(rest):
            self._keep(rest)
        is_end = through == batch.mark.through
        return Commits(ops, through, batch.mark.commit_time_us if is_end else 0)

    def _keep(self, ops: pa.RecordBatch) -> None:
        self._pending.append(ops)
        self._pending_bytes += ops.nbytes
        if self._pending_bytes > self._bytes_max:
            raise LimitExceeded(
                f"a commit holds more than {self._pending_bytes} bytes, limit {self._bytes_max} bytes"
            )

    def _joined(self, empty: pa.RecordBatch) -> pa.RecordBatch:
        if not self._pending:
            return empty
        return self._pending[0] if len(self._pending) == 1 else pa.concat_batches(self._pending)
