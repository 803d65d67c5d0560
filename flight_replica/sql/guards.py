"""Checks put into a statement, so that no function is given more than it can work through in time.

DuckDB looks at an interrupt only between vectors of 2048 rows. What one call works through is bounded by the
sizes of its arguments, so these are looked at while the statement runs: `guarded` wraps them in an expression
that gives the value back or raises. Guarded are

- aggregates that build one value of many rows, unless it goes straight to the client or into `len`, `unnest`,
- what a recursive query carries from step to step,
- arguments of the functions in `heavy.py`, where a large value may reach them.

Stored values aren't looked at otherwise, and a statement that needs no guard keeps its text. Literals and
calls that multiply are decided before, see `hogs.py`. Measured by benchmarks/bench_hogs.py.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace

from flight_replica.errors import LimitExceeded, NotAllowed
from flight_replica.sql.functions import MATH, TIME
from flight_replica.sql.guard_expression import text_of_tree, wrap
from flight_replica.sql.heavy import CARRIED, LITERAL_BYTES_MAX, Bound, bounds_of, builds, grows, joins
from flight_replica.sql.hogs import constant
from flight_replica.sql.statement import Node, fold, tree_of
from flight_replica.sql.walk import items

__all__ = ["guarded"]

# Of these, and of `+` with a number, nothing comes out that is larger than what goes in.
SMALL = (
    MATH
    | TIME
    | frozenset(
        ["-", "*", "/", "//", "%", "**", "^", "&", "|", "<<", ">>", "~", "@", "<", "<=", "=", ">=", ">", "!="]
    )
)
# What takes a number or one element out of a list in one quick pass, or passes its elements on.
TAKEN = frozenset(
    {"array_extract", "array_length", "cardinality", "len", "length", "list_any_value", "list_avg"}
    | {"list_count", "list_element", "list_extract", "list_first", "list_last", "list_max", "list_min"}
    | {"list_sum", "unnest"}
)
LITERAL_MAX = 5_000  # characters; a longer literal is a large value
JOINED_MAX = 10_000  # times; see `_Found.joined`; beyond it every column made for another query is looked at
LITERALS_MAX = 1_000  # arguments of one call, so elements of a literal list; more are a large value


@dataclass(slots=True)
class _Item:
    """A select item that has no name of its own: a guard inside would show in its column's name."""

    node: Node
    outer: _Item | None


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a part of the tree stands."""

    item: _Item | None = None
    is_recursive: bool = False  # the part of a recursive query that is run again and again
    is_bare: bool = False  # goes to the client as it is, or into a call that takes little out of it
    is_pivoted: bool = False  # an aggregate of a PIVOT, which takes nothing around it


@dataclass(slots=True)
class _Found:
    """One pass over the tree: all calls, and what decides which of them are guarded."""

    calls: list[tuple[str, Node, _Place]] = field(default_factory=list)
    columns: list[tuple[Node, _Place]] = field(default_factory=list)  # that a query makes for another
    joined: int = 1  # values put into one at most, as if each query stood on all others
    names: set[str] = field(default_factory=set)  # every part of a column's name that is read
    is_building: bool = False  # large values may stand in any column

    def add_columns(self, columns: Iterable[tuple[Node, _Place]]) -> None:
        """The columns of one query, or of a VALUES or table function in it."""
        added = list(columns)
        self.columns += added
        calls = (call for column, _ in added for call in _calls(column))
        self.joined *= 1 + sum(joins(name, _arguments(call)) for name, call in calls)


def guarded(text: str, statement: Node) -> str:
    """The statement with its guards, `text` itself where it needs none. `statement`: its parse tree, changed.

    Columns keep their names. Raises `LimitExceeded`, `NotAllowed` for what no guard can bound.
    """
    guards = {id(node): (node, bound, place) for node, bound, place in _guards(_find(statement))}
    if not guards:
        return text
    _name_items(place.item for _, _, place in guards.values())
    for node, bound, _ in guards.values():
        wrap(node, bound)
    return text_of_tree(statement)


# --- what is there ------------------------------------------------------------------------------------------


def _find(statement: Node) -> _Found:
    """Every call in the tree with its place, in no order."""
    found = _Found()
    roots = _roots(statement["node"])
    stack: list[tuple[object, _Place]] = [(statement, _Place())]
    while stack:
        value, place = stack.pop()
        if isinstance(value, list):
            stack.extend((item, place) for item in value)
        elif isinstance(value, dict):
            stack.extend(_open(value, place, found, roots))
    return found


def _roots(node: object) -> frozenset[int]:
    """The SELECTs whose rows are the statement's own, by id."""
    roots, queue = set(), [node]
    while queue:
        item = queue.pop()
        roots.add(id(item))
        queue += items(item, "children")  # of a set operation
    return frozenset(roots)


