"""Op batches and logs for tests: the table `(id int64 key, v int64)`, one op a seq."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from uuid import UUID

import pyarrow as pa

from flight_replica.keys import KeyCodec
from flight_replica.log.op_log import OpLog
from flight_replica.log.source import OpBatch
from flight_replica.schema import Column, TableSchema

LINEAGE = UUID("5f0c1ab2-0000-4000-8000-000000000001")
OTHER_LINEAGE = UUID("5f0c1ab2-0000-4000-8000-000000000002")
SCHEMA = TableSchema((Column("id", pa.int64(), False), Column("v", pa.int64())), ("id",))
WIDER = TableSchema((*SCHEMA.columns, Column("note", pa.string(), True, "none")), ("id",))
NOW_US = 1_700_000_000_000_000


def op_batch(seqs: Sequence[int], *, op: str = "INSERT", schema: TableSchema = SCHEMA) -> pa.RecordBatch:
    """One op a seq, whose key and value are the seq; further columns hold their name."""
    ids = pa.array(seqs, pa.int64())
    names = [pa.array([name] * len(ids)) for name in schema.names[2:]]
    columns = [ids.cast(pa.uint64()), pa.array([op] * len(ids)), KeyCodec(schema).encode([ids]), ids, ids]
    return pa.RecordBatch.from_arrays([*columns, *names], schema=schema.feed_schema)


def new_log(**options: object) -> OpLog:
    settings: dict[str, object] = {"bytes_max": 1 << 30, "clock_us": lambda: NOW_US} | options
    return OpLog("orders", LINEAGE, SCHEMA, **settings)  # type: ignore[arg-type]


def commit(log: OpLog, count: int = 1, **options: object) -> None:
    """One commit of `count` ops after the newest one."""
    first = log.high_water + 1
    through = first + count - 1
    batch = op_batch(range(first, through + 1), schema=log.schema)
    log.append(batch, through=through, commit_time_us=through, **options)  # type: ignore[arg-type]


def filled_log(commit_sizes: Iterable[int], **options: object) -> OpLog:
    log = new_log(**options)
    for size in commit_sizes:
        commit(log, size)
    return log


def seqs_in(batches: Iterable[OpBatch]) -> list[int]:
    return [seq for batch in batches for seq in batch.ops.column(0).to_pylist()]
