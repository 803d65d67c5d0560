from __future__ import annotations

from itertools import product

import pyarrow as pa
import pytest

from flight_replica.errors import LimitExceeded
from flight_replica.flightsql.patterns import NamePattern
from flight_replica.flightsql.sql_info import SCHEMA, reply


@pytest.mark.parametrize(
    ("text", "matching", "other"),
    [
        ("orders", "ORDERS", "orders2"),
        ("o%", "orders", "items"),
        ("or_ers", "orders", "orers"),
        (r"a\_b", "A_b", "axb"),
        (r"100\%", "100%", "1000"),
        ("a.c", "a.c", "abc"),
        ("%", "", None),
        ("", "", "a"),
        ("_%_", "ab", "a"),
        ("%b_%d", "abcxd", "abd"),
        ("%ab%ab", "abxabab", "abxaba"),
        (r"a\\%", r"A\b", "ab"),
        ("a\\", "a\\", "a"),
        ("ÄPFEL", "Äpfel", "äpfel"),  # ASCII letters alone, as SQL's names do
        ("%\n", "a\n", "a"),
    ],
)
def test_patterns_are_sqls_with_escapes_and_without_case(text: str, matching: str, other: str | None) -> None:
    assert NamePattern(text).matches(matching)
    assert other is None or not NamePattern(text).matches(other)


def test_patterns_are_what_a_slow_obvious_match_says() -> None:
    def is_like(text: str, name: str) -> bool:
        if not text:
            return not name
        if text[0] == "%":
            return is_like(text[1:], name) or (bool(name) and is_like(text, name[1:]))
        return bool(name) and text[0] in ("_", name[0]) and is_like(text[1:], name[1:])

    texts = ["".join(signs) for size in range(5) for signs in product("ab%_", repeat=size)]
    names = ["".join(signs) for size in range(5) for signs in product("ab", repeat=size)]
    for text in texts:
        pattern = NamePattern(text)
        assert [pattern.matches(name) for name in names] == [is_like(text, name) for name in names], text


@pytest.mark.parametrize("text", ["%" * 9_999 + "x", "%a" * 5_000, "%_" * 4_999 + "x", "a" * 10_000], ids=len)
def test_no_pattern_takes_long(text: str) -> None:
    """Of an exponential match this would never end."""
    pattern = NamePattern(text)
    assert not any(pattern.matches("a" * size) for size in range(200))


def test_a_pattern_beyond_any_name_is_refused() -> None:
    with pytest.raises(LimitExceeded, match="10000 characters"):
        NamePattern("%" * 10_001)


def test_infos_come_in_the_union_that_clients_check() -> None:
    info = {
        0: ("string_value", "x"),
        3: ("bool_value", True),
        8: ("int32_bitmask", 0),
        541: ("bigint_value", 5),
    }
    found = reply(info, [])
    found.validate(full=True)
    assert found.schema.equals(SCHEMA)
    assert found["value"].to_pylist() == ["x", True, 0, 5]
    assert reply(info, [8, 9999])["info_name"].to_pylist() == [8]
    assert reply(info, [9999]).num_rows == 0
    assert [field.nullable for field in pa.schema(SCHEMA).field("value").type] == [False] * 6
