"""The actions of Flight SQL: statements that are prepared, transactions, sessions, cancels, pins."""

from __future__ import annotations

import pyarrow as pa
from google.protobuf.message import Message
from pyarrow import flight

from flight_replica._pb import flight_sql_pb2 as pb
from flight_replica.errors import InvalidStatement
from flight_replica.flightsql.activities import Activities
from flight_replica.flightsql.call import Call
from flight_replica.flightsql.cancels import CANCEL_ACTIONS, RENEW_ENDPOINT, Running, cancel_action
from flight_replica.flightsql.checking import Statement, Write
from flight_replica.flightsql.commands import pack, unpack
from flight_replica.flightsql.front import Front
from flight_replica.flightsql.parameter_types import announced
from flight_replica.flightsql.pins import END_PIN
from flight_replica.flightsql.session_actions import CLOSE, SESSION_ACTIONS, SessionActions
from flight_replica.flightsql.status import Unimplemented
from flight_replica.flightsql.transactions import Transactions
from flight_replica.flightsql.writes import SEQ_TRAILER, seq_text

__all__ = ["ACTIONS", "Actions"]

ACTIONS = {
    "CreatePreparedStatement": "Checks a statement and gives it a handle.",
    "ClosePreparedStatement": "Forgets the handle of a prepared statement.",
    **SESSION_ACTIONS,
    **CANCEL_ACTIONS,
    "BeginTransaction": "Begins a transaction and gives it an id.",
    "EndTransaction": "Commits a transaction, or rolls it back.",
    END_PIN: "Ends the pin whose name is the body; its moment is let go at once.",
}
_NO_SAVEPOINTS = "a transaction here commits or rolls back as a whole; there are no savepoints"
_NOT_SERVED = {
    "BeginSavepoint": _NO_SAVEPOINTS,
    "EndSavepoint": _NO_SAVEPOINTS,
    "CreatePreparedSubstraitPlan": "statements are SQL, not Substrait plans",
}
_NO_COLUMNS: bytes = pa.schema([]).serialize().to_pybytes()


class Actions:
    """Those of one server. Thread-safe."""

    def __init__(
        self, sessions: SessionActions, transactions: Transactions, running: Running, activities: Activities
    ) -> None:
        self._sessions = sessions
        self._transactions = transactions
        self._running = running
        self._activities = activities

    def act(
        self, front: Front, call: Call, name: str, body: bytes, context: flight.ServerCallContext
    ) -> list[bytes]:
        """The serialized results of the action `name`. Raises `InvalidStatement`, `Unimplemented`."""
        if name in SESSION_ACTIONS:
            result = self._sessions.act(name, body, call, context)
            if name == CLOSE:
                self._transactions.close_origin(call.session.id, call.user.name)
            return [result]
        call.watch(context)
        if name in _NOT_SERVED:
            raise Unimplemented(f"action {name} isn't served here: {_NOT_SERVED[name]}")
        if name == RENEW_ENDPOINT:
            raise Unimplemented("endpoints here have no expiration time to move; plan the statement again")
        if name not in ACTIONS:
            raise InvalidStatement(f"there is no action {name[:80]!r}")
        if name in CANCEL_ACTIONS:
            return [cancel_action(name, body, self._running, front.handles, call.user.name)]
        if name == END_PIN:
            front.planner.pins.end(call.user.name, body.decode("utf-8", "replace"))
            return []
        request = unpack(body, f"action {name}")
        match request:
            case pb.ActionCreatePreparedStatementRequest():
                with self._activities.checking(call, request.query):
                    return [pack(self._prepare(front, call, request))]
            case pb.ActionClosePreparedStatementRequest():
                front.handles.close_prepared(request.prepared_statement_handle)
                return []
            case pb.ActionBeginTransactionRequest():
                transaction_id = self._transactions.begin(call.user.name, call.origin)
                return [pack(pb.ActionBeginTransactionResult(transaction_id=transaction_id))]
            case pb.ActionEndTransactionRequest():
                self._end_transaction(request, call, context)
                return []
        raise InvalidStatement(f"action {name} with a {request.DESCRIPTOR.name}")

    def _end_transaction(self, request: Message, call: Call, context: flight.ServerCallContext) -> None:
        match request.action:
            case pb.ActionEndTransactionRequest.END_TRANSACTION_COMMIT:
                seqs = self._transactions.commit(request.transaction_id, call.user.name)
                if seqs:
                    context.add_trailer(SEQ_TRAILER, seq_text(seqs))
            case pb.ActionEndTransactionRequest.END_TRANSACTION_ROLLBACK:
                self._transactions.roll_back(request.transaction_id, call.user.name)
            case action:
                raise InvalidStatement(f"EndTransaction with action {action}: 1 commits, 2 rolls back")

    def _prepare(self, front: Front, call: Call, request: Message) -> Message:
        self._transactions.join(call, request.transaction_id)
        statement = front.planner.checks.prepare(request.query, call)
        result = pb.ActionCreatePreparedStatementResult(parameter_schema=_parameter_schema(statement))
        if not isinstance(statement, Write):
            result.is_update = False
            result.dataset_schema = front.planner.schemas.of(statement, call).serialize().to_pybytes()
        elif not _asks_for_the_seq(call):
            result.is_update = True
            result.dataset_schema = _NO_COLUMNS
        # At the very end: what fails before leaves no handle.
        result.prepared_statement_handle = front.handles.prepare(
            statement, request.transaction_id, request.query
        )
        return result


def _parameter_schema(statement: Statement) -> bytes:
    """What a client is told of a prepared statement's parameters."""
    if not statement.parameter_keys:
        return _NO_COLUMNS
    schema = announced(statement.parameter_keys, statement.parameter_types)
    return bytes(schema.serialize().to_pybytes())


def _asks_for_the_seq(call: Call) -> bool:
    """Whether a write isn't announced as one, so that its client takes the query path and is told the seq.

    ADBC's driver shows no trailers: after the DoPut that an announced write leads to it knows a count alone.
    """
    return (call.header("user-agent") or "").startswith("ADBC")
