"""What of a statement's text is shown in logs and traces. Values bound to its parameters never are."""

from __future__ import annotations

from enum import StrEnum

__all__ = ["QueryText", "shown_text"]


class QueryText(StrEnum):
    FULL = "full"
    NORMALIZED = "normalized"  # with ? for each literal, and without comments
    NONE = "none"


def shown_text(sql: str, query_text: QueryText) -> str | None:
    """None: nothing is shown."""
    match query_text:
        case QueryText.FULL:
            return sql
        case QueryText.NORMALIZED:
            # Loads DuckDB, and every command of the command line knows the names above.
            from flight_replica.sql.literals import without_literals

            return without_literals(sql)
    return None
