"""What makes DuckDB plan for minutes, where neither an interrupt nor a limit ends it: refused before.

The time grows with the square of the number of result columns, of subqueries that name a column from
outside, and of subqueries in FROM that name tables beside them. Aliases used in aliases are written out, so
it can double with each.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from flight_replica.errors import LimitExceeded

__all__ = ["COLUMNS_MAX", "SUBQUERIES_MAX", "PlanningCost", "check_aliases"]

COLUMNS_MAX = 4_000  # in all SELECT lists of a statement together
SUBQUERIES_MAX = 100  # in expressions and in FROM
ALIASES_MAX = 300  # expressions that one alias may stand for


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


def check_aliases(select_list: Sequence[Mapping[str, object]]) -> None:
    """Bound what DuckDB writes out where items use aliases of items before them, `a + a AS b, b + b AS c`.

    Each alias is replaced by its whole expression while the statement is planned, which nothing interrupts.
    A column of the same name counts as the alias.
    """
    sizes: dict[str, int] = {}  # folded alias -> how many expressions it stands for
    for item in select_list:
        names = [str(name).lower() for name in _column_names(item)]
        size = 1 + sum(sizes.get(name, 0) for name in names)
        if size > ALIASES_MAX:
            raise LimitExceeded(f"aliases used in aliases stand for {size} expressions, limit {ALIASES_MAX}")
        if alias := str(item.get("alias")).lower():
            sizes[alias] = size


def _column_names(root: object) -> Iterator[object]:
    """The last part of every column name below."""
    queue = [root]
    while queue:
        part = queue.pop()
        if isinstance(part, Mapping):
            if isinstance(names := part.get("column_names"), list) and names:
                yield names[-1]
            queue.extend(part.values())
        elif isinstance(part, list):
            queue.extend(part)
