"""Parameters: from a client's Arrow rows to the values that DuckDB binds."""

from __future__ import annotations

from collections.abc import Iterator

import pyarrow as pa
from pyarrow import flight

from flight_replica.errors import InvalidStatement, LimitExceeded, TimedOut
from flight_replica.sql.view import Parameters

NO_PARAMETERS = pa.table({})


def read_bound(reader: flight.MetadataRecordBatchReader, bytes_max: int) -> pa.Table:
    """The rows a client binds. Raises `LimitExceeded`, `InvalidStatement` for a stream that is none."""
    try:
        schema = reader.schema
        batches, size = [], 0
        for chunk in reader:
            batches.append(chunk.data)
            size += chunk.data.nbytes
            if size > bytes_max:
                raise LimitExceeded(f"bound parameters take more than bound_bytes_max, {bytes_max} bytes")
        return pa.Table.from_batches(batches, schema)
    except pa.ArrowInvalid as error:
        raise InvalidStatement(f"the bound parameters can't be read: {error}") from error


def row_of(bound: pa.Table, count: int, names: tuple[str, ...]) -> Parameters:
    """The one row of parameters a query takes, by position; by name for `$name` parameters.

    Raises `InvalidStatement` for another number of rows or columns.
    """
    if bound.num_columns != count:
        raise InvalidStatement(f"the statement takes {count} parameters, {bound.num_columns} were bound")
    if count == 0:
        return ()
    if bound.num_rows != 1:
        raise InvalidStatement(f"a query takes one row of parameters, {bound.num_rows} were bound")
    values = [_value(column) for column in bound.columns]
    if not names:
        return values
    by_name = dict(zip(bound.column_names, values, strict=True))
    if set(by_name) == set(names):
        return by_name
    return dict(zip(names, values, strict=True))


def _value(column: pa.ChunkedArray) -> object:
    try:
        value: object = column[0].as_py()
    except (ValueError, pa.ArrowException) as error:
        raise InvalidStatement(f"a parameter of type {column.type} can't be bound: {error}") from error
    return value


def unknown_values(count: int, names: tuple[str, ...]) -> Parameters:
    """Nulls in the place of parameters that aren't bound yet, to plan with."""
    return dict.fromkeys(names) if names else [None] * count


def whole_stream(
    reader: flight.MetadataRecordBatchReader, context: flight.ServerCallContext
) -> pa.RecordBatchReader:
    """A client's rows as a reader that raises where the client went away before their end.

    pyarrow tells the end of a stream and a broken connection apart in no other way.
    """

    def batches() -> Iterator[pa.RecordBatch]:
        for chunk in reader:
            if chunk.data is not None:
                yield chunk.data
        if context.is_cancelled():
            raise TimedOut("the client went away before the end of its rows; nothing was written")

    try:
        return pa.RecordBatchReader.from_batches(reader.schema, batches())
    except pa.ArrowInvalid as error:
        raise InvalidStatement(f"the rows can't be read: {error}") from error
