"""`StopSignal`: how SIGINT and SIGTERM reach a main thread that waits."""

from __future__ import annotations

import signal
from contextlib import suppress
from queue import Empty, SimpleQueue
from types import FrameType


class StopSignal:
    """Set by the first SIGINT or SIGTERM after its making; further ones change nothing.

    Not a `threading.Event`: a handler runs in the main thread, between any two steps of what it is doing,
    so with a second signal, or one in the middle of `wait`, it would wait for a lock of its own thread.
    """

    def __init__(self) -> None:
        self.is_set = False
        self._news: SimpleQueue[None] = SimpleQueue()  # its `put` may interrupt itself
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._set)

    def _set(self, number: int, frame: FrameType | None) -> None:
        self.is_set = True
        self._news.put(None)

    def wait(self, seconds: float) -> bool:
        """Until a signal has come, at most `seconds`; whether one has. For the main thread."""
        if not self.is_set:
            with suppress(Empty):
                self._news.get(timeout=seconds)
        return self.is_set
