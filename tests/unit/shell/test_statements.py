"""Where statements end, whatever quotes and comments are in them."""

from __future__ import annotations

import pytest

from flight_replica.shell.prompt import is_whole
from flight_replica.shell.statements import is_query, split


@pytest.mark.parametrize(
    ("text", "found", "rest"),
    [
        ("", [], ""),
        (" ; ;; -- nothing\n ; /* ; */ ", [], ""),
        ("SELECT 1", [], "SELECT 1"),
        ("SELECT 1; SELECT 2 ;", ["SELECT 1", "SELECT 2"], ""),
        ("SELECT ';', \"a;\"\"b\", 'it''s;' ; x", ["SELECT ';', \"a;\"\"b\", 'it''s;'"], "x"),
        ("SELECT 1 -- ; no\n; y", ["SELECT 1 -- ; no"], "y"),
        ("SELECT /* ; /* ; */ ; */ 1;", ["SELECT /* ; /* ; */ ; */ 1"], ""),
        ("SELECT $$ ; ' $$, $a$ ; $$ ; $a$;", ["SELECT $$ ; ' $$, $a$ ; $$ ; $a$"], ""),
        ("SELECT 'open ; ", [], "SELECT 'open ;"),
        ("SELECT /* open ; ", [], "SELECT /* open ;"),
        ("SELECT $x$ open ; $$", [], "SELECT $x$ open ; $$"),
        ("SELECT $1; SELECT 'a$b'; 1", ["SELECT $1", "SELECT 'a$b'"], "1"),
    ],
)
def test_a_statement_ends_at_a_semicolon_outside_quotes_and_comments(
    text: str, found: list[str], rest: str
) -> None:
    assert split(text) == (found, rest)


@pytest.mark.parametrize(
    ("text", "whole"),
    [
        ("", True),
        (".tables", True),
        ("\\d t", True),
        ("SELECT 1", False),
        ("SELECT 1;", True),
        ("SELECT ';", False),
        ("SELECT 1; SELECT", False),
        ("-- only this;", False),
    ],
)
def test_enter_ends_what_is_whole(text: str, whole: bool) -> None:
    assert is_whole(text) is whole


@pytest.mark.parametrize(
    ("statement", "expected"),
    [
        ("SELECT 1", True),
        ("  -- a\n /* b */ (WITH x AS (SELECT 1) FROM x)", True),
        ("INSERT INTO t VALUES (1)", False),
        ("UPDATE t SET v = 1", False),
        ("", False),
    ],
)
def test_what_only_reads_is_known_by_its_first_word(statement: str, expected: bool) -> None:
    assert is_query(statement) is expected
