"""Where an answer stands: one `TablePosition` for each table that a statement reads."""

from __future__ import annotations

from dataclasses import dataclass
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
