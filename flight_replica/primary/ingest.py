"""Bulk ingest: Arrow data into a table as one commit, making the table where the mode says so.

A table needs a key, which ADBC can't state: a new table's key comes from the data's schema metadata
(`merutable.primary_key`, a JSON list as in the feed) or from fields marked `primary_key: true`.
"""

from __future__ import annotations

import json

import pyarrow as pa

from flight_replica.errors import AlreadyExists, InvalidStatement, LimitExceeded, SchemaMismatch
from flight_replica.flightsql.service import IngestMode, WriteResult
from flight_replica.primary.changes import OnConflict, conform_rows, one_batch, put
from flight_replica.primary.naming import check_new_table
from flight_replica.primary.store import TableRecord
from flight_replica.primary.transaction import WriteTransaction
from flight_replica.schema import Column, TableSchema
from flight_replica.sql.types import arrow_type_of, sql_type

KEY_METADATA = b"merutable.primary_key"
FIELD_METADATA = b"primary_key"


def read_all(data: pa.RecordBatchReader, bytes_max: int) -> pa.RecordBatch:
    """Every row of `data`. Raises `LimitExceeded` past `bytes_max` bytes of Arrow data."""
    batches, size = [], 0
    for batch in data:
        size += batch.nbytes
        if size > bytes_max:
            raise LimitExceeded(f"ingest of more than {bytes_max} bytes in one commit; send it in parts")
        batches.append(batch)
    return one_batch(pa.Table.from_batches(batches, data.schema))


def ingest(tx: WriteTransaction, name: str, mode: IngestMode, rows: pa.RecordBatch) -> WriteResult:
    """Put `rows` into the table that `mode` finds or makes. Raises `TableNotFound`, `InvalidStatement`,
    `ConstraintViolation` where rows don't fit the table."""
    record = tx.find(name)
    if mode is IngestMode.CREATE and record is not None:
        raise AlreadyExists(f"table {record.name!r} exists already")
    if mode is IngestMode.REPLACE and record is not None:
        key = stated_key(rows.schema) or record.schema.primary_key
        tx.drop(record)
        record = _create(tx, record.name, rows.schema, key)
    elif record is None and mode is not IngestMode.APPEND:
        record = _create(tx, name, rows.schema, stated_key(rows.schema))
    return _append(tx, record or tx.table(name), rows)


def _append(tx: WriteTransaction, record: TableRecord, rows: pa.RecordBatch) -> WriteResult:
    named = _as_named(record, rows)
    put(tx, record, conform_rows(record, named), OnConflict.REPLACE)
    # Equal keys within the data are one op; the client is told how many rows it sent.
    return WriteResult(rows.num_rows, record.name, tx.table(record.name).high_water)


def _as_named(record: TableRecord, rows: pa.RecordBatch) -> pa.RecordBatch:
    """`rows` with column names as the table spells them. Raises `InvalidStatement` for unknown ones."""
    own = {name.casefold(): name for name in record.schema.names}
    names = [own.get(name.casefold()) for name in rows.schema.names]
    for name, found in zip(rows.schema.names, names, strict=True):
        if found is None:
            raise InvalidStatement(f"table {record.name!r} has no column {name!r}")
    return pa.RecordBatch.from_arrays(rows.columns, names=names)


def stated_key(schema: pa.Schema) -> tuple[str, ...]:
    """The key that the data's metadata states, empty without one. Raises `InvalidStatement`."""
    text = (schema.metadata or {}).get(KEY_METADATA)
    if text is None:
        return tuple(field.name for field in schema if (field.metadata or {}).get(FIELD_METADATA) == b"true")
    try:
        names = json.loads(text)
    except ValueError as error:
        raise InvalidStatement(f"metadata {KEY_METADATA.decode()} is no JSON list: {text!r}") from error
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise InvalidStatement(f"metadata {KEY_METADATA.decode()} is no JSON list of names: {text!r}")
    return tuple(names)


def _create(tx: WriteTransaction, name: str, data: pa.Schema, key: tuple[str, ...]) -> TableRecord:
    if not key:
        raise InvalidStatement(
            f"table {name!r} can't be made by ingest, its key isn't known: CREATE TABLE … PRIMARY KEY (…) "
            f"first, or state {KEY_METADATA.decode()} in the data's schema metadata"
        )
    try:
        columns = [_column(field, field.name in key) for field in data]
        schema = TableSchema(tuple(columns), key)
    except SchemaMismatch as error:
        raise InvalidStatement(f"table {name!r}: {error}") from error
    check_new_table(name, schema, (record.name for record in tx.tables))
    return tx.create(name, schema)


def _column(field: pa.Field, is_key: bool) -> Column:
    """A column that holds the field's values; encodings (dictionary, view, large) are the sender's own."""
    kind = field.type
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    if pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
        kind = pa.string()
    elif pa.types.is_large_binary(kind) or pa.types.is_binary_view(kind):
        kind = pa.binary()
    elif pa.types.is_nested(kind):
        kind = arrow_type_of(sql_type(kind))
    return Column(field.name, kind, field.nullable and not is_key)
