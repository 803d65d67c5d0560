"""How large a value each call may get."""

from __future__ import annotations

import pyarrow as pa
import pytest

from flight_replica.errors import LimitExceeded
from flight_replica.sql.bound_sizes import check_sizes
from flight_replica.sql.heavy import ATOMS_FREE, ATOMS_MAX, WORK_MAX, Bound, bounds_of
from flight_replica.sql.statement import Node, tree_of


def arguments(call: str) -> list[Node]:
    node = tree_of(f"SELECT {call}")["node"]
    assert isinstance(node, dict)
    return [argument["expression"] for argument in node["select_list"][0]["arguments"]]


def bounds(call: str, *, is_building: bool = False) -> dict[int, Bound]:
    name = call.partition("(")[0]
    return dict(bounds_of(name, arguments(call), is_building=is_building))


@pytest.mark.parametrize(
    "pattern",
    [
        "^note [0-9]+$",
        "[a-zA-Z0-9._%+-]+@[a-zA-Z0-9.-]+\\.[a-zA-Z]{2,}",
        "(\\d{1,3}\\.){3}\\d{1,3}",
        "\\d{4}-\\d{2}-\\d{2}T\\d{2}:\\d{2}:\\d{2}(\\.\\d+)?Z",
        "(?i)(error|warn|fatal|failed|failure|critical|panic)",
        "^\\p{L}+$",
    ],
)
def test_an_ordinary_pattern_may_be_looked_for_in_stored_texts_of_any_size(pattern: str) -> None:
    assert bounds(f"regexp_matches(s, '{pattern}')") == {}


def test_a_pattern_with_many_repetitions_takes_short_texts_and_one_with_more_none() -> None:
    (bound,) = bounds("regexp_matches(s, '[ab]*a[ab]{150}c')").values()
    assert 100 <= bound.bytes_max <= WORK_MAX // ATOMS_FREE
    for pattern in ("a{999}b{999}", "(.?a?b?){300}", "(([ab]{50}){50})", "a" * (ATOMS_MAX + 1)):
        with pytest.raises(LimitExceeded):
            bounds(f"regexp_matches(s, '{pattern}')")


def test_a_pattern_that_is_no_literal_is_short_and_has_no_repetitions() -> None:
    for pattern in ("p", "'a' || b", "?"):
        bound = bounds(f"regexp_extract(s, {pattern})")[1]
        assert bound.is_pattern and bound.bytes_max <= 200


def test_sizes_that_multiply_share_one_limit() -> None:
    assert bounds("levenshtein(s, 'abcde')")[0].bytes_max == WORK_MAX // 5
    left, right = bounds("jaro_similarity(a, b)").values()
    assert left.bytes_max * right.bytes_max <= WORK_MAX


def test_only_a_statement_that_builds_large_values_is_looked_at_in_quick_functions() -> None:
    for call in ("list_distinct(l)", "contains(s, x)", "json_merge_patch(a, b)", "list_aggregate(l, 'mode')"):
        assert bounds(call) == {} and bounds(call, is_building=True)
    for call in ("upper(s)", "list_sort(l)", "list_aggregate(l, 'sum')", "json_extract(j, '$.a')"):
        assert bounds(call, is_building=True) == {}


@pytest.mark.parametrize(
    "value",
    [
        pa.array(["x" * 100_001]),
        pa.array(["a", "x" * 100_001, None]),
        pa.array([b"x" * 100_001]),
        pa.array([list(range(200_000))]),
        pa.array(["x" * 100_001]).dictionary_encode(),
    ],
)
def test_a_value_that_is_too_large_can_not_be_bound(value: pa.Array) -> None:
    with pytest.raises(LimitExceeded, match="parameter 'p' is bound to"):
        check_sizes(pa.table({"p": value}))


def test_many_small_values_can_be_bound() -> None:
    check_sizes(pa.table({"p": ["x" * 50_000] * 20, "n": list(range(20)), "l": [[1] * 9_000] * 20}))
