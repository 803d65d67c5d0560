"""Parameters: from a client's Arrow rows to the values that DuckDB binds."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import pyarrow as pa
from pyarrow import flight

from flight_replica.errors import InvalidStatement, LimitExceeded, TimedOut
from flight_replica.sql.bound import bound_values
from flight_replica.sql.bound_sizes import check_sizes
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
    except (pa.ArrowInvalid, OSError) as error:  # the latter where no data came at all
        raise InvalidStatement(f"the bound parameters can't be read: {error}") from error


def in_order(bound: pa.Table, keys: Sequence[str], *, is_named: bool) -> pa.Table:
    """The bound columns in the order of the parameters, called by their keys.

    They are taken by position; by name where the parameters have names and the columns have just those.
    Raises `InvalidStatement` for another number of them.
    """
    if bound.num_columns != len(keys):
        raise InvalidStatement(f"the statement takes {len(keys)} parameters, {bound.num_columns} were bound")
    if is_named and set(bound.column_names) == set(keys):
        return bound.select(list(keys))
    return bound.rename_columns(list(keys))


def rows_of(
    bound: pa.Table, keys: Sequence[str], types: Sequence[str | None], *, is_named: bool
) -> list[Parameters]:
    """The rows of parameters a query runs with, one after another; dicts where they have names.

    `types`: as DuckDB has them, see `bound_values`; may be empty. Raises as `in_order` does, and
    `LimitExceeded` for a value that is too large.
    """
    if not keys and not bound.num_columns:
        return [()]
    bound = in_order(bound, keys, is_named=is_named)
    check_sizes(bound)
    targets = types or [None] * len(keys)
    columns = [bound_values(column, target) for column, target in zip(bound.columns, targets, strict=True)]
    rows = [list(row) for row in zip(*columns, strict=True)]
    return [dict(zip(keys, row, strict=True)) for row in rows] if is_named else list[Parameters](rows)


def example_of(rows: Sequence[Parameters], keys: Sequence[str], *, is_named: bool) -> Parameters:
    """One row to plan with: of each parameter the first value that isn't null, null where all are."""
    if len(rows) == 1:
        return rows[0]
    values = [
        next((value for row in rows if (value := _value(row, key, index)) is not None), None)
        for index, key in enumerate(keys)
    ]
    return dict(zip(keys, values, strict=True)) if is_named else values


def _value(row: Parameters, key: str, index: int) -> object:
    return row[key] if isinstance(row, Mapping) else row[index]


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
    except (pa.ArrowInvalid, OSError) as error:  # the latter where no data came at all
        raise InvalidStatement(f"the rows can't be read: {error}") from error
