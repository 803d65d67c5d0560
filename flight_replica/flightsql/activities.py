"""`Activities`: the statements of one server that are under way, from their first call to their last batch.

An `Activity` goes with a statement from the call that plans it to the one that fetches its rows, and hears
from both where it is. It is how an operator sees a statement and ends it. What is told: observing.py.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pyarrow as pa

from flight_replica.errors import Cancelled, ReplicaError, StatementNotFound
from flight_replica.flightsql.observing import (
    SQL_CHARACTERS_MAX,
    TRACE_HEADERS,
    Outcome,
    Phase,
    QueryKind,
    QueryObserver,
    QueryRecord,
    RunningQuery,
    outcome_of,
)
from flight_replica.position import TablePosition

if TYPE_CHECKING:
    from flight_replica.flightsql.call import Call
    from flight_replica.flightsql.plans import Item, Plan

logger = logging.getLogger(__name__)

_GONE = "the client has gone"
_NO_SECONDS = dict.fromkeys(Phase, 0.0)


Moment = tuple[int, float]  # µs since 1970, and monotonic seconds


def _now() -> Moment:
    return time.time_ns() // 1000, time.monotonic()


class Activities:
    """Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._running: dict[str, Activity] = {}  # id -> a statement that hasn't ended
        self._observers: tuple[QueryObserver, ...] = ()

    def add_observer(self, observer: QueryObserver) -> None:
        """Tell `observer` of every statement that ends from now on."""
        with self._lock:
            self._observers = (*self._observers, observer)

    def running(self) -> list[RunningQuery]:
        """The statements under way, the oldest first."""
        with self._lock:
            found = list(self._running.values())
        return [activity.describe() for activity in found]

    def cancel(self, query_id: str, reason: ReplicaError) -> None:
        """End a statement; its client is told `reason`. Raises `StatementNotFound`."""
        with self._lock:
            activity = self._running.get(query_id)
        if activity is None:
            raise StatementNotFound(f"query {query_id[:80]!r} isn't running: it has ended, or never was")
        activity.cancel(reason)

    def planning(self, call: Call, sql: str, kind: QueryKind = QueryKind.QUERY) -> Activity:
        """A statement begins; as a context it ends with an error of the block."""
        activity = Activity(self, self._new_id(), call, sql, kind, _now())
        call.activity = activity
        with self._lock:
            self._running[activity.id] = activity
        return activity

    def checking(self, call: Call, sql: str) -> _Checking:
        """A statement is only prepared: where the block fails it has ended, else nothing is told of it."""
        return _Checking(self, call, sql)

    def failed(self, call: Call, sql: str, began: Moment, error: BaseException) -> None:
        """A statement has ended that was never under way."""
        Activity(self, self._new_id(), call, sql, QueryKind.QUERY, began).end(error)

    @contextmanager
    def doing(self, call: Call, sql: str, kind: QueryKind) -> Iterator[Activity]:
        """A statement that is over with the block."""
        with self.planning(call, sql, kind) as activity:
            activity.enter(Phase.EXECUTING)
            yield activity
            activity.end(None)

    def _new_id(self) -> str:
        return f"{random.getrandbits(32):08x}"  # short enough to be typed, and no secret

    def ended(self, activity: Activity, record: QueryRecord) -> None:
        """Forget it, and tell the observers."""
        with self._lock:
            self._running.pop(activity.id, None)
            observers = self._observers
        for observer in observers:
            try:
                observer.query_ended(record)
            except Exception:  # the statement's client has no part in it
                logger.exception("observer failed query=%s", record.id)


class _Checking:
    """A block that checks a statement. No generator, as each small query passes it."""

    def __init__(self, owner: Activities, call: Call, sql: str) -> None:
        self._owner = owner
        self._call = call
        self._sql = sql
        self._began = _now()

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if error is not None:
            self._owner.failed(self._call, self._sql, self._began, error)


