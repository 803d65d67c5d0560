"""The walk over a parse tree that lets through what is on a list and refuses everything else.

Every object of the tree is visited, in whatever field it stands: nothing can hide in a field that this
code doesn't know. Known by name are node types, kinds of table references and expressions, functions,
types and tables. The walk keeps its own stack, so depth can't end it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from flight_replica.errors import LimitExceeded, NotAllowed, ReadOnly, TableNotFound
from flight_replica.sql.functions import (
    AGGREGATE,
    INFORMATION_TABLES,
    MERUTABLE,
    POSITION,
    SCALAR,
    TABLE,
    TYPES,
    WINDOW,
)
from flight_replica.sql.hogs import GROWTH_MAX, LAMBDA_LISTS, check_rows, constant, growth
from flight_replica.sql.names import INFORMATION_SCHEMA
from flight_replica.sql.planning_cost import PlanningCost, check_aliases
from flight_replica.sql.statement import Node, fold

__all__ = ["HIDDEN_COLUMNS", "FoundCall", "Scope", "Walk", "items", "served_table", "text_of", "texts"]

Resolve = Callable[[str], str | None]

HIDDEN_COLUMNS = ("$pk_bytes", "$updated")  # of the primary's relations; no statement may name them
LITERAL_UNIT = 1_000  # characters; a literal of n times as many counts as a growth of n
ARRAY_SIZE_MAX = 4_096  # elements of a fixed-size array type; every row of a vector takes all of them

_EXPRESSIONS = frozenset(
    {"BETWEEN", "CASE", "CAST", "COLLATE", "COLUMN_REF", "COMPARISON", "CONJUNCTION", "CONSTANT", "FUNCTION"}
    | {"LAMBDA", "OPERATOR", "PARAMETER", "POSITIONAL_REFERENCE", "STAR", "SUBQUERY", "TYPE", "WINDOW"}
)
_NODES = frozenset(
    {"SELECT_NODE", "SET_OPERATION_NODE", "RECURSIVE_CTE_NODE"}
    | {"BASE_TABLE", "EMPTY", "EXPRESSION_LIST", "JOIN", "PIVOT", "SHOW_REF", "SUBQUERY", "TABLE_FUNCTION"}
    | {"DISTINCT_MODIFIER", "LIMIT_MODIFIER", "ORDER_MODIFIER"}
    | {"ORDER_DEFAULT", "ORDER_ASCENDING", "ORDER_DESCENDING", "ASCENDING", "DESCENDING"}
)
_WRITES = {"INSERT_QUERY_NODE": "INSERT", "UPDATE_QUERY_NODE": "UPDATE", "DELETE_QUERY_NODE": "DELETE"}
# Fields of a query node whose growth multiplies with that of its expressions.
_SOURCES = ("cte_map", "from_table", "children", "left", "right", "select_statement")


@dataclass(frozen=True, slots=True)
class Scope:
    """What a part of the tree sees: the CTE names (folded), and whether it runs again and again."""

    ctes: frozenset[str] = frozenset()
    is_recursive: bool = False
    takes_default: bool = False  # DEFAULT stands for a value: VALUES and SET of a write

    def with_ctes(self, names: Iterable[str]) -> Scope:
        return Scope(self.ctes | {fold(name) for name in names}, self.is_recursive, self.takes_default)


@dataclass(frozen=True, slots=True)
class FoundCall:
    """One of the server's own relations: its table reference and the SELECT it stands in.

    The reference is a call, or a table of `information_schema`, which stands in no SELECT here.
    """

    ref: Node
    select: Node | None


@dataclass(slots=True)
class _Level:
    """How far one part of the tree can blow a value up; parts come before their children."""

    parent: int
    multiplies: bool  # children with each other, else the largest counts
    own: int = 1
    children: int = 1


Child = tuple[object, Scope, int]


@dataclass(slots=True)
class Walk:
    """One walk; afterwards `tables`, `calls` and `parameters` say what the statement reads."""

    resolve: Resolve
    tables: dict[str, None] = field(default_factory=dict)  # in order of appearance
    calls: list[FoundCall] = field(default_factory=list)
    parameters: dict[str, None] = field(default_factory=dict)
    positions: dict[str, str] = field(default_factory=dict)  # asked for: a table as spelled -> as served
    _levels: list[_Level] = field(default_factory=list)
    _cost: PlanningCost = field(default_factory=PlanningCost)
    _select_of: dict[int, Node] = field(default_factory=dict)  # id of a table reference -> its SELECT

    def check(self, root: object, scope: Scope) -> None:
        """Visit everything below `root`. Raises what is wrong with the first thing refused."""
        stack: list[Child] = [(root, scope, self._level(-1, multiplies=True))]
        while stack:
            value, scope, level = stack.pop()
            if isinstance(value, str):
                _check_hidden(value)
            elif isinstance(value, list):
                stack.extend((item, scope, level) for item in reversed(value))
            elif isinstance(value, dict):
                stack.extend(reversed(self._open(value, scope, level)))
        self._check_growth()

    def _open(self, node: Node, scope: Scope, level: int) -> list[Child]:
        """Check one object; what is inside it, with the scope of each."""
        if isinstance(kind := node.get("class"), str):
            return self._expression(kind, node, scope, level)
        if isinstance(kind := node.get("type"), str):
            return self._node(kind, node, scope, level)
        return [(value, scope, level) for value in node.values()]

    # --- expressions -----------------------------------------------------------------------------

    def _expression(self, kind: str, node: Node, scope: Scope, level: int) -> list[Child]:
        if kind == "DEFAULT" and scope.takes_default:
            return []
        if kind not in _EXPRESSIONS:
            raise NotAllowed(f"expression {kind} isn't allowed here")
        if kind in ("FUNCTION", "WINDOW"):
            level = self._function(node, scope, level, SCALAR | AGGREGATE if kind == "FUNCTION" else WINDOW)
        elif kind == "PARAMETER":
            self.parameters[text_of(node, "identifier")] = None
        elif kind == "CONSTANT":
            if isinstance(value := constant(node), str) and len(value) > LITERAL_UNIT:
                self._level(level, own=len(value) // LITERAL_UNIT)
        elif kind == "TYPE":
            _check_type(node)
        elif kind == "SUBQUERY":
            self._cost.add_subquery()
        elif kind == "COLUMN_REF" and [fold(name) for name in texts(node, "column_names")] == [
            "current_catalog"
        ]:
            raise NotAllowed("function 'current_catalog' isn't allowed here")  # its brackets may be left out
        return [(value, scope, level) for value in node.values()]

    def _function(self, node: Node, scope: Scope, level: int, allowed: frozenset[str]) -> int:
        """Check a call; the level its arguments grow in."""
        name = _function_name(node)
        if name in POSITION and allowed is not WINDOW:
            self._position(name, node)
            return level
        if name not in allowed:
            raise NotAllowed(f"function '{name}' isn't allowed here")
        own = growth(name, [argument["expression"] for argument in _arguments(node)])
        if own > 1 and scope.is_recursive:
            raise NotAllowed(f"function '{name}' isn't allowed in the repeated part of a recursive query")
        return self._level(level, multiplies=own > 1 or name in LAMBDA_LISTS, own=own)

    def _position(self, name: str, node: Node) -> None:
        """`merutable_seq('t')` and its like read the table as a FROM does."""
        values = [constant(argument["expression"]) for argument in _arguments(node)]
        if len(values) != 1 or not isinstance(values[0], str):
            raise NotAllowed(f"{name}() takes the name of one table, a literal text")
        self.positions[values[0]] = served = served_table([values[0]], self.resolve)
        self.tables[served] = None

    # --- queries and table references --------------------------------------------------------------

    def _node(self, kind: str, node: Node, scope: Scope, level: int) -> list[Child]:
        if kind in _WRITES:
            raise ReadOnly(f"{_WRITES[kind]} inside WITH isn't allowed here")
        if kind not in _NODES:
            raise NotAllowed(f"{kind.removesuffix('_QUERY_NODE').removesuffix('_NODE')} isn't allowed here")
        if node.get("at_clause") is not None:
            raise NotAllowed("AT (time travel) isn't allowed here; the server's as-of options choose the seq")
        if "cte_map" in node:
            return self.query(node, scope, level)
        match kind:
            case "BASE_TABLE":
                self._table(node, scope)
            case "TABLE_FUNCTION":
                return self._table_function(node, scope, level)
            case "SHOW_REF" if node.get("query") is None:
                raise NotAllowed(
                    "SHOW isn't allowed here but of TABLES, ALL TABLES, SCHEMAS, DATABASES and a served table"
                )
            case "PIVOT" if any(text_of(pivot, "pivot_enum") for pivot in items(node, "pivots")):
                raise NotAllowed("PIVOT over an enum isn't allowed here: list the values, IN (…)")
            case "SUBQUERY":
                self._cost.add_subquery()
            case "JOIN":
                level = self._level(level, multiplies=True)
        return [(value, scope, level) for value in node.values()]

    def query(self, node: Node, scope: Scope, level: int) -> list[Child]:
        """A query's parts: each CTE sees the ones before it, the query sees all; nothing leaks out."""
        level = self._level(level, multiplies=True)
        expressions = self._level(level, multiplies=False)
        check_aliases(items(node, "select_list"))
        children: list[Child] = []
        entries = items(node["cte_map"], "map")
        for entry in entries:
            children.append((entry, scope, level))
            scope = scope.with_ctes([text_of(entry, "key")])
        self._cost.add_columns(len(items(node, "select_list")))
        if isinstance(source := node.get("from_table"), dict):
            self._select_of[id(source)] = node
        for key, value in node.items():
            if key == "right" and node["type"] == "RECURSIVE_CTE_NODE":
                inside = scope.with_ctes([text_of(node, "cte_name")])
                children.append((value, Scope(inside.ctes, is_recursive=True), level))
            elif key == "children":  # of a set operation: side by side, not one over the other
                children.append((value, scope, self._level(level, multiplies=False)))
            elif key != "cte_map":
                children.append((value, scope, level if key in _SOURCES else expressions))
        return children

    def _table(self, ref: Node, scope: Scope) -> None:
        path = texts(ref["qualified_name"], "path")
        if len(path) == 1 and fold(path[0]) in scope.ctes:
            return
        if len(path) == 2 and fold(path[0]) == INFORMATION_SCHEMA:
            _check_information_table(path[1])
            self.calls.append(FoundCall(ref, None))
            return
        self.tables[served_table(path, self.resolve)] = None

    def _table_function(self, ref: Node, scope: Scope, level: int) -> list[Child]:
        call = ref["function"]
        assert isinstance(call, dict), "a table function without its call"
        if call.get("class") != "FUNCTION":
            raise NotAllowed("only a plain call of a function can stand in FROM")
        name = _function_name(call)
        if name in MERUTABLE:
            self.calls.append(FoundCall(ref, self._select_of.get(id(ref))))
        elif name not in TABLE:
            raise NotAllowed(f"function '{name}' isn't allowed in FROM here")
        elif name in ("range", "generate_series"):
            check_rows(name, [argument["expression"] for argument in _arguments(call)])
        rest = [value for part in (ref, call) for key, value in part.items() if key != "function"]
        return [(value, scope, level) for value in rest]

    # --- growth --------------------------------------------------------------------------------------

    def _level(self, parent: int, *, multiplies: bool = False, own: int = 1) -> int:
        self._levels.append(_Level(parent, multiplies, max(1, own)))
        return len(self._levels) - 1

    def _check_growth(self) -> None:
        """Multiply and compare from the leaves up: children stand behind their parents."""
        for level in reversed(self._levels):
            total = level.own * level.children
            if total > GROWTH_MAX:
                raise LimitExceeded(
                    f"nested calls could build a value {total} times their input, limit {GROWTH_MAX} times"
                )
            if level.parent >= 0:
                parent = self._levels[level.parent]
                parent.children = (
                    parent.children * total if parent.multiplies else max(parent.children, total)
                )


