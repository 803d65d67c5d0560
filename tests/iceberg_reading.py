"""The logical rows of an Iceberg table, read in the two ways that have to agree, in a form to compare."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.parquet as pq
from pyiceberg.table import StaticTable

from flight_replica.base.source import BaseSnapshot
from flight_replica.conform import conform
from flight_replica.keys import KeyCodec
from flight_replica.schema import TableSchema


def rows_of_snapshot(snapshot: BaseSnapshot) -> pa.Table:
    """What a replica sees: the files minus their deleted rows, conformed to the snapshot's schema."""
    batches = []
    for file in snapshot.files:
        table = pq.read_table(file.path, columns=list(file.columns))
        assert table.num_rows == file.row_count
        keep = pa.array([row not in set(file.deleted.tolist()) for row in range(file.row_count)], pa.bool_())
        batches.append(_conformed(table.filter(keep), snapshot.schema))
    return pa.Table.from_batches(batches, snapshot.schema.arrow_schema)


def rows_of_scan(metadata_location: str, schema: TableSchema) -> pa.Table:
    """What any Iceberg reader sees: pyiceberg's own scan, conformed to the table's types."""
    scanned = StaticTable.from_metadata(metadata_location).scan().to_arrow()
    return pa.Table.from_batches([_conformed(scanned, schema)], schema.arrow_schema)


def _conformed(table: pa.Table, schema: TableSchema) -> pa.RecordBatch:
    columns = [column.combine_chunks() for column in table.columns]
    return conform(pa.RecordBatch.from_arrays(columns, schema=table.schema), schema)


def by_key(table: pa.Table, schema: TableSchema) -> dict[bytes, str]:
    """`pk_bytes` -> the row's exact text, in which NaN equals itself and -0.0 differs from 0.0."""
    keys = KeyCodec(schema).encode([table.column(name) for name in schema.primary_key]).to_pylist()
    assert len(set(keys)) == len(keys), "a key is there twice"
    return dict(zip(keys, map(repr, table.to_pylist()), strict=True))