class Activity:
    """One statement. Thread-safe; it ends once. As a context it ends with an error of the block."""

    def __init__(
        self,
        owner: Activities,
        query_id: str,
        call: Call,
        sql: str,
        kind: QueryKind,
        began: Moment,
    ) -> None:
        """`began`: when it did, as of `_now`."""
        self.id = query_id
        self._owner = owner
        self._lock = threading.Lock()
        self._sql = sql[:SQL_CHARACTERS_MAX]
        self._kind = kind
        self._user = call.user.name
        self._session = call.origin
        self._peer = call.peer
        self._request_id = call.request_id
        self._trace = _trace_of(call)
        self._call: Call | None = call  # that does its work now; None while it waits to be fetched
        self._plan: Plan | None = None
        self._reason: ReplicaError | None = None  # why it has to end; None: it may go on
        self._is_ended = False
        self._tables: Sequence[str] = ()
        self._visible_seqs: Mapping[str, int] = {}
        self._lag_us = -1
        self._rows = self._bytes = 0
        self._started_at_us, self._began = began
        self._entered = self._began
        self._phase = Phase.PLANNING
        self._seconds = _NO_SECONDS.copy()  # phase -> seconds in it, without the present one
        self._first_entered = {Phase.PLANNING: self._began}  # phase -> monotonic seconds

    def __enter__(self) -> Activity:
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if error is not None:
            self.end(error)

    # --- what its calls say -----------------------------------------------------------------------

    def enter(self, phase: Phase) -> Phase:
        """It is in `phase` from now on; the phase before."""
        now = time.monotonic()
        with self._lock:
            before = self._phase
            self._seconds[before] += now - self._entered
            self._phase, self._entered = phase, now
            self._first_entered.setdefault(phase, now)
        return before

    def reads(self, tables: Sequence[str]) -> None:
        """It reads these tables."""
        self._tables = tuple(tables)

    def wrote(self, kind: QueryKind, table: str, seq: int | None, rows: int) -> None:
        """It has changed so many rows of `table`; `seq` None: they aren't committed yet."""
        self._kind, self._tables, self._rows = kind, (table,), rows
        self._visible_seqs = {table: seq} if seq is not None else {}

    def planned(self, plan: Plan) -> Plan:
        """It waits to be fetched as the plan that is returned; one that is done already has ended."""
        self._kind = plan.kind
        if plan.kind in (QueryKind.SESSION, QueryKind.WRITE):
            self.end(None)
            return plan
        self._note(plan.positions)
        watched = WatchedPlan(plan, self)
        self.enter(Phase.PLANNED)
        with self._lock:
            self._call, self._plan = None, watched
        return watched

    def _note(self, positions: Sequence[TablePosition]) -> None:
        if positions:
            self._tables = tuple(at.table for at in positions)
            self._visible_seqs = {at.table: at.visible_seq for at in positions}
            lags = [at.lag_us for at in positions]
            self._lag_us = max(lags) if min(lags) >= 0 else -1

    def run_by(self, call: Call) -> None:
        """`call` fetches it. Raises why it has to end, where it was cancelled before."""
        with self._lock:
            self._call, self._peer, self._request_id = call, call.peer, call.request_id
            reason = self._reason
        if reason is not None:
            raise reason
        self._trace = self._trace or _trace_of(call)
        call.activity = self
        self.enter(Phase.EXECUTING)

    def offers(self, rows: pa.RecordBatch | pa.Table, bytes_so_far: int | None) -> None:
        """Rows wait for its client. `bytes_so_far`: of all rows, where the plan counts them itself."""
        self._rows += rows.num_rows
        self._bytes = self._bytes + rows.nbytes if bytes_so_far is None else bytes_so_far
        self.enter(Phase.STREAMING)

    # --- its end ----------------------------------------------------------------------------------

    def cancel(self, reason: ReplicaError) -> None:
        """Let it end with `reason`; it has ended soon after."""
        with self._lock:
            self._reason = self._reason or reason
            call, plan = self._call, self._plan
        if call is not None:
            call.end(reason)
        elif plan is not None:
            plan.close()

    def close(self) -> None:
        """It ends now, if it hasn't: nobody has fetched it, or its client has gone."""
        with self._lock:
            call, reason = self._call, self._reason
        if call is not None:
            self.end(reason or call.reason or Cancelled(_GONE))
        else:
            self.end(reason, Outcome.ABANDONED if reason is None else None)

    def end(self, error: BaseException | None, outcome: Outcome | None = None) -> None:
        """It has ended with `error`, None: well. Only the first time counts."""
        with self._lock:
            if self._is_ended:
                return
            self._is_ended = True
        self.enter(self._phase)
        self._owner.ended(self, self._record(error, outcome or outcome_of(error)))

    def _record(self, error: BaseException | None, outcome: Outcome) -> QueryRecord:
        seconds = self._seconds
        return QueryRecord(
            id=self.id,
            kind=self._kind,
            outcome=outcome,
            error=type(error).__name__ if error is not None else "",
            reason=str(error) if error is not None else "",
            sql=self._sql,
            user=self._user,
            session=self._session,
            peer=self._peer,
            request_id=self._request_id,
            trace=self._trace,
            started_at_us=self._started_at_us,
            ended_at_us=self._wall_us(self._entered),
            began_at_us={phase: self._wall_us(at) for phase, at in dict(self._first_entered).items()},
            seconds=self._entered - self._began,
            plan_seconds=seconds[Phase.PLANNING],
            wait_seconds=seconds[Phase.WAITING] + seconds[Phase.QUEUED],
            queue_seconds=seconds[Phase.QUEUED],
            execute_seconds=seconds[Phase.EXECUTING],
            stream_seconds=seconds[Phase.STREAMING],
            tables=self._tables,
            visible_seqs=self._visible_seqs,
            lag_us=self._lag_us,
            rows=self._rows,
            bytes=self._bytes,
        )

    def _wall_us(self, at: float) -> int:
        """µs since 1970 at a monotonic time."""
        return self._started_at_us + int((at - self._began) * 1e6)

    def describe(self) -> RunningQuery:
        """How it is now."""
        return RunningQuery(
            id=self.id,
            kind=self._kind,
            phase=self._phase,
            sql=self._sql,
            user=self._user,
            session=self._session,
            peer=self._peer,
            request_id=self._request_id,
            started_at_us=self._started_at_us,
            seconds=time.monotonic() - self._began,
            tables=self._tables,
            visible_seqs=self._visible_seqs,
            rows=self._rows,
            bytes=self._bytes,
            lag_us=self._lag_us,
        )


