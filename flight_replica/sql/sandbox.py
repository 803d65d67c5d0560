"""The first wall around a client's SQL: one statement, read-only, made of known parts alone.

`check_select` says which served tables and which of the server's own relations (`calls.py`) a statement
reads; `bind_functions` puts relations in the place of the latter. What is let through: `walk.py` and
`functions.py`; how much it may build: `hogs.py`, and while it runs `guards.py`. Walls behind this one:
`database.py`, `view.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from flight_replica.errors import InvalidStatement, NotAllowed, ReadOnly
from flight_replica.sql.calls import TableFunction, found_functions
from flight_replica.sql.database import quote
from flight_replica.sql.guards import guarded
from flight_replica.sql.key_filter import KeyFilter, key_filter
from flight_replica.sql.plain_count import PlainCount, plain_count
from flight_replica.sql.plain_row import PlainRow, plain_row
from flight_replica.sql.row_filters import NONE, RowFilters, row_filters
from flight_replica.sql.shows import shown
from flight_replica.sql.statement import Token, kind_of, single, tokens, tree_of
from flight_replica.sql.walk import Resolve, Scope, Walk

__all__ = ["EXPLAIN", "Checked", "TableFunction", "bind_functions", "check_select", "parameters_of", "put"]

EXPLAIN = ("EXPLAIN ANALYZE ", "EXPLAIN ")  # how a checked EXPLAIN begins

_DATA_OR_SCHEMA = frozenset(
    {"INSERT", "UPDATE", "DELETE", "MERGE", "MERGE_INTO", "CREATE", "CREATE_FUNC", "DROP", "ALTER"}
)


@dataclass(frozen=True, slots=True)
class Checked:
    """A statement that may run as it stands once its functions are bound."""

    sql: str  # one statement, without semicolon and comments around it, with its guards
    tables: tuple[str, ...]  # the served tables it reads, as the server spells them
    functions: tuple[TableFunction, ...]  # in text order
    parameter_count: int  # ? and $n: the highest number; $name: how many names
    parameter_names: tuple[str, ...] = ()  # of $name parameters, in order of appearance
    positions: tuple[tuple[str, str], ...] = ()  # tables whose position it asks for: (as spelled, as served)
    count: PlainCount | None = None  # where it asks for nothing else
    key: KeyFilter | None = None  # what it demands of the columns of its table, where that is one
    row: PlainRow | None = None  # where it asks for columns of that row alone
    filters: RowFilters = NONE  # what may be another value without any of this being another

    def reading(self, sql: str, key: KeyFilter | None) -> Checked:
        """The same for a text with other numbers that choose its rows."""
        return Checked(
            sql,
            self.tables,
            self.functions,
            self.parameter_count,
            self.parameter_names,
            self.positions,
            self.count,
            key,
            self.row,
            self.filters,
        )


def check_select(sql: str, resolve: Resolve) -> Checked:
    """The checked statement. `resolve` gives a served table's name for a name as spelled, or None.

    SHOW and DESCRIBE of what is served come back as queries, see `shows.py`. Raises `InvalidStatement`
    (syntax, not one statement), `ReadOnly` (it writes), `NotAllowed`, `TableNotFound`, `LimitExceeded`.
    """
    text = single(sql)
    kind = _kind(text, sql)
    words = tokens(text)
    if kind == "EXPLAIN":
        return _check_explain(text, words, resolve)
    name = kind if words[0].says("WITH") else words[0].text.upper()
    if kind in _DATA_OR_SCHEMA and name != "DEALLOCATE":  # a DROP to DuckDB
        raise ReadOnly(f"{name} writes")
    if kind != "SELECT":
        raise NotAllowed(f"{name} statements aren't allowed here")
    return _check_query(shown(words, resolve) or text, resolve)


def _kind(text: str, sent: str) -> str:
    """`kind_of(text)`; an error in it tells the place in the text as it was sent."""
    try:
        return kind_of(text)
    except NotAllowed:
        raise
    except InvalidStatement:
        kind_of(sent)
        raise


def _check_explain(text: str, words: Sequence[Token], resolve: Resolve) -> Checked:
    """EXPLAIN [ANALYZE] or EXPLAIN (ANALYZE), written anew before the checked statement."""
    if words[1].says("("):
        if not (words[2].says("ANALYZE") and words[3].says(")")):
            raise NotAllowed("the one option that EXPLAIN takes here is ANALYZE")
        count, is_analyze = 4, True
    else:
        is_analyze = words[1].says("ANALYZE")
        count = 2 if is_analyze else 1
    prefix = "EXPLAIN ANALYZE " if is_analyze else "EXPLAIN "
    rest = text.encode()[words[count].start :].decode()
    checked = check_select(rest, resolve)
    moved = (
        replace(call, start=call.start + len(prefix), is_whole_statement=False) for call in checked.functions
    )
    explained = None if checked.count is None else replace(checked.count, prefix=prefix)
    sql = prefix + checked.sql
    return replace(checked, sql=sql, functions=tuple(moved), count=explained, row=None, filters=NONE)


def _check_query(text: str, resolve: Resolve) -> Checked:
    statement = tree_of(text)
    walk = Walk(resolve)
    walk.check(statement, Scope())
    count, names = parameters_of(walk)
    filters = row_filters(text, statement)
    if (safe := guarded(text, statement)) != text:
        text, statement, filters = safe, tree_of(safe), NONE
        walk = Walk(resolve)
        walk.check(statement, Scope())
    calls = found_functions(walk, text, statement["node"])
    tables = tuple(walk.tables)
    plain = None if calls else plain_count(statement, tables)
    key = None if calls else key_filter(statement, tables)
    row = plain_row(statement, key)
    return Checked(text, tables, calls, count, names, tuple(walk.positions.items()), plain, key, row, filters)


def parameters_of(walk: Walk) -> tuple[int, tuple[str, ...]]:
    """How many parameters a statement takes, and their names where they have names."""
    numbers = [int(name) for name in walk.parameters if name.isdecimal()]
    names = tuple(name for name in walk.parameters if not name.isdecimal())
    return (len(names), names) if names else (max(numbers, default=0), ())


def bind_functions(checked: Checked, names: Sequence[str]) -> str:
    """The statement with each call replaced by the relation of the same place in `names`.

    One without an alias gets its own name as one, so that columns can be qualified by it.
    """
    assert len(names) == len(checked.functions), "one relation a call"
    data = checked.sql.encode()
    for call, name in reversed(list(zip(checked.functions, names, strict=True))):
        alias = "" if call.has_alias else f" AS {quote(call.known_as)}"
        data = put(data, call.start, call.length, quote(name) + alias)
    return data.decode()


def put(data: bytes, start: int, length: int, text: str) -> bytes:
    """`data` with `text` in the place of `length` bytes."""
    return data[:start] + text.encode() + data[start + length :]
