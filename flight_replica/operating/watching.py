"""`status --watch`: drawn again in place where a person watches, one status after the other elsewhere."""

from __future__ import annotations

import os
import select
import shutil
import sys
import termios
import threading
import tty
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TextIO

from flight_replica._pb import admin_pb2 as pb
from flight_replica.errors import ConfigError, Forbidden, InvalidStatement, ReplicaError, Unauthenticated
from flight_replica.operating.screen import screen
from flight_replica.operating.values import printable

_ENTER = "\x1b[?1049h\x1b[?25l"  # another screen, no cursor
_LEAVE = "\x1b[?25h\x1b[?1049l"
_HOME, _END_OF_LINE, _END_OF_SCREEN = "\x1b[H", "\x1b[K", "\x1b[J"
_KEY_SECONDS = 0.1
RETRY_SECONDS = 1.0
_FINAL = (ConfigError, Forbidden, InvalidStatement, Unauthenticated)  # waiting doesn't mend these

Watch = Callable[[], Iterator[pb.ServerStatus]]


def watch_in_terminal(watch: Watch, out: TextIO = sys.stdout) -> None:
    """Draw each status over the one before, until q or Ctrl-C. A server that goes is waited for.

    Raises what waiting doesn't mend, such as a wrong password.
    """
    watcher = _Watcher(watch, out)
    with _own_screen(out):
        threading.Thread(target=watcher.run, name="status", daemon=True).start()
        try:
            _wait_for_quit(watcher)
        except KeyboardInterrupt:
            return
        finally:
            watcher.stop()
    if watcher.error is not None:
        raise watcher.error


class _Watcher:
    """Draws until it is stopped, and never after: its thread may still wait for the server then."""

    def __init__(self, watch: Watch, out: TextIO) -> None:
        self._watch = watch
        self._out = out
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        self._last: list[str] = []
        self.error: ReplicaError | None = None  # that has ended it

    @property
    def is_stopped(self) -> bool:
        return self._stopped.is_set()

    def run(self) -> None:
        while not self.is_stopped:
            try:
                for status in self._watch():
                    self._last = screen(status)
                    if not self._draw(self._last):
                        return
            except ReplicaError as error:
                if isinstance(error, _FINAL):
                    self._fail(error)
                    return
                self._draw([printable(str(error)), "trying again", "", *self._last])
                self._stopped.wait(RETRY_SECONDS)

    def _fail(self, error: ReplicaError) -> None:
        with self._lock:
            if not self.is_stopped:
                self.error = error
                self._stopped.set()

    def stop(self) -> None:
        with self._lock:
            self._stopped.set()

    def _draw(self, lines: Sequence[str]) -> bool:
        """Whether it goes on."""
        width, height = shutil.get_terminal_size()
        shown = [line[:width] for line in [*lines, "", "q ends"][:height]]
        text = _HOME + f"{_END_OF_LINE}\n".join(shown) + _END_OF_LINE + _END_OF_SCREEN
        with self._lock:
            if not self.is_stopped:
                self._out.write(text)
                self._out.flush()
            return not self.is_stopped


def _wait_for_quit(watcher: _Watcher) -> None:
    while not watcher.is_stopped:
        ready, _, _ = select.select([sys.stdin], [], [], _KEY_SECONDS)
        if ready and os.read(sys.stdin.fileno(), 1) in (b"q", b"Q", b"\x03", b"\x04", b""):
            return


@contextmanager
def _own_screen(out: TextIO) -> Iterator[None]:
    """Another screen of the terminal, and its keys one by one; both given back."""
    keys = sys.stdin.fileno()
    before = termios.tcgetattr(keys)
    try:
        tty.setcbreak(keys)
        out.write(_ENTER)
        yield
    finally:
        termios.tcsetattr(keys, termios.TCSADRAIN, before)
        out.write(_LEAVE)
        out.flush()


def watch_in_lines(watch: Watch, show: Callable[[pb.ServerStatus], str], out: TextIO = sys.stdout) -> None:
    """Print each status after the other. Raises when the server has gone."""
    try:
        for status in watch():
            print(show(status), file=out, flush=True)
    except KeyboardInterrupt:
        return
