"""Which tables a primary makes: their names, columns and types. The rules hold where tables are born;
a replica carries more, since merutable's own tables may use any name.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import pyarrow as pa

from flight_replica.arrow_types import type_name
from flight_replica.errors import AlreadyExists, InvalidStatement, SchemaMismatch
from flight_replica.schema import Column, TableSchema
from flight_replica.sql.types import sql_type

NAME_BYTES_MAX = 128
FEED_NAMES = frozenset({"seq", "op", "pk_bytes"})  # the feed's own columns
# DuckDB's pseudo column: the staging table of an INSERT is ordered by it.
PSEUDO_NAMES = frozenset({"rowid"})
_PATH_SIGNS = ("/", "\\", "\0", "..")
_PREFIXES = ("merutable_", "_merutable_", "$")  # functions, hidden columns, the engine's own names


def check_new_table(name: str, schema: TableSchema, taken: Iterable[str]) -> None:
    """Raise `InvalidStatement` unless a table like this can be made beside those `taken`."""
    _check_name(name, f"table name {name!r}")
    for other in taken:
        if other.casefold() == name.casefold():
            raise AlreadyExists(f"table {other!r} exists already")
    check_columns(name, schema.columns)


def check_columns(table: str, columns: Sequence[Column]) -> None:
    """Raise `InvalidStatement` unless these can be the columns of one table."""
    _check_column_names(table, [column.name for column in columns])
    for column in columns:
        try:
            sql_type(column.type)
        except SchemaMismatch as error:
            raise InvalidStatement(f"table {table!r}: column {column.name!r}: {error}") from error
        if pa.types.is_nested(column.type) and "uuid" in type_name(column.type):
            # DuckDB hands out a UUID as text, which is read back at the top level only.
            raise InvalidStatement(f"table {table!r}: column {column.name!r}: a UUID can't be nested here")


def _check_column_names(table: str, names: Sequence[str]) -> None:
    """Raise `InvalidStatement` unless these can be the columns of one table."""
    seen: dict[str, str] = {}  # folded -> as written
    for name in names:
        what = f"table {table!r}: column name {name!r}"
        _check_name(name, what)
        if name.casefold() in PSEUDO_NAMES:
            raise InvalidStatement(f"{what} is reserved")
        other = seen.get(name.casefold())
        if other is not None:
            reason = "exists already" if other == name else f"equals {other!r} but for case"
            raise InvalidStatement(f"{what} {reason}")
        seen[name.casefold()] = name


def _check_name(name: str, what: str) -> None:
    if not name.strip():
        raise InvalidStatement(f"{what} is empty")
    if name.casefold() in FEED_NAMES:
        raise InvalidStatement(f"{what} is reserved for the change feed")
    if any(sign in name for sign in _PATH_SIGNS):
        raise InvalidStatement(f"{what} looks like a path")
    if name.casefold().startswith(_PREFIXES):
        raise InvalidStatement(f"{what} has a reserved prefix")
    if len(name.encode()) > NAME_BYTES_MAX:
        raise InvalidStatement(f"{what} has {len(name.encode())} bytes, limit {NAME_BYTES_MAX}")
