"""Where an answer stands: one `TablePosition` for each table that a statement reads; what may be demanded."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf
from uuid import UUID


@dataclass(frozen=True, slots=True)
class TablePosition:
    """The position of one table in one answer (CF 5.3 of the feed contract).

    Times are µs since 1970 on the origin's clock; `lag_us` is −1 where it isn't known.
    """

    table: str
    lineage: UUID
    base_seq: int
    visible_seq: int
    commit_time_us: int = 0
    lag_us: int = -1
    high_water: int = 0

    def as_json(self) -> dict[str, object]:
        return {
            "table": self.table,
            "lineage": str(self.lineage),
            "base_seq": self.base_seq,
            "visible_seq": self.visible_seq,
            "commit_time_us": self.commit_time_us,
            "lag_us": self.lag_us,
            "high_water": self.high_water,
        }


@dataclass(frozen=True, slots=True)
class Demand:
    """How far one table must be before a read of it is answered (CF 5.4)."""

    table: str  # as the server spells it
    min_seq: int = 0
    max_staleness_ms: float | None = None  # None: any age will do

    @property
    def lag_us_max(self) -> float:
        """The most that the proven lag may be."""
        return inf if self.max_staleness_ms is None else self.max_staleness_ms * 1000

    def is_met_by(self, at: TablePosition) -> bool:
        """Whether an answer at this position is one. An age that isn't known proves nothing."""
        return at.visible_seq >= self.min_seq and (
            self.max_staleness_ms is None or 0 <= at.lag_us <= self.lag_us_max
        )

    def not_met(self, at: TablePosition, waited_ms: float) -> str:
        """What a client is told whose time is up: what was asked, and the position reached."""
        asked = [f"seq {self.min_seq} (min_seq)"] if at.visible_seq < self.min_seq else []
        if self.max_staleness_ms is not None and not 0 <= at.lag_us <= self.lag_us_max:
            asked.append(f"a lag of at most {self.max_staleness_ms:g} ms (max_staleness_ms)")
        lag = "not known" if at.lag_us < 0 else f"{at.lag_us / 1000:.1f} ms"
        return (
            f"table {self.table!r}: waited {waited_ms:.0f} ms (wait_timeout_ms) for {' and '.join(asked)}; "
            f"visible is seq {at.visible_seq}, its lag is {lag}, the newest known seq is {at.high_water}"
        )
