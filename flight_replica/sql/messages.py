"""DuckDB's error texts as ours: one line, with the place in the statement said in words."""

from __future__ import annotations

import json
import re

import duckdb

LIMIT_SIGN = "limit passed: "  # how what a statement's guards raise begins, see guards.py
FRAGMENT_MAX = 60  # characters of the statement that a message repeats

_LINE = re.compile(r"LINE \d+: ")
_PASSED = re.compile(rf"^Conversion Error: [^\n]{{0,1000}}?'{LIMIT_SIGN}([^\n]{{0,300}}? bytes)'")


def one_line(text: str) -> str:
    """A message of DuckDB's without its picture of the statement: the part that is wrong is named instead."""
    words, part = _picture(text)
    return words if part is None else f"{words}, at: {_short(part)}"


def _picture(text: str) -> tuple[str, str | None]:
    """A message's words, and the part of the statement that its last two lines point at, if they do.

    They are `LINE 3: SELECT …` and a line of `^^^` under the part. A message may be as long as a statement,
    so it is looked at from its end, not by a pattern.
    """
    text = text.strip("\n").rstrip()
    words, _, carets = text.rpartition("\n")
    words, _, line = words.rpartition("\n")
    head = _LINE.match(line)
    if head is None or not carets.endswith("^") or carets.strip(" ^"):
        return text.strip(), None
    start = carets.index("^")
    return words.strip(), line[max(start, head.end()) : max(len(carets), head.end())]


def passed_limit(text: str) -> str | None:
    """What a guard says in an error of DuckDB's, None where the error is none of a guard's."""
    found = _PASSED.search(text)
    return None if found is None else found.group(1)


def syntax_error(error: duckdb.Error, sql: str, session: duckdb.DuckDBPyConnection) -> str:
    """The message of an error in parsing `sql`, with line and column, both from 1, in characters."""
    message = str(error).strip()
    words, part = _picture(message)
    if part is None:
        return message
    row = session.execute("SELECT json_serialize_sql($1::VARCHAR)", [sql]).fetchall()[0]
    position = json.loads(row[0]).get("position")
    if position is None:
        return one_line(message)
    before = sql.encode()[: int(position)].decode("utf-8", "ignore")
    line, column = before.count("\n") + 1, len(before) - before.rfind("\n")
    return f"{words}, line {line}, column {column}"


def _short(text: str) -> str:
    return text if len(text) <= FRAGMENT_MAX else text[: FRAGMENT_MAX - 1] + "…"
