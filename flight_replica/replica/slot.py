"""`StateSlot`: a replica's current state, swapped as a whole; old ones live as long as they are read."""

from __future__ import annotations

import logging
import threading

from flight_replica.errors import Closed, Unavailable
from flight_replica.state.state import ReplicaState

_log = logging.getLogger(__name__)


class StateSlot:
    """Owns the states put into it. Thread-safe; states are closed outside the lock."""

    def __init__(self, why_empty: str) -> None:
        """Empty at first: until the first `swap` a reader gets `Unavailable` with `why_empty`."""
        self._lock = threading.Lock()
        self._why_empty = why_empty
        self._current: ReplicaState | None = None
        self._is_closed = False
        self._pins: dict[int, int] = {}  # id of a living state -> readers
        self._retired: dict[int, ReplicaState] = {}  # no longer current, still read

    @property
    def current(self) -> ReplicaState:
        state = self._current
        if self._is_closed:
            raise Closed("the replica is closed")
        if state is None:
            raise Unavailable(self._why_empty)
        return state

    @property
    def is_empty(self) -> bool:
        return self._current is None

    def pin(self) -> ReplicaState:
        """The current state, kept alive until `release`."""
        with self._lock:
            state = self.current
            self._pins[id(state)] += 1
            return state

    def release(self, state: ReplicaState) -> None:
        with self._lock:
            self._pins[id(state)] -= 1
            ended = self._end(id(state)) if id(state) in self._retired else None
        _close(ended)

    def swap(self, state: ReplicaState) -> None:
        """Make `state` the current one and let the old one go with its last reader."""
        with self._lock:
            if self._is_closed:
                raise Closed("the replica is closed")
            old, self._current = self._current, state
            self._pins[id(state)] = 0
            ended = self._retire(old)
        _close(ended)

    def close(self) -> None:
        """No further pins; the current state goes with its last reader. Idempotent."""
        with self._lock:
            self._is_closed = True
            old, self._current = self._current, None
            ended = self._retire(old)
        _close(ended)

    @property
    def retired_count(self) -> int:
        """Old states that readers still hold."""
        return len(self._retired)

    def _retire(self, state: ReplicaState | None) -> ReplicaState | None:
        if state is None:
            return None
        self._retired[id(state)] = state
        return self._end(id(state))

    def _end(self, key: int) -> ReplicaState | None:
        if self._pins[key]:
            return None
        del self._pins[key]
        return self._retired.pop(key)


def _close(state: ReplicaState | None) -> None:
    """A failure is told in the log: the last reader has no part in it, nor has the state that serves."""
    if state is None:
        return
    try:
        state.close()
    except Exception:
        _log.exception("old state not closed")
