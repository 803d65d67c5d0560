"""What a client says of itself in the `authorization` header: out of a file, read anew for every call.

So a token that is renewed in its file is the next call's, without a restart. No secret gets into an error.
"""

from __future__ import annotations

import base64
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

from flight_replica.errors import ConfigError

Secret: TypeAlias = Callable[[], str]  # gives the secret as it is now
Authorization: TypeAlias = Callable[[], str]  # gives the whole header, such as `Bearer …`

SECRET_BYTES_MAX = 6000  # headers end at 8 KiB


def secret_in(path: Path, what: str) -> Secret:
    """The one line of a file. Reading it raises `ConfigError` naming `what` and the file."""

    def read() -> str:
        try:
            data = path.read_bytes()
        except OSError as error:
            raise ConfigError(f"{what} file {path} can't be read: {error.strerror}") from error
        text = data.decode("utf-8", "replace").rstrip("\r\n")
        if not text or not text.isprintable() or len(data) > SECRET_BYTES_MAX:
            raise ConfigError(f"{what} file {path} isn't one line of up to {SECRET_BYTES_MAX} bytes")
        return text

    return read


def bearer(token: Secret) -> Authorization:
    """A token on every call. Raises `ConfigError` for one that can't stand in a header."""

    def header() -> str:
        text = token()
        if not text.isascii():
            raise ConfigError("the token has letters beyond ASCII, which no header can carry")
        return f"Bearer {text}"

    return header


def basic(user: str, password: Secret) -> Authorization:
    """User and password on every call, so that no login runs out."""
    return lambda: "Basic " + base64.b64encode(f"{user}:{password()}".encode()).decode()
