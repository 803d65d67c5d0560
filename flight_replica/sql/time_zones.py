"""Time zones by the names that DuckDB knows, whatever the host's own list has."""

from __future__ import annotations

from functools import lru_cache

from flight_replica.sql.statement import parser

__all__ = ["zone_name"]


def zone_name(text: str) -> str | None:
    """The zone's name as DuckDB spells it, for a name in any case; None where there is none."""
    return _names().get(text.strip().casefold())


@lru_cache(maxsize=1)
def _names() -> dict[str, str]:
    rows = parser().execute("SELECT name FROM pg_timezone_names()").fetchall()
    return {name.casefold(): name for (name,) in rows}
