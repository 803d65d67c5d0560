"""Whether tables can be read, fresh enough, and why not: what `/readyz` says of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from flight_replica.errors import TableNotFound
from flight_replica.flightsql.service import TableEntry
from flight_replica.sql.statement import fold


@dataclass(frozen=True, slots=True)
class Asked:
    """What has to hold for a table to be ready."""

    max_lag_ms: float | None = None  # None: any lag will do, also one that nobody knows
    tables: tuple[str, ...] = ()  # these alone; empty: all
    takes_degraded: bool = False  # a table that serves although something is wrong will do


@dataclass(frozen=True, slots=True)
class TableReadiness:
    """One table. It is ready where `reasons` is empty."""

    table: str
    state: str
    lag_ms: float | None  # None: not proven
    reasons: tuple[str, ...]

    def as_json(self) -> dict[str, object]:
        return {
            "table": self.table,
            "ready": not self.reasons,
            "state": self.state,
            "lag_ms": self.lag_ms,
            "reasons": list(self.reasons),
        }


def readiness(entries: Sequence[TableEntry], asked: Asked) -> list[TableReadiness]:
    """Of every table that was asked for. Raises `TableNotFound` for one that isn't there."""
    if asked.tables:
        entry_by_name = {fold(entry.name): entry for entry in entries}
        for name in asked.tables:
            if fold(name) not in entry_by_name:
                raise TableNotFound(f"there is no table {name[:200]!r}")
        entries = [entry_by_name[name] for name in dict.fromkeys(map(fold, asked.tables))]
    return [_of_table(entry, asked) for entry in entries]


def _of_table(entry: TableEntry, asked: Asked) -> TableReadiness:
    reasons = []
    is_served = entry.state == "serving" or (entry.state == "degraded" and asked.takes_degraded)
    if not is_served:
        reasons.append(f"{entry.state}: {entry.reason}" if entry.reason else str(entry.state))
    lag_ms = entry.position.lag_us / 1000 if entry.position.lag_us >= 0 else None
    if asked.max_lag_ms is not None:
        if lag_ms is None:
            reasons.append("no proof of freshness")
        elif lag_ms > asked.max_lag_ms:
            reasons.append(f"lag {lag_ms:.1f} ms > {asked.max_lag_ms:g} ms")
    return TableReadiness(entry.name, str(entry.state), lag_ms, tuple(reasons))


def counted(found: Sequence[TableReadiness]) -> str:
    """The same without names or reasons, for those whom they don't concern."""
    late = [table for table in found if table.reasons]
    states = sorted({table.state for table in late if table.state != "serving"})
    parts = [f"{sum(table.state == state for table in late)} {state}" for state in states]
    if behind := sum(table.state == "serving" for table in late):
        parts.append(f"{behind} not proven fresh enough")
    return f"{len(late)} of {len(found)} tables: {', '.join(parts)}"
