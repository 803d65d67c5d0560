"""`FolderLock`: a folder that one process at a time may use.

The lock is the kernel's (flock), so it ends with its process however that ends. The file says who holds it,
for the one who is refused; what an ended process has left in it means nothing.
"""

from __future__ import annotations

import fcntl
import json
import os
import socket
import time
from pathlib import Path

from flight_replica.errors import ConfigError

__all__ = ["FolderLock"]

_HOLDER_BYTES_MAX = 4096


class FolderLock:
    """Held from its making to `release`, or the end of the process."""

    def __init__(self, file: Path, what: str) -> None:
        """Lock by `file`, which is made where it isn't there. `what` names the folder in errors.

        Raises `ConfigError` that says who holds it, or why it can't be locked.
        """
        try:
            self._handle = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise ConfigError(f"{what} can't be used: {error.strerror}") from error
        try:
            fcntl.flock(self._handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._say_who()
        except BlockingIOError as error:
            holder = _holder(self._handle)
            os.close(self._handle)
            raise ConfigError(f"{what} is in use by another process{holder}") from error
        except OSError as error:
            os.close(self._handle)
            raise ConfigError(f"{what} can't be locked: {error.strerror}") from error

    def _say_who(self) -> None:
        since = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        holder = {"pid": os.getpid(), "host": socket.gethostname(), "since": since}
        os.ftruncate(self._handle, 0)
        os.pwrite(self._handle, json.dumps(holder).encode(), 0)

    def release(self) -> None:
        """Let others use the folder. Once."""
        os.ftruncate(self._handle, 0)
        os.close(self._handle)


def _holder(handle: int) -> str:
    """Who holds the lock, as the file says it; nothing where it doesn't (yet)."""
    try:
        found = json.loads(os.pread(handle, _HOLDER_BYTES_MAX, 0))
        return f": pid {int(found['pid'])} on host {found['host']!s:.255} since {found['since']!s:.40}"
    except (OSError, ValueError, KeyError, TypeError):
        return ""
