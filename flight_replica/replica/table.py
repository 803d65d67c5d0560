"""`TableReplica`: one table of a server, from its first base to the end, through every re-creation.

It owns a `Replica` and its `Follower` for one lineage at a time and says in `state` how the table is. Until
a lineage's first state stands, a query is a retryable error; rows of an older lineage are never shown.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from enum import StrEnum

from flight_replica.base.on_demand import OnDemandBase
from flight_replica.errors import (
    BaseNotUsable,
    Closed,
    DamagedLog,
    LineageChanged,
    LogGap,
    NotServed,
    TableNotFound,
    Unavailable,
    without_table,
)
from flight_replica.log.backoff import Backoff, BackoffConfig
from flight_replica.replica.follower import Follower
from flight_replica.replica.measures import MeasuredTable, TableMeasures
from flight_replica.replica.published import Opening
from flight_replica.replica.reopened import reopened
from flight_replica.replica.replica import Replica
from flight_replica.replica.stats import ReplicaSettings
from flight_replica.state.workspace import Workspace

_log = logging.getLogger(__name__)

WAKE_SECONDS = 0.2  # how often a table that catches up looks whether it still can


class TableState(StrEnum):
    """How a table is, for people."""

    LOADING = "loading"
    WAITING = "waiting"  # for its first base
    SERVING = "serving"
    DEGRADED = "degraded"  # serving, but something is wrong: the reason says what
    PAUSED = "paused"  # serving what it had when an operator paused it


Origin = Callable[[], Opening]
"""Opens a table for its present lineage.