def _open(node: Node, place: _Place, found: _Found, roots: frozenset[int]) -> list[tuple[object, _Place]]:
    """Note one object; what is inside it with the place of each."""
    inside = replace(place, is_bare=False)
    match node.get("class") or node.get("type"):
        case "FUNCTION" | "WINDOW":
            name, arguments = _name(node), _arguments(node)
            found.calls.append((name, node, place))
            found.is_building |= len(arguments) > LITERALS_MAX or grows(name, arguments)
            if name in TAKEN and arguments:
                return _open_taken(node, arguments[0], inside)
        case "OPERATOR" if node.get("type") == "ARRAY_EXTRACT":
            return _open_taken(node, items(node, "children")[0], inside)
        case "CONSTANT":
            found.is_building |= _check_literal(node) > LITERAL_MAX
        case "COLUMN_REF":
            found.names |= _names(node)
        case "TABLE_FUNCTION":
            call = node["function"]
            assert isinstance(call, dict), "a table function without its call"
            found.add_columns((item, inside) for item in _arguments(call))
            return [
                (value, inside) for part in (node, call) for key, value in part.items() if key != "function"
            ]
        case "EXPRESSION_LIST":
            found.add_columns((item, inside) for item in _rows_of(node))
        case "PIVOT":
            pivoted = replace(place, is_pivoted=True)
            return [(value, pivoted if key == "aggregates" else inside) for key, value in node.items()]
        case "RECURSIVE_CTE_NODE":
            found.is_building = True
            repeated = replace(inside, is_recursive=True)
            return [(value, repeated if key == "right" else inside) for key, value in node.items()]
        case "SELECT_NODE":
            return _open_select(node, inside, found, is_root=id(node) in roots)
    return [(value, inside) for value in node.values()]


def _check_literal(node: Node) -> int:
    """The length of a literal. Raises `LimitExceeded`."""
    length = len(str(constant(node)))
    if length > LITERAL_BYTES_MAX:
        raise LimitExceeded(f"a literal of {length} characters, limit {LITERAL_BYTES_MAX} characters")
    return length


def _open_taken(node: Node, taken: Node, place: _Place) -> list[tuple[object, _Place]]:
    """The parts of a call that takes little out of its first argument."""
    arguments = [part for part in (_arguments(node) or items(node, "children")) if part is not taken]
    rest = [value for key, value in node.items() if key not in ("arguments", "children")]
    return [(taken, replace(place, is_bare=True)), *((part, place) for part in [*arguments, *rest])]


def _open_select(node: Node, place: _Place, found: _Found, *, is_root: bool) -> list[tuple[object, _Place]]:
    selected = items(node, "select_list")
    is_whole = is_root and len(selected) == 1 and selected[0].get("class") == "STAR"
    parts: list[tuple[object, _Place]] = []
    for key, value in node.items():
        if key == "from_table":
            is_pivot = isinstance(value, Mapping) and value.get("type") == "PIVOT"
            parts.append((value, replace(place, is_bare=is_whole and is_pivot)))
        elif key != "select_list":
            parts.append((value, place))
    columns = []
    for item in selected:
        own = place.item if item.get("alias") else _Item(item, place.item)
        columns.append((item, replace(place, item=own, is_bare=is_root)))
    found.add_columns(columns)
    return [*parts, *columns]


# --- what is guarded ----------------------------------------------------------------------------------------


