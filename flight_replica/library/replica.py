"""`Replica`: tables kept fresh inside this process, and queries on them."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from uuid import UUID
from weakref import WeakSet

import pyarrow as pa

from flight_replica.errors import Closed, InvalidStatement, TableNotFound, Unavailable
from flight_replica.flightsql.activities import Activities
from flight_replica.flightsql.auth import Login, OpenLogins
from flight_replica.flightsql.calls import Calls
from flight_replica.flightsql.direct import Caller, DirectReads
from flight_replica.flightsql.front import Front
from flight_replica.flightsql.functions import served_name
from flight_replica.flightsql.limits import DEFAULT_LIMITS
from flight_replica.flightsql.service import TableEntry
from flight_replica.flightsql.sessions import Sessions
from flight_replica.flightsql.statements import Statements
from flight_replica.flightsql.users import ANYBODY
from flight_replica.library.result import Result
from flight_replica.log.wire import encode_name
from flight_replica.position import Demand
from flight_replica.replica.service import ReplicaService

__all__ = ["Freshness", "Replica"]

Parameters = Sequence[object] | Mapping[str, object]

PEER = "this process"
LOOK_SECONDS = 0.05  # how often a table that is still loading is looked at


@dataclass(frozen=True, slots=True)
class Freshness:
    """Where a table stands now."""

    table: str
    lineage: UUID
    seq: int  # the newest op that a query sees
    newest_seq: int  # the newest that is known of
    base_seq: int
    lag_seconds: float | None  # no op older than this is missing; None: not proven
    state: str  # serving, loading, degraded, waiting, …
    reason: str  # why it isn't serving

    @property
    def is_serving(self) -> bool:
        """Whether all is well with it; a degraded table can be queried too, and says why it isn't newer."""
        return self.state == "serving"


