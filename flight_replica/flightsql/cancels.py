"""CancelFlightInfo and CancelQuery: a client ends a statement by the FlightInfo that it got for it.

The first is a message of the base protocol, without an Any; the second is Flight SQL's older way. A
statement that waits for its DoGet is let go; one that runs is interrupted, from whatever connection of the
same user the cancel comes. Clients that drop their stream instead: calls.py.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass

from flight_replica._pb import flight_cancel_pb2 as base_pb
from flight_replica._pb import flight_sql_pb2 as pb
from flight_replica.errors import Cancelled, InvalidStatement, StatementNotFound
from flight_replica.flightsql.call import Call
from flight_replica.flightsql.commands import pack, parsed, unpack
from flight_replica.flightsql.plans import Plan
from flight_replica.flightsql.statements import Handles

CANCEL_FLIGHT_INFO, CANCEL_QUERY = "CancelFlightInfo", "CancelQuery"
RENEW_ENDPOINT = "RenewFlightEndpoint"
CANCEL_ACTIONS = {
    CANCEL_FLIGHT_INFO: "Ends the statement of a FlightInfo.",
    CANCEL_QUERY: "Ends the statement of a FlightInfo; the older way.",
}
TICKETS_MAX = 1024  # endpoints of one FlightInfo; this server gives one

_ANSWER_SECONDS = 1.0  # how long a cancel waits to be able to say that the statement has ended
_LOOK_SECONDS = 0.01

_CANCELLED = base_pb.CANCEL_STATUS_CANCELLED
_CANCELLING = base_pb.CANCEL_STATUS_CANCELLING
_NOT_CANCELLABLE = base_pb.CANCEL_STATUS_NOT_CANCELLABLE


@dataclass(frozen=True, slots=True)
class _Run:
    plan: Plan
    owner: str
    call: Call
    over: threading.Event


class Running:
    """The DoGets of statements under way. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._runs: dict[bytes, _Run] = {}  # handle of the ticket -> its run

    @property
    def count(self) -> int:
        return len(self._runs)

    def add(self, handle: bytes, plan: Plan, call: Call) -> None:
        """`plan` is run by `call`; when that completes it is closed, also where it never began to run."""
        run = _Run(plan, call.user.name, call, threading.Event())
        with self._lock:
            self._runs[handle] = run
        call.on_completed(lambda: self._completed(handle, run))

    def _completed(self, handle: bytes, run: _Run) -> None:
        with self._lock:
            self._runs.pop(handle, None)
        try:
            run.plan.close()
        finally:
            run.over.set()

    def end(self, handle: bytes, owner: str) -> int | None:
        """End a run of this owner; the cancel's status, None where there is no such run."""
        with self._lock:
            run = self._runs.get(handle)
        if run is None or run.owner != owner:
            return None
        run.call.end(Cancelled("the statement was cancelled"))
        deadline = time.monotonic() + _ANSWER_SECONDS
        while not run.over.wait(_LOOK_SECONDS) and not run.plan.is_over:
            if time.monotonic() >= deadline:
                return int(_CANCELLING)
        return int(_CANCELLED)


def cancel_action(name: str, body: bytes, running: Running, handles: Handles, owner: str) -> bytes:
    """The serialized result of one of `CANCEL_ACTIONS`.

    Raises `StatementNotFound` for a statement that has ended, was never planned or is somebody else's,
    `InvalidStatement` for what is no FlightInfo.
    """
    if name == CANCEL_FLIGHT_INFO:
        request = parsed(base_pb.CancelFlightInfoRequest(), body, f"action {name}")
        status = _cancel(request.info, running, handles, owner)
        return bytes(base_pb.CancelFlightInfoResult(status=status).SerializeToString())
    query = unpack(body, f"action {name}")
    if not isinstance(query, pb.ActionCancelQueryRequest):
        raise InvalidStatement(f"action {name} with a {query.DESCRIPTOR.name}")
    info = parsed(base_pb.FlightInfo(), query.info, f"action {name}, its info")
    return pack(pb.ActionCancelQueryResult(result=_cancel(info, running, handles, owner)))


def _cancel(info: base_pb.FlightInfo, running: Running, handles: Handles, owner: str) -> int:
    if not 1 <= len(info.endpoint) <= TICKETS_MAX:
        raise InvalidStatement(
            f"a FlightInfo with {len(info.endpoint)} endpoints; one to cancel has 1 to {TICKETS_MAX}"
        )
    # The least that holds for all of them, in this order: not cancellable, cancelling, cancelled.
    order = (_NOT_CANCELLABLE, _CANCELLING, _CANCELLED)
    found = [_cancel_ticket(end.ticket.ticket, running, handles, owner) for end in info.endpoint]
    return min(found, key=order.index)


def _cancel_ticket(ticket: bytes, running: Running, handles: Handles, owner: str) -> int:
    command = unpack(ticket, "the ticket to cancel")
    if not isinstance(command, pb.TicketStatementQuery):
        return int(_NOT_CANCELLABLE)  # a catalog command: there is nothing that runs
    status = running.end(command.statement_handle, owner)
    if status is not None:
        return status
    try:
        handles.fetch(command.statement_handle).close()
    except StatementNotFound:
        raise StatementNotFound(
            "nothing to cancel: the statement of this ticket has ended, or was never planned"
        ) from None
    return int(_CANCELLED)
