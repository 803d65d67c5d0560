"""A table in miniature for tests of the replica: real Parquet bases, a log, and faults on demand.

`SmallTable` is the primary: a model, its log and its base. `FaultyLog` stands between a log and a replica.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterator, Sequence
from enum import StrEnum
from pathlib import Path
from uuid import UUID

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from flight_replica.base.source import BaseFile, BaseSnapshot
from flight_replica.conform import conform
from flight_replica.errors import FeedError, LogGap, ReplicaError
from flight_replica.keys import KeyCodec
from flight_replica.log.feed import TableFeed
from flight_replica.log.in_process import InProcessLogSource
from flight_replica.log.op_log import OpLog
from flight_replica.log.reading import read_range
from flight_replica.log.source import FeedMark, Op, OpBatch, OpStream
from flight_replica.schema import Column, TableSchema
from tests.model import Row, TableModel
from tests.samples import float_bits

LINEAGE = UUID("5a1c6a52-33c0-4b7d-9d7f-1f4b1d2f9e01")
ID_V = TableSchema((Column("id", pa.int64(), False), Column("v", pa.int64())), ("id",))

Change = tuple[Op, Row]  # a DELETE's row needs the key columns only


def put(*values: object, schema: TableSchema = ID_V) -> Change:
    return Op.INSERT, dict(zip(schema.names, values, strict=True))


def delete(*key: object, schema: TableSchema = ID_V) -> Change:
    return Op.DELETE, dict(zip(schema.primary_key, key, strict=True))


def op_batch(
    schema: TableSchema, ops: Sequence[tuple[int, Op, Row]], *, is_bare_delete: bool = False
) -> pa.RecordBatch:
    """`(seq, op, row)` in the feed's schema. A bare DELETE has nothing but its pk_bytes."""
    codec = KeyCodec(schema)
    keys = [codec.encode_row([row[name] for name in schema.primary_key]) for _, _, row in ops]
    rows: list[Row] = [{} if op is Op.DELETE and is_bare_delete else row for _, op, row in ops]
    head: list[pa.Array] = [
        pa.array([seq for seq, _, _ in ops], pa.uint64()),
        pa.array([str(op) for _, op, _ in ops], pa.string()),
        pa.array(keys, pa.binary()),
    ]
    columns = [_array([row.get(c.name) for row in rows], c.type) for c in schema.columns]
    return pa.RecordBatch.from_arrays(head + columns, schema=schema.feed_schema)


def _array(values: Sequence[object], kind: pa.DataType) -> pa.Array:
    """pyarrow makes nulls, but no lists of nulls, of nested extension types."""
    return pa.nulls(len(values), kind) if all(v is None for v in values) else pa.array(values, kind)


class ParquetBase:
    """A `BaseSource` whose snapshots are published by hand; nothing is there at seq 0 until then."""

    def __init__(self, directory: Path, schema: TableSchema, *, lineage: UUID = LINEAGE) -> None:
        self.directory = directory
        self.lineage = lineage
        self.snapshot = BaseSnapshot("t", lineage, 0, 0, schema, ())
        self.error: Exception | None = None  # what `load` raises instead
        self.before_load: Callable[[], object] = lambda: None
        self._file_count = 0
        directory.mkdir(parents=True, exist_ok=True)

    def poll(self) -> int | None:
        return self.snapshot.version

    def load(self) -> BaseSnapshot:
        self.before_load()
        if self.error is not None:
            raise self.error
        return self.snapshot

    def publish(
        self,
        files: Sequence[tuple[pa.Table, Sequence[int]]],
        base_seq: int,
        schema: TableSchema | None = None,
        commit_time_us: int = 0,
    ) -> None:
        """Make `files`, each with its deleted rows, the newest snapshot."""
        schema = schema or self.snapshot.schema
        written = tuple(self._write(rows, deleted, schema) for rows, deleted in files)
        version = self.snapshot.version + 1
        self.snapshot = BaseSnapshot(
            "t", self.lineage, base_seq, version, schema, written, commit_time_us=commit_time_us
        )

    def remove_files(self) -> None:
        """What an owner does that doesn't wait for its readers."""
        for file in self.snapshot.files:
            Path(file.path).unlink()

    def _write(self, rows: pa.Table, deleted: Sequence[int], schema: TableSchema) -> BaseFile:
        self._file_count += 1
        path = self.directory / f"{self._file_count}.parquet"
        pq.write_table(rows, path)
        held = tuple(name for name in rows.column_names if name in schema.names)
        return BaseFile(str(path), len(rows), np.array(sorted(deleted), np.int64), held)


