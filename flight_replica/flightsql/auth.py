"""Who a call is from: what its `authorization` header says, checked once at its start.

Three ways: `OpenLogins` asks nobody, `BasicLogins` takes user and password (at the handshake, which gives
a token for the later calls, or on every call), `JwtLogins` takes tokens of an issuer. What a user may do:
users.py, and rights.py, which holds him to it.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
import threading
import time
from binascii import Error as Base64Error
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from flight_replica.errors import Unauthenticated
from flight_replica.flightsql.login_limits import FailedLogins
from flight_replica.flightsql.passwords import PasswordHash
from flight_replica.flightsql.users import ANYBODY, NOBODY, Account, User, UsersFile

if TYPE_CHECKING:  # their library is loaded where it is used
    from flight_replica.flightsql.jwt_logins import JwtVerifier
    from flight_replica.flightsql.tokens import Tokens

KNOWN_SECONDS = 600.0  # how long a password that was right needs no hashing on the next call
KNOWN_MAX = 1024  # credentials remembered; one more lets go of the one used longest ago
HASHES_AT_ONCE_MAX = 2  # each takes 16 MiB and a core for about 0.2 s
HASH_WAIT_SECONDS = 10.0

_TOKEN_BYTES = 24
_BASIC, _BEARER = "basic", "bearer"
# Where a client of the base protocol's handshake, with its payload, puts the token that it was given.
_PAYLOAD_TOKEN = "auth-token-bin"

Headers = Mapping[str, Sequence[str | bytes]]


@dataclass(frozen=True, slots=True)
class Login:
    """Who a call is from."""

    user: User
    id: str | None = None  # the same in all calls of one login; None: nothing ties this call to others
    reply: str | None = field(default=None, repr=False)  # the `authorization` that the client gets
    is_good: Callable[[], bool] = field(default=lambda: True, repr=False)  # whether its calls may go on


_ANYBODY = Login(ANYBODY)


class Logins(Protocol):
    """One way to log in. Thread-safe."""

    def login(self, headers: Headers, is_handshake: bool) -> Login:
        """Who calls. Raises `Unauthenticated`, with the time to wait after too many failures."""
        ...

    def exchange(self, user: str, password: str) -> str:
        """The token for a name and a password in a handshake's payload. Raises `Unauthenticated`."""
        ...


class OpenLogins:
    """Lets everybody in, with user and password or without, and makes no difference."""

    def login(self, headers: Headers, is_handshake: bool) -> Login:
        if not is_handshake:
            return _ANYBODY
        # ADBC wants a token in the reply; it leads to the session that the cookie leads to.
        token = self.exchange("", "")
        return Login(ANYBODY, token, f"Bearer {token}")

    def exchange(self, user: str, password: str) -> str:
        return secrets.token_urlsafe(_TOKEN_BYTES)


class BasicLogins:
    """User and password out of a `UsersFile`."""

    def __init__(self, users: UsersFile, tokens: Tokens, now: Callable[[], float] = time.monotonic) -> None:
        self._users = users
        self._tokens = tokens
        self._known = _KnownPasswords(now)
        self._failed = FailedLogins(now)
        self._hashing = threading.Semaphore(HASHES_AT_ONCE_MAX)

    def login(self, headers: Headers, is_handshake: bool) -> Login:
        scheme, value = credentials(headers)
        if scheme == _BEARER:
            return self._by_token(value, is_handshake)
        if scheme == _BASIC:
            account = self._account(*decode_basic(value))
            return self._handshake(account) if is_handshake else self._of(account)
        if is_handshake:
            return Login(NOBODY)  # user and password are in its payload, which comes later
        raise Unauthenticated("log in with user and password")

    def exchange(self, user: str, password: str) -> str:
        return self._tokens.issue(self._account(user, password))

    def _handshake(self, account: Account) -> Login:
        token = self._tokens.issue(account)
        return self._of(account, self._tokens.read(token).login, f"Bearer {token}")

    def _of(self, account: Account, login: str | None = None, reply: str | None = None) -> Login:
        name = account.user.name
        return Login(account.user, login, reply, lambda: self._users.account(name) == account)

    def _by_token(self, token: str, is_handshake: bool) -> Login:
        claims = self._tokens.read(token)
        account = self._users.account(claims.user)
        if account is None or not self._tokens.is_of(claims, account):
            raise Unauthenticated("the token's user is gone or has another password now; log in again")
        reply = f"Bearer {token}" if is_handshake else None
        if self._tokens.is_due(claims):
            reply = f"Bearer {self._tokens.issue(account, claims.login)}"
        return self._of(account, claims.login, reply)

    def _account(self, name: str, password: str) -> Account:
        """The account of a right password. Raises `Unauthenticated`."""
        account = self._users.account(name)
        if account is not None and self._known.has(account, password):
            return account
        self._failed.check(name)
        if not self._hashing.acquire(timeout=HASH_WAIT_SECONDS):
            raise Unauthenticated(f"too many logins at once, try again in {HASH_WAIT_SECONDS:g} s")
        try:
            return self._hashed(name, account, password)
        finally:
            self._hashing.release()

    def _hashed(self, name: str, account: Account | None, password: str) -> Account:
        # Others may have been let in, or refused, with this very name while this call waited.
        if account is not None and self._known.has(account, password):
            return account
        self._failed.check(name)
        kept = account.password if account is not None else self._users.decoy()
        if not kept.matches(password) or account is None:
            self._failed.failed(name)
            raise Unauthenticated("wrong user or password")
        self._failed.succeeded(name)
        self._known.add(account, password)
        return account


