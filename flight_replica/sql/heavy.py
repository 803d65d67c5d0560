"""Which calls build large values, which are slow with them, and how large an argument each may get.

All sizes are bytes of a value as text, of whatever type it is. `guards.py` puts the bounds into a statement.
The numbers come from one rule: a call on a vector of 2048 rows is back within about two seconds.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from flight_replica.errors import LimitExceeded
from flight_replica.sql.hogs import TEXT_MAX, constant, growth

__all__ = [
    "CARRIED",
    "LITERAL_BYTES_MAX",
    "NESTED_BYTES_MAX",
    "Bound",
    "bounds_of",
    "builds",
    "grows",
    "joins",
]

Node = Mapping[str, object]

BUILT_BYTES_MAX = 32_768  # of what an aggregate or a recursion builds for other functions: 20 ns each
HASHED_BYTES_MAX = 4_096  # of what is hashed or gone through often: up to 2 µs an element
CAPTURING_BYTES_MAX = 512  # of a list whose lambda works on another value for each element
GROWN_BYTES_MAX = 125_000  # of what a call makes that multiplies: copying, 0.25 GB a vector and call
JOINED_BYTES_MIN = 1_000  # of a value that is put together with others, however many they are
LITERAL_BYTES_MAX = 100_000  # of one literal, or a value bound to a parameter
NESTED_BYTES_MAX = 1_000_000  # of a list, struct or map bound to a parameter, in Arrow
WORK_MAX = 200_000  # bytes of a text times bytes of what is looked for in it, 5 ns each
PATTERN_MAX = 200  # bytes of a pattern, or another text to look for, that isn't a literal
ATOMS_MAX = 1_000  # of a regular expression with its repetitions written out
UNICODE_ATOMS = 50  # of a class by property, such as \p{L}
ATOMS_MIN = 40  # what a pattern counts for at least: matches take time too
ATOMS_FREE = 100  # with up to so many a stored text may have any size
JOINED_FREE = 16  # values put together; fewer aren't looked at
GROWTH_FREE = 100  # times; less multiplying of stored values is nothing to look at


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


# Aggregates that put all rows of a group into one value.
_LISTS = _names("array_agg list")
_BUILDERS = _LISTS | _names(
    "approx_top_k bitstring_agg group_concat histogram histogram_exact json_group_array json_group_object"
    " json_group_structure listagg string_agg"
)
_MANY = {"min": 2, "max": 2} | dict.fromkeys(  # build lists with so many arguments
    _names("arg_max arg_max_null arg_max_nulls_last arg_min arg_min_null arg_min_nulls_last argmax argmin")
    | _names("max_by min_by"),
    3,
)

_REGEX = _names(
    "regexp_extract regexp_extract_all regexp_full_match regexp_matches regexp_replace regexp_split_to_array"
    " regexp_split_to_table str_split_regex string_split_regex"
)
_LIKE = _names("!~~ !~~* ~~ ~~* ~~~ ilike_escape like_escape not_ilike_escape not_like_escape")
_DISTANCE = _names("damerau_levenshtein editdist3 jaro_similarity jaro_winkler_similarity levenshtein")
_SEARCH = _names(
    "contains instr json_contains ltrim position replace rtrim split split_part str_split string_split"
    " string_to_array strpos translate trim"
)

# Hash or merge every element of a list, map or JSON, or go through a text again and again.
_HASHED = _names(
    "&& <@ @> array_distinct array_has_all array_has_any array_intersect array_unique json_deep_merge"
    " json_merge_patch json_merge_patch_diff json_normalize list_approx_count_distinct list_distinct"
    " list_entropy list_has_all list_has_any list_histogram list_intersect list_mode list_unique map"
    " map_concat map_from_entries parse_dirname parse_dirpath parse_filename parse_path"
)
_AGGREGATES = _names("array_aggr array_aggregate list_aggr list_aggregate")
_QUICK = _names("avg bool_and bool_or count first last max median min product string_agg sum")
# Put their arguments side by side into one value: twice the size from the same argument twice.
_JOINS = _names(
    "|| + add array_append array_cat array_concat array_prepend array_push_back array_push_front array_zip"
    " concat concat_ws json_array json_object list_append list_cat list_concat list_pack list_prepend"
    " list_value list_zip map row struct_concat struct_insert struct_pack struct_update"
)
_LAMBDAS = _names(
    "apply array_apply array_filter array_transform filter list_apply list_filter list_transform"
)

_REPEATED = re.compile(r"(\)?)\{(\d{1,4})(?:,(\d{0,4}))?\}")
_UNICODE = re.compile(r"\\[pP](\{[^}]*\}|.)")
_CLASS = re.compile(r"\\.|\[\^?\]?(?:\\.|[^\]\\])*\]")


@dataclass(frozen=True, slots=True)
class Bound:
    """How large one value may be, and what to tell where it is larger."""

    told: str
    bytes_max: int
    is_list: bool = False  # counted first: a list of many elements takes long to become text
    is_text: bool = False  # a text and nothing else: a parameter is bound as one
    is_pattern: bool = False  # a regular expression that no one has looked at


CARRIED = Bound("a recursive query carries too large a value from step to step", BUILT_BYTES_MAX)


def builds(name: str, arguments: Sequence[Node]) -> Bound | None:
    """The bound on what an aggregate builds of many rows, None for other functions."""
    if name in _BUILDERS or len(arguments) >= _MANY.get(name, len(arguments) + 1):
        told = f"function '{name}' builds too large a value to be worked on further"
        return Bound(told, BUILT_BYTES_MAX, is_list=name in _LISTS)
    return None


def grows(name: str, arguments: Sequence[Node]) -> bool:
    """Whether a call of literals alone may give a large value."""
    return growth(name, arguments) >= GROWTH_FREE


def joins(name: str, arguments: Sequence[Node]) -> bool:
    """Whether a call may put several large values into one; a number added to something isn't one."""
    computed = [argument for argument in arguments if argument.get("class") != "CONSTANT"]
    return name in _JOINS and len(computed) > 1


