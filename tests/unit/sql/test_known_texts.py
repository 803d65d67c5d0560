"""What is known of a text holds for just the texts that differ in numbers that choose rows."""

from __future__ import annotations

from functools import partial
from itertools import product

import pyarrow as pa
import pytest

from flight_replica.errors import NotAllowed, ReplicaError
from flight_replica.sql.known_texts import KnownText, KnownTexts
from flight_replica.sql.sandbox import Checked, check_select

SERVED = {"t": "t", "T": "t", "u": "u", "t5": "t5"}

# # stands for a number.
FREE = [
    "SELECT * FROM t WHERE id = #",
    "  SELECT a, b FROM t WHERE # = id ; ",
    "SELECT a FROM t AS x WHERE x.id >= # AND (x.b < # OR x.c != #)",
    "SELECT a FROM t WHERE id IN (#, #) AND b BETWEEN # AND # ORDER BY a LIMIT 3",
    "SELECT count(*) FROM t JOIN u USING (id) WHERE t.id=#",
    "SELECT * FROM t WHERE id = # AND b = ?",
]
FIXED = [
    "SELECT #",
    "SELECT id = # FROM t",
    "SELECT (SELECT max(id) FROM t WHERE id = #) FROM u",
    "SELECT a FROM t LIMIT #",
    "SELECT a FROM t GROUP BY #",
    "SELECT a FROM t WHERE id = # + 1",
    "SELECT a FROM t WHERE a = repeat('x', #)",
    "SELECT a FROM t WHERE id = -#",
    "SELECT a FROM t WHERE id = #.5",
    "SELECT a FROM t WHERE id = #e2",
    "SELECT a FROM t WHERE id = 0x#",
    "SELECT a FROM t WHERE id = '#'",
    "SELECT a FROM t WHERE id = $#",
    "SELECT a FROM t# WHERE id = id",
    'SELECT "a#" FROM t',
    "SELECT a FROM t WHERE id = id -- id = #",
    "SELECT a::DECIMAL(9, #) FROM t WHERE true",
    "SELECT i FROM range(#) r(i)",
    "SELECT a FROM t WHERE id = #::INTEGER",
    "WITH q AS (SELECT a FROM t WHERE id = #) SELECT * FROM q",
    "SELECT a FROM t WHERE id = # UNION SELECT a FROM t WHERE id = #",
    "SELECT table_name FROM merutable_tables() WHERE low_water = #",
    "EXPLAIN SELECT a FROM t WHERE id = #",
    "SELECT 'ä' FROM t WHERE id = #",
    "SELECT list(a)[#] FROM t",
]
# Comments around a statement are taken off; a text in one that reads like the statement must not count.
COMMENTED = [
    "/* SELECT * FROM t WHERE id = # */ SELECT * FROM t WHERE id = #",
    "SELECT * FROM t WHERE id = # -- SELECT * FROM t WHERE id = #",
    "SELECT * FROM t WHERE id = # /* # */ AND b = #",
]
NUMBERS = ("5", "0", "007", "123456789012", "123456789012345678", "1234567890123456789012", "1")


def resolve(name: str) -> str | None:
    return SERVED.get(name)


def learn(texts: KnownTexts, text: str) -> KnownText:
    return texts.learn(text, resolve, partial(check_select, text))


def filled(template: str, *numbers: str) -> str:
    pieces = template.split("#")
    return "".join(piece + number for piece, number in zip(pieces, [*numbers, ""], strict=True))


def variants(template: str) -> list[str]:
    """The template with each number in each of its places, and one at a time."""
    count = template.count("#")
    one_each = [[number if at == place else "5" for at in range(count)] for place, number in _each(count)]
    return list(dict.fromkeys(filled(template, *numbers) for numbers in one_each))


def _each(count: int) -> list[tuple[int, str]]:
    return list(product(range(count), NUMBERS))


def checked(text: str) -> Checked | None:
    try:
        return check_select(text, resolve)
    except ReplicaError:
        return None


def told(found: Checked) -> tuple[object, ...]:
    """All that is said of a statement, but for where its numbers stand."""
    places = len(found.filters.numbers), found.filters.has_all_parameters
    key = None if found.key is None else (found.key.table, found.key.bound({"1": "bound"}))
    return found.sql, found.tables, found.functions, found.parameter_count, found.positions, places, key


@pytest.mark.parametrize("template", FREE + FIXED + COMMENTED)
def test_what_is_known_of_a_text_is_what_a_check_says_of_it(template: str) -> None:
    for first in variants(template):
        if checked(first) is None:
            continue
        texts = KnownTexts()
        learn(texts, first)
        for text in variants(template):
            found = texts.find(text, resolve)
            if found is not None:
                expected = checked(text)
                assert expected is not None and told(found.of(text)) == told(expected), (first, text)


