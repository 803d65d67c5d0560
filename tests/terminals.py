"""A real terminal for tests: a command behind a pseudo-terminal, and what a person sees on its screen."""

from __future__ import annotations

import fcntl
import os
import pty
import signal
import struct
import subprocess
import sys
import termios
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

import pyte

from tests.processes import ROOT, until

COLUMNS, LINES = 100, 40
CTRL_C, CTRL_D, TAB, ENTER, UP = "\x03", "\x04", "\t", "\r", "\x1b[A"


class Terminal:
    """A command that has a terminal of its own. Thread-safe where it is looked at."""

    def __init__(
        self, *command: str, env: Mapping[str, str], columns: int = COLUMNS, lines: int = LINES
    ) -> None:
        self._screen = pyte.HistoryScreen(columns, lines, history=10_000, ratio=1.0)
        self._stream = pyte.ByteStream(self._screen)
        self._lock = threading.Lock()
        self.raw = b""  # everything that was written to it
        ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
        self._fd = ours
        self._process = subprocess.Popen(
            command,
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            cwd=ROOT,
            env={**os.environ, "TERM": "xterm-256color", "PROMPT_TOOLKIT_NO_CPR": "1", **env},
            start_new_session=True,
            preexec_fn=_take_terminal,
        )
        os.close(theirs)
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        with suppress(OSError):  # what Linux says when the other end is closed
            while data := os.read(self._fd, 65_536):
                with self._lock:
                    self.raw += data
                    self._stream.feed(data)

    def type(self, text: str) -> None:
        os.write(self._fd, text.encode())

    def line(self, text: str) -> None:
        """Type a line and Enter."""
        self.type(text + ENTER)

    @property
    def screen(self) -> list[str]:
        """The lines that are seen now, without those that are empty."""
        with self._lock:
            return [line.rstrip() for line in self._screen.display if line.strip()]

    def sees(self, text: str, timeout_seconds: float = 60.0) -> None:
        """Wait until the text is on the screen."""
        try:
            until(lambda: any(text in line for line in self.screen), text, timeout_seconds)
        except AssertionError as error:
            raise AssertionError("\n".join([f"never seen: {text}", *self.screen])) from error

    def is_ready(self) -> bool:
        """Whether the shell waits for input: what is typed earlier is lost where it goes to raw mode."""
        return self.screen[-1:] == ["sql>"]

    def ready(self) -> None:
        """Wait until the shell waits for input."""
        until(self.is_ready, "the prompt", 60.0)

    def end(self, timeout_seconds: float = 30.0) -> int:
        """Wait for the end of the command; its exit code."""
        code = self._process.wait(timeout_seconds)
        self._thread.join(timeout_seconds)
        return code

    def close(self) -> None:
        """End it, if it is still there, and let go of the terminal."""
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)
        self.end()
        os.close(self._fd)


def _take_terminal() -> None:
    """Make the standard input the terminal that Ctrl-C comes from."""
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


@contextmanager
def terminal(folder: Path, *arguments: str, env: Mapping[str, str] | None = None) -> Iterator[Terminal]:
    """`flight-replica …` at a terminal, for a user whose state is kept in `folder`."""
    command = (sys.executable, "-m", "flight_replica", *arguments)
    found = Terminal(*command, env={"XDG_STATE_HOME": str(folder), **(env or {})})
    try:
        yield found
    finally:
        found.close()
