"""What can be completed in a statement: keywords, functions of the server, and its tables and columns."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

__all__ = ["Names", "completions"]

_WORDS = """
all alter and any as asc asof between by case cast create cross cube current_date current_timestamp
delete desc describe distinct drop else end except exclude exists explain false filter first from
full grouping group having ilike in inner insert intersect into is join key last left like limit
natural not null nulls offset on or order outer over partition pivot primary qualify range replace
reset returning right rollup rows select set sets show similar some summarize table tablesample
tables then true union unpivot update using values when where window with
"""
KEYWORDS = sorted(_WORDS.split())
FUNCTIONS = [
    "merutable_changes(",
    "merutable_clock()",
    "merutable_digest(",
    "merutable_lag_ms(",
    "merutable_seq(",
    "merutable_status()",
    "merutable_tables()",
    "merutable_wait(",
]
_BEFORE_TABLES = {"from", "join", "into", "update", "table", "describe", "summarize"}
_WORD = re.compile(r'(?:"(?:[^"]|"")*"?|[^\s"(),;=<>+*/|-])*$')
_LAST_WORD = re.compile(r"([A-Za-z_]+)\s*$")
_PLAIN_NAME = re.compile(r"[a-z_][a-z0-9_]*")
_NAMED = re.compile(
    r'\b(?:from|join|update|into|,)\s*("(?:[^"]|"")*"|\w+)(?:\s+(?:as\s+)?("(?:[^"]|"")*"|\w+))?',
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Names:
    """The tables of a server, and their columns in order."""

    columns: Mapping[str, Sequence[str]] = field(default_factory=dict)


def completions(text: str, names: Names, behind: str = "") -> Iterator[tuple[str, int, str]]:
    """What may stand in place of the last word of `text`: itself, that word's length, what it is.

    `behind` is what follows in the statement, whose tables count too.
    """
    found = _WORD.search(text)
    word = found[0] if found is not None else ""
    before = text[: len(text) - len(word)]
    owner, dot, part = word.rpartition(".")
    if dot:
        for column in _columns_of(_bare(owner), text + behind, names):
            if _begins(column, part):
                yield quoted(column), len(part), "column"
        return
    last = _LAST_WORD.search(before)
    wants_table = last is not None and last[1].lower() in _BEFORE_TABLES
    for table in sorted(names.columns):
        if _begins(table, word) and (wants_table or word):
            yield quoted(table), len(word), "table"
    if wants_table:
        for name in FUNCTIONS:
            if word and name.startswith(word.lower()):
                yield name, len(word), "function"
        return
    if not word:
        return
    used = {_bare(match[1]).lower() for match in _NAMED.finditer(text + behind)}
    tables = [table for table in names.columns if table.lower() in used] or list(names.columns)
    for column in sorted({column for table in tables for column in names.columns[table]}):
        if _begins(column, word):
            yield quoted(column), len(word), "column"
    for keyword in KEYWORDS:
        if keyword.startswith(word.lower()):
            yield (keyword.upper() if word.isupper() else keyword), len(word), "keyword"
    for name in FUNCTIONS:
        if name.startswith(word.lower()):
            yield name, len(word), "function"


def quoted(name: str) -> str:
    """The name as SQL has to have it: in quotes where it must be."""
    if _PLAIN_NAME.fullmatch(name.lower()) and name.lower() not in KEYWORDS:
        return name
    return '"' + name.replace('"', '""') + '"'


def _bare(word: str) -> str:
    return word[1:].removesuffix('"').replace('""', '"') if word.startswith('"') else word


def _begins(name: str, word: str) -> bool:
    return name.lower().startswith(_bare(word).lower())


def _columns_of(owner: str, text: str, names: Names) -> Sequence[str]:
    """The columns of a table, by its name or by the alias that the statement gives it."""
    by_name = {table.lower(): table for table in names.columns}
    aliases = {_bare(match[2]).lower(): _bare(match[1]) for match in _NAMED.finditer(text) if match[2]}
    table = by_name.get(owner.lower()) or by_name.get(aliases.get(owner.lower(), "").lower())
    return names.columns[table] if table is not None else ()
