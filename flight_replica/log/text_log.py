"""`TextLog`: a log whose byte columns come as strings, as those of its base do (`base/text_base.py`)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from uuid import UUID

from flight_replica.errors import InvalidText, LineageChanged, ReplicaError
from flight_replica.log.source import FeedMark, LogSource, OpBatch, OpStream
from flight_replica.schema import TableSchema
from flight_replica.text_columns import TextChoice


class TextLog:
    """A `LogSource` over another one, which it owns.

    A value that is no text ends the stream: with `InvalidText`, or where its column is lenient with
    `LineageChanged`, since the table has to begin afresh with that column as bytes.
    """

    def __init__(self, log: LogSource, choice: TextChoice) -> None:
        self._log = log
        self._choice = choice
        self._texts = choice.texts  # of a table that is served, types don't change

    @property
    def lineage(self) -> UUID:
        return self._log.lineage

    @property
    def schema(self) -> TableSchema:
        return self._texts.apply(self._log.schema)

    @property
    def last_mark(self) -> FeedMark | None:
        return self._log.last_mark

    @property
    def last_mark_at(self) -> float | None:
        return self._log.last_mark_at

    @property
    def clock_offset_us(self) -> int | None:
        return self._log.clock_offset_us

    @property
    def clock_error_us(self) -> int | None:
        return self._log.clock_error_us

    @property
    def last_error(self) -> ReplicaError | None:
        return self._log.last_error

    @property
    def failure_count(self) -> int:
        return self._log.failure_count

    def latest_seq(self) -> int:
        return self._log.latest_seq()

    def stream(self, since: int) -> OpStream:
        return _TextStream(self._log.stream(since), self._as_text)

    def follow(self, since: int) -> OpStream:
        return _TextStream(self._log.follow(since), self._as_text)

    def close(self) -> None:
        self._log.close()

    def _as_text(self, batch: OpBatch) -> OpBatch:
        try:
            return replace(batch, ops=self._texts.apply_to_ops(batch.ops))
        except InvalidText as error:
            self._choice.leave_as_bytes(error)
            raise LineageChanged(f"column {error.column!r} turns from text to bytes: {error}") from error


class _TextStream:
    def __init__(self, stream: OpStream, as_text: Callable[[OpBatch], OpBatch]) -> None:
        self._stream = stream
        self._as_text = as_text

    def __iter__(self) -> Iterator[OpBatch]:
        return map(self._as_text, self._stream)

    def close(self) -> None:
        self._stream.close()
