"""The casts of a bound plan, as text. EXPLAIN won't do: it shows an expression that has an alias by that.

Source: DuckDB's `json_serialize_plan`, whose nodes of kind OPERATOR_CAST hold type and operand.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import duckdb

from flight_replica.sql.database import quote

__all__ = ["bound_casts"]

_SERIALIZE = "SELECT json_serialize_plan(?, optimize := false, skip_null := true, skip_empty := true)"
_NAMES = {"TIMESTAMP_TZ": "TIMESTAMP WITH TIME ZONE", "TIME_TZ": "TIME WITH TIME ZONE"}


def bound_casts(cursor: duckdb.DuckDBPyConnection, sql: str) -> str | None:
    """`CAST('literal' AS TYPE)` a line for each cast of a text, `CAST(… AS TYPE)` for any other one.

    None where the statement can't be bound, or its plan not be told. Raises DuckDB's errors.
    """
    row = cursor.execute(_SERIALIZE, [sql]).fetchone()
    plan = json.loads(row[0]) if row else {}
    if plan.get("error", True):
        return None
    return "\n".join(_text(node) for node in _nodes(plan) if node.get("type") == "OPERATOR_CAST")


def _nodes(plan: object) -> Iterator[Mapping[str, Any]]:
    """Every object in a JSON value."""
    queue = [plan]
    while queue:
        item = queue.pop()
        if isinstance(item, Mapping):
            yield item
            queue.extend(item.values())
        elif isinstance(item, Sequence) and not isinstance(item, str):
            queue.extend(item)


def _text(cast: Mapping[str, Any]) -> str:
    operands: Sequence[Mapping[str, Any]] = cast.get("children", ())
    value = operands[0].get("value", {}).get("value") if operands else None
    literal = f"'{value}'" if isinstance(value, str) else "…"
    return f"CAST({literal} AS {_type(cast['return_type'])})"


def _type(kind: Mapping[str, Any]) -> str:
    """DuckDB's spelling of a type."""
    name, info = str(kind["id"]), kind.get("type_info", {})
    match name:
        case "DECIMAL":
            return f"DECIMAL({info['width']},{info['scale']})"
        case "LIST":
            return f"{_type(info['child_type'])}[]"
        case "ARRAY":
            return f"{_type(info['child_type'])}[{info['size']}]"
        case "STRUCT":
            return f"STRUCT({', '.join(_fields(info))})"
        case "MAP":
            key, value = (_type(field["second"]) for field in info["child_type"]["type_info"]["child_types"])
            return f"MAP({key}, {value})"
        case "ENUM":
            return "ENUM({})".format(", ".join("'" + v.replace("'", "''") + "'" for v in info["values"]))
    return _NAMES.get(name, name)


def _fields(info: Mapping[str, Any]) -> Iterator[str]:
    return (f"{quote(field['first'])} {_type(field['second'])}" for field in info["child_types"])