Raises `TableNotFound` when the table is no more, `Unavailable` and `BaseNotUsable` when it can't be told yet.
"""


class TableReplica:
    """One named table. Owns its thread `table-NAME` and everything that it opens, until `close`."""

    def __init__(
        self,
        name: str,
        origin: Origin,
        workspace: Workspace,
        settings: ReplicaSettings,
        on_gone: Callable[[str], None] = lambda name: None,
    ) -> None:
        self.name = name
        self.measures = TableMeasures()
        self._origin = origin
        self._workspace = workspace
        self._settings = settings
        self._on_gone = on_gone
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._opened: Replica | None = None
        self._serving: Replica | None = None  # the opened one, once it can be read
        self._follower: Follower | None = None  # of the opened one
        self._paused_by: str | None = None  # None: it is followed
        self._state = TableState.LOADING
        self._reason = "not opened yet"
        self._is_final = False  # the reason is one that doesn't pass by itself
        self._thread = threading.Thread(target=self._run, name=f"table-{name}", daemon=True)
        self._thread.start()

    @property
    def state(self) -> tuple[TableState, str]:
        """How the table is, and why where it isn't serving."""
        with self._lock:
            state, reason, opened = self._state, self._reason, self._opened
            if self._paused_by is not None:
                state, reason = TableState.PAUSED, f"paused by {self._paused_by}"
        base = opened.base if opened is not None and state is TableState.LOADING else None
        progress = base.progress if isinstance(base, OnDemandBase) else ""
        return state, f"{reason}: {progress}" if progress else reason

    @property
    def replica(self) -> Replica:
        """The table as it can be read. Raises `Unavailable` with the reason while it can't."""
        with self._lock:
            replica, state, reason, is_final = self._serving, self._state, self._reason, self._is_final
        if replica is None:
            error = NotServed if is_final else Unavailable
            raise error(f"table {self.name!r} is {state}: {without_table(self.name, reason)}")
        return replica

    # --- what an operator does --------------------------------------------------------------------

    @property
    def paused_by(self) -> str | None:
        """Who has paused it; None while it is followed."""
        return self._paused_by

    def pause(self, by: str) -> None:
        """Show nothing newer from now on, until `resume`; not over a new lineage. Raises `Unavailable`."""
        replica, follower = self.replica, self._follower
        with self._lock:
            if follower is None or self._serving is not replica:
                raise Unavailable(f"table {self.name!r} is just being opened anew")
            self._paused_by = self._paused_by or by
        follower.pause()
        _log.info("table paused table=%s by=%s visible_seq=%d", self.name, by, replica.visible_seq)

    def resume(self) -> None:
        """Follow again. Nothing for a table that is followed."""
        with self._lock:
            was_paused, self._paused_by = self._paused_by is not None, None
            follower = self._follower
        if was_paused and follower is not None:
            follower.resume()
            _log.info("table resumed table=%s", self.name)

    def look_now(self) -> None:
        """See at once whether a better state is to be made."""
        with self._lock:
            follower = self._follower
        if follower is not None:
            follower.look_now()

    def measured(self) -> MeasuredTable:
        """What has happened to it, and how its feed is connected."""
        with self._lock:
            opened, failures = self._opened, self.measures.feed_failures.count
        if opened is None:
            return MeasuredTable(self.name, self.measures, None, failures, None)
        is_connected = opened.log.last_error is None if opened.is_followed else None
        failures += opened.log.failure_count
        return MeasuredTable(self.name, self.measures, is_connected, failures, opened.holding())

    def origin_clock_us(self) -> int | None:
        """The origin's time, at the latest that it can be; None while it isn't known."""
        with self._lock:
            opened = self._opened
        return opened.origin_clock_us() if opened is not None else None

    def close(self) -> None:
        self._stop.set()
        with self._lock:
            opened, follower = self._opened, self._follower
        if opened is not None:
            opened.end_sources()
        if follower is not None:
            follower.resume()  # one that is paused waits for that
        self._thread.join()

    # --- the thread -------------------------------------------------------------------------------

    def _run(self) -> None:
        backoff = Backoff(BackoffConfig(max_seconds=5.0))
        while not self._stop.is_set():
            try:
                self._serve_one_lineage(backoff)
            except Closed:
                return
            except TableNotFound as error:
                self._say(TableState.WAITING, str(error))
                self._on_gone(self.name)
            except BaseNotUsable as error:
                self._say(TableState.WAITING, str(error))
            except (LogGap, LineageChanged) as reason:
                self.measures.fresh_starts.add()
                self._say(TableState.LOADING, f"starting afresh: {reason}")
            except Exception as error:
                is_final = isinstance(error, DamagedLog)
                self._say(TableState.LOADING, str(error), logging.WARNING, is_final=is_final)
            self._stop.wait(backoff.next_seconds())

    def _serve_one_lineage(self, backoff: Backoff) -> None:
        """Open, load and follow until the lineage ends. Raises why it did."""
        opening = self._origin()
        replica, reach_seq = self._open(opening), opening.reach_seq
        replica.measures = self.measures
        with self._lock:
            self._opened = replica
        if self._stop.is_set():  # `close` came too early to find it
            replica.end_sources()
        follower = Follower(replica, self._on_trouble)
        with self._lock:
            self._follower = follower
        follower.start()
        try:
            self._load(replica, follower, reach_seq)
            backoff.reset()
            follower.ended.wait()
            follower.raise_if_ended()
        finally:
            with self._lock:
                self._serving = self._opened = self._follower = self._paused_by = None
                self._state, self._reason = TableState.LOADING, "its history here has ended"
                self.measures.feed_failures.add(replica.log.failure_count)
            follower.close()
            replica.close()

    def _open(self, opening: Opening) -> Replica:
        """A replica that goes on from the state that an earlier process left, or one without a state yet."""
        with ExitStack() as undo:
            undo.callback(opening.close)
            state = reopened(self._workspace, self.name, opening.log, self._settings.native_disk_bytes_max)
            if state is not None:
                undo.callback(state.close)
                if isinstance(opening.base, OnDemandBase):
                    opening.base.resume()
            replica = Replica(
                self.name,
                opening.base,
                opening.log,
                self._workspace,
                start_seq=opening.begin() if state is None else state.visible_seq,
                settings=self._settings,
            )
            undo.pop_all()
        if state is not None:
            try:
                replica.begin_with(state)
            except BaseException:
                replica.close()
                raise
        return replica

    def _load(self, replica: Replica, follower: Follower, reach_seq: int) -> None:
        """Load the base and follow up to `reach_seq`; from then on the table can be read."""
        began = time.monotonic()
        if not replica.is_loaded:
            self._say(TableState.LOADING, "reading its base")
            replica.load()
        self._say(TableState.LOADING, f"catching up from seq {replica.visible_seq} to {reach_seq}")
        while replica.visible_seq < reach_seq:
            follower.raise_if_ended()
            replica.history.wait(reach_seq - 1, WAKE_SECONDS)
        with self._lock:
            self._serving = replica
        self._say(TableState.SERVING, "")
        follower.look_now()
        _log.info(
            "table serving table=%s base_seq=%d visible_seq=%d seconds=%.3f",
            self.name,
            replica.base_seq,
            replica.visible_seq,
            time.monotonic() - began,
        )

    def _on_trouble(self, reason: str) -> None:
        with self._lock:
            is_serving = self._serving is not None
        if is_serving:
            self._say(TableState.DEGRADED if reason else TableState.SERVING, reason)
        elif reason:
            self._say(TableState.LOADING, reason)

    def _say(
        self, state: TableState, reason: str, level: int = logging.INFO, *, is_final: bool = False
    ) -> None:
        """Keep and log how the table is, once as long as it stays so."""
        with self._lock:
            self._is_final = is_final
            if (self._state, self._reason) == (state, reason):
                return
            self._state, self._reason = state, reason
        _log.log(level, "table state table=%s state=%s reason=%s", self.name, state, reason)
