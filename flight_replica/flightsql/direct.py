"""`DirectReads`: statements that reach this server by another way than gRPC, such as the page's.

They are statements like any other: the same sandbox, rights, sessions, limits and places, listed while they
run and told to observers when they have ended. Only nothing can be written.
"""

from __future__ import annotations

import threading
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import pyarrow as pa

from flight_replica.errors import InvalidStatement, ReadOnly
from flight_replica.flightsql.activities import Activities
from flight_replica.flightsql.auth import Login
from flight_replica.flightsql.call import Call
from flight_replica.flightsql.calls import Calls
from flight_replica.flightsql.checking import Write
from flight_replica.flightsql.front import Front
from flight_replica.flightsql.observing import QueryKind
from flight_replica.flightsql.parameters import NO_PARAMETERS
from flight_replica.flightsql.plans import Item
from flight_replica.flightsql.sessions import COOKIE
from flight_replica.position import TablePosition

NO_HEADERS: Mapping[str, str] = {}


class Caller:
    """Who waits for an answer; thread-safe. What is done for him ends when he goes."""

    def __init__(self) -> None:
        self._is_gone = threading.Event()

    def leave(self) -> None:
        self._is_gone.set()

    def is_cancelled(self) -> bool:
        return self._is_gone.is_set()


@dataclass(frozen=True, slots=True)
class DirectAnswer:
    """The answer of a statement while it is read."""

    schema: pa.Schema
    batches: Iterator[pa.RecordBatch]  # to be taken inside the block, as many as are wanted
    positions: Sequence[TablePosition]
    session: str  # what the caller shows next time, so that what he has set is found again


class DirectReads:
    """Of one server. Thread-safe."""

    def __init__(self, front: Front, calls: Calls, activities: Activities) -> None:
        self._front = front
        self._calls = calls
        self._activities = activities

    @contextmanager
    def read(
        self,
        sql: str,
        login: Login,
        caller: Caller,
        *,
        peer: str,
        session: str = "",
        bound: pa.Table = NO_PARAMETERS,
        headers: Mapping[str, str] = NO_HEADERS,
    ) -> Iterator[DirectAnswer]:
        """Run a statement; it is over with the block.

        `session` is that of an answer before, `peer` where the caller is, for people; `bound` has a row of
        parameters, and `headers` are as those of a call. Raises what a Flight client would be told;
        `ReadOnly` for every write, and `InvalidStatement` for a feed without end.
        """
        with self._call(login, caller, peer, session, headers) as call:
            front = self._front.seen_by(call.user)
            with self._activities.planning(call, sql) as activity:
                planner, checks = front.planner, front.planner.checks
                statement = checks.prepare(sql, call) if bound.num_columns else checks.check(sql)
                if isinstance(statement, Write):
                    raise ReadOnly("only reading is possible here; write through a Flight SQL client")
                plan = activity.planned(planner.plan(statement, bound, call))
            try:
                if plan.kind is QueryKind.FOLLOW:
                    raise InvalidStatement(
                        "a feed without end has no answer to show: leave out follow := true"
                    )
                items = plan.batches(call)
                try:
                    yield DirectAnswer(plan.schema, _batches(items), plan.positions, self._shown(call))
                    activity.end(None)  # before the rest is left: the caller has what he wanted
                finally:
                    items.close()
            finally:
                plan.close()

    @contextmanager
    def _call(
        self, login: Login, caller: Caller, peer: str, session: str, given: Mapping[str, str]
    ) -> Iterator[Call]:
        """A call like one by gRPC, watched until the end of the block."""
        self._calls.check_open()
        sessions, user = self._calls.sessions, login.user.name
        cookie = f"{COOKIE}={session}" if session else sessions.cookie(sessions.find({}, user))
        headers = {"cookie": [cookie], **{name: [value] for name, value in given.items()}}
        call = Call(self._calls, login, sessions.find(headers, user), headers, {})
        call.peer = peer
        call.watch(caller)
        try:
            yield call
        except Exception:
            call.check()  # why it was ended, where it was
            raise
        finally:
            call.completed()

    def _shown(self, call: Call) -> str:
        """What leads to the call's session as it is now, after a SET too."""
        sessions, user = self._calls.sessions, call.user.name
        known = {"cookie": [sessions.cookie(call.session)]}
        return sessions.cookie(sessions.find(known, user)).partition("=")[2]


def _batches(items: Generator[Item]) -> Iterator[pa.RecordBatch]:
    for item in items:
        yield item if isinstance(item, pa.RecordBatch) else item[0]
