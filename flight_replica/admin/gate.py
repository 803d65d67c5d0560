"""What each call of the admin port passes: who it is from, how many streams there are, errors as codes."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NoReturn, TypeVar

import grpc

from flight_replica.admin.limits import AdminLimits
from flight_replica.errors import Busy, ReplicaError
from flight_replica.flightsql.auth import Login, Logins
from flight_replica.flightsql.status import RETRYABLE_TRAILER, code_of, report_unexpected
from flight_replica.flightsql.texts import told
from flight_replica.flightsql.users import User
from flight_replica.logs.request import HEADER, in_request, request_id_of

T = TypeVar("T")


class Gate:
    """Thread-safe. Logins are those of the Flight port."""

    def __init__(self, logins: Logins, limits: AdminLimits) -> None:
        self.limits = limits
        self._logins = logins
        self._lock = threading.Lock()
        self._ends: set[threading.Event] = set()  # of the streams that are open
        self._open_count = 0  # those of them that needed no login
        self._is_closed = False

    def answer(self, context: grpc.ServicerContext, work: Callable[[User], T]) -> T:
        """What `work` returns for the caller; the call ends with the code of what it raises."""
        with in_request(_request_id(context)), self._call(context):
            return work(self._login(context).user)

    def answers(
        self, context: grpc.ServicerContext, work: Callable[[Login, Stream], Iterator[T]]
    ) -> Iterator[T]:
        """The same for a stream."""
        with in_request(_request_id(context)), self._call(context):
            login = self._login(context)
            with self._stream(context, is_open=False) as stream:
                yield from work(login, stream)

    def open_answers(
        self, context: grpc.ServicerContext, work: Callable[[Stream], Iterator[T]]
    ) -> Iterator[T]:
        """The same for a stream that needs no login; these leave half of the streams to users."""
        with (
            in_request(_request_id(context)),
            self._call(context),
            self._stream(context, is_open=True) as stream,
        ):
            yield from work(stream)

    def _login(self, context: grpc.ServicerContext) -> Login:
        headers: dict[str, list[str | bytes]] = {}
        for name, value in context.invocation_metadata():
            headers.setdefault(name, []).append(value)
        login = self._logins.login(headers, False)
        if login.reply is not None:  # the token to go on with
            context.send_initial_metadata((("authorization", login.reply),))
        return login

    @contextmanager
    def _stream(self, context: grpc.ServicerContext, *, is_open: bool) -> Iterator[Stream]:
        """One more stream. Raises `Busy`."""
        ended = threading.Event()
        most = self.limits.admin_streams_max
        with self._lock:
            is_full = self._is_closed or len(self._ends) >= most
            if is_full or (is_open and self._open_count >= most // 2):
                raise Busy(f"{most // 2 if is_open else most} streams are open (admin_streams_max)")
            self._ends.add(ended)
            self._open_count += is_open
        try:
            if not context.add_callback(ended.set):
                ended.set()
            yield Stream(ended)
        finally:
            with self._lock:
                self._ends.discard(ended)
                self._open_count -= is_open

    def close(self) -> None:
        """End every stream, also those that would begin later."""
        with self._lock:
            self._is_closed = True
            ends = list(self._ends)
        for ended in ends:
            ended.set()

    @contextmanager
    def _call(self, context: grpc.ServicerContext) -> Iterator[None]:
        try:
            yield
        except ReplicaError as error:
            if error.retryable:
                context.set_trailing_metadata(((RETRYABLE_TRAILER, "true"),))
            _abort(context, error, told(str(error)))
        except Exception as error:
            if context.code() is not None:  # it was aborted above
                raise
            _abort(context, error, report_unexpected(error, "admin"))


class Stream:
    """A stream that is open, until its client goes or the server ends."""

    def __init__(self, ended: threading.Event) -> None:
        self._ended = ended

    def wait(self, seconds: float) -> bool:
        """Wait; whether it goes on."""
        return not self._ended.wait(seconds)


def _abort(context: grpc.ServicerContext, error: Exception, text: str) -> NoReturn:
    context.abort(getattr(grpc.StatusCode, code_of(error).name), text)
    raise AssertionError("abort came back")


def _request_id(context: grpc.ServicerContext) -> str:
    given = (value for name, value in context.invocation_metadata() if name == HEADER)
    return request_id_of(next((value for value in given if isinstance(value, str)), None))