def _guards(found: _Found) -> Iterator[tuple[Node, Bound, _Place]]:
    """(expression, its bound, its place); an expression may come twice."""
    is_building = found.is_building or found.joined > JOINED_MAX
    for name, node, place in found.calls:
        bound = builds(name, _arguments(node))
        is_read = fold(str(node.get("alias"))) in found.names
        if bound is None or (place.is_bare and not is_read):
            continue
        if place.is_pivoted:
            raise NotAllowed(f"function '{name}' isn't allowed in a PIVOT that isn't the whole statement")
        is_building = True
        yield node, bound, place
    for name, node, place in found.calls:
        arguments = _arguments(node)
        bounds = bounds_of(
            name,
            arguments,
            is_building=is_building,
            joined=found.joined,
            captures=any(_captures(argument) for argument in arguments),
        )
        for index, bound in bounds:
            if arguments[index].get("class") != "PARAMETER" or bound.is_text:
                yield arguments[index], bound, place
    for item, place in found.columns:
        if (place.is_recursive or found.joined > JOINED_MAX) and not place.is_bare and _may_grow(item):
            if item.get("class") == "STAR":
                raise NotAllowed("* with calls isn't allowed in the repeated part of a recursive query")
            yield item, CARRIED, place


def _captures(argument: Node) -> bool:
    """Whether a lambda uses a column from outside of it but to compare, or to compute with, numbers."""
    if argument.get("class") != "LAMBDA":
        return False
    own = frozenset().union(*(_names(column) for column in _columns(argument.get("lhs"))))
    harmless: set[int] = set()  # ids of columns
    for part in _parts(argument.get("expr")):
        is_call = part.get("class") in ("FUNCTION", "WINDOW")
        if part.get("class") in ("COMPARISON", "BETWEEN") or (is_call and _name(part) in SMALL):
            harmless |= {id(operand) for operand in (*part.values(), *_arguments(part))}
    return any(
        not _names(column) <= own and id(column) not in harmless for column in _columns(argument["expr"])
    )


def _may_grow(item: Node) -> bool:
    """Whether a select item may give more than it takes: not a column, not a number's arithmetic."""
    return any(name not in SMALL and not (name == "+" and _has_number(call)) for name, call in _calls(item))


def _has_number(call: Node) -> bool:
    return any(isinstance(constant(argument), int) for argument in _arguments(call))


# --- how it is guarded --------------------------------------------------------------------------------------


def _name_items(items: Iterable[_Item | None]) -> None:
    """Give select items the names by which their columns are known without guards."""
    names: dict[int, tuple[Node, str]] = {}
    for item in items:
        while item is not None and id(item.node) not in names:
            names[id(item.node)] = item.node, _name_of(item.node)
            item = item.outer
    for node, name in names.values():
        node["alias"] = name


def _name_of(item: Node) -> str:
    """What DuckDB calls the column of a select item without an alias: its text."""
    if any(part.get("class") == "STAR" for part in _parts(item)):
        raise NotAllowed("an expression over COLUMNS(…) isn't allowed here: name the columns")
    statement = tree_of("SELECT 1")
    node = statement["node"]
    assert isinstance(node, dict), "a statement without its node"
    node["select_list"] = [item]
    return text_of_tree(statement).removeprefix("SELECT ")


# --- the tree -----------------------------------------------------------------------------------------------


def _rows_of(values: Node) -> list[Node]:
    """The expressions of a VALUES, one row after another."""
    rows: object = values.get("values")
    return [item for row in rows for item in row] if isinstance(rows, list) else []


def _arguments(call: Node) -> list[Node]:
    return [argument["expression"] for argument in items(call, "arguments")]  # type: ignore[misc]


def _parts(root: object) -> Iterator[Node]:
    """Every object below, the root too."""
    queue = [root]
    while queue:
        item = queue.pop()
        if isinstance(item, dict):
            yield item
            queue.extend(item.values())
        elif isinstance(item, list):
            queue.extend(item)


def _calls(root: object) -> Iterator[tuple[str, Node]]:
    """(folded name, call) of every function call below, the root too."""
    for part in _parts(root):
        if part.get("class") in ("FUNCTION", "WINDOW"):
            yield _name(part), part


def _name(call: Node) -> str:
    return fold(str(call["function_name"]))


def _columns(root: object) -> Iterator[Node]:
    return (part for part in _parts(root) if part.get("class") == "COLUMN_REF")


def _names(column: Node) -> frozenset[str]:
    return frozenset(fold(str(name)) for name in items(column, "column_names"))
