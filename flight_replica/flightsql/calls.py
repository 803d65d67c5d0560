"""Calls under way, and the one thread that notices when a client is gone or a deadline has passed.

pyarrow tells a handler nothing of a vanished client, and asking `context.is_cancelled()` after the call
has ended is a segmentation fault. So calls are looked at under the lock that `Calls.forget` takes, which
comes before that end.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence

from pyarrow import flight

from flight_replica.errors import Cancelled, ReplicaError, Unavailable
from flight_replica.flightsql.auth import Login, Logins
from flight_replica.flightsql.call import TICK_SECONDS, Call, Peer, Stalled
from flight_replica.flightsql.sessions import Session, Sessions
from flight_replica.flightsql.status import as_flight_error
from flight_replica.logs.request import in_request

logger = logging.getLogger(__name__)

HOUSEKEEPING_SECONDS = 0.5
SHUTTING_DOWN = "the server is shutting down"


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
