"""Ranges of a key in SQL: each key of a random table is in exactly one, whatever the bounds."""

from __future__ import annotations

import random
from itertools import pairwise

import duckdb
import pytest

from flight_replica.base.key_ranges import BOUND_LETTERS_MAX, KeyRanges

PAIRS = [(a, b) for a in ("", "a", "b'", "é") for b in (-(2**31), -1, 0, 7, 2**31 - 1)]


def test_one_range_is_the_whole_table_as_it_stands() -> None:
    assert KeyRanges('o"dd', ["id"]).select_sqls([], 1) == ['SELECT * FROM "o""dd"']


@pytest.mark.parametrize("seed", range(20))
def test_every_key_is_in_exactly_one_range(seed: int) -> None:
    drawn = random.Random(seed)
    keys = drawn.sample(PAIRS, drawn.randint(1, len(PAIRS)))
    with duckdb.connect() as connection:
        connection.execute("CREATE TABLE t (v INTEGER, b INTEGER, a VARCHAR)")
        connection.executemany("INSERT INTO t VALUES (0, ?, ?)", [(b, a) for a, b in keys])
        ranges = KeyRanges("t", ["a", "b"])
        sample = connection.execute(ranges.sample_sql(len(keys))).fetchall()
        assert sorted(sample) == sorted((a, str(b)) for a, b in keys), "a small table is its own sample"
        sqls = ranges.select_sqls(sample, drawn.randint(1, 30))
        found = [connection.execute(sql).fetchall() for sql in sqls]
    assert sorted(row for rows in found for row in rows) == sorted((0, b, a) for a, b in keys)
    ends = [(min(key), max(key)) for rows in found if (key := [(a, b) for _, b, a in rows])]
    assert all(below[1] < above[0] for below, above in pairwise(ends)), "they ascend"


def test_a_sample_of_a_large_table_is_small() -> None:
    with duckdb.connect() as connection:
        connection.execute("CREATE TABLE t AS SELECT range AS id FROM range(1000000)")
        sample = connection.execute(KeyRanges("t", ["id"]).sample_sql(1_000_000)).fetchall()
        assert 8_000 < len(sample) < 12_000
        sqls = KeyRanges("t", ["id"]).select_sqls(sample, 4)
        counts = [len(connection.execute(sql).fetchall()) for sql in sqls]
    assert sum(counts) == 1_000_000
    assert all(230_000 < count < 270_000 for count in counts), "of about the same size"


def test_keys_that_no_statement_can_hold_make_no_bounds() -> None:
    sample = [("a",), ("a\0b",), ("b" * (BOUND_LETTERS_MAX + 1),), ("c",)]
    assert KeyRanges("t", ["k"]).select_sqls(sample, 4) == [
        'SELECT * FROM "t" WHERE "k" < \'c\'',
        'SELECT * FROM "t" WHERE "k" >= \'c\'',
    ]


def test_bounds_that_are_there_twice_make_one_range() -> None:
    assert len(KeyRanges("t", ["k"]).select_sqls([("a",), ("a",), ("a",)], 3)) == 2
