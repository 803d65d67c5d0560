"""How signals reach a process: SIGINT and SIGTERM end it (`StopSignal`), SIGHUP asks a server to read its
configuration again (`HangUps`)."""

from __future__ import annotations

import os
import signal
import termios
from collections.abc import Callable
from contextlib import suppress
from queue import Empty, SimpleQueue
from types import FrameType
from typing import NoReturn

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class StopSignal:
    """Set by the first SIGINT or SIGTERM after its making.

    Not a `threading.Event`: a handler runs in the main thread, between any two steps of what it is doing,
    so with a second signal, or one in the middle of `wait`, it would wait for a lock of its own thread.
    """

    def __init__(self, on_again: Callable[[int], object] | None = None) -> None:
        """`on_again` gets the number of each further signal; without it they change nothing."""
        self.number: int | None = None  # of the first signal; None: none has come
        self._on_again = on_again
        self._news: SimpleQueue[None] = SimpleQueue()  # its `put` may interrupt itself
        for number in SIGNALS:
            signal.signal(number, self._set)

    @property
    def is_set(self) -> bool:
        return self.number is not None

    def _set(self, number: int, frame: FrameType | None) -> None:
        if self.number is None:
            self.number = number
        elif self._on_again is not None:
            self._on_again(number)
        self._news.put(None)

    def wake(self) -> None:
        """End a `wait` early; from a handler, too."""
        self._news.put(None)

    def wait(self, seconds: float) -> bool:
        """Until a signal or `wake` has come, at most `seconds`; whether a signal has. For the main thread."""
        if not self.is_set:
            with suppress(Empty):
                self._news.get(timeout=seconds)
        return self.is_set


def end_at_once(number: int) -> NoReturn:
    """End the process as the signal would, without closing anything. What is durable is so already."""
    os._exit(128 + number)


def hear_terminate() -> None:
    """Let SIGTERM end a container's first process until there is a `StopSignal`.

    The kernel gives such a process no signal that it has no handler for. Any other one is ended by the
    signal itself, also while it waits for something that no handler could interrupt.
    """
    if os.getpid() == 1:
        signal.signal(signal.SIGTERM, lambda number, frame: end_at_once(number))


class HangUps:
    """SIGHUP, from its making on: a server may be asked to reload while it still starts. For the main thread.

    It is also what a terminal that is closed sends to what runs in it. Then the process is to stop.
    """

    def __init__(self) -> None:
        self._has_terminal = _is_terminal()
        self._heard: SimpleQueue[None] = SimpleQueue()
        self.wake: Callable[[], None] = lambda: None  # called when one has come
        signal.signal(signal.SIGHUP, self._hear)

    def _hear(self, number: int, frame: FrameType | None) -> None:
        if self._has_terminal and not _is_terminal():
            os.kill(os.getpid(), signal.SIGTERM)
        else:
            self._heard.put(None)
            self.wake()

    def take(self) -> bool:
        """Whether one has come since last time."""
        count = self._heard.qsize()
        for _ in range(count):
            self._heard.get()
        return count > 0


def _is_terminal() -> bool:
    """Whether the process's input is a terminal that is there."""
    try:
        termios.tcgetattr(0)
    except (termios.error, OSError):
        return False
    return True