class Fault(StrEnum):
    """How a `FaultyLog` answers."""

    NONE = "none"
    GAP = "gap"
    ERROR_AT_OPEN = "error at open"
    ERROR_AFTER_ONE = "error after one op"
    HANG = "hang"
    DUPLICATE = "duplicate"
    FROM_ZERO = "from zero"


class FaultyLog:
    """A `LogSource` over `feed` that behaves as `fault` says."""

    def __init__(self, feed: TableFeed, batch_size: int = 4096) -> None:
        self._feed = feed
        self._inner = InProcessLogSource(feed, batch_size=batch_size)
        self.fault = Fault.NONE
        self.gap_low_water = 1000
        self.text = "object-store blip"
        self.opened: list[int] = []  # `since` of each bounded stream
        self.hanging = threading.Event()  # set once somebody waits in a stream that says nothing

    @property
    def lineage(self) -> UUID:
        return self._inner.lineage

    @property
    def schema(self) -> TableSchema:
        return self._inner.schema

    @property
    def last_mark(self) -> FeedMark | None:
        return self._inner.last_mark

    @property
    def last_mark_at(self) -> float | None:
        return self._inner.last_mark_at

    @property
    def clock_offset_us(self) -> int | None:
        return self._inner.clock_offset_us

    @property
    def clock_error_us(self) -> int | None:
        return self._inner.clock_error_us

    @property
    def last_error(self) -> ReplicaError | None:
        return self._inner.last_error

    @property
    def failure_count(self) -> int:
        return self._inner.failure_count

    def latest_seq(self) -> int:
        return self._inner.latest_seq()

    def stream(self, since: int) -> OpStream:
        self.opened.append(since)
        match self.fault:
            case Fault.GAP:
                raise LogGap(since, self.gap_low_water, "retention went by", LINEAGE)
            case Fault.ERROR_AT_OPEN:
                raise FeedError(self.text)
            case Fault.HANG:
                return _HangingStream(self.hanging)
            case Fault.ERROR_AFTER_ONE:
                return _OddStream(self._one_then_error(self._commit_by_commit(since)))
            case Fault.DUPLICATE:
                return _OddStream(_twice(self._commit_by_commit(since)))
            case Fault.FROM_ZERO:
                return self._inner.stream(0)
        return self._inner.stream(since)

    def follow(self, since: int) -> OpStream:
        return self._inner.follow(since)

    def close(self) -> None:
        self._inner.close()

    def _commit_by_commit(self, since: int) -> Iterator[OpBatch]:
        """Each commit in a batch of its own, since an `OpLog` keeps them apart."""
        self._feed.check_since(since, None)
        return read_range(self._feed, since, self._feed.high_water, 1, self._feed.schema_version)

    def _one_then_error(self, batches: Iterator[OpBatch]) -> Iterator[OpBatch]:
        yield from itertools.islice(batches, 1)
        raise FeedError(self.text)


def _twice(batches: Iterator[OpBatch]) -> Iterator[OpBatch]:
    for batch in batches:
        yield batch
        yield batch


class _OddStream:
    def __init__(self, batches: Iterator[OpBatch]) -> None:
        self._batches = batches

    def __iter__(self) -> Iterator[OpBatch]:
        return self._batches

    def close(self) -> None:
        pass


class _HangingStream:
    def __init__(self, hanging: threading.Event) -> None:
        self._hanging = hanging
        self._closed = threading.Event()

    def __iter__(self) -> Iterator[OpBatch]:
        self._hanging.set()
        self._closed.wait()
        return iter(())

    def close(self) -> None:
        self._closed.set()


