"""Types and defaults as a client writes them in DDL: let through by the walk, then worked out by DuckDB."""

from __future__ import annotations

import duckdb
import pyarrow as pa

from flight_replica.conform import conform
from flight_replica.errors import InvalidStatement, NotAllowed
from flight_replica.schema import Column, TableSchema
from flight_replica.sql.hogs import constant
from flight_replica.sql.statement import Node, kind_of, parser, single, tree_of
from flight_replica.sql.types import arrow_type_of
from flight_replica.sql.walk import Scope, Walk, items

__all__ = ["declared"]


def declared(kind: str, default: str | None) -> tuple[pa.DataType, object]:
    """A column's Arrow type, and its default as pyarrow's Python value of that type (None: null).

    Raises `NotAllowed` for anything but known types and literals, `InvalidStatement` for a default that
    isn't of the type, `SchemaMismatch` for a type whose values can't be carried exactly.
    """
    printed = _printed_type(kind)
    arrow = arrow_type_of(printed)
    return arrow, None if default is None else _default(default, printed, arrow)


def _printed_type(kind: str) -> str:
    """The type as DuckDB prints it, after the walk has let it through."""
    if kind == "":
        raise InvalidStatement("its type is missing")
    cast = _only_expression(f"SELECT CAST(NULL AS {kind})")
    if cast.get("class") != "CAST" or _constant_or_null(cast.get("child")) is ...:
        raise NotAllowed(f"type {kind[:100]} isn't allowed here")
    return str(_evaluated(f"typeof(CAST(NULL AS {kind}))").column(0)[0].as_py())


def _default(text: str, printed: str, kind: pa.DataType) -> object:
    """The value of a default; a literal, with casts at most. Raises `NotAllowed` for anything else."""
    expression: object = _only_expression(f"SELECT {text}")
    while isinstance(expression, dict) and expression.get("class") == "CAST":
        expression = expression.get("child")
    if _constant_or_null(expression) is ...:
        raise NotAllowed(f"DEFAULT {text[:100]} isn't allowed here: a default is a literal")
    batch = _evaluated(f"CAST(({text}) AS {printed}) AS value")
    exact = conform(batch, TableSchema((Column("value", kind), Column("k", pa.int64(), False)), ("k",)))
    return exact.column(0)[0].as_py()


def _constant_or_null(node: object) -> object:
    """Like `constant`, but decimal literals count as well, and null is None."""
    literal = node.get("literal") if isinstance(node, dict) else None
    if isinstance(literal, dict) and literal.get("kind") in ("NULL_LITERAL", "NUMERIC"):
        return None
    return constant(node)


def _only_expression(query: str) -> Node:
    """The one expression of a SELECT without a source, checked by the walk."""
    text = single(query)
    if kind_of(text) != "SELECT":
        raise InvalidStatement(f"not an expression: {query[:100]}")
    tree = tree_of(text)
    walk = Walk(lambda _: None)
    walk.check(tree, Scope())
    node = tree["node"]
    found = items(node, "select_list")
    if len(found) != 1 or walk.parameters or not isinstance(node, dict) or items(node, "modifiers"):
        raise NotAllowed(f"{query.removeprefix('SELECT ')[:100]} isn't allowed here")
    return found[0]


def _evaluated(expression: str) -> pa.RecordBatch:
    """One row of constants. Raises `InvalidStatement` where DuckDB can't work them out."""
    try:
        table = parser().sql(f"SELECT {expression}, 0::BIGINT AS k").to_arrow_table()
    except duckdb.Error as error:
        raise InvalidStatement(str(error).strip().partition("\n")[0]) from error
    return table.to_batches()[0]
