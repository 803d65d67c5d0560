"""Positions and seqs as the page's JSON has them. Seqs are texts: JavaScript's numbers end at 2^53."""

from __future__ import annotations

from flight_replica.position import TablePosition


def position_json(at: TablePosition) -> dict[str, object]:
    return {"table": at.table, "visible_seq": str(at.visible_seq), "lag_ms": lag_ms(at.lag_us)}


def lag_ms(lag_us: int) -> float | None:
    """None where it isn't known."""
    return lag_us / 1000 if lag_us >= 0 else None
