"""The rows of a base snapshot read with plain Parquet reads, and a comparison of floats by their bits."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from flight_replica.base.source import BaseFile, BaseSnapshot
from flight_replica.conform import conform
from flight_replica.schema import TableSchema
from tests import samples


def rows(snapshot: BaseSnapshot) -> pa.Table:
    """`pk_bytes, seq`, columns in key order, with plain Parquet reads."""
    tables = [_rows_of(file, snapshot.schema) for file in snapshot.files]
    head = [pa.field("pk_bytes", pa.binary()), pa.field("seq", pa.uint64())]
    schema = pa.schema([*head, *(pa.field(c.name, c.type) for c in snapshot.schema.columns)])
    return pa.concat_tables([schema.empty_table(), *tables]).sort_by("pk_bytes")


def _rows_of(file: BaseFile, schema: TableSchema) -> pa.Table:
    table = pq.read_table(file.path)
    assert table.num_rows == file.row_count
    is_live = np.ones(file.row_count, np.bool_)
    is_live[file.deleted] = False
    live = table.filter(pa.array(is_live)).combine_chunks()
    (batch,) = live.select(file.columns).to_batches() or [_empty(live.select(file.columns).schema)]
    pk_bytes = pa.array([ikey[:-8] for ikey in live["_merutable_ikey"].to_pylist()], pa.binary())
    columns = [pk_bytes, live["_merutable_seq"].cast(pa.uint64()), *conform(batch, schema).columns]
    return pa.table(columns, names=["pk_bytes", "seq", *schema.names])


def _empty(schema: pa.Schema) -> pa.RecordBatch:
    return pa.RecordBatch.from_pylist([], schema)


def assert_same_rows(found: pa.Table, expected: pa.Table) -> None:
    assert found.column_names == expected.column_names
    for name in found.column_names:
        assert samples.float_bits(found.select([name])).equals(samples.float_bits(expected.select([name]))), (
            name
        )
