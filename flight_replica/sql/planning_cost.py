"""What makes DuckDB plan for minutes, where neither an interrupt nor a limit ends it: refused before.

Measured with DuckDB 2.0.1 on a busy machine: 10 000 result columns took 9 s, and 200 subqueries that name a
column from outside 17 s. Both grow with the square of their number; so do subqueries in FROM that name tables
beside them.
"""

from __future__ import annotations

from flight_replica.errors import LimitExceeded

__all__ = ["COLUMNS_MAX", "SUBQUERIES_MAX", "PlanningCost"]

COLUMNS_MAX = 4_000  # in all SELECT lists of a statement together
SUBQUERIES_MAX = 100  # in expressions and in FROM


class PlanningCost:
    """Counts what one statement has of it. Each method raises `LimitExceeded` at its limit."""

    def __init__(self) -> None:
        self._columns = self._subqueries = 0

    def add_subquery(self) -> None:
        self._subqueries += 1
        if self._subqueries > SUBQUERIES_MAX:
            raise LimitExceeded(f"the statement has more than {SUBQUERIES_MAX} subqueries")

    def add_columns(self, count: int) -> None:
        self._columns += count
        if self._columns > COLUMNS_MAX:
            raise LimitExceeded(f"the statement selects more than {COLUMNS_MAX} columns")
