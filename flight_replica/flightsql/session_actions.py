"""SetSessionOptions, GetSessionOptions and CloseSession: messages of the base protocol, without an Any.

What is wrong with an option is answered for that option; the others of the same call are set. Source:
Flight.proto, "Session options". The options: options.py; whose they are: sessions.py.
"""

from __future__ import annotations

from collections.abc import Mapping

from pyarrow import flight

from flight_replica._pb import flight_session_pb2 as pb
from flight_replica.errors import InvalidStatement
from flight_replica.flightsql.call import Call
from flight_replica.flightsql.commands import parsed
from flight_replica.flightsql.limits import ServerLimits
from flight_replica.flightsql.options import OptionValue, check_option, is_read_option
from flight_replica.flightsql.sessions import EXPIRED_COOKIE, Session, Sessions
from flight_replica.sql.names import CATALOG, DB_SCHEMA
from flight_replica.sql.statement import fold

SET, GET, CLOSE = "SetSessionOptions", "GetSessionOptions", "CloseSession"
SESSION_ACTIONS = {
    SET: "Sets options of the client's session, or unsets them.",
    GET: "Says which options the session has.",
    CLOSE: "Ends the session: its options are forgotten, its cookie expires.",
}

# This driver asks for SqlInfo when it connects: where it keeps cookies it has one by now.
_ADBC = "ADBC Flight SQL Driver"


class SessionActions:
    """The three actions of one server. Thread-safe."""

    def __init__(self, sessions: Sessions, limits: ServerLimits) -> None:
        self._sessions = sessions
        self._limits = limits

    def act(self, name: str, body: bytes, call: Call, context: flight.ServerCallContext) -> bytes:
        """The serialized result of one of `SESSION_ACTIONS`. Raises `InvalidStatement`, `LimitExceeded`."""
        if name == SET:
            request = parsed(pb.SetSessionOptionsRequest(), body, f"action {name}")
            values = {key: _value(value) for key, value in request.session_options.items()}
            errors, headers = self.set(values, call)
            result = pb.SetSessionOptionsResult()
            for key, error in errors.items():
                result.errors[key].value = error
        elif name == GET:
            parsed(pb.GetSessionOptionsRequest(), body, f"action {name}")
            result, headers = _options_result(call.session), {}
        else:
            parsed(pb.CloseSessionRequest(), body, f"action {name}")
            self._sessions.close(call.session)
            result, headers = pb.CloseSessionResult(status=pb.CloseSessionResult.CLOSED), _expired()
        for key, text in headers.items():
            context.add_header(key, text)
        return bytes(result.SerializeToString())

    def set(
        self, values: Mapping[str, OptionValue | None], call: Call
    ) -> tuple[dict[str, int], dict[str, str]]:
        """Set what can be set; option -> `ErrorValue` for the rest, and the reply's headers.

        Raises `InvalidStatement` where the session would end with this call, `LimitExceeded`.
        """
        errors = {name: error for name, value in values.items() if (error := self._error(name, value))}
        good = {name: value for name, value in values.items() if name not in errors}
        if not any(map(is_read_option, good)):
            # Catalog and schema have one value each: there is nothing to keep.
            return errors, {}
        session = call.session
        is_unsetting = all(value is None for value in good.values())
        if not (session.is_kept or is_unsetting) and (call.header("user-agent") or "").startswith(_ADBC):
            raise InvalidStatement(
                f"session option {', '.join(good)}: this connection keeps no session; open it with "
                "adbc.flight.sql.rpc.with_cookie_middleware=true, or give call headers instead "
                "(adbc.flight.sql.rpc.call_header.merutable-…)"
            )
        kept = {name: value for name, value in good.items() if is_read_option(name)}
        left = self._sessions.change(session, kept)
        return errors, {"set-cookie": self._sessions.cookie(session, left)}

    def _error(self, name: str, value: OptionValue | None) -> int:
        """What is wrong with an option, 0 for nothing."""
        if name not in _FIXED and not is_read_option(name):
            return int(pb.SetSessionOptionsResult.INVALID_NAME)
        if value is None:
            return 0
        if name in _FIXED:
            is_good = isinstance(value, str) and fold(value) == _FIXED[name]
        else:
            is_good = self._is_good(name, value)
        return 0 if is_good else int(pb.SetSessionOptionsResult.INVALID_VALUE)

    def _is_good(self, name: str, value: OptionValue) -> bool:
        if len(str(value).encode("utf-8", "replace")) > self._limits.session_option_bytes_max:
            return False
        try:
            check_option(name, value)
        except InvalidStatement:
            return False
        return True


_FIXED = {"catalog": CATALOG, "schema": DB_SCHEMA}  # clients ask for them, and may set them to what they are


def _expired() -> dict[str, str]:
    return {"set-cookie": EXPIRED_COOKIE}


def _options_result(session: Session) -> pb.GetSessionOptionsResult:
    result = pb.GetSessionOptionsResult()
    for name, value in {**_FIXED, **session.options()}.items():
        _put(result.session_options[name], value)
    return result


def _value(message: pb.SessionOptionValue) -> OptionValue | None:
    """The value in a message; None where it unsets the option."""
    match message.WhichOneof("option_value"):
        case None:
            return None
        case "string_list_value":
            return tuple(message.string_list_value.values)
        case kind:
            value: OptionValue = getattr(message, kind)
            return value


def _put(message: pb.SessionOptionValue, value: OptionValue) -> None:
    """Set the member that belongs to the value's type."""
    match value:
        case bool():
            message.bool_value = value
        case int():
            message.int64_value = value
        case float():
            message.double_value = value
        case str():
            message.string_value = value
        case _:
            message.string_list_value.values.extend(value)