class JwtLogins:
    """Bearer tokens that a `JwtVerifier` takes, on every call; the handshake gives the same one back."""

    def __init__(self, verifier: JwtVerifier) -> None:
        self._verifier = verifier

    def login(self, headers: Headers, is_handshake: bool) -> Login:
        scheme, token = credentials(headers)
        if scheme != _BEARER:
            raise Unauthenticated("this server takes JWT bearer tokens alone")
        user = self._verifier.user(token)
        return Login(user, _login_of(token), f"Bearer {token}" if is_handshake else None)

    def exchange(self, user: str, password: str) -> str:
        raise Unauthenticated("this server takes JWT bearer tokens alone")


def _login_of(token: str) -> str:
    """What stands for the token where it must not stand itself."""
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest()


class _KnownPasswords:
    """Passwords that were right a short while ago, by an HMAC: hashing is slow on purpose. Thread-safe."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._key = secrets.token_bytes(32)  # so that what is kept says nothing of a password
        self._lock = threading.Lock()
        self._until: OrderedDict[bytes, float] = OrderedDict()  # mark -> monotonic seconds

    def has(self, account: Account, password: str) -> bool:
        mark = self._mark(account.user.name, account.password, password)
        with self._lock:
            until = self._until.get(mark)
            if until is None:
                return False
            self._until.move_to_end(mark)
            return self._now() < until

    def add(self, account: Account, password: str) -> None:
        mark = self._mark(account.user.name, account.password, password)
        with self._lock:
            self._until[mark] = self._now() + KNOWN_SECONDS
            self._until.move_to_end(mark)
            while len(self._until) > KNOWN_MAX:
                self._until.popitem(last=False)

    def _mark(self, name: str, kept: PasswordHash, password: str) -> bytes:
        # With the kept hash in it, a changed password makes the old one unknown at once.
        text = "\0".join((name, kept.encode(), password)).encode("utf-8", "surrogatepass")
        return hmac.new(self._key, text, hashlib.sha256).digest()


# --- headers ------------------------------------------------------------------------------------------


def credentials(headers: Headers) -> tuple[str, str]:
    """Scheme in lower case and value of the `authorization` header; two empty texts without one.

    Raises `Unauthenticated` for several that differ, and for what is no text.
    """
    values = set(headers.get("authorization", ()))
    if len(values) > 1:
        raise Unauthenticated("the call has several authorization headers")
    for value in values:
        scheme, _, rest = _text(value).partition(" ")
        return scheme.lower(), rest.strip()
    for value in headers.get(_PAYLOAD_TOKEN, ()):
        return (_BEARER, _text(value)) if value else ("", "")
    return "", ""


def decode_basic(value: str) -> tuple[str, str]:
    """User and password of a Basic header, padded or not. Raises `Unauthenticated`."""
    padded = value.rstrip("=")
    padded += "=" * (-len(padded) % 4)
    try:
        user, colon, password = base64.b64decode(padded, validate=True).decode().partition(":")
    except (Base64Error, ValueError):
        raise Unauthenticated("the authorization header is no base64 of USER:PASSWORD") from None
    if not colon or not user:
        raise Unauthenticated("the authorization header names no user")
    return user, password


def _text(value: str | bytes) -> str:
    try:
        return value.decode("ascii") if isinstance(value, bytes) else value
    except UnicodeDecodeError:
        raise Unauthenticated("the authorization header is no text") from None
