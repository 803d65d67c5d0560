"""Cutting, joining and re-shaping op batches without breaking what their marks prove.

Pure functions. A cut never separates ops of one seq, since a mark speaks of whole seqs.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from flight_replica.conform import conform
from flight_replica.log.source import OpBatch
from flight_replica.schema import Column, TableSchema

HEAD_COLUMNS = 3  # seq, op, pk_bytes; taken by position, since a table may use these names


def seqs_of(ops: pa.RecordBatch) -> npt.NDArray[np.uint64]:
    """The seqs as a numpy array on the batch's own memory."""
    return np.asarray(ops.column(0).to_numpy(zero_copy_only=True), dtype=np.uint64)


def between(ops: pa.RecordBatch | pa.Table, since: int, through: int) -> pa.RecordBatch | pa.Table:
    """The ops with seq in `(since, through]`, zero-copy; seqs ascend."""
    if isinstance(ops, pa.Table):
        pieces = [between(piece, since, through) for piece in ops.to_batches()]
        return pa.Table.from_batches(pieces, ops.schema)
    seqs = seqs_of(ops)
    start, end = (int(np.searchsorted(seqs, np.uint64(seq), "right")) for seq in (since, through))
    return ops.slice(start, max(end - start, 0))


def pieces_of(ops: pa.RecordBatch | pa.Table) -> list[pa.RecordBatch]:
    """The batches that `ops` consists of, zero-copy."""
    return list(ops.to_batches()) if isinstance(ops, pa.Table) else [ops]


def gathered(pieces: Sequence[pa.RecordBatch], row_count: int) -> list[pa.RecordBatch]:
    """All rows of `pieces`, small ones joined until each piece but the last has `row_count` rows."""
    found: list[pa.RecordBatch] = []
    small: list[pa.RecordBatch] = []
    count = 0  # of rows in `small`
    for piece in pieces:
        small.append(piece)
        count += len(piece)
        if count >= row_count:
            found.append(concat(small, piece.schema))
            small, count = [], 0
    return [*found, concat(small, small[0].schema)] if small else found


def fitting_rows(ops: pa.RecordBatch, byte_limit: int) -> int:
    """How many leading rows hold at most `byte_limit` bytes; at least the ops of one seq."""
    count, size = ops.num_rows, ops.nbytes
    if size <= byte_limit or count <= 1:
        return int(count)
    rows = max(1, count * byte_limit // size)
    while rows > 1 and ops.slice(0, rows).nbytes > byte_limit:
        rows //= 2
    return whole_seqs(ops, rows)


def whole_seqs(ops: pa.RecordBatch, rows: int) -> int:
    """`rows`, moved on to where the seq changes. `rows` is in 1..num_rows."""
    seqs = seqs_of(ops)
    return int(np.searchsorted(seqs, seqs[rows - 1], "right"))


def concat(pieces: Sequence[pa.RecordBatch], schema: pa.Schema) -> pa.RecordBatch:
    """One batch of all rows, empty without pieces; a single piece is returned as it is."""
    if not pieces:
        return pa.RecordBatch.from_pylist([], schema=schema)
    return pieces[0] if len(pieces) == 1 else pa.concat_batches(pieces)


def split(batch: OpBatch, rows_max: int, commit_before: int) -> Iterator[OpBatch]:
    """The batch in pieces of about `rows_max` rows (at least 1), whose marks join up.

    `commit_before` is a commit end at or below the batch's `after`. Only the batch's newest commit
    end is known, so pieces before it repeat `commit_before`.
    """
    mark, ops = batch.mark, batch.ops
    after, rows_max = mark.after, max(rows_max, 1)
    while ops.num_rows > rows_max and (rows := whole_seqs(ops, rows_max)) < ops.num_rows:
        head, ops = ops.slice(0, rows), ops.slice(rows)
        through = int(seqs_of(head)[-1])
        commit_through = mark.commit_through if mark.commit_through <= through else commit_before
        yield OpBatch(head, replace(mark, after=after, through=through, commit_through=commit_through))
        after = through
    yield OpBatch(ops, replace(mark, after=after))


def conform_ops(ops: pa.RecordBatch, schema: TableSchema) -> pa.RecordBatch:
    """`ops` with the columns of `schema`: new ones hold their default or null, dropped ones are left out.

    Raises `SchemaMismatch` where a value doesn't fit a changed type.
    """
    if ops.schema.equals(schema.feed_schema):
        return ops
    key = "_" * (1 + max(map(len, schema.names)))  # longer than any column's name
    # In the feed every column is nullable, key columns too, so the key of this shape is pk_bytes.
    columns = (Column(column.name, column.type, True, column.default) for column in schema.columns)
    shape = TableSchema((Column(key, pa.binary(), False), *columns), (key,))
    names = [key, *ops.schema.names[HEAD_COLUMNS:]]
    rows = pa.RecordBatch.from_arrays(ops.columns[HEAD_COLUMNS - 1 :], names=names)
    shaped = conform(rows, shape).columns
    return pa.RecordBatch.from_arrays([*ops.columns[: HEAD_COLUMNS - 1], *shaped], schema=schema.feed_schema)
