"""What comes out of the log against what was read before: new ops, the same ones again, or other ones.

The engine reads its log again after a restart, and so does a feed server: the same bytes under the same seq
are the same op. Other bytes under a seq that was read before mean that the engine lost the end of its log and
gave its seqs out again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import numpy as np
import pyarrow as pa
from xxhash import xxh3_64_intdigest

from flight_replica.beside.log_file import LogRecord, WriteBatch
from flight_replica.beside.op_segments import Hashes
from flight_replica.beside.row_values import ops_of
from flight_replica.errors import FeedError, SchemaMismatch
from flight_replica.schema import TableSchema
from flight_replica.text_columns import TextColumns

RECORD_BYTES = 32  # of the log around one record's key and value

StoredHashes = Callable[[int, int], tuple[Hashes, Hashes]]


class SeqsReused(FeedError):
    """A seq that was read before is another op now: the feed's lineage is over."""


def hash_of(record: LogRecord) -> int:
    """The same for the same op: what it does, key and row."""
    op, key, value = record
    return xxh3_64_intdigest(b"".join((op.encode(), len(key).to_bytes(4, "little"), key, value)))


def hashes_of(batches: Iterable[WriteBatch]) -> Hashes:
    """One for each op, in order."""
    return np.array([hash_of(record) for batch in batches for record in batch.records], np.uint64)


def new_batches(
    batches: Sequence[WriteBatch], start: int, end: int, stored: StoredHashes, *, may_be_older: bool
) -> list[WriteBatch]:
    """What of `batches` follows `end`, in order; the rest is the same as what is held in `(start, end]`.

    Seqs at or below `start` can't be compared: where a log is read again, or ops were taken
    from files instead (`may_be_older`), they are flushed ones. Raises `SeqsReused`.
    """
    fresh: list[WriteBatch] = []
    last = end
    known: dict[int, int] | None = None  # seq -> hash, of what came before
    for batch in batches:
        if batch.first_seq > last:
            fresh.append(batch)
            last = batch.last_seq
            if known is not None:
                known.update(_numbered(batch))
            continue
        if batch.first_seq <= start and not may_be_older:
            raise _reused(batch.first_seq, batch)
        if known is None:
            known = _stored(batches, start, end, stored)
            for earlier in fresh:
                known.update(_numbered(earlier))
        for seq, found in _numbered(batch):
            if start < seq <= last and known.get(seq) != found:
                raise _reused(seq, batch)
        if batch.last_seq > last:
            fresh.append(after(batch, last))
            known.update(_numbered(fresh[-1]))
            last = batch.last_seq
    return fresh


def _stored(batches: Sequence[WriteBatch], start: int, end: int, stored: StoredHashes) -> dict[int, int]:
    first = min(batch.first_seq for batch in batches)
    last = max(batch.last_seq for batch in batches)
    seqs, hashes = stored(max(start, first - 1), min(end, last))
    return dict(zip(seqs.tolist(), hashes.tolist(), strict=True))


def _numbered(batch: WriteBatch) -> Iterable[tuple[int, int]]:
    """Seq and hash of each op."""
    return ((batch.first_seq + n, hash_of(record)) for n, record in enumerate(batch.records))


def after(batch: WriteBatch, seq: int) -> WriteBatch:
    """The batch without its ops up to `seq`, which is inside it."""
    return batch._replace(first_seq=seq + 1, records=batch.records[seq + 1 - batch.first_seq :])


def _reused(seq: int, batch: WriteBatch) -> SeqsReused:
    return SeqsReused(
        f"seq {seq}, which was read before, is another op in log {batch.file_number} at {batch.offset}: "
        "the engine lost the end of its log and gave the seqs out again"
    )


def byte_estimate(batches: Iterable[WriteBatch]) -> int:
    """About how much of the log these batches are, rather more than less."""
    return sum(
        len(record.pk_bytes) + len(record.value) + RECORD_BYTES
        for batch in batches
        for record in batch.records
    )


def decoded(batches: Sequence[WriteBatch], schema: TableSchema) -> tuple[pa.RecordBatch, int]:
    """The ops of the first batches that fit `schema`, and how many batches these are, at least one.

    Raises `SchemaMismatch` where the first one doesn't fit, `InvalidText` for bytes that aren't the text
    which `schema` says.
    """
    ops, count = _fitting(batches, TextColumns.stored(schema))
    return TextColumns.strings_of(schema).apply_to_ops(ops), count


def _fitting(batches: Sequence[WriteBatch], schema: TableSchema) -> tuple[pa.RecordBatch, int]:
    """As `decoded`, in the types that the engine stores."""
    try:
        return ops_of(batches, schema), len(batches)
    except SchemaMismatch:
        if len(batches) == 1:
            raise
    count = 1
    first = ops_of(batches[:1], schema)
    while 2 * count < len(batches):
        try:
            first = ops_of(batches[: 2 * count], schema)
        except SchemaMismatch:
            break
        count *= 2
    return first, count
