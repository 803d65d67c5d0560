"""`KeyLookup`: the row of one key out of a table in key order, by one small query."""

from __future__ import annotations

from collections.abc import Sequence

import duckdb
import pyarrow as pa

from flight_replica.schema import TableSchema
from flight_replica.sql.bound import bound_values
from flight_replica.sql.parsed import Parsed
from flight_replica.sql.types import equal_key_sql, sql_type
from flight_replica.state.op_rows import column_names
from flight_replica.state.state import Row
from flight_replica.state.tail import key_row, one_row

# Python has no times far away; to DuckDB the largest and the smallest ones are infinite, with no number.
_MICROSECONDS = (
    "coalesce(epoch_us({0}), CASE {0} WHEN 'infinity' THEN 9223372036854775807 "
    "WHEN '-infinity' THEN -9223372036854775807 END)"
)


class KeyLookup:
    """Of one table under one schema, with internal column names. Immutable, safe to share between threads."""

    def __init__(self, schema: TableSchema, table: str) -> None:
        self._schema = schema
        self._has_plain_key = all(_is_plain(column.type) for column in schema.key_columns)
        terms = [
            equal_key_sql(
                f"c{schema.names.index(column.name)}",
                f"CAST(${number} AS {sql_type(column.type)})",
                column.type,
            )
            for number, column in enumerate(schema.key_columns, start=1)
        ]
        # By Python's values a row takes two thirds of what it takes by Arrow, where each of them is exact.
        self._values = [_value_sql(column.type) for column in schema.columns]
        self._is_by_value = None not in self._values
        names = column_names(schema)
        shown = [(value or "{0}").format(name) for value, name in zip(self._values, names, strict=True)]
        columns = shown if self._is_by_value else names
        # As parameters, not as a table to join: four times faster, and the table's order tells where to look.
        self._sql = f"SELECT {', '.join(columns)} FROM {table} WHERE {' AND '.join(terms)}"
        self._query = Parsed(self._sql)

    def rows(self, session: duckdb.DuckDBPyConnection, key: Sequence[object]) -> pa.Table:
        """The row of `key`, whose values are of the key's types, or none, with internal names."""
        values = list(key) if self._has_plain_key else self._bound(key)
        if self._is_by_value:
            rows = self._arrow(self._query.run(session, values).fetchall())
        else:
            rows = session.sql(self._sql, params=values).to_arrow_table()
        assert len(rows) <= 1, f"a key stands {len(rows)} times"
        return rows

    def get(self, session: duckdb.DuckDBPyConnection, key: Sequence[object]) -> Row | None:
        """As `rows`, as Python's values; None where there is none."""
        rows = self.rows(session, key)
        return one_row(rows, self._schema) if len(rows) else None

    def _bound(self, key: Sequence[object]) -> list[object]:
        columns = key_row(self._schema, key).columns
        return [bound_values(pa.chunked_array([column]), None)[0] for column in columns]

    def _arrow(self, found: Sequence[Sequence[object]]) -> pa.Table:
        """What the query by values gave, in the table's types."""
        arrays = []
        for number, (column, value) in enumerate(zip(self._schema.columns, self._values, strict=True)):
            is_number = value == _MICROSECONDS
            array = pa.array([row[number] for row in found], pa.int64() if is_number else column.type)
            arrays.append(array.view(column.type) if is_number else array)
        return pa.table(arrays, column_names(self._schema))


def _value_sql(kind: pa.DataType) -> str | None:
    """What has a column's values as Python can hold them, exactly; None where nothing has."""
    if pa.types.is_timestamp(kind) and kind.unit == "us":
        return _MICROSECONDS
    return "{0}" if _is_plain(kind) or pa.types.is_decimal128(kind) else None


def _is_plain(kind: pa.DataType) -> bool:
    types = pa.types
    return bool(
        types.is_integer(kind)
        or types.is_float64(kind)
        or types.is_boolean(kind)
        or types.is_string(kind)
        or types.is_binary(kind)
    )
