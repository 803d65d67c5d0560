"""Rows as a table of text, for people: aligned, cut, and nothing in it that a terminal would obey."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Sequence

import pyarrow as pa

__all__ = ["plain", "printable", "table_lines", "value_text", "value_width", "values"]

LETTERS_MAX = 60  # of one value


def table_lines(names: Sequence[str], rows: Iterable[Sequence[object]]) -> list[str]:
    """A head, a line under it and a line a row."""
    head = [printable(name) for name in names]
    shown = [[value_text(value) for value in row] for row in rows]
    widths = [
        max([value_width(name), *(value_width(row[i]) for row in shown)]) for i, name in enumerate(head)
    ]
    lines = [head, ["-" * width for width in widths], *shown]
    return ["  ".join(map(_padded, line, widths)).rstrip() for line in lines]


def _padded(cell: str, width: int) -> str:
    return cell + " " * (width - value_width(cell))


def value_text(value: object) -> str:
    """A value in short, on one line."""
    text = "NULL" if value is None else printable(str(plain(value)))
    return text if len(text) <= LETTERS_MAX else text[: LETTERS_MAX - 1] + "…"


def value_width(text: str) -> int:
    """Columns of a terminal that the text takes."""
    if text.isascii():
        return len(text)
    return sum(
        0 if unicodedata.combining(sign) else 2 if unicodedata.east_asian_width(sign) in "WF" else 1
        for sign in text
    )


def values(column: pa.Array) -> list[object]:
    """The column's values; as texts, where one is beyond Python's calendar, or a span of time."""
    if pa.types.is_interval(column.type):
        return _texts(column)
    try:
        return list(column.to_pylist())
    except (OverflowError, ValueError):
        return _texts(column)


def _texts(column: pa.Array) -> list[object]:
    import duckdb

    with duckdb.connect() as connection:
        texts = connection.from_arrow(pa.table({"value": column})).project("value::VARCHAR")
        return list(texts.to_arrow_table().column(0).to_pylist())


def printable(text: str) -> str:
    """The text with signs that control a terminal, or break a line, written out (`\\n`, `\\x1b`)."""
    if text.isprintable():
        return text
    return "".join(sign if sign.isprintable() else repr(sign)[1:-1] for sign in text)


def plain(value: object) -> object:
    """Bytes as hex, other values as they are or as their text."""
    if isinstance(value, bytes):
        return value.hex()
    return value if isinstance(value, int | float | str | bool) or value is None else str(value)
