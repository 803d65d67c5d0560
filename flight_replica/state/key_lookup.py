"""`KeyLookup`: the row of one key out of a table in key order, by one small query."""

from __future__ import annotations

from collections.abc import Sequence

import duckdb
import pyarrow as pa

from flight_replica.schema import Column, TableSchema
from flight_replica.sql.bound import bound_values
from flight_replica.sql.types import equal_key_sql, sql_type
from flight_replica.state.op_rows import column_names
from flight_replica.state.state import Row
from flight_replica.state.tail import key_row, one_row


class KeyLookup:
    """Of one table under one schema, with internal column names. Immutable, safe to share between threads."""

    def __init__(self, schema: TableSchema, table: str) -> None:
        self._schema = schema
        self._is_plain = all(map(_is_plain, schema.columns))
        terms = [
            equal_key_sql(
                f"c{schema.names.index(column.name)}",
                f"CAST(${number} AS {sql_type(column.type)})",
                column.type,
            )
            for number, column in enumerate(schema.key_columns, start=1)
        ]
        # As parameters, not as a table to join: four times faster, and the table's order tells where to look.
        self._sql = f"SELECT {', '.join(column_names(schema))} FROM {table} WHERE {' AND '.join(terms)}"

    def get(self, session: duckdb.DuckDBPyConnection, key: Sequence[object]) -> Row | None:
        """The row of `key`, whose values are of the key's types, None where there is none."""
        if self._is_plain:  # a third of the time is Arrow's
            found = session.execute(self._sql, list(key)).fetchall()
            assert len(found) <= 1, f"a key stands {len(found)} times"
            return dict(zip(self._schema.names, found[0], strict=True)) if found else None
        columns = key_row(self._schema, key).columns
        values = [bound_values(pa.chunked_array([column]), None)[0] for column in columns]
        rows: pa.Table = session.sql(self._sql, params=values).to_arrow_table()
        assert len(rows) <= 1, f"a key stands {len(rows)} times"
        return one_row(rows, self._schema) if len(rows) else None


def _is_plain(column: Column) -> bool:
    """Whether DuckDB hands out a value as Arrow does."""
    kind, types = column.type, pa.types
    return bool(
        types.is_integer(kind)
        or types.is_float64(kind)
        or types.is_boolean(kind)
        or types.is_string(kind)
        or types.is_binary(kind)
    )
