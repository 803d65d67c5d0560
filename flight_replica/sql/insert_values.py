"""`INSERT … VALUES (?, …)`: which column each parameter fills, and the same rows as queries."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TypeAlias

from flight_replica.sql.places import Place, numbered
from flight_replica.sql.statement import Token, fold, tokens, unquoted

__all__ = ["Columns", "InsertValues"]

Columns: TypeAlias = Sequence[tuple[str, str]]  # name and DuckDB type of each


class InsertValues:
    """An INSERT of VALUES, which casts literals before any plan shows them."""

    def __init__(self, sql: str, at: int) -> None:
        """`at`: the index of the word VALUES."""
        self._data = sql.encode()
        self._words = tokens(sql)
        self._at = at

    @classmethod
    def of(cls, sql: str) -> InsertValues | None:
        """None for any other statement."""
        depth, is_insert = 0, False
        for index, word in enumerate(tokens(sql)):
            depth += word.says("(") - word.says(")")
            is_insert = is_insert or (depth == 0 and word.says("INSERT"))
            if is_insert and depth == 0 and word.says("VALUES"):
                return cls(sql, index)
        return None

    def rows(self) -> Iterator[str]:
        """One INSERT … SELECT for each row."""
        head, before = self._data[: self._words[self._at].start].decode(), 0
        for row in _brackets(self._words[self._at + 1 :]):
            inner = self._data[row[0].end : row[-1].start].decode()
            yield f"{head}SELECT {numbered(inner, before)}"
            before += sum(word.says("?") for word in row)

    def whole_values(
        self, tables: Mapping[str, Columns], places: Sequence[Place]
    ) -> Iterator[tuple[str, str]]:
        """The parameters that are a column's whole value, each with the column's type."""
        kinds = self._column_types(tables)
        by_start = {place.start: place for place in places}
        for row in _brackets(self._words[self._at + 1 :]):
            for item, kind in zip(_items(row), kinds, strict=False):
                place = by_start.get(item[0].start) if item else None
                if place is not None and item[-1].end == place.end:
                    yield place.key, kind

    def _column_types(self, tables: Mapping[str, Columns]) -> list[str]:
        """The types of the columns that VALUES fills, in its order."""
        words = self._words[: self._at]
        into = max((index for index, word in enumerate(words) if word.says("INTO")), default=len(words))
        name = [word for word in words[into + 1 : into + 4] if not word.says(".", "(")]
        folded = {fold(table): columns for table, columns in tables.items()}
        is_qualified = into + 2 < len(words) and words[into + 2].says(".")
        found = folded.get(fold(unquoted(name[1 if is_qualified else 0].text))) if name else None
        if found is None:
            return []
        kinds = {fold(column): kind for column, kind in found}
        listed = next(_brackets(words[into + 1 :]), None)
        if listed is None:
            return list(kinds.values())
        return [kinds.get(fold(unquoted(item[0].text)), "") for item in _items(listed) if item]


def _brackets(words: Sequence[Token]) -> Iterator[Sequence[Token]]:
    """The outermost brackets, each from its opening to its closing sign."""
    depth, start = 0, 0
    for index, word in enumerate(words):
        if word.says("("):
            start = index if depth == 0 else start
            depth += 1
        elif word.says(")"):
            depth -= 1
            if depth == 0:
                yield words[start : index + 1]


def _items(bracket: Sequence[Token]) -> Iterator[Sequence[Token]]:
    """What stands between the commas of a bracket."""
    depth, start = 0, 1
    for index, word in enumerate(bracket):
        depth += word.says("(", "[", "{") - word.says(")", "]", "}")
        if (depth == 1 and word.says(",")) or depth == 0:
            yield bracket[start:index]
            start = index + 1
