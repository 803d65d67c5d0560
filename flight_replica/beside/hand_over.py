"""Whether the table's files hold what the log said, for ops that were flushed while nobody read the log.

Of each key that the stored ops changed, the files have to hold the newest of these ops, or a newer one. If
they don't, the engine had lost the end of its log and gave the seqs out again. Source: merutable format, 13.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from flight_replica.beside.table_changes import TableChanges
from flight_replica.log.batches import HEAD_COLUMNS, conform_ops, seqs_of
from flight_replica.log.source import Op
from flight_replica.schema import TableSchema

READ_BYTES = 8 << 20


def contradiction(
    stored: Iterator[pa.RecordBatch],
    changes: TableChanges,
    through: int,
    schema: TableSchema,
    lost_through: int,
) -> str | None:
    """What the files say otherwise, in words; None when they agree.

    `stored` are all ops of `(changes.since, through]`, in order and under `schema`. A put is in no file,
    and nothing is wrong, where a tombstone after it was dropped: `lost_through` is the newest that may be.
    """
    ops = pa.Table.from_batches(stored, schema.feed_schema).combine_chunks()
    if not len(ops):
        return None
    newest = _newest_rows(ops)
    row_by_key = dict(zip(ops.column(2).take(newest).to_pylist(), newest.tolist(), strict=True))
    unseen = set(row_by_key)
    position = changes.since
    while position < changes.through:
        found, position = changes.read(position, changes.through, READ_BYTES)
        reason = _compare(found, ops, row_by_key, unseen, through, schema)
        if reason is not None:
            return reason
    for key in unseen:
        row = row_by_key[key]
        seq = ops.column(0)[row].as_py()
        if ops.column(1)[row].as_py() != Op.DELETE and seq >= lost_through:
            return f"seq {seq}, which the log had, is in no file"
    return None


def _newest_rows(ops: pa.Table) -> pa.Array:
    rows = pa.table({"key": ops.column(2), "row": pa.array(np.arange(len(ops)))})
    return rows.group_by("key").aggregate([("row", "max")]).column("row_max").combine_chunks()


def _compare(
    found: pa.RecordBatch,
    ops: pa.Table,
    row_by_key: dict[bytes, int],
    unseen: set[bytes],
    through: int,
    schema: TableSchema,
) -> str | None:
    seqs = seqs_of(found)
    same_found, same_stored = [], []
    for number, key in enumerate(found.column(2).to_pylist()):
        row = row_by_key.get(key)
        if row is None:
            if seqs[number] <= through:
                return f"seq {seqs[number]} in the files isn't what the log had"
            continue
        stored_seq = ops.column(0)[row].as_py()
        if seqs[number] == stored_seq:
            same_found.append(number)
            same_stored.append(row)
        elif stored_seq < seqs[number] <= through:
            return f"seq {seqs[number]} in the files isn't what the log had"
        if seqs[number] >= stored_seq:
            unseen.discard(key)
    return _different(
        conform_ops(found.take(pa.array(same_found, pa.int64())), schema),
        ops.take(pa.array(same_stored, pa.int64())),
    )


def _different(found: pa.RecordBatch, stored: pa.Table) -> str | None:
    """The first seq whose rows differ. Of deletes only the op counts: pre-images vary."""
    is_put = pc.not_equal(stored.column(1), Op.DELETE.value)
    is_same = pc.equal(pc.equal(found.column(1), Op.DELETE.value), pc.invert(is_put))
    for number in range(HEAD_COLUMNS, found.num_columns):
        same_value = _equal(found.column(number), stored.column(number))
        is_same = pc.and_(is_same, pc.or_(same_value, pc.invert(is_put)))
    if pc.all(is_same, min_count=0).as_py():
        return None
    row = pc.index(is_same, False).as_py()
    return f"seq {stored.column(0)[row].as_py()} in the files isn't what the log had"


def _equal(found: pa.Array, stored: pa.ChunkedArray) -> pa.ChunkedArray:
    """By bits. A null in the log agrees with anything: compaction makes zeros of some (format, 9.1)."""
    left, right = _bits(found), _bits(stored.combine_chunks())
    return pc.or_(pc.is_null(right), pc.fill_null(pc.equal(left, right), False))


def _bits(values: pa.Array) -> pa.Array:
    views = {pa.float32(): pa.int32(), pa.float64(): pa.int64()}
    kind = values.type
    if kind in views:
        return values.view(views[kind])
    return values.cast(pa.binary()) if pa.types.is_fixed_size_binary(kind) else values
