"""The types of a statement's parameters, which DuckDB doesn't tell.

A marked text literal stands in for each parameter, and DuckDB's plan then shows the type that it casts the
literal to. Where a literal is ambiguous (`a + ?`), the type is taken that needs the fewest casts around it.
The statement is only explained, over empty tables of the same columns.
"""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import permutations

import duckdb

from flight_replica.sql.bound_casts import bound_casts
from flight_replica.sql.database import open_database, quote
from flight_replica.sql.insert_values import Columns, InsertValues
from flight_replica.sql.places import places_of, replaced
from flight_replica.sql.shows import described
from flight_replica.sql.statement import PARSER_MEMORY, tokens

__all__ = ["guesses", "parameter_types", "with_typed_nulls"]

_MARK = "§{}§"
_CAST = "CAST('" + _MARK + "' AS "
# Tried in this order where the literal is ambiguous; the first of the fewest casts wins.
_CANDIDATES = (
    *("BIGINT", "INTEGER", "DOUBLE", "VARCHAR", "TIMESTAMP", "DATE", "TIMESTAMP WITH TIME ZONE"),
    *("BOOLEAN", "INTERVAL", "TIME", "DECIMAL(38,9)", "BLOB", "UUID"),
    *("BIGINT[]", "DOUBLE[]", "VARCHAR[]"),
)
# Types from narrow to wide; what isn't here is wider. A text is read as whatever stands beside it.
_WIDTHS = ("VARCHAR", "TINYINT", "SMALLINT", "INTEGER", "BIGINT", "HUGEINT", "FLOAT", "DOUBLE")
# The functions that a view defines for each statement, as far as types go.
_POSITIONS = (
    "CREATE MACRO merutable_seq(name) AS 0::UBIGINT",
    "CREATE MACRO merutable_lag_ms(name) AS 0::DOUBLE",
)
_TRIED_MAX = 100  # parameters of one statement that are looked at one by one

_lock = threading.Lock()
_root: duckdb.DuckDBPyConnection | None = None


def parameter_types(
    sql: str,
    keys: Sequence[str],
    tables: Mapping[str, Columns],
    on_end: Callable[[Callable[[], None]], None] = lambda interrupt: None,
) -> list[str | None]:
    """The DuckDB type of each parameter of `keys` (numbers, or names), None where any value will do.

    `sql` is a checked query or write without EXPLAIN; `tables` are those it names, with their columns and
    DuckDB types. A statement that can't be explained over empty tables tells nothing. `on_end` is given
    what ends the work early; then less is told.
    """
    found: dict[str, str] = {}
    sql = described(sql)
    session = _Session()
    on_end(session.interrupt)
    cursor = session.cursor
    try:
        for name, columns in tables.items():
            listed = ", ".join(f"{quote(column)} {kind}" for column, kind in columns)
            cursor.execute(f"CREATE TEMP TABLE {quote(name)} ({listed})")
        values = InsertValues.of(sql)
        if values is not None:
            found |= values.whole_values(tables, places_of(sql, keys))
        for text in values.rows() if values is not None else [sql]:
            found = _Inference(session, text, keys).types() | found
    except duckdb.Error:
        pass  # interrupted, or no columns of such types in DuckDB: then nothing is known
    finally:
        session.close()
    return [found.get(key) for key in keys]


def guesses(types: Sequence[str | None]) -> Iterator[tuple[str, ...]]:
    """Types to try where some can't be told: one for all of those, then of two each with each."""
    unknown = [index for index, kind in enumerate(types) if kind is None]
    tried = [[kind] * len(unknown) for kind in _CANDIDATES] if unknown else []
    if len(unknown) == 2:
        tried += [list(pair) for pair in permutations(_CANDIDATES, 2)]
    for kinds in tried:
        given = iter(kinds)
        yield tuple(next(given) if kind is None else kind for kind in types)


def with_typed_nulls(sql: str, keys: Sequence[str], types: Sequence[str | None]) -> str:
    """The statement with a null of its type in the place of each parameter, a text where it has none."""
    by_key = dict(zip(keys, types, strict=True))
    return replaced(
        sql, places_of(sql, keys), {key: f"CAST(NULL AS {kind or 'VARCHAR'})" for key, kind in by_key.items()}
    )


