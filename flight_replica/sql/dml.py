"""A client's write at the primary: what it changes, what it reads, and its text with another target.

DuckDB parses the write itself, inside a CTE: there its tree is to be had. So nothing here guesses where
an expression ends. Tables are made and changed by `ddl.py`, whose names stand here as well.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from flight_replica.errors import InvalidStatement, NotAllowed
from flight_replica.sql.calls import TableFunction, found_functions
from flight_replica.sql.database import quote
from flight_replica.sql.ddl import AddColumn, CreateTable, DropTable, parse_ddl
from flight_replica.sql.sandbox import parameters_of, put
from flight_replica.sql.statement import Node, Token, kind_of, single, tokens, tree_of, unquoted
from flight_replica.sql.walk import Resolve, Scope, Walk, items, served_table, text_of, texts

__all__ = [
    "AddColumn",
    "CreateTable",
    "Dml",
    "DmlKind",
    "DropTable",
    "parse_ddl",
    "parse_dml",
    "retarget",
]

_BEFORE = "WITH q AS ("
_AFTER = "\n) SELECT 1"
_PROBE = "$target"  # a name put in the target's place, to see that it is the target's place

# Fields of the tree that hold the target, which is checked by itself.
_TARGET_FIELDS = ("table", "schema", "catalog", "qualified_name")


class DmlKind(StrEnum):
    """What a write does with rows whose key is there already, or does to rows that are."""

    INSERT = "INSERT"
    INSERT_OR_REPLACE = "INSERT OR REPLACE"
    INSERT_OR_IGNORE = "INSERT OR IGNORE"
    UPDATE = "UPDATE"
    DELETE = "DELETE"


@dataclass(frozen=True, slots=True)
class Dml:
    """One checked write. Places are bytes of the UTF-8 text `sql`."""

    kind: DmlKind
    table: str  # the target as spelled, without quotes and `main.`
    target_start: int
    target_length: int
    has_alias: bool
    assignments_start: int  # right after an UPDATE's SET, 0 for the others
    sql: str  # without OR REPLACE, OR IGNORE and what stood around it; "\nRETURNING *" may be appended
    tables: tuple[str, ...]  # served tables that it reads, the target only if a sub-select reads it
    functions: tuple[TableFunction, ...]
    parameter_count: int
    parameter_names: tuple[str, ...] = ()


def parse_dml(sql: str, resolve: Resolve) -> Dml:
    """The write in `sql`. Raises as `check_select` does, `NotAllowed` for what isn't understood."""
    text = single(sql)
    verb = kind_of(text)
    if verb not in ("INSERT", "UPDATE", "DELETE"):
        raise NotAllowed(f"{verb} statements aren't allowed here, only INSERT, UPDATE and DELETE")
    kind, text = _without_or(verb, text)
    words = tokens(text)
    first, last = _target(words)
    node = _write_node(text)
    table = _target_name(node, resolve)
    walk = Walk(resolve)
    walk.check(_readings(node), Scope(takes_default=True))
    if walk.positions:
        raise NotAllowed("a write can't ask where a view stands; it reads what is newest")
    count, names = parameters_of(walk)
    dml = Dml(
        kind=kind,
        table=table,
        target_start=words[first].start,
        target_length=words[last].end - words[first].start,
        has_alias=_has_alias(node, words, last),
        assignments_start=_assignments_start(words, last) if kind is DmlKind.UPDATE else 0,
        sql=text,
        tables=tuple(walk.tables),
        functions=found_functions(walk, text, None, len(_BEFORE)),
        parameter_count=count,
        parameter_names=names,
    )
    _check_target(dml)
    return dml


def retarget(dml: Dml, relation: str, alias: str | None, assignment: str | None = None) -> str:
    """The text with `relation` as its target, known as `alias` unless it had an alias of its own.

    `assignment` (`column = value`) goes before those of an UPDATE.
    """
    name, text = quote(relation), dml.sql.encode()
    if alias is not None and not dml.has_alias:
        name += f" AS {quote(alias)}"
    if assignment is not None:
        text = put(text, dml.assignments_start, 0, f" {assignment},")
    return put(text, dml.target_start, dml.target_length, name).decode()


