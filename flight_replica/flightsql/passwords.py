"""Passwords as they are kept: salted scrypt hashes, as text `scrypt$n$r$p$salt$key`."""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
from binascii import Error as Base64Error
from dataclasses import dataclass

from flight_replica.errors import ConfigError

# 16 MiB and about 0.2 s on one core: one of the settings that OWASP's password storage page lists.
_N, _R, _P = 1 << 14, 8, 5
_N_MAX, _R_MAX, _P_MAX = 1 << 18, 16, 16  # a mistyped hash must not take all memory
_SALT_BYTES = 16
_KEY_BYTES = 32


@dataclass(frozen=True, slots=True)
class PasswordHash:
    """One kept password. Its text is a secret's shadow, so it stays out of `repr`."""

    n: int
    r: int
    p: int
    salt: bytes
    key: bytes

    def __repr__(self) -> str:
        return "PasswordHash(***)"

    def matches(self, password: str) -> bool:
        """Whether this is the hash of `password`; takes as long for a wrong one as for the right one."""
        return hmac.compare_digest(_derived(password, self.n, self.r, self.p, self.salt), self.key)

    def decoy(self) -> PasswordHash:
        """A hash that costs the same and that no password matches."""
        return PasswordHash(self.n, self.r, self.p, self.salt, secrets.token_bytes(_KEY_BYTES))

    def encode(self) -> str:
        salt, key = (base64.b64encode(part).decode() for part in (self.salt, self.key))
        return f"scrypt${self.n}${self.r}${self.p}${salt}${key}"


def hash_password(password: str, *, n: int = _N, p: int = _P) -> PasswordHash:
    """A new salted hash. `n` and `p` are scrypt's cost."""
    salt = secrets.token_bytes(_SALT_BYTES)
    return PasswordHash(n, _R, p, salt, _derived(password, n, _R, p, salt))


def decode_hash(text: str) -> PasswordHash:
    """The hash that `encode` wrote. Raises `ConfigError`, whose message doesn't repeat the text."""
    kind, *parts = text.split("$")
    try:
        n, r, p = (int(part) for part in parts[:3])
        salt, key = (base64.b64decode(part, validate=True) for part in parts[3:])
    except (ValueError, Base64Error) as error:
        raise ConfigError("a password must be a hash as `flight-replica user` writes it") from error
    is_cost = 1 < n <= _N_MAX and n & (n - 1) == 0 and 0 < r <= _R_MAX and 0 < p <= _P_MAX
    if kind != "scrypt" or not is_cost or len(key) != _KEY_BYTES:
        raise ConfigError(f"a password must be a scrypt hash with n up to {_N_MAX}, r {_R_MAX}, p {_P_MAX}")
    return PasswordHash(n, r, p, salt, key)


def _derived(password: str, n: int, r: int, p: int, salt: bytes) -> bytes:
    data = password.encode("utf-8", "surrogatepass")
    memory = 128 * r * (n + p + 2)  # bytes; what scrypt needs, no more
    return hashlib.scrypt(data, salt=salt, n=n, r=r, p=p, maxmem=memory, dklen=_KEY_BYTES)
