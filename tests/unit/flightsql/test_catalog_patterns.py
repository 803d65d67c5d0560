from __future__ import annotations

import pyarrow as pa
import pytest

from flight_replica.flightsql.catalog import pattern
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
    ],
)
def test_patterns_are_sqls_with_escapes_and_without_case(text: str, matching: str, other: str | None) -> None:
    assert pattern(text).fullmatch(matching)
    assert other is None or not pattern(text).fullmatch(other)


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
