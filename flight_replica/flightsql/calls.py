"""Calls under way, and the one thread that notices when a client is gone or a deadline has passed.

pyarrow tells a handler nothing of a vanished client, and asking `context.is_cancelled()` after the call
has ended is a segmentation fault. So calls are looked at under the lock that `Calls.forget` takes, which
comes before that end.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol, TypeVar

from pyarrow import flight

from flight_replica.errors import Busy, Cancelled, InvalidStatement, ReplicaError, TimedOut, Unavailable
from flight_replica.flightsql.auth import Login, Logins
from flight_replica.flightsql.observing import Phase, QueryKind
from flight_replica.flightsql.options import OptionValue, ReadOptions, read_options
from flight_replica.flightsql.sessions import Session, Sessions
from flight_replica.flightsql.status import as_flight_error
from flight_replica.logs.request import HEADER, in_request, request_id_of

if TYPE_CHECKING:
    from flight_replica.flightsql.activities import Activity
    from flight_replica.flightsql.service import WriteResult
    from flight_replica.flightsql.transactions import Transaction

logger = logging.getLogger(__name__)
T = TypeVar("T")

TICK_SECONDS = 0.02  # a vanished client is noticed after about this
HOUSEKEEPING_SECONDS = 0.5
SHUTTING_DOWN = "the server is shutting down"

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


class Calls(flight.ServerMiddlewareFactory):  # type: ignore[misc]
    """All watched calls of one server. Owns the watcher thread, from creation to `close`."""

    def __init__(self, sessions: Sessions, housekeeping: Callable[[], None], logins: Logins) -> None:
        """`housekeeping` is called every half second, on the watcher thread."""
        self.sessions = sessions
        self._logins = logins
        self._housekeeping = housekeeping
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._contexts: dict[Call, Peer] = {}  # calls that haven't completed
        self._has_come = False  # a call, since the last look
        self._is_resting = False  # the watcher doesn't look soon by itself
        self._is_draining = False  # no further call is let in, and those without an end are ended
        self._is_closing = False  # every call is being ended
        self._is_closed = False
        self._thread = threading.Thread(target=self._run, name="flight-watcher", daemon=True)
        self._thread.start()

    def start_call(self, info: flight.CallInfo, headers: Mapping[str, Sequence[str]]) -> Call:
        is_handshake = info.method == flight.FlightMethod.HANDSHAKE
        try:
            self.check_open()
            login = self._logins.login(headers, is_handshake)
            session = self._session(login, headers, is_handshake)
        except Exception as error:
            raise as_flight_error(error, "login") from None
        reply = {} if login.reply is None else {"authorization": login.reply}
        if session.needs_cookie:
            reply["set-cookie"] = self.sessions.cookie(session)
        return Call(self, login, session, headers, reply)

    def check_open(self) -> None:
        """Raise `Unavailable` where no further call is let in."""
        if self._is_draining:
            raise Unavailable(SHUTTING_DOWN)

    def _session(self, login: Login, headers: Mapping[str, Sequence[str]], is_handshake: bool) -> Session:
        if is_handshake and login.id is not None:
            return self.sessions.of_token(login.id, login.user.name)
        return self.sessions.find(headers, login.user.name, login.id)

    @property
    def count(self) -> int:
        """Watched calls under way."""
        return len(self._contexts)

    def add(self, call: Call, context: Peer) -> None:
        with self._lock:
            self._contexts[call] = context
            self._has_come = True
            if self._is_resting:
                self._changed.notify_all()

    def forget(self, call: Call) -> None:
        with self._lock:
            self._contexts.pop(call, None)

    def drain(self) -> None:
        """Let no further call in, and end those that have no end of their own; the others go on."""
        with self._changed:
            self._is_draining = True
            self._changed.notify_all()

    def end_all(self) -> None:
        """End every call, and let no further one in."""
        with self._changed:
            self._is_draining = self._is_closing = True
            self._changed.notify_all()

    def close(self) -> None:
        """End the thread. Idempotent."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()
        self._thread.join()

    def _run(self) -> None:
        housekeeping_at = 0.0
        while self._wait():
            for call, reason in self._due():
                if call.end(reason) and isinstance(reason, Stalled):
                    with in_request(call.request_id):
                        logger.warning("client stopped reading, its statement was ended reason=%s", reason)
            if time.monotonic() >= housekeeping_at:
                self._housekeeping()
                self._end_disallowed()
                housekeeping_at = time.monotonic() + HOUSEKEEPING_SECONDS

    def _end_disallowed(self) -> None:
        """End the calls of users who are gone, or have other rights or another password now."""
        with self._changed:
            calls = list(self._contexts)
        for call in calls:
            if not call.is_still_allowed():
                call.end(Unavailable(f"user {call.user.name!r} was changed; try again"))

    def _wait(self) -> bool:
        """Wait for the next look: soon where calls are under way, or came since the last. False at the end.

        So a client with one small query after another doesn't wake this thread with each of its calls.
        """
        with self._changed:
            self._is_resting = not self._contexts and not self._has_come
            self._has_come = False
            if not self._is_closed:
                self._changed.wait(HOUSEKEEPING_SECONDS if self._is_resting else TICK_SECONDS)
            self._is_resting = False
            return not self._is_closed

    def _due(self) -> list[tuple[Call, ReplicaError]]:
        """The calls to end now. A call stays due until it has completed: an interrupt can get lost."""
        now = time.monotonic()
        with self._changed:
            found = [(call, self._verdict(call, context, now)) for call, context in self._contexts.items()]
        return [(call, reason) for call, reason in found if reason is not None]

    def _verdict(self, call: Call, context: Peer, now: float) -> ReplicaError | None:
        if self._is_closing or (self._is_draining and call.is_endless):
            return Unavailable(SHUTTING_DOWN)
        if context.is_cancelled():
            return Cancelled("the client has gone")
        return call.reason or call.overdue(now)


class Slots:
    """How many of something may run at once. Thread-safe."""

    def __init__(self, what: str, limit: Callable[[], int], wait_seconds: Callable[[], float]) -> None:
        """`what` is the limit's name; the limit may change, and then counts for those that come."""
        self._what = what
        self._limit = limit
        self._wait_seconds = wait_seconds
        self._changed = threading.Condition()
        self._in_use = 0

    @property
    def in_use(self) -> int:
        return self._in_use

    def take(self, call: Call) -> None:
        """Wait for a free place. Raises `Busy` when the wait is over, or the call's reason to end."""
        if not self._is_taken(0.0):
            with call.in_phase(Phase.QUEUED):
                self._wait(call)

    def _wait(self, call: Call) -> None:
        seconds = self._wait_seconds()
        deadline = time.monotonic() + seconds
        while not self._is_taken(min(TICK_SECONDS, max(deadline - time.monotonic(), 0.0))):
            call.check()
            if time.monotonic() >= deadline:
                raise Busy(f"{self._what}: all {self._limit()} are in use, waited {seconds:g} s")

    def _is_taken(self, wait_seconds: float) -> bool:
        with self._changed:
            if self._in_use >= self._limit() and wait_seconds > 0:
                self._changed.wait(wait_seconds)
            if self._in_use >= self._limit():
                return False
            self._in_use += 1
            return True

    def give_back(self) -> None:
        with self._changed:
            self._in_use -= 1
            self._changed.notify()
