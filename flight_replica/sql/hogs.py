"""Functions that can build one huge value: how far a call blows its input up, or why it is refused.

Such calls obey neither an interrupt nor the memory limit while they build the value, so what they may
build is decided before they run. `growth` looks at one call; the sandbox multiplies along nesting and
compares with `GROWTH_MAX`. What only a run tells, as a value that is doubled step by step, is looked at while
it runs: `guards.py`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence

from flight_replica.errors import LimitExceeded, NotAllowed
from flight_replica.sql.functions import AGGREGATE

__all__ = ["GROWTH_MAX", "LAMBDA_LISTS", "check_rows", "constant", "growth"]

Node = Mapping[str, object]

GROWTH_MAX = 10_000  # times; what all nested calls of a statement may blow a value up
SIZE_MAX = 10_000  # characters or elements one call may ask for
PADDING_FREE = 100  # characters; padding to a column's width isn't counted
TEXT_MAX = 1_000  # bytes of a replacement, format or compared text
SEPARATOR_MAX = 100  # bytes between joined texts
DIGITS_MAX = 50  # of a whole number that is looked at; no DuckDB integer has more
ROWS_MAX = 10_000_000  # rows of range(), generate_series() in FROM

# A width of four digits, or one taken from the arguments, in a `{:…}` or `%…` field.
_WIDE = re.compile(r"\{[^}]*(\d{4}|\{)|%[^a-zA-Z%]*(\d{4}|\*)")

# Their lambda runs once per element: what it builds multiplies with the list beside it.
LAMBDA_LISTS = frozenset(
    {"apply", "array_apply", "array_filter", "array_transform", "filter"}
    | {"list_apply", "list_filter", "list_transform"}
)


def constant(node: object) -> object:
    """The Python value of a literal (str, int, bool or bytes); `...` for everything else, null included."""
    literal = node.get("literal") if isinstance(node, Mapping) else None
    if not isinstance(literal, Mapping) or not isinstance(text := literal.get("text"), str):
        return ...
    match literal.get("kind"):
        case "STRING":
            return text
        case "BOOLEAN":
            return text == "true"
        case "HEX" if len(text) % 2 == 0:
            return bytes.fromhex(text)
        case "INTEGER" if len(text) <= DIGITS_MAX:
            return int(text)
        case _:
            return ...


def growth(name: str, arguments: Sequence[Node]) -> int:
    """How many times larger than its input the value of this call can get, at least 1.

    Raises `NotAllowed` where that isn't a literal's to say, `LimitExceeded` where it says too much.
    """
    rule = _RULES.get(name)
    return 1 if rule is None else max(1, rule(name, arguments))


def check_rows(name: str, arguments: Sequence[Node]) -> None:
    """Bound `range` and `generate_series` in FROM: constants only, integers by the count of rows."""
    values = [constant(argument) for argument in arguments]
    if any(
        value is ... and not _is_fixed(argument) for value, argument in zip(values, arguments, strict=True)
    ):
        raise NotAllowed(f"function '{name}' in FROM takes literals only")
    if (count := _count(name, values)) is not None and count > ROWS_MAX:
        raise LimitExceeded(f"function '{name}' would give {count} rows, limit {ROWS_MAX} rows")


def _is_fixed(node: object) -> bool:
    """Whether an expression is made of literals, casts and functions of them alone."""
    queue = [node]
    while queue:
        item = queue.pop()
        if isinstance(item, Mapping):
            if item.get("class") not in (None, "CONSTANT", "CAST", "TYPE", "FUNCTION"):
                return False
            queue.extend(item.values())
        elif isinstance(item, Sequence) and not isinstance(item, str):
            queue.extend(item)
    return True


def _count(name: str, values: Sequence[object]) -> int | None:
    """The rows of an integer range, whose end counts unless it is `range`; None where it isn't one."""
    numbers = [value for value in values if isinstance(value, int)]
    if not numbers or len(numbers) != len(values):
        return None
    start, stop = (0, numbers[0]) if len(numbers) == 1 else numbers[:2]
    step = numbers[2] if len(numbers) > 2 else 1
    if step == 0:
        return 0
    return max(0, -((start - stop) // step) if name == "range" else (stop - start) // step + 1)


def _size(index: int) -> Callable[[str, Sequence[Node]], int]:
    """A rule: argument `index`, if there, is a whole number up to `SIZE_MAX`."""

    def rule(name: str, arguments: Sequence[Node]) -> int:
        if index >= len(arguments):
            return 1
        value = constant(arguments[index])
        if not isinstance(value, int):
            raise NotAllowed(f"function '{name}' needs a literal number as argument {index + 1}")
        return _within(name, value, SIZE_MAX, "elements")

    return rule


def _within(name: str, value: int, limit: int, unit: str) -> int:
    if value > limit:
        raise LimitExceeded(f"function '{name}' asks for {value} {unit}, limit {limit} {unit}")
    return value


def _text(name: str, arguments: Sequence[Node], index: int, limit: int) -> str:
    """Argument `index` as a text literal of at most `limit` bytes."""
    value = constant(arguments[index]) if index < len(arguments) else ""
    if not isinstance(value, str):
        raise NotAllowed(f"function '{name}' needs a literal text as argument {index + 1}")
    _within(name, len(value.encode()), limit, "bytes")
    return value


def _times(times: int) -> Callable[[str, Sequence[Node]], int]:
    """A rule: what comes out has up to so many bytes for each that goes in."""

    def rule(name: str, arguments: Sequence[Node]) -> int:
        return times

    return rule


def _padding(name: str, arguments: Sequence[Node]) -> int:
    width = _size(1)(name, arguments)
    return width if width > PADDING_FREE else 1


def _series(name: str, arguments: Sequence[Node]) -> int:
    count = _count(name, [constant(argument) for argument in arguments])
    if count is None:
        raise NotAllowed(f"function '{name}' needs literal numbers here; in FROM it takes dates as well")
    return _within(name, count, SIZE_MAX, "elements")


def _replacement(name: str, arguments: Sequence[Node]) -> int:
    found = constant(arguments[1]) if len(arguments) > 1 else ...
    length = len(found.encode()) if isinstance(found, str) else 1
    return -(-len(_text(name, arguments, 2, TEXT_MAX).encode()) // max(1, length))


def _pattern_replacement(name: str, arguments: Sequence[Node]) -> int:
    text = _text(name, arguments, 2, TEXT_MAX)
    return max(text.count("\\"), len(text.encode()) if len(arguments) > 3 else 1)


def _format(name: str, arguments: Sequence[Node]) -> int:
    text = _text(name, arguments, 0, TEXT_MAX)
    if _WIDE.search(text.replace("{{", "")):
        raise LimitExceeded(f"function '{name}': widths of at most 999 characters, written in the format")
    return text.count("{") + text.count("%")


def _separator(index: int) -> Callable[[str, Sequence[Node]], int]:
    """A rule: argument `index`, if there, is a short text."""

    def rule(name: str, arguments: Sequence[Node]) -> int:
        _text(name, arguments, index, SEPARATOR_MAX)
        return 1

    return rule


def _distance(name: str, arguments: Sequence[Node]) -> int:
    """Compares every character with every other: one side must be a short literal."""
    texts = [value for value in map(constant, arguments) if isinstance(value, str)]
    if not any(len(text.encode()) <= TEXT_MAX for text in texts):
        raise NotAllowed(f"function '{name}' needs a literal text of at most {TEXT_MAX} bytes on one side")
    return 1


def _aggregate(name: str, arguments: Sequence[Node]) -> int:
    """Names an aggregate function by a text: a listed one, within its own rule."""
    named = constant(arguments[1]) if len(arguments) > 1 else ...
    if not isinstance(named, str) or named.lower() not in AGGREGATE:
        raise NotAllowed(f"function '{name}' needs the name of an aggregate function as argument 2")
    return growth(named.lower(), [arguments[0], *arguments[2:]])


_RULES: Mapping[str, Callable[[str, Sequence[Node]], int]] = (
    dict.fromkeys(("repeat", "bitstring", "list_resize", "array_resize", "approx_top_k"), _size(1))
    | dict.fromkeys(("reservoir_quantile",), _size(2))
    | dict.fromkeys(("lpad", "rpad"), _padding)
    | dict.fromkeys(("hex", "to_hex", "to_base64", "base64"), _times(2))
    | dict.fromkeys(("url_encode",), _times(3))
    | dict.fromkeys(("range", "generate_series"), _series)
    | {"replace": _replacement, "regexp_replace": _pattern_replacement}
    | dict.fromkeys(("format", "printf"), _format)
    | dict.fromkeys(("array_to_string", "string_agg", "group_concat", "listagg"), _separator(1))
    | {"concat_ws": _separator(0)}
    | dict.fromkeys(("levenshtein", "damerau_levenshtein", "editdist3"), _distance)
    | dict.fromkeys(("jaro_similarity", "jaro_winkler_similarity"), _distance)
    | dict.fromkeys(("list_aggr", "list_aggregate", "array_aggr", "array_aggregate"), _aggregate)
)
