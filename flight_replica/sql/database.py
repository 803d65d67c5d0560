"""One hardened DuckDB database a process. Every session on it runs at UTC, without extensions.

Three walls keep a client's SQL inside: the check of the parsed statement (`sandbox.py`), read-only
transactions (`view.py`) and these settings, which are locked once the database is open.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import duckdb

from flight_replica.errors import ConfigError, DatabaseLost


def quote(name: str) -> str:
    """`name` as an SQL identifier."""
    return '"' + name.replace('"', '""') + '"'


def literal(text: str) -> str:
    """`text` as an SQL string literal."""
    return "'" + text.replace("'", "''") + "'"


def open_database(
    path: Path | None = None,
    *,
    readable: Sequence[Path] = (),
    memory_limit: str | None = None,
    temp_directory: Path | None = None,
    settings: Sequence[str] = (),
) -> duckdb.DuckDBPyConnection:
    """The root connection of a database: in `path`, or in memory. Sessions are its `cursor()`s.

    SQL on it reaches files below `readable` only, and no setting can be changed afterwards. `settings` are
    SET statements of the caller's own. Raises `ConfigError` for a memory limit that DuckDB doesn't take.
    """
    connection = duckdb.connect(str(path) if path is not None else ":memory:")
    statements: list[str] = [
        *settings,
        "SET GLOBAL TimeZone = 'UTC'",
        "SET GLOBAL autoinstall_known_extensions = false",
        "SET GLOBAL autoload_known_extensions = false",
        "SET GLOBAL preserve_insertion_order = false",
        "SET GLOBAL python_enable_replacements = false",  # names in FROM never mean Python's variables
    ]
    if memory_limit is not None:
        _limit_memory(connection, memory_limit)
    if temp_directory is not None:
        statements.append(f"SET GLOBAL temp_directory = {literal(str(temp_directory))}")
    directories = ", ".join(literal(str(directory.resolve())) for directory in readable)
    statements += [
        # A view may be at its client's time zone, and long work of our own tells how far it is; a client's
        # own SET never gets this far.
        "SET GLOBAL allowed_configs = ['TimeZone', 'enable_progress_bar', 'enable_progress_bar_print']",
        f"SET GLOBAL allowed_directories = [{directories}]",
        "SET GLOBAL enable_external_access = false",
        "SET GLOBAL lock_configuration = true",
    ]
    for statement in statements:
        connection.execute(statement)
    return connection


def _limit_memory(connection: duckdb.DuckDBPyConnection, size: str) -> None:
    try:
        connection.execute(f"SET GLOBAL memory_limit = {literal(size)}")
    except duckdb.Error as error:
        connection.close()
        reason = str(error).partition("\n")[0].partition("Error: ")[2]
        raise ConfigError(f"--memory-limit {size}: {reason}") from error


def check_database(session: Callable[[], duckdb.DuckDBPyConnection]) -> None:
    """Raise `DatabaseLost` when a new session can't answer anything.

    An internal error inside one statement makes DuckDB refuse every later one of the whole database.
    """
    try:
        opened = session()
        try:
            opened.execute("SELECT 1").fetchall()
        finally:
            opened.close()
    except duckdb.Error as error:
        raise lost(error) from error


def lost(error: duckdb.Error) -> DatabaseLost:
    """What a failure of DuckDB's means that no statement can cause."""
    return DatabaseLost(f"the database is lost: {str(error).partition(chr(10))[0]}")