def _trace_of(call: Call) -> dict[str, str]:
    found = {name: call.header(name) for name in TRACE_HEADERS}
    return {name: value for name, value in found.items() if value is not None}


class WatchedPlan:
    """A plan whose activity hears how it runs. Otherwise the plan itself."""

    def __init__(self, plan: Plan, activity: Activity) -> None:
        self._plan = plan
        self._activity = activity
        self._answering: Call | None = None  # that has all the rows
        self.schema = plan.schema
        self.app_metadata = plan.app_metadata
        self.kind = plan.kind
        self.positions = plan.positions

    @property
    def timeout_ms(self) -> float | None:
        return self._plan.timeout_ms

    @timeout_ms.setter
    def timeout_ms(self, value: float | None) -> None:
        self._plan.timeout_ms = value

    @property
    def bytes_so_far(self) -> int | None:
        return self._plan.bytes_so_far

    @property
    def is_over(self) -> bool:
        return self._plan.is_over

    def answer(self, call: Call) -> pa.Table | None:
        rows = self._plan.answer(call)
        if rows is not None:
            self._activity.run_by(call)
            self._activity.offers(rows, self._plan.bytes_so_far)
            self._answering = call
        return rows

    def batches(self, call: Call) -> Generator[Item]:
        activity = self._activity
        error: BaseException | None = None
        try:
            activity.run_by(call)
            items = self._plan.batches(call)
            try:
                for item in items:
                    rows = item if isinstance(item, pa.RecordBatch) else item[0]
                    activity.offers(rows, self._plan.bytes_so_far)
                    yield item
                    activity.enter(Phase.EXECUTING)
            finally:
                items.close()
        except GeneratorExit:  # nobody takes the rest
            error = call.reason or Cancelled(_GONE)
            raise
        except BaseException as raised:
            error = call.reason or raised
            raise
        finally:
            activity.end(error)

    def close(self) -> None:
        self._plan.close()
        if self._answering is not None:
            self._activity.end(self._answering.reason)
        self._activity.close()
