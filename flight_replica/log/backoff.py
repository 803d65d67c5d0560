"""How long to wait before trying again: exponential, with full jitter."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class BackoffConfig:
    """The first try waits up to `first_seconds`, each further one up to twice that, at most `max_seconds`."""

    first_seconds: float = 0.05
    max_seconds: float = 5.0


class Backoff:
    """Delays of one retrying loop. Not thread-safe. `draw` gives a number in [0, 1)."""

    def __init__(self, config: BackoffConfig, draw: Callable[[], float] = random.random) -> None:
        self._config = config
        self._draw = draw
        self._tries = 0

    def next_seconds(self) -> float:
        """The next delay, anywhere below the limit that doubles: many replicas don't come back at once."""
        limit: float = self._config.first_seconds * 2.0 ** min(self._tries, 32)
        self._tries += 1
        return self._draw() * min(limit, self._config.max_seconds)

    def reset(self) -> None:
        """The last try worked."""
        self._tries = 0
