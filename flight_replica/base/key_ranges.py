"""How a table is cut into ranges of its key, in SQL: every row in exactly one range, whatever the types.

Bounds are keys of the table as the server prints them, out of a sample in the server's own order. A range
compares in SQL alone, so it doesn't matter whether a bound's text means its key exactly: the range below
and the one above use the same text. (SQL says −0.0 = 0.0: both are in one range.)
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

__all__ = ["SAMPLE_ROWS", "Bound", "KeyRanges", "is_usable", "quoted"]

SAMPLE_ROWS = 10_000  # keys looked at, about: bounds are off by a few per cent of a range
BOUND_LETTERS_MAX = 2000  # of one key; longer ones make no bounds, a statement has its limits

Bound = tuple[str, ...]  # one text a key column


def quoted(name: str) -> str:
    """`name` as an SQL identifier."""
    return '"' + name.replace('"', '""') + '"'


class KeyRanges:
    """The ranges of one table. `key` are the names of its key columns in SQL, in key order."""

    def __init__(self, table: str, key: Sequence[str]) -> None:
        self._table = quoted(table)
        self._key = [quoted(name) for name in key]

    def sample_sql(self, row_count: int) -> str:
        """The statement whose rows are keys in order, of about `SAMPLE_ROWS` rows, each part as text."""
        return self._sample_sql(self._texts(), row_count, "")

    def sample_in_sql(self, row_count: int, low: Bound | None, high: Bound | None) -> str:
        """As `sample_sql`, of the `row_count` rows of one range; the parts themselves behind their texts."""
        columns = f"{self._texts()}, {', '.join(self._key)}"
        condition = self._between(low, high)
        return self._sample_sql(columns, row_count, f" AND {condition}" if condition else "")

    def _sample_sql(self, columns: str, row_count: int, condition: str) -> str:
        names = ", ".join(self._key)
        step = max(1, row_count // SAMPLE_ROWS)
        chosen = f"hash({names}) % {step} = 0{condition}"
        return f"SELECT {columns} FROM {self._table} WHERE {chosen} ORDER BY {names}"

    def _texts(self) -> str:
        # What is cut off here is too long for a bound in any case.
        return ", ".join(f"left(CAST({name} AS VARCHAR), {BOUND_LETTERS_MAX + 1})" for name in self._key)

    def select_sqls(self, sample: Sequence[Bound], count: int) -> list[str]:
        """One SELECT a range, ascending, about `count` of them and of about the same number of rows."""
        bounds = self._bounds(sample, count)
        return [self.select_sql(low, high) for low, high in pairwise([None, *bounds, None])]

    def select_sql(self, low: Bound | None, high: Bound | None) -> str:
        """The SELECT of the rows from `low` on and below `high`; None: no bound."""
        condition = self._between(low, high)
        everything = f"SELECT * FROM {self._table}"
        return f"{everything} WHERE {condition}" if condition else everything

    def _between(self, low: Bound | None, high: Bound | None) -> str:
        from_low = self._at_least(low) if low is not None else ""
        below_high = self._below(high) if high is not None else ""
        return " AND ".join(filter(None, (from_low, below_high)))

    def _bounds(self, sample: Sequence[Bound], count: int) -> list[Bound]:
        places = [len(sample) * number // count for number in range(1, count)]
        chosen = [sample[place] for place in places if place < len(sample)]
        return list(dict.fromkeys(bound for bound in chosen if is_usable(bound)))

    # The first part of a key is compared by itself too: that is what a scan is pruned by.

    def _at_least(self, bound: Bound) -> str:
        whole = self._compared(bound)
        return whole if len(bound) == 1 else f"{self._key[0]} >= {_literal(bound[0])} AND {whole}"

    def _below(self, bound: Bound) -> str:
        if len(bound) == 1:
            return f"{self._key[0]} < {_literal(bound[0])}"
        return f"{self._key[0]} <= {_literal(bound[0])} AND NOT {self._compared(bound)}"

    def _compared(self, bound: Bound) -> str:
        """Whether a key, part by part, is the bound or above it."""
        pairs = list(zip(self._key, map(_literal, bound), strict=True))
        name, text = pairs.pop()
        found = f"{name} >= {text}"
        for name, text in reversed(pairs):
            found = f"({name} > {text} OR ({name} = {text} AND {found}))"
        return found


def is_usable(bound: Bound) -> bool:
    """Whether the texts of a key can stand in a statement."""
    text = "".join(bound)
    return len(text) <= BOUND_LETTERS_MAX and "\0" not in text


def _literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
