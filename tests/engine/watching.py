"""Threads that look at a server while the engine runs: one reads the table, one follows the feed.

What they see is kept, and checked against the `Truth` afterwards: at the moment of an answer it may be
unknown what a killed engine had written last.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from types import TracebackType

import pyarrow as pa

from flight_replica.log.feed_client import Endpoint, FeedClient, changes_sql
from flight_replica.log.source import FeedMark, Op
from flight_replica.log.wire import decode_mark, decode_positions
from flight_replica.schema import TableSchema
from tests.engine.driver import Truth, Values
from tests.engine.reading import rows_of_table, values_of_batch

ANSWER_SECONDS = 60.0  # a server may stand still for a while, because a test wants it
PAUSE_SECONDS = 0.02  # between two answers, so that the watcher isn't the load


class Watching:
    """A thread that runs `_look` until it is closed. An error ends it, and shows when it is asked."""

    def __init__(self, uri: str, name: str, seq: int = 0) -> None:
        self._client = FeedClient(Endpoint(uri, rpc_timeout_seconds=ANSWER_SECONDS))
        self.seq = seq  # newest seq seen
        self._error: Exception | None = None
        self._is_closed = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name)
        self._thread.start()

    def _look(self) -> None:
        """See something once, and keep it."""
        raise NotImplementedError

    def _run(self) -> None:
        try:
            while not self._is_closed.is_set():
                self._look()
        except Exception as error:  # shown by `raise_error`
            self._error = error

    def raise_error(self) -> None:
        if self._error is not None and not self._is_closed.is_set():
            raise self._error

    def has_seen(self, seq: int) -> Callable[[], bool]:
        """A condition: whether it has come that far. Fails when it ended with an error."""

        def holds() -> bool:
            self.raise_error()
            return self.seq >= seq

        return holds

    def __enter__(self) -> Watching:
        return self

    def __exit__(
        self, _type: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self._is_closed.set()
        self._close()
        self._thread.join()
        self._client.close()

    def _close(self) -> None:
        """End a `_look` that waits."""


class TableWatcher(Watching):
    """Reads the whole table again and again. Readers have seen `seq` already: nothing older may show."""

    def __init__(self, uri: str, table: str, truth: Truth, seq: int = 0) -> None:
        self._sql = f"SELECT * FROM {table}"
        self._truth = truth.table()
        self._schema = truth.schema
        self._answers: list[tuple[int, pa.Table]] = []  # seq, rows
        self.answer_count = 0
        self.lineages: set[object] = set()
        super().__init__(uri, f"watch {uri}", seq)

    def _look(self) -> None:
        info = self._client.plan(self._sql)
        rows = self._client.open(info).read_all()
        ((position,), _) = decode_positions(info.app_metadata)
        assert position.visible_seq >= self.seq, f"seq went back from {self.seq} to {position.visible_seq}"
        self.lineages.add(position.lineage)
        if position.visible_seq > self.seq:
            self._answers.append((position.visible_seq, rows))
        self.seq = position.visible_seq
        self.answer_count += 1
        self._is_closed.wait(PAUSE_SECONDS)

    def check(self) -> None:
        """Each answer up to what the truth knows by now is the table at its seq. Raises what went wrong."""
        self.raise_error()
        known = self._truth.known_seq
        while self._answers and self._answers[0][0] <= known:
            seq, rows = self._answers.pop(0)
            self._truth.move_to(seq)
            assert rows_of_table(rows, self._schema) == self._truth.rows, f"a wrong answer at seq {seq}"


class FeedFollower(Watching):
    """Follows the change feed from `since` on, and says when each op arrived."""

    def __init__(self, uri: str, table: str, since: int) -> None:
        self._sql = changes_sql(table, since, is_following=True)
        self.arrived: list[tuple[FeedMark, int, pa.RecordBatch]] = []  # mark, µs since 1970, ops
        self._stream: object = None
        super().__init__(uri, f"follow {uri}", since)

    def _look(self) -> None:
        if self._stream is None:
            self._stream = self._client.open(self._client.plan(self._sql))
        chunk = self._client.next_chunk(self._stream)
        arrived_us = time.time_ns() // 1000
        assert chunk is not None, "the feed ended"
        mark = decode_mark(chunk.app_metadata.to_pybytes())
        assert mark.after == self.seq, f"{mark} at {self.seq}"
        if chunk.data.num_rows:
            self.arrived.append((mark, arrived_us, chunk.data))
        self.seq = mark.through

    def _close(self) -> None:
        if self._stream is not None:
            self._stream.cancel()  # type: ignore[attr-defined]

    def ops(self, schema: TableSchema) -> list[tuple[int, bytes, Values | None]]:
        """`seq, pk_bytes, values` of every op in the order it came; None for a delete."""
        found: list[tuple[int, bytes, Values | None]] = []
        for _, _, batch in self.arrived:
            seqs, ops, keys = (column.to_pylist() for column in batch.columns[:3])
            rows = values_of_batch(batch.select(range(3, batch.num_columns)))
            found.extend(
                (seq, key, None if op == Op.DELETE else row)
                for seq, op, key, row in zip(seqs, ops, keys, rows, strict=True)
            )
        return found
