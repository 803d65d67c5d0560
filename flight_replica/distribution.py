"""`Distribution`: how often measured values fell below which bound, and their sum. A histogram's numbers."""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)
COUNTS = (1.0, 10.0, 100.0, 1e3, 1e4, 1e5, 1e6, 1e7)
BYTES = (1024.0, 16384.0, 262144.0, 1048576.0, 4194304.0, 16777216.0, 67108864.0, 268435456.0)


@dataclass(frozen=True, slots=True)
class DistributionReading:
    """A moment. `counts[i]` values were at most `bounds[i]`; the last count is that of all values."""

    bounds: Sequence[float]
    counts: Sequence[int]  # one more than bounds
    sum: float


class Distribution:
    """Thread-safe; `observe` takes less than a microsecond."""

    def __init__(self, bounds: Sequence[float]) -> None:
        """`bounds` ascend."""
        self._bounds = tuple(bounds)
        self._lock = threading.Lock()
        self._counts = [0] * (len(bounds) + 1)  # values above the bound before and up to this one
        self._sum = 0.0

    def observe(self, value: float) -> None:
        place = bisect_left(self._bounds, value)
        with self._lock:
            self._counts[place] += 1
            self._sum += value

    def read(self) -> DistributionReading:
        with self._lock:
            counts, total = list(self._counts), self._sum
        return DistributionReading(self._bounds, list(accumulate(counts)), total)
