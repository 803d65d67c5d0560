"""`KeyLookup`: the row of one key out of a table that is mostly in key order, by one small query.

Where the row probably lies is guessed (key_places.py). What is found there is right, since no key stands
twice in a table; only where nothing is found, the whole table is asked.
"""

from __future__ import annotations

from collections.abc import Sequence
from time import monotonic
from typing import Any

import duckdb
import pyarrow as pa

from flight_replica.keys import KeyCodec
from flight_replica.schema import TableSchema
from flight_replica.sql.bound import bound_values
from flight_replica.sql.parsed import Parsed
from flight_replica.sql.types import equal_key_sql, sql_type
from flight_replica.state.key_places import KeyPlaces, NewSession, Span
from flight_replica.state.op_rows import column_names
from flight_replica.state.python_times import is_in_us, time_maker
from flight_replica.state.state import Row
from flight_replica.state.tail import key_row, one_row

# Python has no times far away; to DuckDB the largest and the smallest ones are infinite, with no number.
_MICROSECONDS = (
    "coalesce(epoch_us({0}), CASE {0} WHEN 'infinity' THEN 9223372036854775807 "
    "WHEN '-infinity' THEN -9223372036854775807 END)"
)

_Values = Sequence[object]
_Found = tuple[Any, ...]  # a row by Python's values, times as µs, and one value more


class KeyLookup:
    """Of one table under one schema, with internal column names. Thread-safe."""

    def __init__(self, schema: TableSchema, table: str, new_session: NewSession) -> None:
        """`new_session`: as for `KeyPlaces`."""
        self._schema = schema
        self._codec = KeyCodec(schema)
        self._places = KeyPlaces(schema, table, new_session)
        self._has_plain_key = all(_is_plain(column.type) for column in schema.key_columns)
        names = column_names(schema)
        keys = [schema.names.index(name) for name in schema.primary_key]
        terms = [
            equal_key_sql(names[place], f"CAST(${number} AS {sql_type(column.type)})", column.type)
            for number, (place, column) in enumerate(zip(keys, schema.key_columns, strict=True), start=1)
        ]
        # As parameters, not as a table to join: four times faster, and the table's order tells where to look.
        whole = f"FROM {table} WHERE {' AND '.join(terms)}"
        first, last = (f"CAST(${len(terms) + number} AS BIGINT)" for number in (1, 2))
        span = f"{whole} AND rowid BETWEEN {first} AND {last} LIMIT 1"  # of one row DuckDB makes one task
        row = f"FROM {table} WHERE rowid = CAST($1 AS BIGINT) LIMIT 1"
        # By Python's values a row takes two thirds of what it takes by Arrow, where each of them is exact.
        self._is_by_value = all(is_in_us(c.type) or _is_exact(c.type) for c in schema.columns)
        self._times = {n: time_maker(c.type) for n, c in enumerate(schema.columns) if is_in_us(c.type)}
        self._sure_times = [place for place in self._times if not schema.columns[place].nullable]
        self._struct = pa.struct([(n, c.type) for n, c in zip(names, schema.columns, strict=True)])
        if not self._is_by_value:
            shown = ", ".join(names)
            self._anywhere_sql, self._span_sql = f"SELECT {shown}, rowid {whole}", f"SELECT {shown} {span}"
            return
        exact, quick = (
            ", ".join(time.format(name) if place in self._times else name for place, name in enumerate(names))
            for time in (_MICROSECONDS, "epoch_us({0})")
        )
        # Infinite ones are rare, so that the quick way only tells that there are some.
        infinite = " OR ".join(f"isinf({names[n]})" for n in self._times if n not in self._sure_times)
        self._anywhere = Parsed(f"SELECT {exact}, rowid {whole}")
        self._span = Parsed(f"SELECT {quick}, {infinite or False} {span}")
        self._row = Parsed(f"SELECT {quick}, {infinite or False} {row}")
        is_integer = len(keys) == 1 and pa.types.is_integer(schema.key_columns[0].type)
        self._integer_key = keys[0] if is_integer else None  # its place

    def rows(self, session: duckdb.DuckDBPyConnection, key: _Values) -> pa.Table:
        """The row of `key`, whose values are of the key's types, or none, with internal names."""
        if not self._is_by_value:
            return self._arrow_rows(session, key)
        found = self._values(session, key)
        # As one array of structs: each array that is made lets go of Python's lock three times.
        rows = pa.array([] if found is None else [found[: len(self._schema.columns)]], self._struct)
        return pa.Table.from_batches([pa.RecordBatch.from_struct_array(rows)])

    def get(self, session: duckdb.DuckDBPyConnection, key: _Values) -> Row | None:
        """As `rows`, as Python's values; None where there is none."""
        if not self._is_by_value:
            rows = self._arrow_rows(session, key)
            return one_row(rows, self._schema) if len(rows) else None
        found = self._values(session, key)
        if found is None:
            return None
        row = dict(zip(self._schema.names, found, strict=False))
        for place, make in self._times.items():
            row[self._schema.names[place]] = make(found[place])
        return row

    def close(self) -> None:
        """Read nothing beside lookups any more. Idempotent."""
        self._places.close()

    def _values(self, session: duckdb.DuckDBPyConnection, key: _Values) -> _Found | None:
        values = self._bound(key)
        span = self._places.guess(self._codec.encode_row(key))
        if span is not None and (found := self._values_in(session, values, span)) is not None:
            return found
        began = monotonic()
        rows = self._anywhere.run(session, values).fetchall()
        assert len(rows) <= 1, f"a key stands {len(rows)} times"
        for row in rows:
            self._places.missed(row[-1], monotonic() - began)
            return tuple(row)
        return None

    def _values_in(
        self, session: duckdb.DuckDBPyConnection, values: list[object], span: Span
    ) -> _Found | None:
        """As `_values`, where the row lies in `span` and has finite times only."""
        first, last = span
        if first == last and self._integer_key is not None:
            rows = self._row.run(session, [first]).fetchall()
            if not rows or rows[0][self._integer_key] != values[0]:
                return None
        elif not (rows := self._span.run(session, [*values, first, last]).fetchall()):
            return None
        (row,) = rows
        is_finite = not row[-1] and all(row[place] is not None for place in self._sure_times)
        return tuple(row) if is_finite else None

    def _arrow_rows(self, session: duckdb.DuckDBPyConnection, key: _Values) -> pa.Table:
        values = self._bound(key)
        span = self._places.guess(self._codec.encode_row(key))
        if span is not None:
            rows = session.sql(self._span_sql, params=[*values, *span]).to_arrow_table()
            if len(rows):
                return rows
        began = monotonic()
        rows = session.sql(self._anywhere_sql, params=values).to_arrow_table()
        assert len(rows) <= 1, f"a key stands {len(rows)} times"
        for row_id in rows.column(rows.num_columns - 1).to_pylist():
            self._places.missed(row_id, monotonic() - began)
        return rows.drop_columns(rows.column_names[-1:])

    def _bound(self, key: _Values) -> list[object]:
        if self._has_plain_key:
            return list(key)
        columns = key_row(self._schema, key).columns
        return [bound_values(pa.chunked_array([column]), None)[0] for column in columns]


def _is_exact(kind: pa.DataType) -> bool:
    """Whether Python has each of its values, exactly."""
    return bool(_is_plain(kind) or pa.types.is_decimal128(kind))


def _is_plain(kind: pa.DataType) -> bool:
    types = pa.types
    return bool(
        types.is_integer(kind)
        or types.is_float64(kind)
        or types.is_boolean(kind)
        or types.is_string(kind)
        or types.is_binary(kind)
    )
