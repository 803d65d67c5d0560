"""Whether this host can read the place where a base is published; not whether what lies there is sound."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote, urlsplit

from flight_replica.errors import BaseError, ConfigError

__all__ = ["why_denied", "why_out_of_reach"]

_KINDS = ("iceberg", "merutable")


def why_out_of_reach(kind: str, uri: str) -> str:
    """Why a base can't be read from here, empty where it can be tried.

    A metadata file that is gone out of a folder that is there is no such reason: a newer one has come.
    """
    if kind not in _KINDS:
        return f"bases of kind {kind!r} aren't read here"
    parts = urlsplit(uri)
    if parts.scheme not in ("", "file"):
        return ""
    if parts.scheme == "file" and parts.netloc not in ("", "localhost"):
        return f"{uri} is on host {parts.netloc}"
    reasons = [_why_not(Path(path), kind) for path in _spellings(uri)]
    return "" if "" in reasons else reasons[0]


def _spellings(uri: str) -> list[str]:
    """The path of a URI; writers differ on whether it is percent-encoded."""
    if not uri.startswith("file:"):
        return [uri]
    path = urlsplit(uri).path
    return [unquote(path), path]


def _why_not(path: Path, kind: str) -> str:
    folder = path.parent if kind == "iceberg" else path
    try:
        with os.scandir(folder):
            pass
        if kind == "iceberg":
            with path.open("rb"):
                pass
    except FileNotFoundError as error:
        return "" if Path(error.filename) == path != folder else f"{folder} isn't on this host"
    except OSError as error:
        return f"{error.filename} can't be read: {error.strerror}"
    return ""


def why_denied(error: BaseError | ConfigError, uri: str) -> str:
    """Why an attempt to read a base failed, where that was for this host's rights or network; else empty."""
    is_remote = urlsplit(uri).scheme not in ("", "file")
    for cause in _causes(error):
        if isinstance(cause, PermissionError) or (is_remote and isinstance(cause, OSError | ConfigError)):
            return str(error)
    return ""


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__
