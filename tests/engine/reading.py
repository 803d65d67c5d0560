"""Rows as they are compared with the engine's: `pk_bytes` -> values, floats as the bytes of their bits."""

from __future__ import annotations

import struct

import pyarrow as pa
import pyarrow.parquet as pq

from flight_replica.base.source import BaseSnapshot
from flight_replica.conform import conform
from flight_replica.keys import KeyCodec
from flight_replica.schema import TableSchema
from tests.engine.driver import Values


def rows_of_snapshot(snapshot: BaseSnapshot) -> dict[bytes, Values]:
    """The table that a base snapshot stands for, read with plain Parquet, in key order."""
    rows: dict[bytes, Values] = {}
    count = 0
    for file in snapshot.files:
        table = pq.read_table(file.path, columns=list(file.columns))
        assert table.num_rows == file.row_count, file.path
        is_live = [True] * file.row_count
        for position in file.deleted.tolist():
            is_live[position] = False
        for batch in table.filter(pa.array(is_live, pa.bool_())).to_batches():
            count += batch.num_rows
            rows.update(rows_of_batch(conform(batch, snapshot.schema), snapshot.schema))
    assert len(rows) == count, "the base shows a key twice"
    return dict(sorted(rows.items()))


def rows_of_table(table: pa.Table, schema: TableSchema) -> dict[bytes, Values]:
    """The rows of an answer with exactly the table's columns, in key order."""
    rows: dict[bytes, Values] = {}
    for batch in table.to_batches():
        rows.update(rows_of_batch(conform(batch, schema), schema))
    assert len(rows) == table.num_rows, "the answer shows a key twice"
    return dict(sorted(rows.items()))


def rows_of_batch(batch: pa.RecordBatch, schema: TableSchema) -> dict[bytes, Values]:
    if not batch.num_rows:
        return {}
    keys = KeyCodec(schema).encode_batch(batch).to_pylist()
    return dict(zip(keys, values_of_batch(batch), strict=True))


def values_of_batch(batch: pa.RecordBatch) -> list[Values]:
    """The rows of a batch, as `driver.row_of` gives those of the engine."""
    return list(zip(*map(_cells, batch.columns), strict=True))


def _cells(column: pa.Array) -> list[object]:
    layout = {pa.float32(): ">I", pa.float64(): ">Q"}.get(column.type)
    if layout is None:
        return list(column.to_pylist())
    bits = column.view(pa.uint32() if column.type == pa.float32() else pa.uint64())
    return [None if cell is None else struct.pack(layout, cell) for cell in bits.to_pylist()]
