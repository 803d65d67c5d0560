"""The table that benchmarks stand on: the demo's orders as a base of Parquet files, and random ops on it."""

from __future__ import annotations

from pathlib import Path
from uuid import UUID

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from flight_replica.base.source import BaseFile, BaseSnapshot
from flight_replica.demo_orders import orders
from flight_replica.keys import KeyCodec
from flight_replica.schema import Column, TableSchema

LINEAGE = UUID(int=1)
SEED = 7
_FILE_ROWS = 1_000_000


def orders_schema() -> TableSchema:
    rows = orders(np.arange(1), np.random.default_rng(SEED))
    columns = tuple(Column(field.name, field.type, field.name == "note") for field in rows.schema)
    return TableSchema(columns, ("id",))


def orders_base(directory: Path, row_count: int) -> BaseSnapshot:
    """`row_count` orders at seq `row_count`, sorted by id."""
    random = np.random.default_rng(SEED)
    schema = orders_schema()
    files = []
    for first in range(0, row_count, _FILE_ROWS):
        ids = np.arange(first, min(first + _FILE_ROWS, row_count))
        path = directory / f"{first}.parquet"
        pq.write_table(pa.Table.from_batches([orders(ids, random)]), path, compression="zstd")
        files.append(BaseFile(str(path), len(ids), np.array([], np.int64), schema.names))
    return BaseSnapshot("orders", LINEAGE, row_count, 1, schema, tuple(files))


def random_ops(
    schema: TableSchema, since: int, count: int, key_count: int, random: np.random.Generator
) -> pa.RecordBatch:
    """`count` ops after seq `since`: nine puts of random orders below `key_count` to one delete."""
    ids = random.integers(0, key_count, count)
    rows = orders(ids, random)
    labels = pa.array(np.where(random.random(count) < 0.1, "DELETE", "UPDATE"))
    seqs = pa.array(np.arange(since + 1, since + count + 1), pa.uint64())
    keys = KeyCodec(schema).encode([rows.column(0)])
    return pa.RecordBatch.from_arrays([seqs, labels, keys, *rows.columns], schema=schema.feed_schema)
