"""What is offered at the end of a statement."""

from __future__ import annotations

import pytest

from flight_replica.shell.words import Names, completions

NAMES = Names({"orders": ["id", "customer"], "Order Items": ["order_id", "select"], "users": ["id", "name"]})


def offered(text: str, behind: str = "") -> list[str]:
    return [name for name, _, _ in completions(text, NAMES, behind)]


@pytest.mark.parametrize(
    ("text", "behind", "expected"),
    [
        ("SELECT * FROM ", "", ['"Order Items"', "orders", "users"]),
        ("SELECT * FROM or", "", ['"Order Items"', "orders"]),
        ("SELECT cust", " FROM orders", ["customer"]),
        ("SELECT o.", " FROM orders AS o", ["id", "customer"]),
        ("SELECT * FROM users u JOIN orders o ON u.", "", ["id", "name"]),
        ('SELECT "Order Items".s', "", ['"select"']),
        ("SELECT na", " FROM orders", ["natural"]),
        ("SELECT na", " FROM users", ["name", "natural"]),
        ("DISTI", "", ["DISTINCT"]),
        ("SELECT * FROM merutable_st", "", ["merutable_status()"]),
        ("SELECT nix.", "", []),
        ("", "", []),
    ],
)
def test_words_fit_where_they_stand(text: str, behind: str, expected: list[str]) -> None:
    assert offered(text, behind) == expected


def test_the_last_word_alone_is_replaced() -> None:
    assert [length for _, length, _ in completions("SELECT o.cu", NAMES, " FROM orders o")] == [2]
    assert {length for _, length, _ in completions('SELECT * FROM "Ord', NAMES)} == {4}
