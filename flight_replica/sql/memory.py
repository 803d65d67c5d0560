"""What a DuckDB database uses of memory and disk, as DuckDB counts it."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

import duckdb

from flight_replica.sql.database import lost

_UNITS = {"bytes": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "TiB": 1 << 40}


@dataclass(frozen=True, slots=True)
class DatabaseMemory:
    """Bytes."""

    used: int  # by tables in memory, operators and caches
    spilled: int  # in temporary files, where the limit was reached
    limit: int  # of `used`


_SQL = """
SELECT sum(memory_usage_bytes)::BIGINT, sum(temporary_storage_bytes)::BIGINT, current_setting('memory_limit')
FROM duckdb_memory()
"""


def database_memory(session: Callable[[], duckdb.DuckDBPyConnection]) -> DatabaseMemory:
    """What the database uses now. Raises `DatabaseLost`."""
    try:
        opened = session()
        try:
            row = opened.execute(_SQL).fetchone()
        finally:
            opened.close()
    except duckdb.Error as error:
        raise lost(error) from error
    assert row is not None, "a sum without a row"
    return DatabaseMemory(row[0], row[1], parse_size(row[2]))


def parse_size(text: str) -> int:
    """The bytes of a size as DuckDB shows it, such as `12.5 GiB`."""
    match = re.fullmatch(r"([0-9.]+) (\w+)", text)
    assert match is not None, f"DuckDB shows a size as {text!r}"
    return int(float(match[1]) * _UNITS[match[2]])
