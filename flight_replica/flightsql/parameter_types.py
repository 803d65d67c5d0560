"""`parameter_schema`: the type that a client is told for each parameter of a prepared statement.

Drivers convert to just this type, so it has to be the true one. JDBC's writes times in milliseconds
whatever the unit; therefore temporal parameters are announced in milliseconds. How the types are found:
sql/parameter_types.py. Values of any other type are cast when they are bound (sql/bound.py).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pyarrow as pa

from flight_replica.errors import SchemaMismatch
from flight_replica.flightsql.service import Ending, Service
from flight_replica.sql.dml import Dml
from flight_replica.sql.parameter_types import parameter_types
from flight_replica.sql.sandbox import EXPLAIN, Checked, bind_functions
from flight_replica.sql.statement import fold
from flight_replica.sql.types import arrow_type_of, sql_type

__all__ = ["Types", "announced", "types_of_query", "types_of_write"]

Types = tuple[str | None, ...]

_ANNOUNCED: Mapping[str, pa.DataType] = (
    dict.fromkeys(("TIMESTAMP", "TIMESTAMP_S", "TIMESTAMP_MS", "TIMESTAMP_NS"), pa.timestamp("ms"))
    | dict.fromkeys(("TIMESTAMP WITH TIME ZONE", "TIMESTAMPTZ_NS"), pa.timestamp("ms", "UTC"))
    | dict.fromkeys(("TIME", "TIME_NS"), pa.time32("ms"))
    # A sum's type: drivers can't put a whole number into a decimal.
    | dict.fromkeys(("HUGEINT", "UHUGEINT", "BIGNUM"), pa.int64())
    | {"UUID": pa.string()}
)


def types_of_query(
    checked: Checked, keys: Sequence[str], service: Service, relations: Sequence[pa.Schema], ending: Ending
) -> Types:
    """The DuckDB type of each parameter of a query, None where any value will do.

    `relations`: the schemas of the server's own relations that it reads, in order.
    """
    own = {f"$own{number}": schema for number, schema in enumerate(relations)}
    sql = bind_functions(checked, list(own))
    for prefix in EXPLAIN:
        sql = sql.removeprefix(prefix)
    return _inferred(sql, keys, _schemas(service, checked.tables) | own, ending)


def types_of_write(dml: Dml, keys: Sequence[str], service: Service, ending: Ending) -> Types:
    """As `types_of_query`, of a write; nothing is known of one that reads the server's own relations."""
    if dml.functions:
        return (None,) * len(keys)
    return _inferred(dml.sql, keys, _schemas(service, (*dml.tables, dml.table)), ending)


def _schemas(service: Service, names: Sequence[str]) -> dict[str, pa.Schema]:
    """The schemas of these served tables, in whatever case they are spelled."""
    wanted = {fold(name) for name in names}
    found = [entry for entry in service.tables() if fold(entry.name) in wanted]
    return {entry.name: entry.schema.arrow_schema for entry in found if entry.schema is not None}


def _inferred(sql: str, keys: Sequence[str], schemas: Mapping[str, pa.Schema], ending: Ending) -> Types:
    try:
        tables = {
            name: [(field.name, sql_type(field.type)) for field in schema] for name, schema in schemas.items()
        }
    except SchemaMismatch:  # a table that DuckDB can't have
        return (None,) * len(keys)
    types = parameter_types(sql, keys, tables, ending.on_end)
    ending.check()
    return tuple(types)


def announced(keys: Sequence[str], types: Types) -> pa.Schema:
    """One nullable field a parameter, in order; a text where any value will do."""
    return pa.schema([pa.field(key, _announced(kind)) for key, kind in zip(keys, types, strict=True)])


def _announced(kind: str | None) -> pa.DataType:
    if kind is None:
        return pa.string()
    if (known := _ANNOUNCED.get(kind)) is not None:
        return known
    try:
        return arrow_type_of(kind)
    except SchemaMismatch:  # of DuckDB's own, ENUM or INTERVAL: a text is cast to it
        return pa.string()
