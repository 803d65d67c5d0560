"""A statement that asks for columns of the row of one key and nothing else, for states that know it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa

from flight_replica.schema import TableSchema
from flight_replica.sql.key_filter import KeyFilter
from flight_replica.sql.plain_count import gives_each_row
from flight_replica.sql.statement import Node
from flight_replica.sql.walk import items, texts

__all__ = ["PlainRow", "RowShape", "plain_row"]

_EACH_HAS = ("class", "type", "query_location", "query_location_length")  # parts of every expression


@dataclass(frozen=True, slots=True)
class PlainRow:
    """`SELECT a, b FROM t WHERE id = 7` and its like."""

    columns: tuple[str, ...] | None  # as spelled; None: all

    def places(self, names: Sequence[str]) -> tuple[int, ...] | None:
        """Where its columns stand among the table's `names`; None where that isn't plain."""
        if self.columns is None:
            return tuple(range(len(names)))
        folded = [name.lower() for name in names]
        wanted = [name.lower() for name in self.columns]
        is_plain = all(folded.count(name) == 1 for name in wanted)
        return tuple(map(folded.index, wanted)) if is_plain else None


@dataclass(frozen=True, slots=True)
class RowShape:
    """How a statement's result is made of what is known of its table."""

    table: TableSchema
    columns: pa.Schema  # of the result
    places: tuple[int, ...]  # where these stand in the table; none for a count


def plain_row(statement: Node, key: KeyFilter | None) -> PlainRow | None:
    """What a checked statement asks for that demands `key`; None where it asks for more, or less."""
    node = statement["node"]
    assert isinstance(node, dict), "a statement without its node"
    if key is None or not gives_each_row(node):
        return None
    names = [term.column.lower() for term in key.terms]
    if _conditions(node["where_clause"]) != len(names) or len(set(names)) != len(names):
        return None
    selected = items(node, "select_list")
    if len(selected) == 1 and _is_star(selected[0]):
        return PlainRow(None)
    columns = [_column(item) for item in selected]
    found = tuple(name for name in columns if name is not None)
    return PlainRow(found) if len(found) == len(columns) else None


def _conditions(condition: object) -> int:
    """How many there are that AND joins."""
    assert isinstance(condition, dict), "a WHERE without its condition"
    if condition.get("type") == "CONJUNCTION_AND":
        return sum(map(_conditions, items(condition, "children")))
    return 1


def _is_star(item: Node) -> bool:
    """Whether it is `*` as it is."""
    return item.get("class") == "STAR" and not any(
        value for name, value in item.items() if name not in _EACH_HAS
    )


def _column(item: Node) -> str | None:
    """The name of a selected column, not that of a table in front, which could be a struct's."""
    if item.get("class") != "COLUMN_REF":
        return None
    names = texts(item, "column_names")
    return names[0] if len(names) == 1 else None
