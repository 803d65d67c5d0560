"""What a statement demands of the columns of its table: `WHERE id = 7 AND …` reads no row but those with 7.

Only of a SELECT over one table, read once, and of terms joined by AND at the top of its WHERE. Whether the
columns make a key, and the values are of its types, is for whoever knows the table.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import pyarrow as pa

from flight_replica.schema import TableSchema
from flight_replica.sql.hogs import constant
from flight_replica.sql.statement import Node
from flight_replica.sql.walk import items, text_of, texts

__all__ = ["NO_KEYS", "KeyFilter", "Keys", "Term", "key_filter", "key_in"]

# Table -> column, in small letters -> the value that it has in every row that is read.
Keys: TypeAlias = Mapping[str, Mapping[str, object]]
NO_KEYS: Keys = {}


@dataclass(frozen=True, slots=True)
class Term:
    """`column = value`, or `column = parameter`."""

    column: str  # as spelled
    value: int | str | None = None
    place: int | None = None  # where a literal value begins, in bytes of the text
    parameter: str | None = None  # its name or number


@dataclass(frozen=True, slots=True)
class KeyFilter:
    """The terms that every row of `table` fulfils that is read."""

    table: str  # as the server spells it
    terms: tuple[Term, ...]

    def at(self, values: Mapping[int, int]) -> KeyFilter:
        """The same with other literals: the place of each -> its value."""
        # Made as they are, since `replace` takes several times as long, and most small queries come by here.
        return KeyFilter(
            self.table,
            tuple(
                [
                    term
                    if term.place is None
                    else Term(term.column, values.get(term.place, term.value), term.place, term.parameter)
                    for term in self.terms
                ]
            ),
        )

    def bound(self, parameters: Mapping[str, object]) -> dict[str, object]:
        """Column, in small letters -> the value that it has in each row; parameters by name or number."""
        found: dict[str, object] = {}
        for term in self.terms:
            value = term.value if term.parameter is None else parameters.get(term.parameter)
            if value is not None:
                found[term.column.lower()] = value
        return found


def key_filter(statement: Node, tables: Sequence[str]) -> KeyFilter | None:
    """What a checked statement demands; None where that can't be told.

    `tables` are those that it reads, as the server spells them.
    """
    node = statement["node"]
    assert isinstance(node, dict), "a statement without its node"
    source = node.get("from_table")
    if len(tables) != 1 or not isinstance(source, dict) or node.get("type") != "SELECT_NODE":
        return None
    is_whole = source["type"] == "BASE_TABLE" and not any(
        source[part] for part in ("sample", "column_name_alias", "at_clause")
    )
    if not is_whole or _count(statement, "BASE_TABLE") != 1 or _count(statement, "SUBQUERY"):
        return None
    known_as = text_of(source, "alias") or text_of(source, "table_name")
    terms = tuple(_terms(node.get("where_clause"), known_as.lower()))
    return KeyFilter(tables[0], terms) if terms else None


def key_in(values: Mapping[str, object], schema: TableSchema) -> tuple[object, ...] | None:
    """The key that rows with these values have, in key order; None where they may have others.

    A value has to be just what the column holds: a text that is compared with a number is cast by DuckDB.
    """
    found = []
    for column in schema.key_columns:
        name = column.name.lower()
        value = values.get(name)
        if schema.folded_names.count(name) != 1 or not _is_of(value, column.type):
            return None
        found.append(value)
    return tuple(found)


def _is_of(value: object, kind: pa.DataType) -> bool:
    if pa.types.is_integer(kind):
        bits, is_unsigned = kind.bit_width, pa.types.is_unsigned_integer(kind)
        least, end = (0, 1 << bits) if is_unsigned else (-1 << bits - 1, 1 << bits - 1)
        return type(value) is int and least <= value < end
    return bool(pa.types.is_string(kind)) and type(value) is str


def _count(root: object, kind: str) -> int:
    """How many nodes are of the class or type `kind`."""
    count, queue = 0, [root]
    while queue:
        part = queue.pop()
        if isinstance(part, dict):
            count += kind in (part.get("class"), part.get("type"))
            queue.extend(part.values())
        elif isinstance(part, list):
            queue.extend(part)
    return count


def _terms(condition: object, table: str) -> Iterator[Term]:
    """`table`: what the table is called in the statement, in small letters."""
    if not isinstance(condition, dict):
        return
    if condition.get("type") == "CONJUNCTION_AND":
        for child in items(condition, "children"):
            yield from _terms(child, table)
    elif condition.get("type") == "COMPARE_EQUAL":
        left, right = condition["left"], condition["right"]
        for column, other in ((left, right), (right, left)):
            if column.get("class") == "COLUMN_REF" and (term := _term(column, other, table)) is not None:
                yield term


def _term(column: Node, other: Node, table: str) -> Term | None:
    *before, name = texts(column, "column_names")
    if before and [part.lower() for part in before] != [table]:  # a field of a struct, perhaps
        return None
    if other.get("class") == "PARAMETER":
        return Term(name, parameter=text_of(other, "identifier"))
    value = constant(other) if other.get("class") == "CONSTANT" else None
    if not isinstance(value, int | str) or isinstance(value, bool):
        return None
    place = other.get("query_location")
    return Term(name, value, place if isinstance(place, int) else None)
