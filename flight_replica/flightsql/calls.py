"""Calls under way, and the one thread that notices when a client is gone or a deadline has passed.

pyarrow tells a handler nothing of a vanished client, and asking `context.is_cancelled()` after the call
has ended is a segmentation fault. So calls are looked at under the lock that `call_completed` takes to
forget them.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence

from pyarrow import flight

from flight_replica.errors import ReplicaError, TimedOut, Unavailable

logger = logging.getLogger(__name__)

TICK_SECONDS = 0.02  # a vanished client is noticed after about this
HOUSEKEEPING_SECONDS = 0.5
MIDDLEWARE = "calls"  # the name under which `Call` is found in a context

# ADBC wants a token in the reply to its handshake; nothing looks at it.
_NO_TOKEN = "Bearer none"


class Call(flight.ServerMiddleware):  # type: ignore[misc]
    """One RPC: its headers, and how another thread ends its work. Lives as long as the RPC."""

    def __init__(self, calls: Calls, info: flight.CallInfo, headers: Mapping[str, Sequence[str]]) -> None:
        self._calls = calls
        self._is_handshake = info.method == flight.FlightMethod.HANDSHAKE
        self._headers = headers
        self._lock = threading.Lock()
        self._interrupts: list[Callable[[], None]] = []
        self._reason: ReplicaError | None = None  # why the work has to end; None: it may go on
        self._deadline: float | None = None  # monotonic seconds
        self._seconds_max = 0.0

    def header(self, name: str) -> str | None:
        """The last value of a call header, None without one."""
        values = self._headers.get(name, ())
        return str(values[-1]) if values else None

    def watch(self, context: flight.ServerCallContext) -> None:
        """From now on the work of this call ends when its client goes, or a limit set on it passes."""
        self._calls.add(self, context)

    def limit_to(self, statement_seconds: float) -> None:
        """End the work after so long, counted from now."""
        self._seconds_max = statement_seconds
        self._deadline = time.monotonic() + statement_seconds

    def overdue(self, now: float) -> TimedOut | None:
        """What to end the work with at `now`, None while there is time."""
        if self._deadline is None or now < self._deadline:
            return None
        return TimedOut(f"the statement took longer than statement_seconds, {self._seconds_max:g} s")

    def on_end(self, interrupt: Callable[[], None]) -> None:
        """Call `interrupt` to end the work, again and again until the call is over; from another thread."""
        with self._lock:
            self._interrupts.append(interrupt)

    def end(self, reason: ReplicaError) -> None:
        """Make the work end with `reason`; the first one counts."""
        with self._lock:
            self._reason = self._reason or reason
            interrupts = list(self._interrupts)
        for interrupt in interrupts:
            interrupt()

    @property
    def is_ended(self) -> bool:
        return self._reason is not None

    def check(self) -> None:
        """Raise the reason to end, if there is one."""
        if self._reason is not None:
            raise self._reason

    # --- called by pyarrow ------------------------------------------------------------------------

    def sending_headers(self) -> dict[str, str]:
        return {"authorization": _NO_TOKEN} if self._is_handshake else {}

    def call_completed(self, exception: Exception | None) -> None:
        self._calls.forget(self)


class Calls(flight.ServerMiddlewareFactory):  # type: ignore[misc]
    """All watched calls of one server. Owns the watcher thread, from creation to `close`."""

    def __init__(self, housekeeping: Callable[[], None]) -> None:
        """`housekeeping` is called every half second, on the watcher thread."""
        self._housekeeping = housekeeping
        self._changed = threading.Condition()
        self._contexts: dict[Call, flight.ServerCallContext] = {}  # calls that haven't completed
        self._is_closing = False  # every call is being ended
        self._is_closed = False
        self._thread = threading.Thread(target=self._run, name="flight-watcher", daemon=True)
        self._thread.start()

    def start_call(self, info: flight.CallInfo, headers: Mapping[str, Sequence[str]]) -> Call:
        return Call(self, info, headers)

    def add(self, call: Call, context: flight.ServerCallContext) -> None:
        with self._changed:
            self._contexts[call] = context
            self._changed.notify_all()

    def forget(self, call: Call) -> None:
        with self._changed:
            self._contexts.pop(call, None)

    def end_all(self) -> None:
        """End every call, those that begin later too."""
        with self._changed:
            self._is_closing = True
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
                call.end(reason)
            if time.monotonic() >= housekeeping_at:
                self._housekeeping()
                housekeeping_at = time.monotonic() + HOUSEKEEPING_SECONDS

    def _wait(self) -> bool:
        """Wait for the next look: soon where calls are under way. False at the end."""
        with self._changed:
            if not self._is_closed:
                self._changed.wait(TICK_SECONDS if self._contexts else HOUSEKEEPING_SECONDS)
            return not self._is_closed

    def _due(self) -> list[tuple[Call, ReplicaError]]:
        """The calls to end now. A call stays due until it has completed: an interrupt can get lost."""
        now = time.monotonic()
        with self._changed:
            found = [(call, self._verdict(call, context, now)) for call, context in self._contexts.items()]
        return [(call, reason) for call, reason in found if reason is not None]

    def _verdict(self, call: Call, context: flight.ServerCallContext, now: float) -> ReplicaError | None:
        if self._is_closing:
            return Unavailable("the server is shutting down")
        if context.is_cancelled():
            return TimedOut("the client has gone")
        return call.overdue(now)


class Slots:
    """How many of something may run at once. Thread-safe."""

    def __init__(self, what: str, limit: int, wait_seconds: float) -> None:
        """`what` is the limit's name."""
        self._what = what
        self._limit = limit
        self._wait_seconds = wait_seconds
        self._free = threading.Semaphore(limit)

    def take(self, call: Call) -> None:
        """Wait for a free place. Raises `Unavailable` when the wait is over, or the call's reason to end."""
        deadline = time.monotonic() + self._wait_seconds
        while not self._free.acquire(timeout=min(TICK_SECONDS, max(deadline - time.monotonic(), 0.0))):
            call.check()
            if time.monotonic() >= deadline:
                raise Unavailable(
                    f"{self._what}: all {self._limit} are in use, waited {self._wait_seconds:g} s"
                )

    def give_back(self) -> None:
        self._free.release()
