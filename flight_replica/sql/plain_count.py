"""A statement that asks for nothing but how many rows a table has, for states that count them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from flight_replica.sql.database import quote
from flight_replica.sql.hogs import constant
from flight_replica.sql.statement import Node
from flight_replica.sql.walk import items, text_of

__all__ = ["PlainCount", "gives_each_row", "plain_count"]

# A SELECT that says something in one of these parts asks for more.
_OTHER_PARTS = ("group_expressions", "group_sets", "having", "sample", "qualify")


@dataclass(frozen=True, slots=True)
class PlainCount:
    """`SELECT count(*) FROM t` and its like."""

    table: str  # as the server spells it
    columns: tuple[str, ...]  # the names of the result's columns; each is the count
    prefix: str = ""  # how an EXPLAIN of it begins

    def answer(self, row_count: int) -> str:
        """The statement that has the same result, and reads nothing."""
        values = (f"{row_count}::BIGINT AS {quote(name)}" for name in self.columns)
        return f"{self.prefix}SELECT {', '.join(values)}"


def plain_count(statement: Node, tables: Sequence[str]) -> PlainCount | None:
    """What a checked statement counts; None for one that asks for more.

    `tables` are those that it reads, as the server spells them: of these a plain count has one, once.
    """
    node = statement["node"]
    assert isinstance(node, dict), "a statement without its node"
    source = node.get("from_table")
    if len(tables) != 1 or node["type"] != "SELECT_NODE" or not isinstance(source, dict):
        return None
    is_whole = source["type"] == "BASE_TABLE" and not source["sample"] and not source["column_name_alias"]
    if not is_whole or node["where_clause"] or not gives_each_row(node):
        return None
    names = [_name(item) for item in items(node, "select_list")]
    columns = tuple(name for name in names if name is not None)
    return PlainCount(tables[0], columns) if len(columns) == len(names) else None


def gives_each_row(node: Node) -> bool:
    """Whether a SELECT has its row, if it can have but one, out of its FROM and WHERE and nothing else."""
    is_more = items(node["cte_map"], "map") or any(node[part] for part in _OTHER_PARTS)
    if is_more or node["aggregate_handling"] != "STANDARD_HANDLING":  # GROUP BY ALL
        return False
    return all(_keeps_the_row(modifier) for modifier in items(node, "modifiers"))


def _keeps_the_row(modifier: Node) -> bool:
    """Whether it is a LIMIT of some rows, which many tools put behind everything."""
    limit = constant(modifier.get("limit"))
    return (
        modifier["type"] == "LIMIT_MODIFIER"
        and modifier["limit_type"] == "ROW_COUNT"
        and modifier["offset"] is None
        and isinstance(limit, int)
        and limit > 0
    )


def _name(item: Node) -> str | None:
    """The name of the column of a select item that counts all rows; None for every other item."""
    arguments = [argument["expression"] for argument in items(item, "arguments")]
    name = text_of(item, "function_name")
    values = [constant(argument) for argument in arguments]
    is_count = (name, len(values)) in (("count_star", 0), ("count", 0), ("count", 1))
    if item.get("class") != "FUNCTION" or not is_count or not all(type(value) is int for value in values):
        return None
    if item["filter"] or item["distinct"] or items(item["order_bys"], "orders"):
        return None
    return text_of(item, "alias") or f"{name}({', '.join(map(str, values))})"
