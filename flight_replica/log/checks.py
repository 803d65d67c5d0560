"""`FeedCheck`: whether a batch of the feed can be true, before anything of it is handed on (CF 2)."""

from __future__ import annotations

from uuid import UUID

import pyarrow as pa
import pyarrow.compute as pc

from flight_replica.errors import FeedError
from flight_replica.keys import KeyCodec
from flight_replica.log.batches import HEAD_COLUMNS, seqs_of
from flight_replica.log.source import FeedMark, Op
from flight_replica.schema import TableSchema

_OPS = pa.array([op.value for op in Op])


class FeedCheck:
    """The checks for one table under one schema. Immutable, safe to share between threads."""

    def __init__(self, table: str, lineage: UUID, schema: TableSchema) -> None:
        self._table = table
        self._lineage = lineage
        self._schema = schema
        self._keys = KeyCodec(schema)

    def check(self, ops: pa.RecordBatch, mark: FeedMark, position: int) -> pa.RecordBatch:
        """`ops` in exactly the feed's schema, without rows that repeat the one before them.

        `position` is the seq up to which everything came before. Raises `FeedError` with the first
        rule that doesn't hold.
        """
        self._check_mark(mark, position)
        self._check_columns(ops.schema)
        try:
            ops.validate(full=True)
        except pa.ArrowInvalid as error:
            raise self._error(f"a batch of {ops.num_rows} rows is malformed: {error}") from error
        for number, name in enumerate(("seq", "op", "pk_bytes")):
            if ops.column(number).null_count:
                raise self._error(f"{ops.column(number).null_count} of {ops.num_rows} rows lack {name}")
        rows = pa.RecordBatch.from_arrays(ops.columns, schema=self._schema.feed_schema)
        return self._check_rows(rows, mark) if rows.num_rows else rows

    def _check_mark(self, mark: FeedMark, position: int) -> None:
        if mark.lineage != self._lineage:
            raise self._error(f"a mark of lineage {mark.lineage}, expected {self._lineage}")
        if mark.after != position:
            raise self._error(f"a batch after seq {mark.after}, expected after {position}")
        if mark.through < mark.after:
            raise self._error(f"a batch through seq {mark.through}, which is below its start {mark.after}")
        if not mark.commit_through <= mark.through <= mark.high_water:
            raise self._error(
                f"a mark out of order: commit_through {mark.commit_through}, through {mark.through}, "
                f"high_water {mark.high_water}"
            )

    def _check_columns(self, schema: pa.Schema) -> None:
        expected = self._schema.feed_schema
        if schema.equals(expected):
            return
        # The first three go by position: a table's own columns may have their names.
        if schema.types != expected.types or schema.names[HEAD_COLUMNS:] != expected.names[HEAD_COLUMNS:]:
            raise self._error(f"columns {_columns(schema)}, expected {_columns(expected)}")

    def _check_rows(self, ops: pa.RecordBatch, mark: FeedMark) -> pa.RecordBatch:
        seqs = seqs_of(ops)
        has_repeats = not (seqs[1:] > seqs[:-1]).all()
        if has_repeats and (seqs[1:] < seqs[:-1]).any():
            row = int((seqs[1:] < seqs[:-1]).argmax())
            raise self._error(f"seq {seqs[row + 1]} follows seq {seqs[row]}")
        if seqs[0] <= mark.after or seqs[-1] > mark.through:
            raise self._error(f"seqs {seqs[0]} to {seqs[-1]} outside ({mark.after}, {mark.through}]")
        known = pc.is_in(ops.column(1), _OPS)
        if known.false_count:
            raise self._error(f"unknown op {ops.column(1)[known.index(False).as_py()].as_py()!r}")
        try:
            self._keys.check(ops.column(2))
        except FeedError as error:
            raise self._error(str(error)) from error
        return _without_repeats(ops, pa.array(seqs[1:] == seqs[:-1])) if has_repeats else ops

    def _error(self, what: str) -> FeedError:
        return FeedError(f"feed of table {self._table!r}: {what}")


def _without_repeats(ops: pa.RecordBatch, same_seq: pa.BooleanArray) -> pa.RecordBatch:
    """Drop rows with the seq and the key of the row before; `same_seq` has one value less than rows."""
    keys = ops.column(2)
    is_repeat = pc.and_(same_seq, pc.equal(keys[1:], keys[:-1]))
    return ops.filter(pa.concat_arrays([pa.array([True]), pc.invert(is_repeat)]))


def _columns(schema: pa.Schema) -> str:
    return ", ".join(f"{field.name} {field.type}" for field in schema)
