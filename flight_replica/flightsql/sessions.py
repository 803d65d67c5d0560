"""`Sessions`: what a client has set for its later calls, found again by its cookie or its bearer token.

Every client is given a cookie at its first call; nothing is kept for it until it sets an option. A cookie
says itself, under this server's signature, which session it leads to and whether reads depend on it: after
an expiry or a restart such a client is told that its options are gone, and doesn't go on without them.
A bearer token leads to the session of the cookie that was given beside it. What can be set: options.py.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from flight_replica.errors import LimitExceeded, SessionExpired
from flight_replica.flightsql.limits import ServerLimits
from flight_replica.flightsql.options import OptionValue, is_read_option
from flight_replica.flightsql.secret_names import secret_name

COOKIE = "arrow_flight_session_id"
EXPIRED_COOKIE = f"{COOKIE}=; Max-Age=0"

Headers = Mapping[str, Sequence[str]]

_ID_BYTES = 16
_BEARER = "bearer "
_WITH_OPTIONS, _WITHOUT = "1.", "0."  # how the cookie of a session begins that has read options, or none


@dataclass(frozen=True, slots=True)
class Session:
    """One client's session as one call finds it. `values` are what it was when the call began."""

    id: str  # unguessable, in hex
    user: str  # whose it is; "" where nobody logs in
    is_kept: bool  # the client has shown a cookie or a token, so its next call will find the session too
    needs_cookie: bool  # it has not shown the cookie that leads here and says what is set
    values: Mapping[str, OptionValue] = field(default_factory=dict)
    is_lost: bool = False  # it had options, which expired or were set on a server that has ended since

    def options(self) -> Mapping[str, OptionValue]:
        """`values`. Raises `SessionExpired` where they are lost."""
        if self.is_lost:
            raise SessionExpired(
                "the session's options are gone: it had no call for longer than session_idle_seconds, or "
                "the server was started anew; set them again or connect again"
            )
        return self.values


@dataclass(frozen=True, slots=True)
class KeptSession:
    """A session that has something set, for those who look at the server."""

    id: str
    user: str
    values: Mapping[str, OptionValue]
    idle_seconds: float


@dataclass(slots=True)
class _Stored:
    user: str
    values: dict[str, OptionValue]
    used_at: float  # monotonic seconds


