"""The expression that a guard is: a value in, the same value out, or an error that tells its limit."""

from __future__ import annotations

import json
from functools import lru_cache

import duckdb

from flight_replica.sql.database import literal
from flight_replica.sql.heavy import Bound
from flight_replica.sql.messages import LIMIT_SIGN
from flight_replica.sql.statement import Node, nested, parser, tree_of
from flight_replica.sql.walk import items

__all__ = ["text_of_tree", "wrap"]


def wrap(node: Node, bound: Bound) -> None:
    """Put the guard in the place of an expression, and the expression inside."""
    assert "class" in node, "only an expression has a guard"
    inner = dict(node)
    inner["alias"] = ""
    if node.get("class") == "PARAMETER":
        inner = json.loads(_template("SELECT $1::VARCHAR")) | {"child": inner}
    wrapper = json.loads(_template(_guard_sql(bound)))
    (value,) = wrapper["children"][0]["arguments"][0]["expression"]["arguments"]
    value["expression"] = inner
    wrapper["alias"] = node.get("alias", "")
    node.clear()
    node.update(wrapper)


def _guard_sql(bound: Bound) -> str:
    """A guard around NULL.

    Its value stands in it once: two would multiply where guards nest, and might differ, as random() does.
    What raises is a cast: DuckDB lets nobody refer to an alias whose expression calls error().
    """
    checks = [f'strlen("$v"::VARCHAR) > {bound.bytes_max}']
    if bound.is_list:
        checks.insert(0, f'len("$v") > {bound.bytes_max // 3}')  # as text a digit, a comma and a blank each
    if bound.is_pattern:
        checks.append("""regexp_matches("$v"::VARCHAR, '\\{[0-9]')""")
    told = literal(f"{LIMIT_SIGN}{bound.told}, limit {bound.bytes_max} bytes")
    cases = " ".join(f"WHEN {check} THEN {told}" for check in checks)
    is_fit = f"CAST(CASE {cases} ELSE 'true' END AS BOOLEAN)"
    return f'SELECT list_transform([NULL], lambda "$v": CASE WHEN {is_fit} THEN "$v" END)[1]'


@lru_cache(maxsize=1_000)
def _template(sql: str) -> str:
    """The one select item of `sql` as JSON."""
    (item,) = items(tree_of(sql)["node"], "select_list")
    return json.dumps(item)


def text_of_tree(statement: Node) -> str:
    """The statement as text. Raises `LimitExceeded` for a tree that DuckDB takes for too deep."""
    tree = json.dumps({"error": False, "statements": [statement]})
    try:
        (row,) = parser().execute("SELECT json_deserialize_sql($1::JSON)", [tree]).fetchall()
    except duckdb.SerializationException as error:
        raise nested() from error
    return str(row[0])
