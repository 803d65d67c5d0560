"""A statement's text for logs: whatever could be a value is hidden, the rest is as it was written."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flight_replica.sql.literals import without_literals

SECRET = "geheim"


@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        ("SELECT a FROM t WHERE b = 'x''y' AND c >= 1.5e3", "SELECT a FROM t WHERE b = ? AND c >= ?"),
        ("SELECT  1,\n\t2", "SELECT ?, ?"),
        ('SELECT $1, ?, $name, t."Odd name" FROM täble', 'SELECT $1, ?, $name, t."Odd name" FROM täble'),
        ("VALUES (-5, .5, 5., 1_000, 0xFF, 0b11, 1e9)", "VALUES (-?, ?, ?, ?, ?, ?, ?)"),
        ("SELECT [1, 2], {'a': 'b'}", "SELECT [?, ?], {?: ?}"),
        ("SELECT date '2020-01-01', x'00ff', E'a\\'b'", "SELECT date ?, ?, ?"),
        ("", ""),
        ("  ", ""),
    ],
)
def test_literals_are_question_marks(sql: str, expected: str) -> None:
    assert without_literals(sql) == expected


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT '{}'",
        "SELECT '{}",
        "SELECT $${}$$",
        "SELECT $${}",
        "SELECT $tag$ {} $tag$",
        "SELECT 1 -- {}",
        "SELECT 1 -- {}\n, 2",
        "SELECT /* {} */ 1",
        "SELECT /* {}",
        "SELECT E'\\'{}'",
        "SELECT 'a'\n'{}'",
        "SELECT 12{}",
        "SELECT 0x{}",
        'SELECT "{}',
        "SELECT '\x00{}'",
        "SELECT 💥'{}'",
        "SELECT U&'{}'",
        "SELEC WRONG '{}' ((",
    ],
)
def test_a_value_is_hidden_however_it_is_written(sql: str) -> None:
    assert SECRET not in without_literals(sql.format(SECRET))


@given(st.text(), st.text(alphabet='01589ä☃\\\n$/*-"', min_size=1))
def test_no_text_breaks_it_and_no_string_comes_through(around: str, value: str) -> None:
    without_literals(around)
    assert value not in without_literals(f"SELECT '{value}' FROM t")
