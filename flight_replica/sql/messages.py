"""DuckDB's error texts as ours: one line, with the place in the statement said in words."""

from __future__ import annotations

import json
import re

import duckdb

FRAGMENT_MAX = 60  # characters of the statement that a message repeats

# `LINE 3: SELECT …` and a line of `^^^` under the part that is wrong.
_CARET = re.compile(r"\n+LINE (\d+): (.*)\n( *)(\^+)\s*$")


def one_line(text: str) -> str:
    """A message of DuckDB's without its picture of the statement: the part that is wrong is named instead."""
    found = _CARET.search(text)
    if found is None:
        return text.strip()
    number, line, blanks, carets = found.groups()
    start = len(blanks) - len(f"LINE {number}: ")
    return f"{text[: found.start()].strip()}, at: {_short(line[max(start, 0) : start + len(carets)])}"


def syntax_error(error: duckdb.Error, sql: str, session: duckdb.DuckDBPyConnection) -> str:
    """The message of an error in parsing `sql`, with line and column, both from 1, in characters."""
    message = str(error).strip()
    found = _CARET.search(message)
    if found is None:
        return message
    row = session.execute("SELECT json_serialize_sql($1::VARCHAR)", [sql]).fetchall()[0]
    position = json.loads(row[0]).get("position")
    if position is None:
        return one_line(message)
    before = sql.encode()[: int(position)].decode("utf-8", "ignore")
    line, column = before.count("\n") + 1, len(before) - before.rfind("\n")
    return f"{message[: found.start()].strip()}, line {line}, column {column}"


def _short(text: str) -> str:
    return text if len(text) <= FRAGMENT_MAX else text[: FRAGMENT_MAX - 1] + "…"
