"""What is told of statements: `RunningQuery` while they run, `QueryRecord` to observers once they have ended.

How it is found out: activities.py. An observer is given to `FlightSqlServer.activities`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from flight_replica.errors import Busy, Cancelled, TimedOut

TRACE_HEADERS = ("traceparent", "tracestate")  # W3C Trace Context
SQL_CHARACTERS_MAX = 4096  # of a statement's text that is kept


class QueryKind(StrEnum):
    """What a statement does, as far as it is known: it is a query until it has been planned."""

    QUERY = "query"
    CHANGES = "changes"  # part of a feed
    FOLLOW = "follow"  # a feed without end
    SESSION = "session"  # SET, RESET, USE
    WRITE = "write"
    INGEST = "ingest"


class Phase(StrEnum):
    """Where a statement is."""

    __hash__ = str.__hash__  # an enum's own is Python code, and phases are looked up several times a query

    PLANNING = "planning"
    WAITING = "waiting"  # until a table is where the client demands it
    PLANNED = "planned"  # until its client fetches it
    QUEUED = "queued"  # for one of the queries_max places
    EXECUTING = "executing"
    STREAMING = "streaming"  # until its client takes a batch


class Outcome(StrEnum):
    """How a statement has ended."""

    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"  # by its client, an operator, or since the client has gone
    TIMED_OUT = "timed_out"
    REFUSED = "refused"  # all places under a limit were taken
    ABANDONED = "abandoned"  # planned and never fetched


def outcome_of(error: BaseException | None) -> Outcome:
    match error:
        case None:
            return Outcome.DONE
        case Cancelled():
            return Outcome.CANCELLED
        case TimedOut():
            return Outcome.TIMED_OUT
        case Busy():
            return Outcome.REFUSED
    return Outcome.FAILED


@dataclass(frozen=True, slots=True)
class RunningQuery:
    """A statement under way, as it is at one moment."""

    id: str  # to cancel it by
    kind: QueryKind
    phase: Phase
    sql: str  # its first SQL_CHARACTERS_MAX characters
    user: str  # "" where nobody logs in
    session: str  # the same in all calls of one client: its session's id, or its connection
    peer: str  # the other end of its connection, as gRPC names it
    request_id: str
    started_at_us: int  # µs since 1970, on this host's clock
    seconds: float  # since then
    tables: Sequence[str]
    visible_seqs: Mapping[str, int]  # table -> seq that is read; empty until it is planned
    rows: int  # so far
    bytes: int  # Arrow bytes of them
    lag_us: int = -1  # the largest of the tables that it reads, when it was planned; −1 where one is unknown


@dataclass(frozen=True, slots=True)
class QueryRecord:
    """A statement that has ended. The seconds of its phases leave out what its client took to fetch it."""

    id: str
    kind: QueryKind
    outcome: Outcome
    error: str  # the class of the error, "" without one
    reason: str  # its text, which may quote the statement
    sql: str
    user: str
    session: str
    peer: str
    request_id: str
    trace: Mapping[str, str]  # `traceparent` and `tracestate` of its caller, those that it sent
    started_at_us: int
    ended_at_us: int
    began_at_us: Mapping[Phase, int]  # phase -> when it was in it first; not those that it never was in
    seconds: float  # from its first call to its end
    plan_seconds: float
    wait_seconds: float  # for a position, and for a place to run
    queue_seconds: float  # the part of it for a place to run
    execute_seconds: float
    stream_seconds: float  # in which its client took batches
    tables: Sequence[str]
    visible_seqs: Mapping[str, int]  # table -> seq that was read, or written
    lag_us: int  # the largest of the tables that were read, when they were; −1 where one is unknown, or none
    rows: int  # sent, or changed
    bytes: int


class QueryObserver(Protocol):
    """Hears of statements. Called on the thread that ran them: it has to be quick, and thread-safe."""

    def query_ended(self, record: QueryRecord) -> None: ...
