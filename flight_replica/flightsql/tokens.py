"""`Tokens`: what a login with user and password gives the client for its later calls.

A token is a signed statement of user, login and times, so nothing is kept for it. It ends with its time,
or as soon as its user is gone or has another password.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass

import jwt
from jwt.types import Options

from flight_replica.errors import Unauthenticated
from flight_replica.flightsql.users import Account

TOKEN_SECONDS = 86_400.0  # some drivers never take a new one, and pools keep connections for hours
_ALGORITHM = "HS256"
_AUDIENCE = "flight-replica login"  # no token made for something else is one of these
_LOGIN_BYTES = 16
_CLAIMS = ["sub", "sid", "pwd", "iat", "exp"]


@dataclass(frozen=True, slots=True)
class Claims:
    """What a valid token says."""

    user: str
    login: str  # the same in every token that grew out of one login
    password_mark: str
    issued_at: float  # seconds since 1970
    expires_at: float

    def is_half_over(self, now: float) -> bool:
        return now >= (self.issued_at + self.expires_at) / 2


class Tokens:
    """Makes and checks the tokens of one key. Thread-safe."""

    def __init__(
        self,
        key: bytes | None = None,
        seconds: float = TOKEN_SECONDS,
        now: Callable[[], float] = time.time,
    ) -> None:
        """`key` None: a new one, so tokens end with the process. `seconds` is how long one is good."""
        self._key = key or secrets.token_bytes(32)
        self._seconds = seconds
        self._now = now

    def issue(self, account: Account, login: str | None = None) -> str:
        """A token for the account; `login` is None for a new login."""
        now = self._now()
        claims = {
            "aud": _AUDIENCE,
            "sub": account.user.name,
            "sid": login or secrets.token_urlsafe(_LOGIN_BYTES),
            "pwd": self._mark(account),
            "iat": now,
            "exp": now + self._seconds,
        }
        return jwt.encode(claims, self._key, _ALGORITHM)

    def read(self, token: str) -> Claims:
        """What the token says. Raises `Unauthenticated` for one that isn't ours, was changed or is over."""
        options: Options = {"require": _CLAIMS, "verify_exp": False, "verify_iat": False}  # the clock is ours
        try:
            found = jwt.decode(token, self._key, [_ALGORITHM], options, audience=_AUDIENCE)
        except jwt.InvalidTokenError:
            raise Unauthenticated("the token isn't one of this server's; log in again") from None
        if self._now() >= found["exp"]:
            raise Unauthenticated("the token has expired; log in again")
        return Claims(found["sub"], found["sid"], found["pwd"], found["iat"], found["exp"])

    def is_of(self, claims: Claims, account: Account) -> bool:
        """Whether the account still has the password that the login was made with."""
        return hmac.compare_digest(claims.password_mark, self._mark(account))

    def is_due(self, claims: Claims) -> bool:
        """Whether the client should get the next token."""
        return claims.is_half_over(self._now())

    def _mark(self, account: Account) -> str:
        data = account.password.encode().encode()
        return hmac.new(self._key, data, hashlib.sha256).hexdigest()[:32]
