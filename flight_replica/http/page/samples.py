"""`Samples`: how each table was in the last hour, one sample a second. See sampler.py for who takes them."""

from __future__ import annotations

import threading
from array import array
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from flight_replica.control.status import TableStatus

SAMPLE_SECONDS = 1.0
KEPT_SECONDS = 3600.0
TABLES_MAX = 200  # with a history; a table's hour takes 84 KiB
RATE_SECONDS = 5.0  # what the rate of ops is a mean over

_SAMPLES_MAX = int(KEPT_SECONDS / SAMPLE_SECONDS)


@dataclass(frozen=True, slots=True)
class Points:
    """One table over time, ascending; `lag_ms` and `ops_per_second` are None where they aren't known."""

    table: str
    time_ms: list[int]  # since 1970, on this host's clock
    lag_ms: list[float | None]
    ops_per_second: list[float | None]

    def as_json(self) -> dict[str, object]:
        return {
            "table": self.table,
            "time_ms": self.time_ms,
            "lag_ms": self.lag_ms,
            "ops_per_second": self.ops_per_second,
        }


@dataclass(frozen=True, slots=True)
class Columns:
    """Samples of one table: `lags_us` is −1 where it isn't known."""

    times_ms: NDArray[np.int64]
    lags_us: NDArray[np.int64]
    seqs: NDArray[np.uint64]


class _Ring:
    """The samples of one table, in one lineage."""

    def __init__(self, lineage: str) -> None:
        self.lineage = lineage
        self._times_ms = array("q")
        self._lags_us = array("q")  # −1: not known
        self._seqs = array("Q")
        self._next = 0  # where the next one goes, once all places are taken

    def add(self, time_ms: int, lag_us: int, seq: int) -> None:
        columns: tuple[tuple[array[int], int], ...] = (
            (self._times_ms, time_ms),
            (self._lags_us, lag_us),
            (self._seqs, seq),
        )
        if len(self._times_ms) < _SAMPLES_MAX:
            for column, value in columns:
                column.append(value)
            return
        for column, value in columns:
            column[self._next] = value
        self._next = (self._next + 1) % _SAMPLES_MAX

    def columns(self) -> Columns:
        """Its samples, ascending in time."""
        order = np.roll(np.arange(len(self._times_ms)), -self._next)
        return Columns(
            np.array(self._times_ms)[order], np.array(self._lags_us)[order], np.array(self._seqs)[order]
        )

    def rate(self) -> float | None:
        """Ops per second lately; None with one sample."""
        count = len(self._times_ms)
        back = min(count - 1, int(RATE_SECONDS / SAMPLE_SECONDS))
        if back < 1:
            return None
        last, first = (self._next - 1) % count, (self._next - 1 - back) % count
        return _rate((self._times_ms[first], self._seqs[first]), (self._times_ms[last], self._seqs[last]))


class Samples:
    """Thread-safe; one thread adds."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._ring_by_table: dict[str, _Ring] = {}

    def add(self, time_ms: int, tables: Sequence[TableStatus]) -> None:
        """Keep how the tables are at this time; those that aren't among them are forgotten."""
        with self._lock:
            gone = self._ring_by_table.keys() - {table.name for table in tables}
            for name in gone:
                del self._ring_by_table[name]
            for table in tables:
                ring = self._ring(table.name, table.lineage)
                if ring is not None:
                    ring.add(time_ms, table.lag_us, table.visible_seq)

    def _ring(self, table: str, lineage: str) -> _Ring | None:
        """The table's samples; they begin anew with another lineage. None beyond `TABLES_MAX`."""
        ring = self._ring_by_table.get(table)
        if ring is None and len(self._ring_by_table) >= TABLES_MAX:
            return None
        if ring is None or ring.lineage != lineage:
            ring = self._ring_by_table[table] = _Ring(lineage)
        return ring

    def rate(self, table: str) -> float | None:
        """Ops per second that the table moved on by lately; None while it isn't known."""
        with self._lock:
            ring = self._ring_by_table.get(table)
            return ring.rate() if ring is not None else None

    def points(self, tables: Collection[str], step_seconds: float) -> list[Points]:
        """The hour of each of `tables` that has one; a point a step: its largest lag, its mean rate."""
        with self._lock:
            found = {name: ring.columns() for name, ring in self._ring_by_table.items() if name in tables}
        return [_points(name, columns, step_seconds) for name, columns in sorted(found.items())]


def _points(table: str, samples: Columns, step_seconds: float) -> Points:
    if not len(samples.times_ms):
        return Points(table, [], [], [])
    steps = samples.times_ms // int(step_seconds * 1000)
    begins = np.flatnonzero(np.diff(steps, prepend=steps[0] - 1))
    ends = np.append(begins[1:], len(steps)) - 1
    lags_us = np.maximum.reduceat(samples.lags_us, begins).tolist()
    times_ms, seqs = samples.times_ms[ends].tolist(), samples.seqs[ends].tolist()
    rates = [_rate(first, last) for first, last in pairwise(zip(times_ms, seqs, strict=True))]
    return Points(
        table, times_ms, [lag_us / 1000 if lag_us >= 0 else None for lag_us in lags_us], [None, *rates]
    )


def _rate(first: tuple[int, int], last: tuple[int, int]) -> float | None:
    """Ops per second between (time_ms, seq) and (time_ms, seq)."""
    if last[0] <= first[0]:
        return None  # the host's clock was set back
    return max(0.0, (last[1] - first[1]) * 1000 / (last[0] - first[0]))
