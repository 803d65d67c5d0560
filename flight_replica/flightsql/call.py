"""One call under way: its headers, user and session, and how another thread ends its work.

All of them, and who notices that one has to end: calls.py.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol, TypeVar

from pyarrow import flight

from flight_replica.errors import InvalidStatement, ReplicaError, TimedOut
from flight_replica.flightsql.auth import Login
from flight_replica.flightsql.observing import Phase, QueryKind
from flight_replica.flightsql.options import OptionValue, ReadOptions, read_options
from flight_replica.flightsql.sessions import Session
from flight_replica.logs.request import HEADER, request_id_of

if TYPE_CHECKING:
    from flight_replica.flightsql.activities import Activity
    from flight_replica.flightsql.calls import Calls
    from flight_replica.flightsql.service import WriteResult
    from flight_replica.flightsql.transactions import Transaction

T = TypeVar("T")

TICK_SECONDS = 0.02  # a call that has to end is noticed after about this

_nothing = bool  # written in C, does nothing with what it is called with


class Peer(Protocol):
    """Who a call is from, while it is under way. gRPC's `ServerCallContext` is one."""

    def is_cancelled(self) -> bool:
        """Whether he has gone."""
        ...


class Call(flight.ServerMiddleware):  # type: ignore[misc]
    """One RPC: its headers, user and session, and how another thread ends its work. Lives as long as it."""

    # What most calls never set stands here, since each small query makes four of these.
    transaction: Transaction | None = None  # the one that its statement is part of
    activity: Activity | None = None  # the statement that it plans, runs or does
    is_endless = False  # it streams until somebody ends it
    peer = ""  # the connection's other end, once the handler has seen it
    _options: ReadOptions | None = None
    _reason: ReplicaError | None = None  # why the work has to end; None: it may go on
    _deadline: float | None = None  # monotonic seconds
    _limit = ""  # the deadline's name and value
    _offered_at: float | None = None  # monotonic seconds; None: no batch waits to be taken
    _stalled_seconds_max = 0.0

    def __init__(
        self,
        calls: Calls,
        login: Login,
        session: Session,
        headers: Mapping[str, Sequence[str]],
        reply_headers: Mapping[str, str],
    ) -> None:
        self._calls = calls
        self.user = login.user
        self.is_still_allowed = login.is_good
        self.session = session
        self._headers = headers
        self.request_id = request_id_of(self.header(HEADER))
        # These two are called by pyarrow, on a thread that is new to Python each time. To run a function in
        # Python maps memory for such a thread and gives it back; what is written in C does without.
        self.sending_headers: Callable[[], Mapping[str, str]]
        self.sending_headers = {**reply_headers, HEADER: self.request_id}.copy
        self.call_completed: Callable[[Exception | None], object] = _nothing
        self._lock = threading.Lock()
        self._interrupts: list[Callable[[], None]] = []
        self._on_completed: list[Callable[[], None]] = []

    def header(self, name: str) -> str | None:
        """The last value of a call header, None without one."""
        values = self._headers.get(name, ())
        return str(values[-1]) if values else None

    @property
    def origin(self) -> str:
        """The same in all calls of one client: its session, or its connection where it shows none."""
        return self.session.id if self.session.is_kept else self.peer

    @property
    def options(self) -> ReadOptions:
        """What the session and this call's headers ask of a read. Raises `InvalidStatement`,
        `SessionExpired`."""
        if self._options is None:
            self._options = read_options(self.session.options(), self._headers)
        return self._options

    def change_session(self, values: Mapping[str, OptionValue | None]) -> None:
        """Set options for the client's later calls, or unset them by None.

        Raises `InvalidStatement` for a client that no later call can be known to come from.
        """
        if not values:
            return
        if not self.session.is_kept:
            raise InvalidStatement(
                "SET lasts for a session, and this client has shown neither cookie nor bearer token: keep "
                "cookies (adbc.flight.sql.rpc.with_cookie_middleware=true), log in, or give call headers "
                "(merutable-…)"
            )
        self._calls.sessions.change(self.session, values)

    @contextmanager
    def in_phase(self, phase: Phase) -> Iterator[None]:
        """Its statement is in `phase` in the block."""
        activity = self.activity
        before = activity.enter(phase) if activity is not None else None
        try:
            yield
        finally:
            if activity is not None and before is not None:
                activity.enter(before)

    def reads(self, tables: Sequence[str]) -> None:
        """Its statement reads these tables."""
        if self.activity is not None:
            self.activity.reads(tables)

    def wrote(self, kind: QueryKind, done: WriteResult) -> WriteResult:
        """Its statement has done this."""
        if self.activity is not None:
            self.activity.wrote(kind, done.table, done.seq, done.rows_affected)
        return done

    def watch(self, context: Peer) -> None:
        """From now on the work of this call ends when its client goes, or a limit set on it passes."""
        self._calls.add(self, context)

    def limit_to(self, statement_seconds: float, planned_timeout_ms: float | None = None) -> None:
        """End the work after so long, counted from now, or sooner where the client asks for that.

        `planned_timeout_ms`: what the call that planned the statement asked for.
        """
        timeout_ms = self.options.statement_timeout_ms or planned_timeout_ms
        self._limit, seconds = f"statement_seconds, {statement_seconds:g} s", statement_seconds
        if timeout_ms is not None and timeout_ms / 1000 < statement_seconds:
            self._limit, seconds = f"statement_timeout_ms, {timeout_ms:g} ms", timeout_ms / 1000
        self._deadline = time.monotonic() + seconds

    def offered(self, items: Generator[T], stalled_seconds_max: float) -> Iterator[T]:
        """The same items; the work ends where the client takes none of them for so long."""
        self._stalled_seconds_max = stalled_seconds_max
        try:
            for item in items:
                self._offered_at = time.monotonic()
                yield item
                self._offered_at = None
        finally:
            self._offered_at = None
            items.close()

    def offers_all(self, stalled_seconds_max: float) -> None:
        """All it sends waits for its client; the work ends where that takes so long."""
        self._stalled_seconds_max = stalled_seconds_max
        self._offered_at = time.monotonic()

    def overdue(self, now: float) -> TimedOut | None:
        """What to end the work with at `now`, None while there is time."""
        if self._deadline is not None and now >= self._deadline:
            return TimedOut(f"the statement took longer than {self._limit}")
        offered_at = self._offered_at
        if offered_at is not None and now - offered_at >= self._stalled_seconds_max:
            return Stalled(f"no batch was taken for stalled_seconds, {self._stalled_seconds_max:g} s")
        return None

    def on_end(self, interrupt: Callable[[], None]) -> None:
        """Call `interrupt` to end the work, again and again until the call is over; from another thread."""
        with self._lock:
            self._interrupts.append(interrupt)

    def end(self, reason: ReplicaError) -> bool:
        """Make the work end with `reason`; the first one counts. Whether this is the first."""
        with self._lock:
            is_first = self._reason is None
            self._reason = self._reason or reason
            interrupts = list(self._interrupts)
        for interrupt in interrupts:
            interrupt()
        return is_first

    @property
    def reason(self) -> ReplicaError | None:
        """Why the work has to end; None: it may go on."""
        return self._reason

    @property
    def is_ended(self) -> bool:
        return self._reason is not None

    def on_completed(self, callback: Callable[[], None]) -> None:
        """Call `callback` once the RPC is over, however it ended."""
        self._on_completed.append(callback)
        self.call_completed = self.completed

    def check(self) -> None:
        """Raise the reason to end, if there is one."""
        if self._reason is not None:
            raise self._reason

    def handled(self) -> None:
        """Its handler has returned; unless something is to be done when the RPC is over, that was all."""
        if not self._on_completed:
            self._calls.forget(self)

    def completed(self, exception: Exception | None = None) -> None:
        """The RPC is over."""
        self._calls.forget(self)
        self.call_completed = _nothing  # or it would hold itself
        for callback in self._on_completed:
            callback()


class Stalled(TimedOut):
    """The client holds its stream open and takes nothing."""