def bounds_of(
    name: str,
    arguments: Sequence[Node],
    *,
    is_building: bool,
    joined: int = 1,
    captures: bool = False,
) -> Iterator[tuple[int, Bound]]:
    """(index, bound) of each argument that is to be looked at.

    `is_building`: large values may stand in any column. `joined`: so many of them are put together.
    `captures`: a lambda among the arguments works on what stands outside of it. Raises
    `LimitExceeded` for a literal that is too large.
    """
    if name in _REGEX:
        yield from _regex(name, arguments, is_building)
    elif name in _DISTANCE or (is_building and name in _LIKE):
        yield from _product(name, arguments, 0, 1)
    elif is_building and name in _SEARCH:
        yield from _search(name, arguments)
    elif is_building and (_hashes(name, arguments) or (name in _LAMBDAS and captures)):
        yield from _all(name, arguments, CAPTURING_BYTES_MAX if name in _LAMBDAS else HASHED_BYTES_MAX)
    elif (times := growth(name, arguments)) >= (2 if is_building else GROWTH_FREE):
        yield from _all(name, arguments, GROWN_BYTES_MAX // times)
    elif is_building and joined > JOINED_FREE and joins(name, arguments):
        for index, bound in _all(name, arguments, max(GROWN_BYTES_MAX // joined, JOINED_BYTES_MIN)):
            if str(arguments[index].get("function_name")) not in _JOINS:  # its own arguments are looked at
                yield index, bound


def _all(name: str, arguments: Sequence[Node], bytes_max: int) -> Iterator[tuple[int, Bound]]:
    for index, argument in enumerate(arguments):
        if argument.get("class") not in ("LAMBDA", "CONSTANT"):
            yield index, _given(name, bytes_max)


def _hashes(name: str, arguments: Sequence[Node]) -> bool:
    return name in _HASHED or (name in _AGGREGATES and str(constant(arguments[1])).lower() not in _QUICK)


def _given(name: str, bytes_max: int, *, is_text: bool = False, is_pattern: bool = False) -> Bound:
    told = f"function '{name}' is given too large a value"
    if is_pattern:
        told += ", or a pattern with {…} that is no literal"
    return Bound(told, bytes_max, is_text=is_text, is_pattern=is_pattern)


def _size(argument: Node) -> int | None:
    """Bytes of a literal, None where only a run tells."""
    value = constant(argument)
    if value is not ...:
        return max(1, len(str(value).encode()))
    return 1 if argument.get("class") == "CONSTANT" else None  # a null, a number with a point


def _product(name: str, arguments: Sequence[Node], *indexes: int) -> Iterator[tuple[int, Bound]]:
    """Two texts whose sizes multiply: what is no literal gets as much as the other leaves."""
    sizes = [_size(arguments[index]) if index < len(arguments) else 1 for index in indexes]
    for index, other in zip(indexes, reversed(sizes), strict=True):
        if index < len(arguments) and _size(arguments[index]) is None:
            yield index, _given(name, _share(other), is_text=True)


def _share(other: int | None) -> int:
    return WORK_MAX // other if other is not None else int(WORK_MAX**0.5)


def _search(name: str, arguments: Sequence[Node]) -> Iterator[tuple[int, Bound]]:
    """What is looked for is short; comparing it is so cheap that the text may have any size then."""
    if len(arguments) > 1 and _size(arguments[1]) is None:
        yield 1, _given(name, PATTERN_MAX)


def _regex(name: str, arguments: Sequence[Node], is_building: bool) -> Iterator[tuple[int, Bound]]:
    pattern = constant(arguments[1]) if len(arguments) > 1 else ""
    if isinstance(pattern, str):
        atoms = _atoms(name, pattern)
    else:
        atoms = PATTERN_MAX
        yield 1, _given(name, PATTERN_MAX, is_text=True, is_pattern=True)
    if (is_building or atoms > ATOMS_FREE) and _size(arguments[0]) is None:
        yield 0, _given(name, WORK_MAX // max(atoms, ATOMS_MIN), is_text=True)


def _atoms(name: str, pattern: str) -> int:
    """The size of a regular expression with its repetitions written out: at most, for nested ones."""
    if len(pattern) > TEXT_MAX:
        raise LimitExceeded(f"function '{name}': a pattern of {len(pattern)} characters, limit {TEXT_MAX}")
    counts = [(group, int(high or low)) for group, low, high in _REPEATED.findall(pattern)]
    short = _CLASS.sub("x", _UNICODE.sub("x" * UNICODE_ATOMS, _REPEATED.sub(r"\1", pattern)))
    atoms = max(1, len(short)) + sum(count for group, count in counts if not group)
    for group, count in counts:
        atoms *= max(1, count) if group else 1  # as if it held all the rest
    if atoms > ATOMS_MAX:
        raise LimitExceeded(
            f"function '{name}': a pattern of {atoms} parts with its repetitions, limit {ATOMS_MAX}"
        )
    return atoms
