"""The Handshake RPC's own part: user and password in its payload, as Flight's first clients send them.

Everybody else logs in by header, which is read where every call begins (calls.py).
"""

from __future__ import annotations

from pyarrow import flight

from flight_replica.errors import Unauthenticated
from flight_replica.flightsql.auth import Logins
from flight_replica.flightsql.status import boundary


class Handshakes(flight.ServerAuthHandler):  # type: ignore[misc]
    """Without a handler pyarrow refuses each handshake, and with it whoever logs in."""

    def __init__(self, logins: Logins) -> None:
        super().__init__()
        self._logins = logins

    @boundary
    def authenticate(self, outgoing: flight.ServerAuthSender, incoming: flight.ServerAuthReader) -> None:
        """Answer the payload, if there is one, with a token."""
        try:
            payload = incoming.read()
        except OSError:  # none was sent: the header said all
            return
        if payload:
            outgoing.write(self._logins.exchange(*_user_and_password(payload)).encode())

    # `is_valid(token)` gives nothing: calls.py looks at every call, with all its headers. It is written in C,
    # since each call comes by here on a thread that is new to Python.
    is_valid = b"".strip


def _user_and_password(payload: bytes) -> tuple[str, str]:
    try:
        found = flight.BasicAuth.deserialize(payload)
        return found.username.decode(), found.password.decode()
    except (ValueError, OSError):
        raise Unauthenticated("the handshake's payload is no BasicAuth message") from None
