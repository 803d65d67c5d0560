"""`StandingSessions`: sessions that go on from one view to the next, with the tables that they have bound.

To bind a table costs a third of a small query. A session serves views of just the tables that it has bound
before, so it never offers more than is asked for. One that a statement has changed in any way, or that was
interrupted or failed, isn't used again. Between two views it has no transaction, and keeps nothing alive.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection

import duckdb

from flight_replica.sql.parsed import Parsed

__all__ = ["StandingSession", "StandingSessions"]

IDLE_MAX = 16  # sessions that nobody uses; as many small queries seldom run at once

_COMMIT = Parsed("COMMIT")


class StandingSession:
    """A session inside a transaction, lent to one view. Not thread-safe."""

    def __init__(
        self, owner: StandingSessions, connection: duckdb.DuckDBPyConnection, names: frozenset[str]
    ) -> None:
        self._owner = owner
        self.connection = connection
        self.names = names
        self.relations: dict[str, str] = {}  # name -> the SQL query that is bound by it

    def give_back(self) -> None:
        """For the next view, after a statement that ended well; else its connection is to be closed."""
        self._owner.take_back(self)

    def is_ended(self) -> bool:
        """End the transaction; whether that went well."""
        try:
            _COMMIT.run(self.connection)  # keeps the bound names; else nothing was changed
        except duckdb.Error:
            return False
        return True


class StandingSessions:
    """Of one database. Thread-safe; owns the sessions that are idle."""

    def __init__(self, make: Callable[[], duckdb.DuckDBPyConnection]) -> None:
        self._make = make
        self._lock = threading.Lock()
        self._idle: list[StandingSession] = []  # the oldest first
        self._is_closed = False

    def take(self, names: Collection[str]) -> StandingSession:
        """A session for a view of `names`, without a transaction."""
        wanted = frozenset(names)
        with self._lock:
            for index in reversed(range(len(self._idle))):
                if self._idle[index].names == wanted:
                    return self._idle.pop(index)
        return StandingSession(self, self._make(), wanted)

    def take_back(self, session: StandingSession) -> None:
        """End the session's transaction, and keep it for a later view."""
        dropped = [session]
        if session.is_ended():
            with self._lock:
                if not self._is_closed:
                    self._idle.append(session)
                    dropped = self._idle[:-IDLE_MAX]
                    del self._idle[:-IDLE_MAX]
        for old in dropped:
            old.connection.close()

    def close(self) -> None:
        """End the idle sessions, and those that are given back later. Idempotent."""
        with self._lock:
            self._is_closed = True
            idle, self._idle = self._idle, []
        for session in idle:
            session.connection.close()
