"""What DuckDB's SQL offers here, asked of DuckDB itself, for clients that want to know beforehand."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache

import duckdb

from flight_replica.sql.functions import ABOUT, MATH, SCALAR, STRING, TIME
from flight_replica.sql.statement import parser

__all__ = ["CONVERTED", "conversions", "functions", "keywords"]

_GROUPS = {"numeric": MATH, "string": STRING, "datetime": TIME, "system": ABOUT}

# Types of SqlSupportsConvert in the order of their numbers, and what they are in DuckDB.
CONVERTED = {
    "BIGINT": "BIGINT",
    "BINARY": "BLOB",
    "BIT": "BOOLEAN",
    "CHAR": "VARCHAR",
    "DATE": "DATE",
    "DECIMAL": "DECIMAL(18,3)",
    "FLOAT": "DOUBLE",
    "INTEGER": "INTEGER",
    "INTERVAL_DAY_TIME": "INTERVAL",
    "INTERVAL_YEAR_MONTH": "INTERVAL",
    "LONGVARBINARY": "BLOB",
    "LONGVARCHAR": "VARCHAR",
    "NUMERIC": "DECIMAL(18,3)",
    "REAL": "FLOAT",
    "SMALLINT": "SMALLINT",
    "TIME": "TIME",
    "TIMESTAMP": "TIMESTAMP",
    "TINYINT": "TINYINT",
    "VARBINARY": "BLOB",
    "VARCHAR": "VARCHAR",
}

# A value of each type that isn't made from 1.
_VALUES = {
    "BLOB": "'x'",
    "DATE": "'2020-01-01'",
    "INTERVAL": "'1 day'",
    "TIME": "'10:00:00'",
    "TIMESTAMP": "'2020-01-01 10:00:00'",
}


@cache
def keywords() -> tuple[str, ...]:
    """Every keyword of the parser, in upper case, sorted."""
    rows = parser().execute("SELECT DISTINCT upper(keyword_name) FROM duckdb_keywords()").fetchall()
    return tuple(sorted(name for (name,) in rows))


@cache
def functions(group: str) -> tuple[str, ...]:
    """The functions of a group that a statement here may call, sorted; names that are words alone.

    Groups: `numeric`, `string`, `datetime`, `system`.
    """
    found = _GROUPS[group] & SCALAR & _known_functions()
    return tuple(sorted(name for name in found if name.isidentifier()))


@cache
def _known_functions() -> frozenset[str]:
    rows = parser().execute("SELECT DISTINCT lower(function_name) FROM duckdb_functions()").fetchall()
    return frozenset(name for (name,) in rows)


@cache
def conversions() -> Mapping[str, tuple[str, ...]]:
    """For each type of `CONVERTED`, the types of it that CAST can turn a value into."""
    kinds = sorted(set(CONVERTED.values()))
    castable = {(source, target) for source in kinds for target in kinds if _is_castable(source, target)}
    return {
        name: tuple(other for other, target in CONVERTED.items() if (source, target) in castable)
        for name, source in CONVERTED.items()
    }


def _is_castable(source: str, target: str) -> bool:
    value = f"CAST({_VALUES.get(source, '1')} AS {source})"
    try:
        parser().execute(f"SELECT CAST({value} AS {target})").fetchall()
    except duckdb.Error as error:
        return "Unimplemented type for cast" not in str(error)  # else it is this value that doesn't fit
    return True
