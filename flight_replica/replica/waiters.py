"""`Waiters`: who waits for one table to reach a seq, or to be proven fresh; each is resumed exactly when due.

A waiter is a function to call, not a thread: resuming ten thousand costs ten thousand calls, where as many
threads would fight for the interpreter. A thread that blocks waits at a `Gate`, whose `open` is the function.
They are kept in order, so that what is applied touches only those that it releases.
"""

from __future__ import annotations

import threading
from bisect import bisect_right, insort
from collections.abc import Callable
from dataclasses import dataclass
from itertools import count
from math import inf
from typing import TypeAlias

Resume: TypeAlias = Callable[[], None]

# (seq, or minus the lag in µs that is enough; number of the waiter), in ascending order
_Key: TypeAlias = tuple[float, int]


class Gate:
    """Where one thread waits until another opens it, now or before. It stays open for one passage."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._lock.acquire()

    def open(self) -> None:
        """Let the thread pass. Any number of times, from any thread."""
        try:
            self._lock.release()
        except RuntimeError:
            return  # it is open already

    def wait(self, timeout_seconds: float) -> bool:
        """Whether it was opened in time."""
        return self._lock.acquire(timeout=max(0.0, timeout_seconds))


@dataclass(frozen=True, slots=True, eq=False)
class Waiter:
    """A place in the queue; `Waiters.leave` gives it up."""

    key: _Key
    resume: Resume
    queue: _Queue


class _Queue:
    """Waiters in the order in which they become due. Not thread-safe."""

    def __init__(self) -> None:
        self._keys: list[_Key] = []
        self._waiters: dict[_Key, Waiter] = {}

    def __len__(self) -> int:
        return len(self._keys)

    def add(self, waiter: Waiter) -> None:
        insort(self._keys, waiter.key)
        self._waiters[waiter.key] = waiter

    def remove(self, waiter: Waiter) -> None:
        if self._waiters.pop(waiter.key, None) is not None:
            del self._keys[bisect_right(self._keys, waiter.key) - 1]

    def take(self, through: float) -> list[Waiter]:
        """Those whose key is at most `through`."""
        end = bisect_right(self._keys, (through, inf))
        due, self._keys[:end] = self._keys[:end], []
        return [self._waiters.pop(key) for key in due]


class Waiters:
    """The waiters of one table. Thread-safe; they are resumed outside the lock, by the thread that applied.

    A resumed waiter has to look at where the table is: `close` resumes all of them too.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._numbers = count()
        self._by_seq = _Queue()
        self._by_lag = _Queue()
        self._seq = 0  # the newest seq published
        self._is_closed = False

    def __len__(self) -> int:
        """How many wait."""
        return len(self._by_seq) + len(self._by_lag)

    def until_seq(self, seq: int, resume: Resume) -> Waiter:
        """Call `resume` once `seq` is published; at once where it is."""
        with self._lock:
            waiter = Waiter((seq, next(self._numbers)), resume, self._by_seq)
            is_due = self._is_closed or seq <= self._seq
            if not is_due:
                self._by_seq.add(waiter)
        if is_due:
            resume()
        return waiter

    def until_lag(self, lag_us: float, resume: Resume) -> Waiter:
        """Call `resume` at the next proof that the lag is at most `lag_us`; an earlier one doesn't count."""
        with self._lock:
            waiter = Waiter((-lag_us, next(self._numbers)), resume, self._by_lag)
            is_due = self._is_closed
            if not is_due:
                self._by_lag.add(waiter)
        if is_due:
            resume()
        return waiter

    def leave(self, waiter: Waiter) -> None:
        """It waits no longer. Idempotent; it may be resumed at this very moment."""
        with self._lock:
            waiter.queue.remove(waiter)

    def publish(self, seq: int) -> None:
        """`seq` is visible: resume those that wait for it or an older one."""
        with self._lock:
            self._seq = max(self._seq, seq)
            due = self._by_seq.take(self._seq) if len(self._by_seq) else []
        for waiter in due:
            waiter.resume()

    def prove(self, lag_us: int) -> None:
        """The lag is proven to be this: resume those to whom it is enough."""
        with self._lock:
            due = self._by_lag.take(-lag_us) if len(self._by_lag) else []
        for waiter in due:
            waiter.resume()

    def close(self) -> None:
        """Resume everybody, those that come later too."""
        with self._lock:
            self._is_closed = True
            due = self._by_seq.take(inf) + self._by_lag.take(inf)
        for waiter in due:
            waiter.resume()
