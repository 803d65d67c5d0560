"""The numbers and parameters of a statement that do nothing but choose its rows.

They stand in the WHERE of the statement itself, each compared with a column: `id = 7`, `id BETWEEN 7 AND 9`,
`id IN (7, 8)`, `id = ?`. Another number in such a place changes neither what the statement reads nor whether
it may run, nor the columns that it gives.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from flight_replica.sql.hogs import constant
from flight_replica.sql.statement import Node
from flight_replica.sql.walk import items

__all__ = ["NONE", "RowFilters", "row_filters"]


@dataclass(frozen=True, slots=True)
class RowFilters:
    """What stands in such places."""

    numbers: tuple[int, ...] = ()  # where each literal begins, in bytes of the text
    has_all_parameters: bool = False  # whether every parameter of the statement is one of them


NONE = RowFilters()


def row_filters(text: str, statement: Node) -> RowFilters:
    """Of the statement `text`, whose parse tree is `statement`."""
    node = statement["node"]
    if not isinstance(node, dict) or node.get("type") != "SELECT_NODE":
        return NONE
    compared = list(_compared(node.get("where_clause")))
    parameters = sum(part.get("class") == "PARAMETER" for part in compared)
    numbers = tuple(place for part in compared if (place := _place(text, part)) is not None)
    return RowFilters(numbers, parameters == _parameter_count(statement))


def _compared(condition: object) -> Iterator[Node]:
    """What is compared with a column, anywhere in a condition made by AND and OR."""
    queue = [condition]
    while queue:
        part = queue.pop()
        if not isinstance(part, dict):
            continue
        match part.get("class"):
            case "CONJUNCTION":
                queue += items(part, "children")
            case "COMPARISON":
                yield from _beside_a_column([part["left"], part["right"]])
            case "BETWEEN":
                yield from _beside_a_column([part["input"], part["lower"], part["upper"]])
            case "OPERATOR" if part.get("type") == "COMPARE_IN":
                yield from _beside_a_column(items(part, "children"))


def _beside_a_column(operands: Sequence[object]) -> list[Node]:
    """The operands but the one column among them; none where there is another than one."""
    nodes = [operand for operand in operands if isinstance(operand, dict)]
    others = [node for node in nodes if node.get("class") != "COLUMN_REF"]
    return others if len(others) == len(nodes) - 1 else []


def _place(text: str, part: Node) -> int | None:
    """Where a literal whole number begins; None for anything else."""
    start, length = part.get("query_location"), part.get("query_location_length")
    if part.get("class") != "CONSTANT" or not isinstance(start, int) or not isinstance(length, int):
        return None
    written = text.encode()[start : start + length]
    is_number = written.isdigit() and isinstance(constant(part), int)
    return start if is_number else None


def _parameter_count(root: object) -> int:
    count, queue = 0, [root]
    while queue:
        part = queue.pop()
        if isinstance(part, dict):
            count += part.get("class") == "PARAMETER"
            queue.extend(part.values())
        elif isinstance(part, list):
            queue.extend(part)
    return count
