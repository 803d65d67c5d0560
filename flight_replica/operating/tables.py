"""Columns of text, as wide as what is in them."""

from __future__ import annotations

from collections.abc import Sequence

from flight_replica.operating.values import printable


def lines_of(
    names: Sequence[str], rows: Sequence[Sequence[str]], right: Sequence[str] = (), indent: str = ""
) -> list[str]:
    """A line for the names and one a row; the columns named in `right` end at the same place."""
    shown = [[printable(value) for value in row] for row in rows]
    widths = [max([len(name), *(len(row[at]) for row in shown)]) for at, name in enumerate(names)]
    lines = []
    for row in (names, *shown):
        cells = [
            value.rjust(width) if name in right else value.ljust(width)
            for name, value, width in zip(names, row, widths, strict=True)
        ]
        lines.append((indent + "  ".join(cells)).rstrip())
    return lines
