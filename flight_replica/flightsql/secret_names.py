"""Names that nobody can guess: handles, sessions, transactions."""

from __future__ import annotations

import itertools
import secrets
from hashlib import blake2b

__all__ = ["secret_name"]

_KEY = secrets.token_bytes(32)
_numbers = itertools.count()


def secret_name() -> bytes:
    """16 bytes that are no other name of this process.

    A keyed hash of a number. To ask the system for random bytes lets go of Python's lock, which hands it from
    one call to the next where several are at work; a small query takes six names.
    """
    return blake2b(next(_numbers).to_bytes(8, "little"), key=_KEY, digest_size=16).digest()
