"""Handles: plans that wait for their DoGet, and prepared statements. See plans.py, checking.py.

Handles are random, so that nobody can guess another client's, and belong to the user who made them: to
others they aren't there. A plan is handed out once, and only while its user may read what he could when it
was made.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import pyarrow as pa

from flight_replica.errors import Busy, LimitExceeded, StatementNotFound
from flight_replica.flightsql.checking import Statement
from flight_replica.flightsql.limits import ServerLimits
from flight_replica.flightsql.parameters import NO_PARAMETERS
from flight_replica.flightsql.plans import Plan
from flight_replica.flightsql.secret_names import secret_name
from flight_replica.flightsql.users import EVERY_TABLE, TableNames


@dataclass(slots=True)
class Prepared:
    """A prepared statement of a client. `bound` is what was bound last; each bind replaces it."""

    statement: Statement
    sql: str  # its text, as it came
    owner: str = ""  # the user who prepared it
    transaction_id: bytes = b""  # in which it was prepared; empty: in none
    bound: pa.Table = field(default_factory=lambda: NO_PARAMETERS)
    used_at: float = 0.0  # monotonic seconds


@dataclass(frozen=True, slots=True)
class _Waiting:
    plan: Plan
    owner: str
    readable: TableNames  # by its owner when it was made
    planned_at: float


class Statements:
    """The handles of one server. Thread-safe; owns the plans that weren't fetched yet."""

    def __init__(self, limits: ServerLimits, now: Callable[[], float] = time.monotonic) -> None:
        self._limits = limits
        self._now = now
        self._lock = threading.Lock()
        self._waiting: dict[bytes, _Waiting] = {}
        self._prepared: dict[bytes, Prepared] = {}

    def of(self, owner: str, readable: TableNames = EVERY_TABLE) -> Handles:
        """The handles of the user `owner`, who may read `readable` now."""
        return Handles(self, owner, readable)

    @property
    def planned(self) -> int:
        """Plans that wait for their DoGet now."""
        return len(self._waiting)

    @property
    def prepared_open(self) -> int:
        """Prepared statements open now."""
        return len(self._prepared)

    # --- plans ------------------------------------------------------------------------------------

    def keep(self, plan: Plan, owner: str = "", readable: TableNames = EVERY_TABLE) -> bytes:
        """The handle under which `plan` can be fetched once. Raises `Busy`, then it is closed."""
        handle = secret_name()
        with self._lock:
            is_full = len(self._waiting) >= self._limits.planned_max
            if not is_full:
                self._waiting[handle] = _Waiting(plan, owner, readable, self._now())
        if is_full:
            plan.close()
            raise Busy(f"{self._limits.planned_max} planned statements wait to be fetched (planned_max)")
        return handle

    def fetch(self, handle: bytes, owner: str = "", readable: TableNames = EVERY_TABLE) -> Plan:
        """The plan, which is its caller's from now on. Raises `StatementNotFound`."""
        with self._lock:
            waiting = self._waiting.get(handle)
            if waiting is not None and (waiting.owner, waiting.readable) != (owner, readable):
                waiting = None
            if waiting is not None:
                del self._waiting[handle]
        if waiting is None:
            raise StatementNotFound(
                "the ticket is unknown, was fetched already, or its statement waited for longer than "
                f"planned_seconds, {self._limits.planned_seconds:g} s; plan it again"
            )
        return waiting.plan

    # --- prepared statements ----------------------------------------------------------------------

    def prepare(
        self, statement: Statement, owner: str = "", transaction_id: bytes = b"", sql: str = ""
    ) -> bytes:
        """The handle of a new prepared statement. Raises `LimitExceeded`."""
        handle = secret_name()
        with self._lock:
            if len(self._prepared) >= self._limits.prepared_max:
                raise LimitExceeded(
                    f"{self._limits.prepared_max} prepared statements are open (prepared_max); close some"
                )
            self._prepared[handle] = Prepared(statement, sql, owner, transaction_id, used_at=self._now())
        return handle

    def prepared(self, handle: bytes, owner: str = "") -> Prepared:
        """The statement of this handle. Raises `StatementNotFound`."""
        with self._lock:
            found = self._prepared.get(handle)
            if found is not None and found.owner != owner:
                found = None
            if found is not None:
                found.used_at = self._now()
        if found is None:
            raise StatementNotFound("the prepared statement is unknown, closed or expired; prepare it again")
        return found

    def bind(self, handle: bytes, bound: pa.Table, owner: str = "") -> None:
        """Bind parameters in the place of others. Raises `StatementNotFound`, `LimitExceeded`."""
        prepared = self.prepared(handle, owner)
        with self._lock:
            held = sum(other.bound.nbytes for other in self._prepared.values() if other is not prepared)
            if held + bound.nbytes > self._limits.bound_bytes_total_max:
                raise LimitExceeded(
                    f"{held} bytes of parameters are bound to prepared statements, bound_bytes_total_max is "
                    f"{self._limits.bound_bytes_total_max} bytes; close some"
                )
            prepared.bound = bound

    def close_prepared(self, handle: bytes, owner: str = "") -> None:
        """Forget a prepared statement; nothing for one that isn't there."""
        with self._lock:
            found = self._prepared.get(handle)
            if found is not None and found.owner == owner:
                del self._prepared[handle]

    # --- life -------------------------------------------------------------------------------------

    def expire(self) -> None:
        """Let go of plans and prepared statements whose time is over."""
        now = self._now()
        with self._lock:
            late = [
                handle
                for handle, waiting in self._waiting.items()
                if now - waiting.planned_at >= self._limits.planned_seconds
            ]
            plans = [self._waiting.pop(handle).plan for handle in late]
            for handle, prepared in list(self._prepared.items()):
                if now - prepared.used_at >= self._limits.prepared_idle_seconds:
                    del self._prepared[handle]
        for plan in plans:
            plan.close()

    def close(self) -> None:
        """Let go of everything."""
        with self._lock:
            plans = [waiting.plan for waiting in self._waiting.values()]
            self._waiting.clear()
            self._prepared.clear()
        for plan in plans:
            plan.close()


class Handles:
    """The handles of one user: what others made isn't there. Errors and limits are those of `Statements`."""

    def __init__(self, statements: Statements, owner: str, readable: TableNames) -> None:
        self._statements = statements
        self._owner = owner
        self._readable = readable

    def keep(self, plan: Plan) -> bytes:
        return self._statements.keep(plan, self._owner, self._readable)

    def fetch(self, handle: bytes) -> Plan:
        return self._statements.fetch(handle, self._owner, self._readable)

    def prepare(self, statement: Statement, transaction_id: bytes = b"", sql: str = "") -> bytes:
        return self._statements.prepare(statement, self._owner, transaction_id, sql)

    def prepared(self, handle: bytes) -> Prepared:
        return self._statements.prepared(handle, self._owner)

    def bind(self, handle: bytes, bound: pa.Table) -> None:
        self._statements.bind(handle, bound, self._owner)

    def close_prepared(self, handle: bytes) -> None:
        self._statements.close_prepared(handle, self._owner)
