"""Pins: views of one moment that several statements share, by name or within one snapshot transaction.

DuckDB can't give one transaction's snapshot to another session. So a pin opens its sessions all at once,
while nothing is committed (`Service.open_together`), and lends each to one statement at a time. A statement
that fails or is interrupted while DuckDB works takes its session with it; when all are gone, so is the pin.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from flight_replica.errors import Busy, LimitExceeded, TableNotFound, Unavailable
from flight_replica.flightsql.call import TICK_SECONDS, Call
from flight_replica.flightsql.limits import ServerLimits
from flight_replica.flightsql.service import Service
from flight_replica.position import TablePosition
from flight_replica.sql.lent_view import LentView
from flight_replica.sql.view import View

__all__ = ["END_PIN", "PinnedViews", "Pins"]

END_PIN = "merutable.EndPin"  # the action, which no protocol has

ENDED_MAX = 10_000  # names of ended pins that are remembered, so that none comes back with other rows

OpenViews = Callable[[], Sequence[View]]
Clock = Callable[[], float]


class PinnedViews:
    """Sessions that all see the same moment. Thread-safe; owned by who opened it, until `close`."""

    def __init__(self, what: str, views: Sequence[View], limits: ServerLimits, now: Clock) -> None:
        """`what` it is, for errors: `pin 'x'`."""
        self.what = what
        self._limits = limits
        self._now = now
        self._changed = threading.Condition()
        self._free = list(views)
        self._count = len(views)  # `pin_sessions` when it was opened
        self._lent = 0
        self._lost = 0
        self._is_closed = False
        self._positions = {at.table: at for at in views[0].positions}
        self.opened_at = self._used_at = now()

    @property
    def positions(self) -> Sequence[TablePosition]:
        """Of every table, as they were when it was opened."""
        return list(self._positions.values())

    @property
    def idle_seconds(self) -> float:
        """How long no statement has used it."""
        with self._changed:
            return 0.0 if self._lent else self._now() - self._used_at

    def touch(self) -> None:
        """A statement is about to use it."""
        with self._changed:
            self._used_at = self._now()

    @property
    def age_seconds(self) -> float:
        return self._now() - self.opened_at

    def lend(self, tables: Sequence[str], call: Call | None) -> LentView:
        """A view for one statement; its positions are those of `tables`, with their lag as it is now.

        Waits for a session. Raises `Unavailable` when all stay in use or all are lost, `TableNotFound`.
        """
        positions = [self._position(table) for table in tables]
        view = self._take(call)
        lent = LentView(view, positions, lambda is_whole: self._take_back(view, is_whole))
        try:
            view.take_up(tables)
        except BaseException:
            lent.close()
            raise
        return lent

    def _position(self, table: str) -> TablePosition:
        at = self._positions.get(table)
        if at is None:
            raise TableNotFound(f"table {table!r} isn't in {self.what}: it could not be read when that began")
        aged = at.lag_us + int(self.age_seconds * 1_000_000) if at.lag_us >= 0 else at.lag_us
        return replace(at, lag_us=aged)

    def _take(self, call: Call | None) -> View:
        wait_seconds = self._limits.query_wait_seconds
        deadline = time.monotonic() + wait_seconds
        while True:
            with self._changed:
                self._check_alive()
                if self._free:
                    self._lent += 1
                    return self._free.pop()
                self._changed.wait(TICK_SECONDS)
            if call is not None:
                call.check()
            if time.monotonic() >= deadline:
                raise Busy(
                    f"{self.what}: all of its {self._count - self._lost} sessions are in use "
                    f"(pin_sessions {self._count}), waited {wait_seconds:g} s "
                    "(query_wait_seconds)"
                )

    def _check_alive(self) -> None:
        if self._is_closed:
            raise Unavailable(f"{self.what} has ended")
        if not self._free and not self._lent:
            raise Unavailable(
                f"{self.what} is gone: each of its {self._lost} sessions (pin_sessions) ended with a "
                "statement that failed or was interrupted; begin anew"
            )

    def _take_back(self, view: View, is_whole: bool) -> None:
        with self._changed:
            self._lent -= 1
            self._used_at = self._now()
            is_kept = is_whole and not self._is_closed
            if is_kept:
                self._free.append(view)
            elif not is_whole:
                self._lost += 1
            self._changed.notify()
        if not is_kept:
            view.close()

    def close(self) -> None:
        """End the sessions, those that are lent when they come back. Idempotent."""
        with self._changed:
            self._is_closed = True
            free, self._free = self._free, []
            self._changed.notify_all()
        for view in free:
            view.close()


@dataclass(slots=True)
class _Named:
    opening: threading.Lock = field(default_factory=threading.Lock)
    views: PinnedViews | None = None  # None until its first statement has opened it


_Key = tuple[str, str]  # user, name


@dataclass(frozen=True, slots=True)
class NamedPin:
    """A named pin, for those who look at the server."""

    user: str
    name: str
    age_seconds: float
    idle_seconds: float
    visible_seqs: Mapping[str, int]  # table -> seq that it shows


class Pins:
    """The pinned views of one server. Thread-safe."""

    def __init__(self, limits: ServerLimits, now: Clock = time.monotonic) -> None:
        self._limits = limits
        self._now = now
        self._lock = threading.Lock()
        self._named: dict[_Key, _Named] = {}
        self._ended: OrderedDict[_Key, str] = OrderedDict()  # why; the oldest first
        self._anonymous = 0  # snapshots of transactions

    @property
    def count(self) -> int:
        """Pinned moments open now, those of transactions too."""
        return len(self._named) + self._anonymous

    def named(self, user: str, name: str, open_views: OpenViews) -> PinnedViews:
        """The user's pin of this name; the first one who asks opens it.

        Raises `LimitExceeded` beyond pins_max, `Unavailable` for one that has ended.
        """
        key = (user, name)
        with self._lock:
            if key in self._ended:
                raise Unavailable(f"pin {name!r} has ended: {self._ended[key]}; take another name")
            entry = self._named.get(key)
            if entry is None:
                self._check_room(f"pin {name!r}")
                entry = self._named[key] = _Named()
        with entry.opening:
            if entry.views is None:
                try:
                    entry.views = PinnedViews(f"pin {name!r}", open_views(), self._limits, self._now)
                except BaseException:
                    with self._lock:
                        self._named.pop(key, None)
                    raise
            entry.views.touch()
            return entry.views

    def listed(self) -> list[NamedPin]:
        """The named pins that are open."""
        with self._lock:
            found = [(key, entry.views) for key, entry in self._named.items()]
        return [
            NamedPin(
                user,
                name,
                views.age_seconds,
                views.idle_seconds,
                {at.table: at.visible_seq for at in views.positions},
            )
            for (user, name), views in found
            if views is not None
        ]

    def end(self, user: str, name: str, why: str = "its client ended it") -> None:
        """End the user's pin of this name, if there is one; statements on it come to their end."""
        with self._lock:
            entry = self._named.get((user, name))
            views = entry.views if entry is not None else None
            if views is not None:  # one that is just being opened stays
                del self._named[user, name]
                self._remember((user, name), why)
        if views is not None:
            views.close()

    def for_transaction(self, open_views: OpenViews) -> PinnedViews:
        """A moment of its own; `let_go` ends it. Raises `LimitExceeded` beyond pins_max."""
        with self._lock:
            self._check_room("a snapshot transaction")
            self._anonymous += 1
        try:
            return PinnedViews("the transaction's snapshot", open_views(), self._limits, self._now)
        except BaseException:
            with self._lock:
                self._anonymous -= 1
            raise

    def let_go(self, views: PinnedViews) -> None:
        """End what `for_transaction` gave; once."""
        with self._lock:
            self._anonymous -= 1
        views.close()

    def _check_room(self, what: str) -> None:
        if self.count >= self._limits.pins_max:
            raise LimitExceeded(
                f"{what}: {self._limits.pins_max} pinned views are open (pins_max); the next one ends "
                f"{self._limits.pin_idle_seconds:g} s after its last use (pin_idle_seconds)"
            )

    def expire(self) -> None:
        """End named pins that are too old, or that nobody uses."""
        with self._lock:
            due = [(key, entry.views) for key, entry in self._named.items() if entry.views is not None]
        for key, views in due:
            reason = self._over(views)
            if reason is None:
                continue
            with self._lock:
                if self._named.pop(key, None) is None:  # its client came first
                    continue
                self._remember(key, reason)
            views.close()

    def _remember(self, key: _Key, reason: str) -> None:
        """Why a name isn't to be used again."""
        self._ended[key] = reason
        if len(self._ended) > ENDED_MAX:
            self._ended.popitem(last=False)

    def _over(self, views: PinnedViews) -> str | None:
        if views.age_seconds >= self._limits.pin_seconds:
            return f"it was older than pin_seconds, {self._limits.pin_seconds:g} s"
        if views.idle_seconds >= self._limits.pin_idle_seconds:
            return f"no statement used it for pin_idle_seconds, {self._limits.pin_idle_seconds:g} s"
        return None

    def close(self) -> None:
        """End the named pins; at the server's end."""
        with self._lock:
            entries, self._named = list(self._named.values()), {}
        for entry in entries:
            if entry.views is not None:
                entry.views.close()


def open_all(service: Service, limits: ServerLimits) -> Sequence[View]:
    """Views of every table that can be read now, all of one moment."""
    tables = [entry.name for entry in service.tables() if entry.schema is not None]
    return service.open_together(tables, limits.pin_sessions)
