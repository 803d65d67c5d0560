"""A statement's text without its values, for logs."""

from __future__ import annotations

import duckdb

__all__ = ["without_literals"]

_HIDDEN = b"?"
_LITERALS = (duckdb.token_type.string_const, duckdb.token_type.numeric_const)


def without_literals(sql: str) -> str:
    """`sql` on one line, with `?` for each literal and without comments.

    What isn't surely something else counts as one: the open end of a text, and what follows a number without
    a space, as in `0xFF`.
    """
    data = sql.encode("utf-8", "replace")
    tokens = duckdb.tokenize(data.decode())
    ends = [start for start, _ in tokens[1:]] + [len(data)]
    line = b""
    is_number = False  # the token before was one, or what follows it without a space
    for (start, kind), end in zip(tokens, ends, strict=bool(tokens)):
        token = data[start:end]
        text = token.rstrip()
        is_name = kind == duckdb.token_type.identifier
        if kind == duckdb.token_type.comment or (is_number and is_name):
            shown = b""
        elif _is_value(kind, text) and not line.endswith(b"$"):  # $1 is a parameter, no value
            shown = _HIDDEN
        else:
            shown = text
        is_number = text == token and (kind == duckdb.token_type.numeric_const or (is_number and is_name))
        line += shown if text == token else shown + b" "
    return " ".join(line.decode("utf-8", "replace").split())


def _is_value(kind: duckdb.token_type, text: bytes) -> bool:
    """Whether it is a literal, or a name whose quotes don't end."""
    return kind in _LITERALS or (text.startswith(b'"') and (len(text) == 1 or not text.endswith(b'"')))
