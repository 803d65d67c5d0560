"""`INSERT … VALUES (?, …)` with many bound rows as one `INSERT … SELECT` over those rows.

DuckDB runs such a statement for all rows at once, where a run per row would take a millisecond each.
"""

from __future__ import annotations

from collections.abc import Sequence

from flight_replica.sql.database import quote
from flight_replica.sql.statement import Token, fold, tokens, unquoted

PARAMETERS = "$parameters"  # relation of the bound rows: columns p0, p1, …, then their order
ORDINAL = "$ordinal"


def select_of_values(sql: str, names: Sequence[str]) -> str | None:
    """`sql`, an INSERT, reading its parameters from the relation `PARAMETERS`, in the order of its rows.

    `names`: those of named parameters, in the order of the columns. None where that can't be done: another
    source than one row of VALUES, or a DEFAULT or a query inside it.
    """
    words = tokens(sql)
    starts = [index for index, word in enumerate(words) if word.says("VALUES") and _depth(words[:index]) == 0]
    if len(starts) != 1:
        return None
    row = words[starts[0] + 1 :]
    if not _is_one_row(row) or any(word.says("DEFAULT", "SELECT", "FROM") for word in row):
        return None
    inner = _with_columns(sql.encode(), row[1:-1], names)
    head = sql.encode()[: words[starts[0]].start].decode()
    return f"{head}SELECT {inner} FROM {quote(PARAMETERS)} ORDER BY {quote(ORDINAL)}"


def _depth(words: Sequence[Token]) -> int:
    return sum(word.says("(") - word.says(")") for word in words)


def _is_one_row(row: Sequence[Token]) -> bool:
    """Whether these are one bracket with something in it, from the first word to the last."""
    if len(row) < 3 or not row[0].says("("):
        return False
    closes = [index for index in range(len(row)) if _depth(row[: index + 1]) == 0]
    return closes[:1] == [len(row) - 1]


def _with_columns(data: bytes, words: Sequence[Token], names: Sequence[str]) -> str:
    """The text of `words` with each parameter replaced by its column."""
    text, at, count = "", words[0].start, 0
    index = 0
    while index < len(words):
        word = words[index]
        end = word.end
        if word.says("?"):
            column, count = count, count + 1
        elif word.says("$") and index + 1 < len(words) and words[index + 1].start == end:
            name = unquoted(words[index + 1].text)
            column = int(name) - 1 if name.isdecimal() else [fold(known) for known in names].index(fold(name))
            index, end = index + 1, words[index + 1].end
        else:
            index += 1
            continue
        text += data[at : word.start].decode() + f"{quote(PARAMETERS)}.p{column}"
        at = end
        index += 1
    return text + data[at : words[-1].end].decode()
