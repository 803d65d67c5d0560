"""One statement as DuckDB reads it: its text without ends, its kind, its tokens and its parse tree.

Parsing runs on a database of its own: empty, in memory, without reach to files. No statement of a
client is ever executed there. All places and lengths are bytes of the UTF-8 text.
"""

from __future__ import annotations

import json
import threading
from dataclasses import dataclass
from itertools import pairwise

import duckdb

from flight_replica.errors import InvalidStatement, LimitExceeded, NotAllowed
from flight_replica.sql.database import open_database
from flight_replica.sql.messages import syntax_error

__all__ = ["Node", "Token", "fold", "kind_of", "nested", "parser", "single", "tokens", "tree_of", "unquoted"]

Node = dict[str, object]

STATEMENT_CHARACTERS_MAX = 1_000_000  # of one statement's text
TOKENS_MAX = 100_000  # tokens of one statement: its tree takes about 1 kB each
NESTING_MAX = 100  # open brackets at once; the parser's time grows with the square and worse
NAME_PARTS_MAX = 32  # of a.b.c; the binder's time grows with the square, and nothing ends it
NAMED_QUERIES_MAX = 500  # WITH a AS (…), b AS (…); the tree's size grows with the square
PARSER_MEMORY = "256MB"

_SPACES = (
    " \t\n\v\f\r\u00a0\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a\u200b\u200c\u200d"
)
_SPACES += "\u202f\u205f\u2060\u3000\ufeff"  # all that DuckDB's parser skips

_lock = threading.Lock()
_local = threading.local()
_root: duckdb.DuckDBPyConnection | None = None


@dataclass(frozen=True, slots=True)
class Token:
    """One token that isn't a comment. `text` is as written, quotes included."""

    text: str
    start: int
    kind: duckdb.token_type

    @property
    def end(self) -> int:
        return self.start + len(self.text.encode())

    @property
    def is_word(self) -> bool:
        """Whether this is a keyword or a name without quotes."""
        is_name = self.kind in (duckdb.token_type.identifier, duckdb.token_type.keyword)
        return is_name and not self.text.startswith('"')

    def says(self, *words: str) -> bool:
        """Whether this is one of the keywords (upper case) or signs."""
        is_sign = self.kind == duckdb.token_type.operator
        return (
            self.text in words if is_sign else self.is_word and self.text.encode().upper().decode() in words
        )


def fold(name: str) -> str:
    """A name without its case, as DuckDB compares names: ASCII letters only."""
    return name.encode("utf-8", "surrogatepass").lower().decode("utf-8", "surrogatepass")


def unquoted(text: str) -> str:
    """A token's name or text without quotes."""
    return text[1:-1].replace(text[0] * 2, text[0]) if text[:1] in "\"'" else text


def tokens(sql: str) -> list[Token]:
    """The tokens, comments left out. Raises `LimitExceeded`, `InvalidStatement` for no valid text."""
    data = _encoded(sql)
    marks = duckdb.tokenize(sql)
    if not marks:
        return []
    if len(marks) > TOKENS_MAX:
        raise LimitExceeded(
            f"the statement has {len(marks)} tokens, limit {TOKENS_MAX}; bind parameters instead"
        )
    ends = [start for start, _ in marks[1:]] + [len(data)]
    found = [
        Token(data[start:end].decode("utf-8", "replace").rstrip(_SPACES), start, kind)
        for (start, kind), end in zip(marks, ends, strict=True)
        if kind != duckdb.token_type.comment
    ]
    return [token for token in found if token.text]


def _encoded(sql: str) -> bytes:
    try:
        data = sql.encode()
    except UnicodeEncodeError as error:
        raise InvalidStatement("the statement is not valid Unicode text") from error
    if b"\0" in data:
        raise InvalidStatement("the statement contains a zero byte")
    if len(sql) > STATEMENT_CHARACTERS_MAX:
        raise LimitExceeded(
            f"the statement has {len(sql)} characters, limit {STATEMENT_CHARACTERS_MAX} characters"
        )
    return data


