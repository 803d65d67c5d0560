"""`Control`: what an operator can ask and change, whichever way he comes: gRPC, HTTP or a page.

Each method takes the user who asks. Where nobody logs in, everybody may do everything; else one without the
admin right sees the tables that he may read and his own statements, sessions and pins, and may end those.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version

from flight_replica.control.slow_queries import SlowQueries
from flight_replica.control.status import PinStatus, ServerInfo, SessionStatus, TableStatus, table_status
from flight_replica.control.steering import NewTable, Rebased, Steering
from flight_replica.errors import (
    Cancelled,
    Forbidden,
    InvalidStatement,
    StatementNotFound,
    TableNotFound,
    Unsupported,
)
from flight_replica.flightsql.observing import QueryRecord, RunningQuery
from flight_replica.flightsql.server import FlightSqlServer
from flight_replica.flightsql.service import Service
from flight_replica.flightsql.users import User
from flight_replica.logs.setup import LEVELS, set_level
from flight_replica.logs.setup import level as present_level

logger = logging.getLogger(__name__)


class Control:
    """The facade of one server. Thread-safe; owns nothing but the list of slow queries.

    Errors: `Forbidden` for a change that isn't the user's to make, `Unsupported` for one that this kind of
    server can't make, `TableNotFound` and `StatementNotFound` for what isn't there, or isn't his.
    """

    def __init__(
        self,
        server: FlightSqlServer,
        service: Service,
        steering: Steering | None,
        *,
        slow_seconds: float = 1.0,
    ) -> None:
        self._server = server
        self._service = service
        self._steering = steering
        self._began = time.monotonic()
        self._started_at_us = time.time_ns() // 1000
        self._addresses: dict[str, str] = {}
        self._is_draining = False
        self.slow = SlowQueries(slow_seconds)
        server.activities.add_observer(self.slow)

    # --- the server -------------------------------------------------------------------------------

    def serves(self, what: str, uri: str) -> None:
        """The server is to be found at one more address."""
        self._addresses = {**self._addresses, what: uri}

    def begin_draining(self) -> None:
        """The server is about to end."""
        self._is_draining = True

    @property
    def is_draining(self) -> bool:
        return self._is_draining

    def server(self) -> ServerInfo:
        """For anybody who is let in."""
        return ServerInfo(
            product=self._service.product,
            version=version("flight-replica"),
            pid=os.getpid(),
            started_at_us=self._started_at_us,
            uptime_seconds=time.monotonic() - self._began,
            addresses=self._addresses,
            is_draining=self._is_draining,
        )

    def log_level(self, user: User) -> str:
        self._check_admin(user, "see the log level")
        return present_level()

    def set_log_level(self, user: User, level: str) -> str:
        """The level before. Raises `InvalidStatement`."""
        self._check_admin(user, "change the log level")
        if level not in LEVELS:
            raise InvalidStatement(f"log level {level[:40]!r}: expected one of {', '.join(LEVELS)}")
        before = self.log_level(user)
        set_level(level)
        self._log(user, "log level", logging.WARNING, before=before, after=level)
        return before

    # --- tables -----------------------------------------------------------------------------------

    def tables(self, user: User) -> list[TableStatus]:
        """Of those that the user may read, by name."""
        return [status for status in self.every_table() if status.name in user.read]

    def every_table(self) -> list[TableStatus]:
        """For the process itself, such as its health."""
        details = {}
        if self._steering is not None:
            details = {found.table: found for found in self._steering.details()}
        return [table_status(entry, details.get(entry.name)) for entry in self._service.tables()]

    def table(self, user: User, name: str) -> TableStatus:
        """One table."""
        for status in self.tables(user):
            if status.name == name:
                return status
        raise TableNotFound(f"there is no table {name!r}")

    def pause(self, user: User, table: str) -> TableStatus:
        """Apply nothing to the table from now on. It is answered as it stands, and says how old that is."""
        steering = self._steer(user, "pause", table)
        steering.pause(table, user.name or "an operator")
        self._log(user, "pause", table=table)
        return self.table(user, table)

    def resume(self, user: User, table: str) -> TableStatus:
        """Follow the table again."""
        steering = self._steer(user, "resume", table)
        steering.resume(table)
        self._log(user, "resume", table=table)
        return self.table(user, table)

    def rebase(self, user: User, table: str) -> Rebased:
        """Adopt the newest base now; returns when it is done, while the old state serves.

        Raises `Paused`, and what a base that can't be taken raises.
        """
        steering = self._steer(user, "rebase", table)
        self._log(user, "rebase", table=table)
        return self._told(user, "rebase", table, lambda: steering.rebase(table))

    def compact(self, user: User, table: str) -> Rebased:
        """Make the table's state anew, in the order of its key; returns when it is done."""
        steering = self._steer(user, "compact", table)
        self._log(user, "compact", table=table)
        return self._told(user, "compact", table, lambda: steering.compact(table))

    def _told(self, user: User, what: str, table: str, do: Callable[[], Rebased]) -> Rebased:
        done = do()
        self._log(
            user,
            f"{what} done",
            table=table,
            base_seq=done.base_seq,
            visible_seq=done.visible_seq,
            seconds=round(done.seconds, 3),
        )
        return done

    def add_table(self, user: User, table: str, options: Mapping[str, str] | None = None) -> None:
        """Serve one more table: of the primary that is followed, or as `options` state it (`NewTable`).

        Until the server is started anew. Raises `AlreadyExists`, `ConfigError`.
        """
        steering = self._steering_for(user, "add a table")
        if table not in user.read:
            raise TableNotFound(f"there is no table {table!r}")
        steering.add(NewTable(table, options or {}))
        self._log(user, "add", table=table)

    def remove_table(self, user: User, table: str) -> None:
        """Serve a table no longer, until the server is started anew."""
        steering = self._steer(user, "remove", table)
        steering.remove(table)
        self._log(user, "remove", logging.WARNING, table=table)

    def _steer(self, user: User, what: str, table: str) -> Steering:
        steering = self._steering_for(user, f"{what} table {table!r}")
        self.table(user, table)
        return steering

    def _steering_for(self, user: User, what: str) -> Steering:
        self._check_admin(user, what)
        if self._steering is None:
            raise Unsupported(f"a {self._service.product} can't {what}: that is for a replica")
        return self._steering

    # --- statements -------------------------------------------------------------------------------

    def queries(self, user: User) -> list[RunningQuery]:
        """Under way, the oldest first."""
        return [query for query in self._server.activities.running() if self._may_see(user, query.user)]

    def cancel(self, user: User, query_id: str) -> RunningQuery:
        """End a statement; its client gets CANCELLED with the name of who did it. What was ended."""
        for query in self.queries(user):
            if query.id == query_id:
                break
        else:
            raise StatementNotFound(f"query {query_id[:80]!r} isn't running: it has ended, or never was")
        by = f"by {user.name!r}" if user.name else "by an operator"
        self._server.activities.cancel(query_id, Cancelled(f"the statement was cancelled {by}"))
        self._log(user, "cancel", query=query_id, owner=query.user)
        return query

    def slow_queries(self, user: User) -> list[QueryRecord]:
        """Those that took at least `slow.slow_seconds`, the newest first."""
        return [record for record in self.slow.newest_first() if self._may_see(user, record.user)]

    # --- sessions and pins ------------------------------------------------------------------------

    def sessions(self, user: User) -> list[SessionStatus]:
        """Clients that hold something, or run a statement."""
        return [status for status in self._every_session() if self._may_see(user, status.user)]

    def _every_session(self) -> Sequence[SessionStatus]:
        running: dict[tuple[str, str], int] = {}
        for query in self._server.activities.running():
            running[query.session, query.user] = running.get((query.session, query.user), 0) + 1
        transactions = self._server.transactions.count_by_origin()
        kept = {(found.id, found.user): found for found in self._server.sessions.kept()}
        ids = {*running, *kept, *transactions}
        return [
            SessionStatus(
                id=session_id,
                user=owner,
                options=sorted(kept[session_id, owner].values) if (session_id, owner) in kept else (),
                idle_seconds=(
                    kept[session_id, owner].idle_seconds
                    if (session_id, owner) in kept and (session_id, owner) not in running
                    else 0.0
                ),
                queries=running.get((session_id, owner), 0),
                transactions=transactions.get((session_id, owner), 0),
            )
            for session_id, owner in sorted(ids)
        ]

    def end_session(self, user: User, session_id: str) -> SessionStatus:
        """End a client's statements and transactions, and forget what it has set. What was ended."""
        found = next((status for status in self.sessions(user) if status.id == session_id), None)
        if found is None:
            raise StatementNotFound(f"there is no session {session_id[:80]!r}")
        by = f"by {user.name!r}" if user.name else "by an operator"
        self._server.sessions.drop(session_id)
        for query in self._server.activities.running():
            if (query.session, query.user) == (session_id, found.user):
                self._cancel_if_there(query.id, Cancelled(f"the session was ended {by}"))
        self._server.transactions.close_origin(session_id, found.user)
        self._log(user, "end session", session=session_id, owner=found.user)
        return found

    def _cancel_if_there(self, query_id: str, reason: Cancelled) -> None:
        try:
            self._server.activities.cancel(query_id, reason)
        except StatementNotFound:
            logger.debug("ended by itself query=%s", query_id)

    def pins(self, user: User) -> list[PinStatus]:
        """Named pins that are open."""
        return [
            PinStatus(found.user, found.name, found.age_seconds, found.idle_seconds, found.visible_seqs)
            for found in self._server.pins.listed()
            if self._may_see(user, found.user)
        ]

    def release_pin(self, user: User, owner: str, name: str) -> None:
        """End a named pin; statements on it come to their end, and later ones are told who ended it."""
        is_there = any((found.user, found.name) == (owner, name) for found in self.pins(user))
        if not is_there:
            raise StatementNotFound(f"there is no pin {name[:80]!r}")
        self._server.pins.end(owner, name, f"{user.name or 'an operator'} ended it")
        self._log(user, "release pin", pin=name, owner=owner)

    # --- who may ----------------------------------------------------------------------------------

    def _may_see(self, user: User, owner: str) -> bool:
        return user.may_administer or user.name == owner

    def _check_admin(self, user: User, what: str) -> None:
        if not user.may_administer:
            raise Forbidden(f"user {user.name!r} may not {what}: that takes the right admin")

    def _log(self, user: User, change: str, level: int = logging.INFO, **fields: object) -> None:
        template = "control change=%s by=%s" + "".join(f" {name}=%s" for name in fields)
        logger.log(level, template, change, user.name or "anybody", *fields.values())
