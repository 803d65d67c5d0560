"""The names under which everything here is served: one catalog, one schema, and what lies beside it.

DuckDB knows the served tables by their plain names alone. `plain` takes the qualification off that
clients put on: the catalog in front of tables, columns and `information_schema`. Length and places stay,
so that errors point at what the client wrote.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from flight_replica.sql.statement import Token, fold, tokens, unquoted

__all__ = ["CATALOG", "DB_SCHEMA", "INFORMATION_SCHEMA", "plain"]

CATALOG = "merutable"
DB_SCHEMA = "main"
INFORMATION_SCHEMA = "information_schema"

_CATALOG_TEXT = f"'{CATALOG}'"
_OF_INTEREST = (CATALOG, INFORMATION_SCHEMA, "current_")


def plain(sql: str) -> str:
    """The statement with `merutable.main.t` as `t`, and the current catalog's name as a literal.

    `information_schema.tables.table_name`, a column, becomes `tables.table_name`. What stands for nothing
    known here stays, and is refused later. Raises `LimitExceeded`, `InvalidStatement`.
    """
    folded = fold(sql)
    if not any(name in folded for name in _OF_INTEREST):
        return sql
    data = bytearray(sql.encode("utf-8", "surrogatepass"))
    words = tokens(sql)
    for start, end, text in [*_qualifications(words), *_current_catalogs(words)]:
        data[start:end] = text.encode().ljust(end - start)
    return data.decode()


def _qualifications(words: Sequence[Token]) -> Iterator[tuple[int, int, str]]:
    """Where a name begins that isn't needed: (start, end, nothing)."""
    index = 0
    while index < len(words):
        count = _parts_to_drop(words, index)
        if count:
            yield words[index].start, words[index + 2 * count - 1].end, ""
        index += 2 * count or 1


def _parts_to_drop(words: Sequence[Token], index: int) -> int:
    """How many of the names from here on, each with the dot after it, say nothing."""
    if index and words[index - 1].says("."):
        return 0
    path = _path(words, index)
    if path[:2] == [CATALOG, DB_SCHEMA] and len(path) > 2:
        return 2
    if path[:2] == [CATALOG, INFORMATION_SCHEMA] and len(path) > 2:
        return 1 if len(path) == 3 else 2
    return 1 if path[:1] == [INFORMATION_SCHEMA] and len(path) == 3 else 0


def _path(words: Sequence[Token], index: int) -> list[str]:
    """The folded names of `a.b.c`, `*` among them."""
    path = []
    for at in range(index, len(words), 2):
        path.append(fold(unquoted(words[at].text)))
        if not (at + 1 < len(words) and words[at + 1].says(".")):
            break
    return path


def _current_catalogs(words: Sequence[Token]) -> Iterator[tuple[int, int, str]]:
    """Where the current catalog is asked for: (start, end, its name as a literal)."""
    for index, word in enumerate(words):
        is_part = index and (words[index - 1].says(".", "AS") or word.text.startswith('"'))
        following = [token.text for token in words[index + 1 : index + 3]]
        if is_part or following[:1] == ["."]:
            continue
        if following == ["(", ")"] and word.says("CURRENT_CATALOG", "CURRENT_DATABASE"):
            yield word.start, words[index + 2].end, _CATALOG_TEXT
        elif word.says("CURRENT_CATALOG") and following[:1] != ["("]:
            yield word.start, word.end, _CATALOG_TEXT
