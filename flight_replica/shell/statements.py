"""Where one SQL statement of a text ends and the next begins, by the signs that quote and comment."""

from __future__ import annotations

import re

__all__ = ["is_query", "split"]

# What is skipped as a whole, and what ends a statement. A quote that isn't closed yet goes to the end.
_TOKEN = re.compile(
    r"""
    (?P<comment>--[^\n]*)
  | (?P<block>/\*)
  | (?P<dollar>\$(?:[A-Za-z_][A-Za-z_0-9]*)?\$)
  | (?P<text>'(?:[^']|'')*'?)
  | (?P<name>"(?:[^"]|"")*"?)
  | (?P<end>;)
    """,
    re.VERBOSE,
)
_BLOCK = re.compile(r"/\*|\*/")
_FIRST_WORD = re.compile(r"(?:\s|\(|--[^\n]*\n|/\*.*?\*/)*([A-Za-z]+)", re.DOTALL)
_QUERIES = {"select", "with", "from", "values", "table", "show", "describe", "summarize", "explain"}


def split(text: str) -> tuple[list[str], str]:
    """The statements that `text` ends with `;`, without it, and the rest behind the last one.

    Statements of blanks and comments alone are left out; so is such a rest.
    """
    found: list[str] = []
    begin = at = 0
    has_code = False
    while (token := _TOKEN.search(text, at)) is not None:
        has_code = has_code or bool(text[at : token.start()].strip())
        kind, at = token.lastgroup, token.end()
        if kind == "block":
            at = _end_of_block(text, at)
        elif kind == "dollar":
            close = text.find(token[0], at)
            at = len(text) if close < 0 else close + len(token[0])
            has_code = True
        elif kind == "end":
            if has_code:
                found.append(text[begin : token.start()].strip())
            begin, has_code = at, False
        elif kind in ("text", "name"):
            has_code = True
    has_code = has_code or bool(text[at:].strip())
    return found, text[begin:].strip() if has_code else ""


def _end_of_block(text: str, at: int) -> int:
    """Behind the comment that began before `at`; comments nest."""
    depth = 1
    for mark in _BLOCK.finditer(text, at):
        depth += 1 if mark[0] == "/*" else -1
        if depth == 0:
            return mark.end()
    return len(text)


def is_query(statement: str) -> bool:
    """Whether the statement only reads, by its first word: such a one may be sent twice."""
    word = _FIRST_WORD.match(statement)
    return word is not None and word[1].lower() in _QUERIES