class Replica:
    """Tables that follow their origin in the background until `close`. Thread-safe. Made by `open`."""

    def __init__(self, service: ReplicaService) -> None:
        """Owns the service."""
        self._service = service
        sessions = Sessions(DEFAULT_LIMITS)
        self._front = Front(service, Statements(DEFAULT_LIMITS), DEFAULT_LIMITS)
        self._calls = Calls(sessions, self._front.planner.pins.expire, OpenLogins())
        self._reads = DirectReads(self._front, self._calls, Activities())
        self._lock = threading.Lock()
        self._results: WeakSet[Result] = WeakSet()
        self._is_closed = False

    @property
    def tables(self) -> list[str]:
        """The names of the tables that are here, those that are still loading too."""
        self._check_open()
        return [entry.name for entry in self._service.tables()]

    def query(
        self,
        sql: str,
        parameters: Parameters = (),
        *,
        min_seq: int | Mapping[str, int] | None = None,
        max_staleness_seconds: float | None = None,
        wait_seconds: float = 10.0,
    ) -> Result:
        """The rows of one statement that reads.

        `parameters` stand for `?` and `$1`, or by name for `$name`. The answer is as new as `min_seq` says
        (of the one table that is read, or by table) and no older than `max_staleness_seconds`; that is
        waited for up to `wait_seconds`. Raises `InvalidStatement`, `TableNotFound`, `ReadOnly`,
        `Unavailable`, `LimitExceeded`, `TimedOut`, `Closed`.
        """
        headers = {"merutable-wait-timeout-ms": _milliseconds(wait_seconds)}
        if min_seq is not None:
            headers["merutable-min-seq"] = _seqs(min_seq)
        if max_staleness_seconds is not None:
            headers["merutable-max-staleness-ms"] = _milliseconds(max_staleness_seconds)
        caller = Caller()
        with self._lock:
            self._check_open()
        with ExitStack() as ending:
            answer = ending.enter_context(
                self._reads.read(
                    sql, Login(ANYBODY), caller, peer=PEER, bound=_bound(parameters), headers=headers
                )
            )
            result = Result(answer, ending.pop_all(), caller.leave)
        with self._lock:
            if not self._is_closed:
                self._results.add(result)
                return result
        result.close()
        raise Closed("the replica is closed")

    def freshness(self, table: str) -> Freshness:
        """Where a table stands now. Raises `TableNotFound`, `Closed`."""
        self._check_open()
        return _freshness(self._entry(table))

    def wait_for(self, table: str, seq: int = 0, *, timeout_seconds: float = 10.0) -> Freshness:
        """Where a table stands once it can be queried and shows `seq`.

        Raises `Unavailable` when the time is up, `TableNotFound`, `Closed`.
        """
        deadline = time.monotonic() + timeout_seconds
        self.wait_until_serving([table], timeout_seconds)
        demand = Demand(self._entry(table).name, min_seq=seq)
        ending = _Ending(lambda: self._is_closed)
        self._service.wait_for(demand, max(0.0, deadline - time.monotonic()), ending)
        self._check_open()
        found = self._entry(table)
        if not demand.is_met_by(found.position):
            raise Unavailable(demand.not_met(found.position, timeout_seconds * 1000))
        return _freshness(found)

    def wait_until_serving(self, tables: Sequence[str] = (), timeout_seconds: float = 60.0) -> None:
        """Wait until these tables, or all that are here, can be queried. Raises as `wait_for`."""
        deadline = time.monotonic() + timeout_seconds
        while True:
            self._check_open()
            waiting = [name for name in tables or self.tables if self._entry(name).schema is None]
            if not waiting:
                return
            if time.monotonic() >= deadline:
                at = self._entry(waiting[0])
                reason = f": {at.reason}" if at.reason else ""
                raise Unavailable(f"table {at.name!r} is {at.state} after {timeout_seconds:g} s{reason}")
            time.sleep(LOOK_SECONDS)

    def _entry(self, table: str) -> TableEntry:
        name = served_name(self._service, table)
        for entry in self._service.tables():
            if entry.name == name:
                return entry
        raise TableNotFound(f"there is no table {table!r}")

    def _check_open(self) -> None:
        if self._is_closed:
            raise Closed("the replica is closed")

    def close(self) -> None:
        """End open results, following, threads and files. Idempotent."""
        with self._lock:
            if self._is_closed:
                return
            self._is_closed = True
            results = list(self._results)
        for result in results:
            result.close()
        self._calls.close()
        self._front.planner.pins.close()
        self._service.close()

    def __enter__(self) -> Replica:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class _Ending:
    """What ends a wait besides its time."""

    def __init__(self, is_closed: Callable[[], bool]) -> None:
        self._is_closed = is_closed

    @property
    def is_ended(self) -> bool:
        return self._is_closed()

    def check(self) -> None:
        if self.is_ended:
            raise Closed("the replica is closed")

    def on_end(self, interrupt: Callable[[], None]) -> None:
        """Nothing that runs: a wait looks for itself."""


def _freshness(entry: TableEntry) -> Freshness:
    at = entry.position
    return Freshness(
        entry.name,
        at.lineage,
        at.visible_seq,
        max(at.visible_seq, at.high_water),
        at.base_seq,
        at.lag_us / 1e6 if at.lag_us >= 0 else None,
        str(entry.state),
        entry.reason,
    )


def _bound(parameters: Parameters) -> pa.Table:
    """One row of parameters, by name or by number."""
    if isinstance(parameters, str | bytes):
        raise InvalidStatement("parameters are a sequence of values, or a mapping of names to values")
    named = (
        dict(parameters)
        if isinstance(parameters, Mapping)
        else {str(number): value for number, value in enumerate(parameters, 1)}
    )
    try:
        return pa.table({name: pa.array([value]) for name, value in named.items()})
    except (pa.ArrowException, OverflowError) as error:
        raise InvalidStatement(f"a parameter has no form in Arrow: {error}") from error


def _seqs(min_seq: int | Mapping[str, int]) -> str:
    if isinstance(min_seq, Mapping):
        return ",".join(f"{encode_name(table)}={seq}" for table, seq in min_seq.items())
    return str(min_seq)


def _milliseconds(seconds: float) -> str:
    return f"{seconds * 1000:.0f}"