def _verb(words: Sequence[Token]) -> int:
    """Where INSERT, UPDATE or DELETE stands: first, or after the last bracket of WITH."""
    depth = 0
    for index, word in enumerate(words):
        is_open = depth == 0 and (index == 0 or words[index - 1].says(")"))
        if is_open and word.says("INSERT", "UPDATE", "DELETE"):
            return index
        depth += word.says("(") - word.says(")")
    raise NotAllowed(f"{words[0].text.upper()} isn't allowed here, only INSERT, UPDATE and DELETE")


def _without_or(verb: str, text: str) -> tuple[DmlKind, str]:
    """The kind, and the text without OR REPLACE or OR IGNORE: the engine decides about keys itself."""
    words = tokens(text)
    index = _verb(words)
    if not (verb == "INSERT" and words[index + 1].says("OR")):
        return DmlKind(verb), text
    kind = DmlKind.INSERT_OR_REPLACE if words[index + 2].says("REPLACE") else DmlKind.INSERT_OR_IGNORE
    start, end = words[index].end, words[index + 2].end
    return kind, put(text.encode(), start, end - start, "").decode()


def _target(words: Sequence[Token]) -> tuple[int, int]:
    """The first and last token of the target's name."""
    index = _verb(words)
    first = index + (1 if words[index].says("UPDATE") else 2)
    last = first + 2 if words[first + 1 : first + 2] and words[first + 1].says(".") else first
    if last >= len(words):
        raise InvalidStatement("the statement names no table")
    return first, last


def _write_node(text: str) -> Node:
    """The write's own node of the tree."""
    outer = tree_of(_BEFORE + text + _AFTER)["node"]
    assert isinstance(outer, dict), "a statement without a node"
    (entry,) = items(outer["cte_map"], "map")
    value = entry["value"]
    assert isinstance(value, dict), "a CTE without a query"
    node = value["query_node"]
    if not isinstance(node, dict) or not text_of(node, "type").startswith(("INSERT", "UPDATE", "DELETE")):
        raise NotAllowed("only INSERT, UPDATE and DELETE are allowed here")
    if items(node, "returning_list"):
        raise NotAllowed("RETURNING isn't allowed here; a write answers with its rows and its seq")
    if node.get("on_conflict_info") is not None:
        raise NotAllowed("ON CONFLICT isn't allowed here; use INSERT OR REPLACE or INSERT OR IGNORE")
    return node


def _target_name(node: Node, resolve: Resolve) -> str:
    """The target as spelled. Raises `TableNotFound`, `NotAllowed`."""
    ref = node["table"] if isinstance(node["table"], dict) else node
    if ref.get("type") not in ("BASE_TABLE", "INSERT_QUERY_NODE"):
        raise NotAllowed("only a table can be written to")
    path = texts(ref["qualified_name"], "path")
    served_table(path, resolve)
    return path[-1]


def _readings(node: Node) -> Node:
    """The write as a query over the same CTEs, sources and expressions: what it reads."""
    rest = {key: value for key, value in node.items() if key not in _TARGET_FIELDS}
    return rest | {"type": "SELECT_NODE"}


def _has_alias(node: Node, words: Sequence[Token], last: int) -> bool:
    if isinstance(node["table"], dict):
        return text_of(node["table"], "alias") != ""
    return last + 1 < len(words) and words[last + 1].says("AS")  # INSERT: the tree doesn't keep it


def _assignments_start(words: Sequence[Token], last: int) -> int:
    """Where an UPDATE's assignments begin; `last` is the last token of the target's name."""
    index = last + 1
    if words[index].says("AS"):
        index += 2
    elif not words[index].says("SET"):
        index += 1  # an alias
    return words[index].end


def _check_target(dml: Dml) -> None:
    """Put a name where the target should stand and see that DuckDB takes it for the target.

    Likewise for an UPDATE's first assignment.
    """
    is_update = dml.kind is DmlKind.UPDATE
    node = _write_node(retarget(dml, _PROBE, None, f"{quote(_PROBE)} = 0" if is_update else None))
    if is_update and texts(node["set_info"], "columns")[:1] != [_PROBE]:
        raise NotAllowed(f"table '{dml.table}': can't tell where the statement's assignments begin")
    ref = node["table"] if isinstance(node["table"], dict) else node
    written = tokens(dml.sql.encode()[dml.target_start :][: dml.target_length].decode())[-1]
    if texts(ref["qualified_name"], "path") != [_PROBE] or unquoted(written.text) != dml.table:
        raise NotAllowed(f"table '{dml.table}': can't tell where the statement names its target")
