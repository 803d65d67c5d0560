"""The server's own relations in a FROM: what each asks for and where it stands.

They are calls, `merutable_*(…)`, and the tables of `information_schema`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from flight_replica.errors import NotAllowed
from flight_replica.sql.hogs import constant
from flight_replica.sql.names import INFORMATION_SCHEMA
from flight_replica.sql.statement import Node, Token, fold, tokens, unquoted
from flight_replica.sql.walk import FoundCall, Walk, items, text_of, texts

__all__ = ["INFORMATION_PREFIX", "TableFunction", "found_functions"]

INFORMATION_PREFIX = f"{INFORMATION_SCHEMA}_"

_BARE_STAR = {
    "relation_name": "",
    "alias": "",
    "exclude_list": [],
    "replace_list": [],
    "rename_list": [],
    "qualified_exclude_list": [],
    "columns": False,
    "expr": None,
}
_MIRRORED = {
    "COMPARE_GREATERTHAN": "COMPARE_LESSTHAN",
    "COMPARE_LESSTHAN": "COMPARE_GREATERTHAN",
    "COMPARE_GREATERTHANOREQUALTO": "COMPARE_LESSTHANOREQUALTO",
    "COMPARE_LESSTHANOREQUALTO": "COMPARE_GREATERTHANOREQUALTO",
}


@dataclass(frozen=True, slots=True)
class TableFunction:
    """One `merutable_*(…)` call in a FROM; `start` and `length` are the call's bytes in the text.

    A table of `information_schema` is a call without arguments, named `information_schema_…`.
    """

    name: str
    arguments: tuple[object, ...]  # str, int, bool or bytes
    named: Mapping[str, object]
    start: int
    length: int
    has_alias: bool
    seq_after: int | None  # every row read has `seq_name` > this: a bound in WHERE; None without one
    seq_name: str  # 'seq' or '_seq', as the bound says; '' without one
    is_whole_statement: bool  # SELECT * FROM f(…), nothing around it

    @property
    def known_as(self) -> str:
        """The name that its columns can be qualified by, where it has no alias."""
        return self.name.removeprefix(INFORMATION_PREFIX)


def found_functions(walk: Walk, text: str, root: object, offset: int = 0) -> tuple[TableFunction, ...]:
    """The calls a walk found, in text order. `offset`: bytes before `text` in what was parsed."""
    if not walk.calls:
        return ()
    words = tokens(text)
    found = [_table_function(call, words, root, offset) for call in walk.calls]
    starts = {call.start for call in found}
    assert len(starts) == len(found), "two calls at one place"
    return tuple(sorted(found, key=lambda call: call.start))


def _table_function(call: FoundCall, words: Sequence[Token], root: object, offset: int) -> TableFunction:
    if call.ref["type"] == "BASE_TABLE":
        return _information_table(call.ref, words, offset)
    function = call.ref["function"]
    assert isinstance(function, dict), "a table function without its call"
    name = fold(text_of(function, "function_name"))
    arguments, named = _literals(name, function)
    if call.ref.get("with_ordinality") != "WITHOUT_ORDINALITY":
        raise NotAllowed(f"WITH ORDINALITY isn't allowed on {name}()")
    start, end = _span(name, call.ref, words, offset)
    seq_after, seq_name = _seq_bound(call) if name == "merutable_changes" else (None, "")
    is_whole = call.select is not None and call.select is root and _is_bare(call)
    has_alias = text_of(call.ref, "alias") != ""
    return TableFunction(name, arguments, named, start, end - start, has_alias, seq_after, seq_name, is_whole)


def _information_table(ref: Node, words: Sequence[Token], offset: int) -> TableFunction:
    name = fold(texts(ref["qualified_name"], "path")[1])
    place = ref["query_location"]
    assert isinstance(place, int), "a table reference without its place"
    is_placed = any(word.end + offset > place for word in words)  # DESCRIBE of a table says no place
    start, end = _named(name, words, place - offset if is_placed else 0)
    has_alias = text_of(ref, "alias") != "" or not is_placed  # and takes no alias
    return TableFunction(
        INFORMATION_PREFIX + name, (), {}, start, end - start, has_alias, None, "", is_whole_statement=False
    )


def _named(name: str, words: Sequence[Token], place: int) -> tuple[int, int]:
    """Where the first `information_schema.name` from `place` on starts and ends in the text."""
    for first, dot, last in zip(words, words[1:], words[2:], strict=False):
        names = [fold(unquoted(word.text)) for word in (first, last)]
        if first.start >= place and dot.says(".") and names == [INFORMATION_SCHEMA, name]:
            return first.start, last.end
    raise NotAllowed(f"{INFORMATION_SCHEMA}.{name} isn't allowed in this place")


def _literals(name: str, function: Node) -> tuple[tuple[object, ...], Mapping[str, object]]:
    positional: list[object] = []
    named: dict[str, object] = {}
    for argument in items(function, "arguments"):
        value, key = constant(argument["expression"]), fold(text_of(argument, "name"))
        if value is ...:
            raise NotAllowed(f"{name}() takes literals only: texts, whole numbers, true and false")
        if key in named or (named and not key):
            raise NotAllowed(f"{name}(): named arguments stand last, each once")
        if key:
            named[key] = value
        else:
            positional.append(value)
    return tuple(positional), named


def _span(name: str, ref: Node, words: Sequence[Token], offset: int) -> tuple[int, int]:
    """Where a call starts and ends in the text: from its (qualified) name to its closing bracket."""
    place = ref["query_location"]
    assert isinstance(place, int), "a table reference without its place"
    first = next((i for i, word in enumerate(words) if word.start + offset >= place), len(words))
    for index in range(first, len(words) - 1):
        word = words[index]
        if fold(word.text.strip('"')) == name and words[index + 1].says("("):
            is_qualified = index >= 2 and words[index - 1].says(".")
            return words[index - 2 if is_qualified else index].start, _closing(words, index + 1)
    raise NotAllowed(f"{name}() isn't allowed in this place")


def _closing(words: Sequence[Token], index: int) -> int:
    depth = 0
    for word in words[index:]:
        depth += word.says("(") - word.says(")")
        if depth == 0:
            return word.end
    raise NotAllowed("a call without its closing bracket")


def _is_bare(call: FoundCall) -> bool:
    """Whether a SELECT is nothing but `*` from this call."""
    select, ref = call.select, call.ref
    assert select is not None, "only a SELECT's own source is asked for"
    stars = items(select, "select_list")
    empty = ("modifiers", "group_expressions", "group_sets")
    absent = ("where_clause", "having", "sample", "qualify")
    return (
        len(stars) == 1
        and stars[0].get("class") == "STAR"
        and all(stars[0].get(key) == value for key, value in _BARE_STAR.items())
        and not any(items(select, key) for key in empty)
        and not any(select.get(key) is not None for key in absent)
        and not items(select["cte_map"], "map")
        and not items(ref, "column_name_alias")
        and text_of(ref, "alias") == ""
        and ref.get("sample") is None
    )


def _seq_bound(call: FoundCall) -> tuple[int | None, str]:
    """The largest lower bound on seq that WHERE gives, as an exclusive one, and the name it uses.

    None where both `seq` and `_seq` are bounded: only the caller knows which is the feed's.
    """
    select, ref = call.select, call.ref
    if select is None or ref.get("sample") is not None or items(ref, "column_name_alias"):
        return None, ""
    qualifier = fold(text_of(ref, "alias") or "merutable_changes")
    bounds: dict[str, int] = {}
    for name, after in _bounds(select.get("where_clause"), qualifier):
        bounds[name] = max(after, bounds.get(name, after))
    if len(bounds) != 1:
        return None, ""
    ((name, after),) = bounds.items()
    return after, name


def _bounds(where: object, qualifier: str) -> Iterator[tuple[str, int]]:
    """(`seq` or `_seq`, exclusive lower bound) of each condition that is ANDed at the top."""
    queue = [where]
    while queue:
        node = queue.pop()
        if not isinstance(node, dict):
            continue
        if node.get("type") == "CONJUNCTION_AND":
            queue.extend(items(node, "children"))
            continue
        column, kind, value = _comparison(node)
        name = _seq_name(column, qualifier)
        if name and isinstance(value, int) and not isinstance(value, bool):
            if kind == "COMPARE_GREATERTHAN":
                yield name, value
            elif kind in ("COMPARE_GREATERTHANOREQUALTO", "COMPARE_EQUAL", "COMPARE_BETWEEN"):
                yield name, value - 1


def _comparison(node: Node) -> tuple[object, str, object]:
    """A comparison as (column side, kind, literal), turned so that the literal stands right."""
    kind = text_of(node, "type")
    if node.get("class") == "BETWEEN":
        return node.get("input"), kind, constant(node.get("lower"))
    left, right = node.get("left"), node.get("right")
    if constant(left) is not ...:
        return right, _MIRRORED.get(kind, kind), constant(left)
    return left, kind, constant(right)


def _seq_name(column: object, qualifier: str) -> str:
    names = [fold(name) for name in texts(column, "column_names")]
    if len(names) == 2 and names[0] == qualifier:
        names = names[1:]
    return names[0] if len(names) == 1 and names[0] in ("seq", "_seq") else ""