class Sessions:
    """The sessions of one server. Thread-safe."""

    def __init__(self, limits: ServerLimits, now: Callable[[], float] = time.monotonic) -> None:
        self._limits = limits
        self._now = now
        self._secret = secrets.token_bytes(32)
        self._lock = threading.Lock()
        self._stored: dict[str, _Stored] = {}  # session id -> what is set; also where nothing is any more
        self._lost: dict[str, None] = {}  # expired sessions on which reads depended, the oldest first

    @property
    def count(self) -> int:
        """Sessions that are kept: with something set, now or within `session_idle_seconds`."""
        return len(self._stored)

    def find(self, headers: Headers, user: str = "", login: str | None = None) -> Session:
        """The session of a call: its cookie's, else its bearer token's, else a new one.

        `login` stands in the token's place where tokens change while the login is the same.
        """
        cookie = _cookie(headers)
        if cookie is not None and (found := self._read_cookie(cookie, user)) is not None:
            session_id, had_options = found
            return self._opened(
                Session(session_id, user, is_kept=True, needs_cookie=False, is_lost=had_options)
            )
        # A cookie that can't be read is of an earlier run of the server, or forged.
        is_lost = cookie is not None and cookie.startswith(_WITH_OPTIONS)
        token = login or _bearer(headers)
        if token is not None:
            session = self.of_token(token, user)
            return replace(session, is_lost=session.is_lost or (is_lost and not session.values))
        session_id = secret_name().hex()
        return Session(session_id, user, is_kept=cookie is not None, needs_cookie=True, is_lost=is_lost)

    def of_token(self, token: str, user: str = "") -> Session:
        """The session that a bearer token leads to."""
        session_id = self._sign(f"token.{token}", user)
        return self._opened(Session(session_id, user, is_kept=True, needs_cookie=True))

    def _opened(self, session: Session) -> Session:
        """The session with what it has set; lost where it had set something that is no longer there."""
        with self._lock:
            stored = self._stored.get(session.id)
            if stored is None:
                return replace(session, is_lost=session.is_lost or session.id in self._lost)
            stored.used_at = self._now()
            had_options = session.is_lost
            needs_cookie = session.needs_cookie or had_options != _change_reads(stored.values)
            return replace(session, values=dict(stored.values), needs_cookie=needs_cookie, is_lost=False)

    def change(self, session: Session, changes: Mapping[str, OptionValue | None]) -> dict[str, OptionValue]:
        """Set options, or unset them by None; the session's values then. Raises `LimitExceeded`."""
        with self._lock:
            stored = self._stored.get(session.id)
            if stored is None:
                if len(self._stored) >= self._limits.sessions_max:
                    raise LimitExceeded(
                        f"{self._limits.sessions_max} sessions with options are open (sessions_max); "
                        "close some, or use call headers"
                    )
                stored = _Stored(session.user, {}, self._now())
            for name, value in changes.items():
                if value is None:
                    stored.values.pop(name, None)
                else:
                    stored.values[name] = value
            if stored.values or session.is_lost:
                self._stored[session.id] = stored
            self._lost.pop(session.id, None)
            return dict(stored.values)

    def close(self, session: Session) -> None:
        """Forget what was set."""
        with self._lock:
            self._lost.pop(session.id, None)
            if session.id in self._stored or session.is_lost:
                self._stored[session.id] = _Stored(session.user, {}, self._now())

    def kept(self) -> list[KeptSession]:
        """The sessions that have something set."""
        now = self._now()
        with self._lock:
            return [
                KeptSession(session_id, stored.user, dict(stored.values), now - stored.used_at)
                for session_id, stored in self._stored.items()
                if stored.values
            ]

    def drop(self, session_id: str) -> None:
        """Let a session expire now; its client is told so where reads depended on what it had set."""
        with self._lock:
            stored = self._stored.pop(session_id, None)
            if stored is not None and _change_reads(stored.values):
                self._lost[session_id] = None

    def expire(self) -> None:
        """Forget the sessions that had no call for `session_idle_seconds`."""
        before = self._now() - self._limits.session_idle_seconds
        with self._lock:
            for session_id in [key for key, stored in self._stored.items() if stored.used_at <= before]:
                if _change_reads(self._stored.pop(session_id).values):
                    self._lost[session_id] = None
            while len(self._lost) > self._limits.sessions_max:
                del self._lost[next(iter(self._lost))]

    # --- cookies ----------------------------------------------------------------------------------

    def cookie(self, session: Session, values: Mapping[str, OptionValue] | None = None) -> str:
        """The `set-cookie` text that leads to the session. `values`: what is set now, if it has changed."""
        current = session.values if values is None else values
        mark = _WITH_OPTIONS if session.is_lost or _change_reads(current) else _WITHOUT
        signature = self._sign(f"cookie.{mark}{session.id}", session.user)
        return f"{COOKIE}={mark}{session.id}.{signature}"

    def _read_cookie(self, text: str, user: str) -> tuple[str, bool] | None:
        """A session's id and whether it had options; None for a cookie that isn't ours, or this user's."""
        signed, _, signature = text.rpartition(".")
        expected = self._sign(f"cookie.{signed}", user)
        if not hmac.compare_digest(signature.encode("utf-8", "surrogateescape"), expected.encode()):
            return None
        mark, session_id = signed[: len(_WITHOUT)], signed[len(_WITHOUT) :]
        return session_id, mark == _WITH_OPTIONS

    def _sign(self, text: str, user: str) -> str:
        data = f"{text}\0{user}".encode("utf-8", "surrogateescape")
        # Each call of a client that keeps no cookies gets a new one, and HMAC takes ten times as long.
        return hashlib.blake2b(data, key=self._secret, digest_size=_ID_BYTES).hexdigest()


def _cookie(headers: Headers) -> str | None:
    """The value of the session's cookie, None without one."""
    for header in headers.get("cookie", ()):
        for pair in str(header).split(";"):
            name, _, value = pair.strip().partition("=")
            if name == COOKIE and value:
                return value.strip('"')
    return None


def _bearer(headers: Headers) -> str | None:
    for value in headers.get("authorization", ()):
        text = str(value)
        if text[: len(_BEARER)].lower() == _BEARER and text[len(_BEARER) :].strip():
            return text[len(_BEARER) :].strip()
    return None


def _change_reads(values: Mapping[str, OptionValue]) -> bool:
    return bool(values) and any(map(is_read_option, values))