class SmallTable:
    """A primary of one table: every commit goes into the model and the log, `flush` makes a base."""

    def __init__(self, directory: Path, schema: TableSchema = ID_V) -> None:
        self.schema = schema
        self.model = TableModel()
        self.feed = OpLog("t", LINEAGE, schema, bytes_max=1 << 30, clock_us=lambda: 1)
        self.base = ParquetBase(directory, schema)
        self.commit_ends = [0]

    @property
    def seq(self) -> int:
        return self.commit_ends[-1]

    def log(self, batch_size: int = 4096) -> FaultyLog:
        """A new source over the feed."""
        return FaultyLog(self.feed, batch_size)

    def commit(self, *changes: Change, parts: int = 1, first_seq: int | None = None) -> int:
        """Commit all changes together, delivered in `parts` batches; the seq of the last one."""
        first = first_seq or self.seq + 1
        ops = op_batch(self.schema, [(first + n, op, row) for n, (op, row) in enumerate(changes)])
        end = first + len(changes) - 1
        step = max(1, -(-len(changes) // parts))
        for start in range(0, len(changes), step):
            part = ops.slice(start, step)
            through = first + start + len(part) - 1
            self.feed.append(
                part,
                through=through,
                commit_through=end if through == end else self.seq,
                commit_time_us=end * 1_000_000,
                high_water=end,
            )
        self._keep(ops, end)
        return end

    def _keep(self, ops: pa.RecordBatch, end: int) -> None:
        mark = FeedMark(LINEAGE, self.seq, end, 0, end, 0, 0, end)
        self.model.apply_batch(OpBatch(ops, mark))
        self.commit_ends.append(end)

    def flush(self, seq: int | None = None) -> int:
        """Publish the table as of commit end `seq` (None: the newest) as two files, one with deleted rows."""
        seq = self.seq if seq is None else seq
        assert seq in self.commit_ends, f"no commit ends at {seq}"
        rows = self.rows_at(seq)
        half = len(rows) // 2
        stale = pa.concat_tables([rows.slice(0, half), rows]) if half else rows  # old versions to leave out
        files = [(stale.slice(0, 2 * half), range(half)), (rows.slice(half), ())]
        kept = [(table, deleted) for table, deleted in files if len(table)]
        self.base.publish(kept, seq, self.schema, commit_time_us=seq * 1_000_000)
        return seq

    def rows_at(self, seq: int, schema: TableSchema | None = None) -> pa.Table:
        """The table as of `seq`, in key order; `schema` may lack columns that were added last."""
        columns = (schema or self.schema).columns
        rows = [
            {c.name: row.get(c.name, c.default) for c in columns}
            for row in self.model.as_of(seq).sorted_rows()
        ]
        names = pa.schema([pa.field(c.name, c.type) for c in columns])
        return pa.Table.from_arrays(
            [_array([r[c.name] for r in rows], c.type) for c in columns], schema=names
        )

    def add_column(self, column: Column) -> None:
        self.schema = TableSchema((*self.schema.columns, column), self.schema.primary_key)
        self.feed.change_schema(self.schema)


def sorted_by_key(rows: pa.Table, schema: TableSchema) -> pa.Table:
    """`rows` with exactly the table's types, in key order."""
    batch = rows.combine_chunks().to_batches() or [pa.RecordBatch.from_pylist([], rows.schema)]
    found = conform(batch[0], schema)
    keys = KeyCodec(schema).encode_batch(found)
    order = sorted(range(len(keys)), key=lambda i: keys[i].as_py())
    columns = [column.take(pa.array(order, pa.int64())) for column in found.columns]
    names = pa.schema([pa.field(c.name, c.type) for c in schema.columns])
    return pa.Table.from_arrays(columns, schema=names)


def assert_same(found: pa.Table, expected: pa.Table) -> None:
    """Equal in names, types and every bit."""
    assert found.schema.equals(expected.schema)
    assert float_bits(found).equals(float_bits(expected)), f"{found.to_pylist()} != {expected.to_pylist()}"