def items(node: object, key: str) -> list[Node]:
    """The list in a field; empty where there is none."""
    value = node.get(key) if isinstance(node, Mapping) else None
    return value if isinstance(value, list) else []


def text_of(node: object, key: str) -> str:
    """The text in a field; empty where there is none."""
    value = node.get(key) if isinstance(node, Mapping) else None
    return value if isinstance(value, str) else ""


def texts(node: object, key: str) -> list[str]:
    """The texts of the list in a field; empty where there is none."""
    value = node.get(key) if isinstance(node, Mapping) else None
    return [str(item) for item in value] if isinstance(value, list) else []


def served_table(path: list[str], resolve: Resolve) -> str:
    """The served table a name in FROM stands for. Raises `TableNotFound`, `NotAllowed`."""
    name = path[-1] if path else ""
    if len(path) != 1 and [fold(part) for part in path[:-1]] != ["main"]:
        raise NotAllowed(f"table '{'.'.join(path)}': only tables served here, by their plain name")
    served = resolve(name)
    if served is None and any(sign in name for sign in "./\\:*?["):
        raise NotAllowed(f"table '{name}': files can't be read here, and no table of this name is served")
    if served is None:
        raise TableNotFound(f"table '{name}' isn't served here")
    return served


def _check_information_table(name: str) -> None:
    if fold(name) not in INFORMATION_TABLES:
        tables = ", ".join(sorted(INFORMATION_TABLES))
        raise NotAllowed(f"table '{INFORMATION_SCHEMA}.{name}' isn't served here, only {tables}")


