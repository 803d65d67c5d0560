"""What systemd is told of a service of `Type=notify`: ready, stopping, alive (sd_notify(3)).

Nothing where the process wasn't started by systemd, which names its socket in NOTIFY_SOCKET.
"""

from __future__ import annotations

import logging
import os
import socket

__all__ = ["Systemd"]

logger = logging.getLogger(__name__)


class Systemd:
    """Tells the service manager of this process. Used by the main thread alone."""

    def __init__(self) -> None:
        address = os.environ.get("NOTIFY_SOCKET", "")
        if address and address[0] not in "/@":
            logger.warning("NOTIFY_SOCKET can't be used address=%s", address)
            address = ""
        self._address = "\0" + address[1:] if address.startswith("@") else address
        watchdog_us, watched_pid = os.environ.get("WATCHDOG_USEC", ""), os.environ.get("WATCHDOG_PID", "")
        self._is_watched = watchdog_us.isdecimal() and watched_pid in ("", str(os.getpid()))

    def ready(self, status: str) -> None:
        """Connections are answered from now on."""
        self._tell(f"READY=1\nSTATUS={status}")

    def stopping(self, status: str) -> None:
        self._tell(f"STOPPING=1\nSTATUS={status}")

    def alive(self) -> None:
        """The process does its work, where systemd watches over that (WatchdogSec=)."""
        if self._is_watched:
            self._tell("WATCHDOG=1")

    def _tell(self, state: str) -> None:
        if not self._address:
            return
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as channel:
                channel.connect(self._address)
                channel.sendall(state.encode())
        except OSError as error:
            logger.warning("systemd not told error=%s", error)