@pytest.mark.parametrize("template", FREE)
def test_numbers_that_choose_rows_may_be_others(template: str) -> None:
    texts = KnownTexts()
    first = filled(template, *["5"] * template.count("#"))
    known = learn(texts, first)
    other = filled(template, *["8123"] * template.count("#"))
    assert texts.find(other, resolve) is known
    assert known.of(other).sql == other.strip(" ;")


@pytest.mark.parametrize("template", FIXED)
def test_every_other_number_is_part_of_the_text(template: str) -> None:
    texts = KnownTexts()
    first = filled(template, *["5"] * template.count("#"))
    if checked(first) is not None:
        learn(texts, first)
        assert texts.find(first, resolve) is not None
    assert texts.find(filled(template, *["6"] * template.count("#")), resolve) is None


def test_a_longer_number_is_checked_by_itself() -> None:
    texts = KnownTexts()
    learn(texts, "SELECT * FROM t WHERE id = 5")
    assert texts.find("SELECT * FROM t WHERE id = 1234567890123456789", resolve) is None


def test_a_text_is_unknown_to_whom_its_names_mean_something_else() -> None:
    texts = KnownTexts()
    learn(texts, "SELECT * FROM t WHERE id = 5")
    for other in ({}, {"t": "T"}):
        assert texts.find("SELECT * FROM t WHERE id = 6", other.get) is None
    assert texts.find("SELECT * FROM t WHERE id = 6", resolve) is not None


def test_what_is_refused_is_refused_each_time() -> None:
    texts = KnownTexts()
    for _ in range(2):
        assert texts.find("SELECT getenv('HOME') FROM t WHERE id = 5", resolve) is None
        with pytest.raises(NotAllowed):
            learn(texts, "SELECT getenv('HOME') FROM t WHERE id = 5")


def test_the_oldest_text_goes() -> None:
    texts = KnownTexts()
    learn(texts, "SELECT 'first'")
    known = learn(texts, "SELECT 'again and again'")
    for number in range(1000):
        texts.learn(f"SELECT '{number}'", resolve, lambda _: known.checked)
        assert texts.find("SELECT 'again and again'", resolve) is known
    assert texts.find("SELECT 'first'", resolve) is None


def test_a_long_text_is_not_kept() -> None:
    texts = KnownTexts()
    text = f"SELECT '{'x' * 5000}'"
    learn(texts, text)
    assert texts.find(text, resolve) is None


@pytest.mark.parametrize(
    ("text", "is_lasting"),
    [
        ("SELECT a FROM t", True),
        ("SELECT a FROM t WHERE id = ? AND b IN (?, 3)", True),
        ("SELECT a FROM t WHERE id = ? LIMIT ?", False),
        ("SELECT ? FROM t WHERE id = ?", False),
        ("SELECT a FROM t WHERE id = ? + 1", False),
        ("SELECT merutable_seq('t') FROM t", False),
        ("SELECT * FROM merutable_status()", False),
        ("EXPLAIN SELECT a FROM t", False),
        ("SELECT a FROM t WHERE id = $key AND id < $key", True),
    ],
)
def test_columns_last_where_parameters_only_choose_rows(text: str, is_lasting: bool) -> None:
    assert learn(KnownTexts(), text).has_lasting_columns is is_lasting


def test_a_fact_is_made_once_of_the_same_objects() -> None:
    known = learn(KnownTexts(), "SELECT a FROM t")
    one, other = [1], [1]
    made = []

    def make() -> tuple[str | None, ...]:
        made.append("made")
        return ()

    asked = [([one], 1), ([one], 1), ([other], 1), ([one], 2), ([other], 1), (None, 1), (None, 1)]
    for made_of, key in asked:
        known.types.recall(made_of, key, make)
    assert len(made) == 5


def test_a_schema_of_very_many_columns_is_not_kept() -> None:
    known = learn(KnownTexts(), "SELECT a FROM t")
    made = []

    def make(schema: pa.Schema) -> pa.Schema:
        made.append(schema)
        return schema

    wide = pa.schema([(f"column_{number}", pa.int64()) for number in range(5000)])
    deep = pa.schema([("s", pa.struct(list(wide)))])
    usual = pa.schema(list(wide)[:50])
    for key, schema in enumerate([wide, deep, usual]):
        for _ in range(2):
            assert known.schemas.recall([], key, lambda schema=schema: make(schema)) is schema
    assert [len(schema) for schema in made] == [5000, 5000, 1, 1, 50]