def single(sql: str) -> str:
    """The text from its first token to its last, without semicolons and comments around it.

    Raises `InvalidStatement` for an empty text, `LimitExceeded`.
    """
    words = tokens(sql)
    while words and words[-1].text == ";":
        words.pop()
    if not words:
        raise InvalidStatement("the statement is empty")
    _check_nesting(words)
    _check_names(words)
    return sql.encode()[words[0].start : words[-1].end].decode()


def _check_names(words: list[Token]) -> None:
    parts = named_queries = 0
    for token, following in pairwise([*words, words[-1]]):
        if token.text == ".":
            parts += 1
        elif token.text == ")" or following.text != ".":
            parts = 0
        if parts >= NAME_PARTS_MAX:
            raise LimitExceeded(f"the statement has a name of more than {NAME_PARTS_MAX} parts")
        named_queries += token.says("AS") and following.says("(", "MATERIALIZED", "NOT")
    if named_queries > NAMED_QUERIES_MAX:
        raise LimitExceeded(
            f"the statement has {named_queries} named queries and windows, limit {NAMED_QUERIES_MAX}"
        )


def _check_nesting(words: list[Token]) -> None:
    depth = 0
    for token in words:
        if token.kind == duckdb.token_type.operator and token.text in "([{":
            depth += 1
        elif token.kind == duckdb.token_type.operator and token.text in ")]}":
            depth -= 1
        if depth > NESTING_MAX:
            raise LimitExceeded(f"the statement nests more than {NESTING_MAX} brackets")


def kind_of(sql: str) -> str:
    """What DuckDB calls the one statement in `sql`: SELECT, INSERT, …

    Raises `InvalidStatement` for several statements and what can't be parsed, `NotAllowed` for one that
    DuckDB turns into several, as a PIVOT whose columns only a run would tell.
    """
    try:
        found = parser().extract_statements(sql)
    except duckdb.Error as error:
        raise InvalidStatement(syntax_error(error, sql, parser())) from error
    if len(found) != 1:
        raise InvalidStatement(f"exactly one statement at a time, found {len(found)}")
    name = str(found[0].type).rpartition(".")[2]
    if name == "MULTI" and tokens(sql)[0].says("ALTER"):
        return "ALTER"  # ADD COLUMN … NOT NULL: several statements to DuckDB alone
    if name == "MULTI":
        if any(token.says("PIVOT", "PIVOT_WIDER") for token in tokens(sql)):
            raise NotAllowed("PIVOT without its values isn't allowed here: list them, ON column IN (…)")
        raise NotAllowed("a statement that DuckDB runs as several isn't allowed here")
    return name


def tree_of(sql: str) -> Node:
    """The parse tree of a SELECT, as `json_serialize_sql` gives it: its one `statements` entry."""
    try:
        row = parser().execute("SELECT json_serialize_sql($1::VARCHAR)", [sql]).fetchall()[0]
        answer = json.loads(row[0])
    except duckdb.Error as error:
        raise InvalidStatement(str(error).strip()) from error
    except RecursionError:
        raise nested() from None
    if answer["error"]:
        raise InvalidStatement(f"{answer['error_type']} error: {answer['error_message']}")
    (statement,) = answer["statements"]
    assert isinstance(statement, dict), "json_serialize_sql gave no object"
    return statement


def nested() -> LimitExceeded:
    """What a statement is told whose tree is too deep to walk."""
    return LimitExceeded("the statement is nested too deeply, or chains too many operators")


def parser() -> duckdb.DuckDBPyConnection:
    """This thread's cursor on the parsing database; elsewhere for expressions of constants only."""
    global _root
    cursor: duckdb.DuckDBPyConnection | None = getattr(_local, "cursor", None)
    if cursor is None:
        with _lock:
            if _root is None:
                _root = open_database(memory_limit=PARSER_MEMORY)
            cursor = _local.cursor = _root.cursor()
    return cursor
