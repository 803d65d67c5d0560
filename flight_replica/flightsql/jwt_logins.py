"""JWT bearer tokens of somebody else's making, checked by PyJWT: HS256 with a shared secret, or RS256 and
ES256 with the public keys of a JWKS file, which is read again when it changes.

Who may make tokens says with a claim what a user may do; see `JwtSettings`.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path

import jwt

from flight_replica.errors import ConfigError, Unauthenticated
from flight_replica.flightsql.reloaded import ReloadedFile
from flight_replica.flightsql.users import EVERY_TABLE, NO_TABLE, TableNames, User, table_names

SECRET_BYTES_MIN = 32  # RFC 7518 3.2: at least as long as the hash
LEEWAY_SECONDS = 30.0
_PUBLIC = ("RS256", "ES256")


@dataclass(frozen=True, slots=True)
class JwtSettings:
    """Which tokens are taken: with a secret or the keys of a JWKS file, one of both."""

    audience: str
    secret: bytes | None = field(default=None, repr=False)
    jwks: Path | None = None
    issuer: str | None = None  # None: any
    leeway_seconds: float = LEEWAY_SECONDS  # how far the clocks may be apart
    read: TableNames = EVERY_TABLE  # what a token without the claim may read
    read_claim: str = "merutable_read"  # a list of tables' names or patterns
    write_claim: str = "merutable_write"  # likewise; without it none
    ddl_claim: str = "merutable_ddl"  # true or false
    admin_claim: str = "merutable_admin"  # likewise


class JwtVerifier:
    """Thread-safe."""

    def __init__(self, settings: JwtSettings) -> None:
        """Raises `ConfigError` for a secret that is too short or a JWKS file that can't be used."""
        if (settings.secret is None) == (settings.jwks is None):
            raise ConfigError("JWT: give either a secret (HS256) or a JWKS file (RS256, ES256)")
        if settings.secret is not None and len(settings.secret) < SECRET_BYTES_MIN:
            raise ConfigError(f"JWT: the secret has {len(settings.secret)} bytes, needed {SECRET_BYTES_MIN}")
        self._settings = settings
        self._jwks = JwksFile(settings.jwks) if settings.jwks is not None else None

    def user(self, token: str) -> User:
        """Whose token this is. Raises `Unauthenticated` with what is wrong, never with the token."""
        settings = self._settings
        try:
            key, algorithm = self._key(token)
            claims = jwt.decode(
                token,
                key,
                [algorithm],
                {"require": ["exp", "sub", "aud"]},
                audience=settings.audience,
                issuer=settings.issuer,
                leeway=settings.leeway_seconds,
            )
        except jwt.PyJWTError as error:
            raise Unauthenticated(f"token refused: {str(error)[:200]}") from None
        return self._user(claims)

    def _key(self, token: str) -> tuple[bytes | jwt.PyJWK, str]:
        """The key that the token has to be signed with, and how."""
        if self._jwks is None:
            assert self._settings.secret is not None, "either a secret or a JWKS file"
            return self._settings.secret, "HS256"
        key = self._jwks.key(jwt.get_unverified_header(token).get("kid"))
        return key, key.algorithm_name

    def _user(self, claims: dict[str, object]) -> User:
        settings = self._settings
        name = claims["sub"]
        if not isinstance(name, str) or not name:
            raise Unauthenticated("token refused: its sub is no name")
        may_change, may_administer = (
            _flag(claims, claim) for claim in (settings.ddl_claim, settings.admin_claim)
        )
        try:
            read = table_names(claims.get(settings.read_claim), settings.read, settings.read_claim)
            write = table_names(claims.get(settings.write_claim), NO_TABLE, settings.write_claim)
        except ConfigError as error:
            raise Unauthenticated(f"token refused: its {error}") from None
        return User(name, read, write, may_change, may_administer)


def _flag(claims: dict[str, object], claim: str) -> bool:
    value = claims.get(claim, False)
    if not isinstance(value, bool):
        raise Unauthenticated(f"token refused: its {claim} is neither true nor false")
    return value


class JwksFile:
    """The signing keys of a JWKS file (RFC 7517), as it is now. Thread-safe."""

    def __init__(self, path: Path) -> None:
        """Raises `ConfigError` where the file can't be read or has no key of use."""
        self._file = ReloadedFile(path, _keys)

    def key(self, key_id: object) -> jwt.PyJWK:
        """The key of this id; the only one for None. Raises PyJWT's `InvalidKeyError`."""
        keys = self._file.read()
        if key_id is None and len(keys) == 1:
            return next(iter(keys.values()))
        found = keys.get(key_id) if isinstance(key_id, str) else None
        if found is None:
            raise jwt.InvalidKeyError("its kid is none of the keys known here")
        return found


def _keys(path: Path) -> dict[str | None, jwt.PyJWK]:
    """Keys by id; those that sign otherwise, encrypt or are secrets are left out."""
    try:
        entries = json.loads(path.read_bytes())["keys"]
        found = {entry.get("kid"): key for entry in entries if (key := _key(entry)) is not None}
    except OSError as error:
        raise ConfigError(f"jwks file {path} can't be read: {error.strerror}") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConfigError(f"jwks file {path}: no JWKS, {type(error).__name__}") from None
    if not found:
        raise ConfigError(f"jwks file {path}: no key for {' or '.join(_PUBLIC)} in it")
    return found


def _key(entry: dict[str, object]) -> jwt.PyJWK | None:
    if entry.get("use", "sig") != "sig" or entry.get("kty") not in ("RSA", "EC"):
        return None
    try:
        key = jwt.PyJWK(entry)
    except (jwt.PyJWTError, ValueError):
        return None
    return key if key.algorithm_name in _PUBLIC else None
