"""Group commit: one thread runs all writes, and writes that wait together share one durable commit.

Each write is a function over a `WriteTransaction`. If one of a group fails, the group is rolled back
and each is run again in a transaction of its own, so that only the failing one fails. A write is
answered once it is durable and followers were told. A small one is durable when its redo record is
(redo_file.py); the store commits it when followers have had time to take it, or sooner where anybody
wants the store: a reader, who waits for it (`settle`), or the next write. Another one is durable with the
store's COMMIT. A write whose client is gone, or whose time is over, is not begun, or is interrupted and
undone.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, Future
from contextlib import contextmanager
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import Generic, TypeVar

import duckdb

from flight_replica.errors import Closed, ReplicaError, Unavailable
from flight_replica.flightsql.service import Ending
from flight_replica.primary.redo import RedoRecord, redo
from flight_replica.primary.redo_file import RedoFile
from flight_replica.primary.transaction import Changes, WriteTransaction

logger = logging.getLogger(__name__)

T = TypeVar("T")

# About what a commit takes to reach a replica's clients. The store's COMMIT keeps a core busy for as long,
# which they lack where they are on the same machine (docs/decisions/0015).
FOLLOWERS_SECONDS = 0.01


@dataclass(frozen=True, slots=True)
class _Write(Generic[T]):
    work: Callable[[WriteTransaction], T]
    is_alone: bool  # not in one transaction with others
    is_trial: bool  # rolled back, whatever it does
    future: Future[T]
    ending: Ending | None  # may end before the work is done

    def check(self) -> None:
        """Raise why it is to end, if it is."""
        if self.ending is not None:
            self.ending.check()


class Writer:
    """The thread behind every change of one store. Owned by the engine; `submit` from any thread."""

    def __init__(
        self,
        connection: duckdb.DuckDBPyConnection,
        redo_file: RedoFile,
        begin: Callable[[duckdb.DuckDBPyConnection], WriteTransaction],
        publish: Callable[[Changes], None],
        clock_us: Callable[[], int],
        group_writes_max: int,
    ) -> None:
        self._connection = connection
        self._redo_file = redo_file
        self._begin = begin
        self._publish = publish
        self._clock_us = clock_us
        self._group_writes_max = group_writes_max
        self._queue: SimpleQueue[_Write[object] | None] = SimpleQueue()
        self._held_back: _Write[object] | None = None  # taken from the queue, but not for that group
        self._closing = threading.Lock()
        self.committing = threading.Lock()  # nothing is committed while somebody else holds it
        self._settled = threading.Event()  # the store has what was told, or it is owed
        self._settled.set()
        self._is_store_wanted = threading.Event()  # by somebody who would wait for what isn't in it yet
        self._told: WriteTransaction | None = None  # the store has yet to commit it
        self._owed: RedoRecord | None = None  # told, but the store could not commit it
        self._is_closed = False
        self._interrupting = threading.Lock()
        self._at_work: _Write[object] | None = None  # whose statements run just now
        self.durable_commits_total = 0
        self.writes_total = 0
        self._thread = threading.Thread(target=self._run, name="primary-writer", daemon=True)
        self._thread.start()

    def submit(
        self,
        work: Callable[[WriteTransaction], T],
        *,
        is_alone: bool = False,
        is_trial: bool = False,
        ending: Ending | None = None,
    ) -> T:
        """What `work` returns, once it is durable; at once for a trial, which changes nothing.

        Raises what it raises; why `ending` has ended, then nothing was changed; `Closed` after `close`.
        """
        future: Future[T] = Future()
        write = _Write(work, is_alone or is_trial, is_trial, future, ending)
        with self._closing:
            if self._is_closed:
                raise Closed("the primary is closed")
            self._queue.put(write)  # type: ignore[arg-type]
            self._is_store_wanted.set()
        if ending is not None:
            ending.on_end(lambda: self._end(write))  # type: ignore[arg-type]
        try:
            return future.result()
        except CancelledError:
            write.check()
            raise

    def _end(self, write: _Write[object]) -> None:
        """Let a write that waits be, or interrupt the one that runs; from any thread."""
        if write.future.cancel():
            return
        with self._interrupting:
            if self._at_work is write:
                self._connection.interrupt()

    def settle(self) -> None:
        """Return when the store has all that anybody was told of by now; within `still` at once.

        Raises `Unavailable` where the store can't take it, `Closed`.
        """
        if not self._settled.is_set():
            self._is_store_wanted.set()
            self._settled.wait()
        if self._owed is not None:
            self.submit(lambda tx: None)

    @contextmanager
    def still(self) -> Iterator[None]:
        """Nothing is committed inside the block, and nothing is owed. Raises as `settle`."""
        while True:
            self.settle()
            with self.committing:
                if self._owed is None and self._settled.is_set():
                    yield
                    return

    @property
    def is_at_work(self) -> bool:
        return self._at_work is not None

    def close(self) -> None:
        """End the thread after the writes that were submitted. Idempotent."""
        with self._closing:
            if not self._is_closed:
                self._is_closed = True
                self._queue.put(None)
                self._is_store_wanted.set()
        self._thread.join()

    def _run(self) -> None:
        try:
            while (group := self._next_group()) is not None:
                if group := [write for write in group if write.future.set_running_or_notify_cancel()]:
                    self._commit(group)
                    self._leave_time()
                    self._store_told()
        finally:
            try:
                self._store_told()
            finally:
                self._refuse_the_rest()

    def _next_group(self) -> list[_Write[object]] | None:
        """The writes of the next transaction; None at the end. Blocks."""
        first, self._held_back = self._held_back or self._queue.get(), None
        if first is None:
            return None
        group = [first]
        while not first.is_alone and len(group) < self._group_writes_max:
            try:
                following = self._queue.get_nowait()
            except Empty:
                break
            if following is None:
                self._queue.put(None)  # the end, for the next call
                break
            if following.is_alone:
                self._held_back = following
                break
            group.append(following)
        return group

    def _commit(self, group: list[_Write[object]]) -> None:
        try:
            self._pay()
        except Exception as error:
            for write in group:
                write.future.set_exception(_as_replica_error(error))
            return
        if group[0].is_trial:
            self._try_out(group[0])
            return
        try:
            results, transaction, is_stored = self._try(group)
        except Exception as error:
            if len(group) == 1:
                group[0].future.set_exception(_as_replica_error(error))
                return
            for write in group:
                self._commit([write])
            return
        self.durable_commits_total += 1
        self.writes_total += len(group)
        if is_stored:
            self._tell(group, results, transaction.changes)
        else:
            self._tell_before_storing(group, results, transaction)

    def _try(self, group: list[_Write[object]]) -> tuple[list[object], WriteTransaction, bool]:
        """The results of `group`, durable, and whether that is so in the store already, or in the redo file.

        Raises the first error, with nothing changed.
        """
        self._connection.execute("BEGIN TRANSACTION")
        try:
            transaction = self._begin(self._connection)
            results = []
            for write in group:
                results.append(self._work(write, transaction))
                transaction.end_commit()
            record = RedoRecord.of(transaction.flush(self._clock_us))
            if record is not None and self._redo_file.put(record):
                return results, transaction, False
            with self.committing:
                self._store(transaction)
        except BaseException:
            self._roll_back()
            raise
        return results, transaction, True

    def _tell(self, group: list[_Write[object]], results: list[object], changes: Changes) -> None:
        """Tell followers, then the writers."""
        try:
            self._publish(changes)
        except BaseException as error:  # durable, but followers don't know: end here, a restart heals it
            for write in group:
                write.future.set_exception(error)
            raise
        for write, result in zip(group, results, strict=True):
            write.future.set_result(result)

    def _tell_before_storing(
        self, group: list[_Write[object]], results: list[object], transaction: WriteTransaction
    ) -> None:
        """Whoever is told, and then reads the store, waits until it has it, too."""
        with self.committing:
            self._is_store_wanted.clear()
            self._settled.clear()
            self._told = transaction
            self._tell(group, results, transaction.changes)

    def _leave_time(self) -> None:
        """Let followers take what they were told of, while nobody wants the store."""
        if self._told is not None and self._held_back is None and self._queue.empty():
            self._is_store_wanted.wait(FOLLOWERS_SECONDS)

    def _store_told(self) -> None:
        """Commit what is durable already; where that fails it is owed."""
        transaction, self._told = self._told, None
        if transaction is None:
            return
        with self.committing:
            try:
                self._store(transaction)
            except duckdb.Error as error:
                self._owed = RedoRecord.of(transaction.changes)
                logger.warning("newest commit not in the store yet error=%s", error)
                self._roll_back()
            finally:
                self._settled.set()

    def _store(self, transaction: WriteTransaction) -> None:
        transaction.write_positions()
        self._connection.execute("COMMIT")

    def _pay(self) -> None:
        """Let the store have what it lacks. Raises `duckdb.Error` where it still can't take it."""
        self._store_told()
        if self._owed is not None:
            with self.committing:
                redo(self._connection, self._owed)
                self._owed = None

    def _work(self, write: _Write[object], transaction: WriteTransaction) -> object:
        with self._interrupting:
            self._at_work = write
        try:
            write.check()
            return write.work(transaction)
        except Exception:
            write.check()  # what it was interrupted for, not that it was
            raise
        finally:
            with self._interrupting:
                self._at_work = None

    def _try_out(self, write: _Write[object]) -> None:
        try:
            self._connection.execute("BEGIN TRANSACTION")
            result = self._work(write, self._begin(self._connection))
        except Exception as error:
            write.future.set_exception(_as_replica_error(error))
        else:
            write.future.set_result(result)
        finally:
            self._roll_back()

    def _refuse_the_rest(self) -> None:
        """After the end, whatever it was, nobody waits for an answer that can't come."""
        with self._closing:
            self._is_closed = True
        if self._held_back is not None:
            self._queue.put(self._held_back)
        while True:
            try:
                write = self._queue.get_nowait()
            except Empty:
                return
            if write is not None and write.future.set_running_or_notify_cancel():
                write.future.set_exception(Closed("the primary is closed"))

    def _roll_back(self) -> None:
        """Never raises: a lost store refuses this like everything else, and the next write says so."""
        try:
            self._connection.execute("ROLLBACK")
        except duckdb.Error as error:  # most often the failed commit has ended its transaction
            logger.debug("nothing rolled back reason=%s", error)


def _as_replica_error(error: Exception) -> Exception:
    """Errors of the store itself (disk, memory), which no statement is to blame for."""
    if isinstance(error, ReplicaError):
        return error
    if isinstance(error, duckdb.Error):
        wrapped = Unavailable(f"the primary's store failed: {str(error).strip().partition(chr(10))[0]}")
        wrapped.__cause__ = error
        return wrapped
    return error
