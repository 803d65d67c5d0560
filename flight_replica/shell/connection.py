"""`SqlConnection`: one statement at a time over ADBC, which Ctrl-C ends, and which outlives its server."""

from __future__ import annotations

import re
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import TypeVar

import pyarrow as pa

from flight_replica.client import Connection, connect, one_line, told
from flight_replica.errors import Cancelled, InvalidStatement, ReplicaError, Unavailable
from flight_replica.shell.statements import is_query

__all__ = ["Answer", "SqlConnection"]

_T = TypeVar("_T")
_COOKIES = {"adbc.flight.sql.rpc.with_cookie_middleware": "true"}  # so that SET lasts
_STREAM_ERROR = re.compile(r"\[FlightSQL\] (?P<text>.*?)(?:\. Detail: .*?)? \((?P<kind>\w+); .*")
CANCEL_SECONDS = 0.2  # between cancels: one that comes before the call has got going is lost


class Answer:
    """The rows of a statement as they come. Read it where it was given."""

    def __init__(self, uri: str, reader: pa.RecordBatchReader) -> None:
        self._uri = uri
        self._reader = reader

    @property
    def schema(self) -> pa.Schema:
        return self._reader.schema

    def __iter__(self) -> Iterator[pa.RecordBatch]:
        """Raises `Unavailable`, `InvalidStatement` with the server's text."""
        while True:
            try:
                batch = self._reader.read_next_batch()
            except StopIteration:
                return
            except (pa.ArrowException, OSError) as error:
                raise _of_stream(error, self._uri) from error
            yield batch


def _of_stream(error: Exception, uri: str) -> ReplicaError:
    """What a driver's reader raises, as one of ours: the server's text, which the driver has wrapped."""
    found = _STREAM_ERROR.fullmatch(str(error).partition("\n")[0])
    if found is None:
        return Unavailable(f"{uri}: {one_line(error)}")
    text, kind = found["text"], found["kind"]
    return Unavailable(f"{uri}: {text}") if kind in ("Unavailable", "IO") else InvalidStatement(text)


class SqlConnection:
    """A connection that is opened with its first statement, and again after its server was away.

    For one thread; Ctrl-C is heard where that is the main one. Owns a worker, in which the driver's calls
    block. Close it.
    """

    def __init__(self, uri: str, options: Callable[[], Mapping[str, str]]) -> None:
        """`options` of the driver are asked for at each connection: a token may be a new one."""
        self.uri = uri
        self._options = options
        self._connection: Connection | None = None
        self._worker = ThreadPoolExecutor(1, "sql")

    def another(self) -> SqlConnection:
        """A connection to the same server, as the same user."""
        return SqlConnection(self.uri, self._options)

    def run(self, statement: str, use: Callable[[Answer], _T]) -> _T:
        """What `use`, in the worker, makes of the statement's rows.

        A statement that only reads is sent once more where the server has been away. Raises `Cancelled` at
        Ctrl-C, which ends it at the server too, `Unavailable`, `InvalidStatement`.
        """
        is_read = False

        def used(answer: Answer) -> _T:
            nonlocal is_read
            is_read = True
            return use(answer)

        is_new = self._connection is None
        try:
            return self._run(statement, used)
        except Unavailable:
            self._disconnect()
            if is_new or is_read or not is_query(statement):
                raise
        return self._run(statement, used)

    def _run(self, statement: str, use: Callable[[Answer], _T]) -> _T:
        if self._connection is None:
            self._connection = self._wait(self._worker.submit(self._connect), lambda: None)
        cursor = self._connection.cursor()

        def work() -> _T:
            try:
                with told(self.uri):
                    cursor.execute(statement)
                    reader = cursor.fetch_record_batch()
                return use(Answer(self.uri, reader))
            finally:
                with told(self.uri):  # of one that was cancelled it raises
                    cursor.close()

        return self._wait(self._worker.submit(work), cursor.adbc_cancel)

    def _connect(self) -> Connection:
        return connect(self.uri, {**_COOKIES, **self._options()})

    def _wait(self, job: Future[_T], cancel: Callable[[], None]) -> _T:
        """What comes of a job of the worker; Ctrl-C cancels it, again and again until it has ended."""
        if threading.current_thread() is not threading.main_thread():  # no signal gets there
            return job.result()
        news: SimpleQueue[bool] = SimpleQueue()  # False: Ctrl-C, True: the job has ended; `put` may nest
        job.add_done_callback(lambda _: news.put(True))
        before = signal.signal(signal.SIGINT, lambda number, frame: news.put(False))
        try:
            is_cancelled = not news.get()
            while is_cancelled and not job.done():
                cancel()
                with suppress(Empty):
                    news.get(timeout=CANCEL_SECONDS)
        finally:
            signal.signal(signal.SIGINT, before)
        error = job.exception()
        if is_cancelled and isinstance(error, ReplicaError):
            raise Cancelled("cancelled") from error
        return job.result()

    def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def close(self) -> None:
        self._disconnect()
        self._worker.shutdown()