class _Session:
    """A cursor that may be interrupted from any thread, also when it is closed already."""

    def __init__(self) -> None:
        self.cursor = _new_cursor()
        self._lock = threading.Lock()
        self._is_closed = False
        self.is_interrupted = False

    def interrupt(self) -> None:
        with self._lock:
            self.is_interrupted = True
            if not self._is_closed:
                self.cursor.interrupt()

    def close(self) -> None:
        with self._lock:
            self._is_closed = True
        self.cursor.close()


def _new_cursor() -> duckdb.DuckDBPyConnection:
    global _root
    with _lock:
        if _root is None:
            _root = open_database(memory_limit=PARSER_MEMORY, settings=("SET GLOBAL explain_output = 'all'",))
            for macro in _POSITIONS:
                _root.execute(macro)
        return _root.cursor()


# --- inference ----------------------------------------------------------------------------------------


class _Inference:
    """One statement's types."""

    def __init__(self, session: _Session, sql: str, keys: Sequence[str]) -> None:
        self._session = session
        self._cursor = session.cursor
        self._sql = sql
        self._places = places_of(sql, keys)
        self._keys = list(dict.fromkeys(place.key for place in self._places))

    def types(self) -> dict[str, str]:
        """The type of each parameter that has one."""
        found = self._limits()
        marked = {key: f"'{_MARK.format(key)}'" for key in self._keys}
        plan = self._plan(marked)
        if plan is not None:
            return _casts(plan, self._keys) | found
        for key in self._keys[:_TRIED_MAX]:
            if key not in found and (kind := self._alone(key)) is not None:
                found[key] = kind
        return found

    def _alone(self, key: str) -> str | None:
        """The type of one parameter, the others null."""
        plan = self._plan({key: f"'{_MARK.format(key)}'"})
        if plan is not None:
            return _casts(plan, [key]).get(key)
        tried = {kind: self._plan({key: f"{_CAST.format(key)}{kind})"}) for kind in _CANDIDATES}
        casts = {kind: plan.count("CAST(") for kind, plan in tried.items() if plan is not None}
        return min(casts, key=lambda kind: casts[kind]) if casts else None

    def _plan(self, texts: Mapping[str, str]) -> str | None:
        """The expressions of the plan before it is optimized; None where DuckDB refuses the statement."""
        sql = replaced(self._sql, self._places, texts)
        try:
            casts = bound_casts(self._cursor, sql)
            if casts is not None:
                return casts
            rows = self._cursor.execute(f"EXPLAIN (FORMAT json) {sql}").fetchall()
        except duckdb.Error:
            if self._session.is_interrupted:
                raise
            return None
        return "\n".join(_texts(json.loads(dict(rows)["logical_plan"])))

    def _limits(self) -> dict[str, str]:
        """Parameters of LIMIT and OFFSET, which no plan shows."""
        words = tokens(self._sql)
        at = {word.start: index for index, word in enumerate(words)}
        found = {}
        for place in self._places:
            index = at[place.start]
            if index and words[index - 1].says("LIMIT", "OFFSET"):
                following = next((word for word in words[index:] if word.start >= place.end), None)
                is_share = following is not None and following.says("%", "PERCENT")
                found[place.key] = "DOUBLE" if is_share else "BIGINT"
        return found


def _texts(node: object) -> Iterator[str]:
    """Every text in a JSON value."""
    queue = [node]
    while queue:
        item = queue.pop()
        if isinstance(item, str):
            yield item
        elif isinstance(item, Mapping):
            queue.extend(item.values())
        elif isinstance(item, Sequence):
            queue.extend(item)


def _casts(plan: str, keys: Sequence[str]) -> dict[str, str]:
    """The type that each marked literal is cast to; the widest where there are several."""
    found: dict[str, str] = {}
    for key in keys:
        ends = [match.end() for match in re.finditer(re.escape(_CAST.format(key)), plan)]
        kinds = [_until_bracket(plan, end) for end in ends]
        if kinds:
            found[key] = max(kinds, key=_width)
    return found


def _width(kind: str) -> int:
    if kind in _WIDTHS:
        return _WIDTHS.index(kind)
    return len(_WIDTHS)


def _until_bracket(text: str, start: int) -> str:
    depth = 1
    for index in range(start, len(text)):
        depth += (text[index] == "(") - (text[index] == ")")
        if depth == 0:
            return text[start:index]
    return text[start:]