def _arguments(call: Node) -> list[dict[str, Node]]:
    return [argument for argument in items(call, "arguments") if isinstance(argument, dict)]  # type: ignore[misc]


def _function_name(call: Node) -> str:
    """A call's folded name. Raises `NotAllowed` for one in a schema other than main."""
    path = texts(call["qualified_name"], "path")
    if len(path) != 1 and [fold(part) for part in path[:-1]] != ["main"]:
        raise NotAllowed(f"function '{'.'.join(path)}' isn't allowed here; call it by its plain name")
    if fold(text_of(call, "function_name")) != fold(path[-1]):
        raise NotAllowed(f"function '{'.'.join(path)}' isn't allowed here")
    return fold(path[-1])


def _check_type(node: Node) -> None:
    """A type made of known types and constants; fixed-size arrays up to `ARRAY_SIZE_MAX` in all."""
    size, queue = 1, [node]
    while queue:
        part = queue.pop()
        name = fold(text_of(part, "type_name"))
        if len(items(part["qualified_name"], "path")) != 1 or name not in TYPES:
            raise NotAllowed(f"type '{name}' isn't allowed here")
        for child in items(part, "children"):
            value = constant(child)
            if child.get("class") == "TYPE":
                queue.append(child)
            elif value is ...:
                raise NotAllowed(f"type '{name}' takes literals only")
            elif name == "array" and isinstance(value, int):
                size *= max(1, value)
    if size > ARRAY_SIZE_MAX:
        raise LimitExceeded(f"an array type of {size} elements, limit {ARRAY_SIZE_MAX} elements")


def _check_hidden(text: str) -> None:
    if fold(text) in HIDDEN_COLUMNS:
        raise NotAllowed(f"the name '{fold(text)}' isn't allowed in a statement")
