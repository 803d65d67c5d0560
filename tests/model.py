"""The slow, obvious table: a dict, changed by one op at a time. Everything fast is compared with it.

Keys are the feed's `pk_bytes`, rows are dicts of Python values as pyarrow gives them.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from flight_replica.log.source import Op, OpBatch, OpRecord

Row = dict[str, object]


@dataclass
class TableModel:
    """One table: `rows` as of `visible_seq`, and every op that led there."""

    rows: dict[bytes, Row] = field(default_factory=dict)  # pk_bytes -> row
    ops: list[OpRecord] = field(default_factory=list)
    visible_seq: int = 0

    def apply(self, record: OpRecord) -> None:
        """Take one op; seqs must not go down."""
        assert record.seq >= self.visible_seq, f"seq {record.seq} after {self.visible_seq}"
        self.visible_seq = record.seq
        self.ops.append(record)
        if record.op is Op.DELETE:
            self.rows.pop(record.pk_bytes, None)
        else:
            assert record.row is not None, f"{record.op} without a row at seq {record.seq}"
            self.rows[record.pk_bytes] = record.row

    def apply_all(self, records: Iterable[OpRecord]) -> None:
        for record in records:
            self.apply(record)

    def apply_batch(self, batch: OpBatch) -> None:
        """Take a batch that joins this table's position, and move on to its end."""
        assert batch.mark.after == self.visible_seq, f"{batch.mark} at {self.visible_seq}"
        self.apply_all(batch.records())
        self.visible_seq = batch.mark.through

    def put(self, seq: int, key: bytes, row: Row) -> None:
        self.apply(OpRecord(seq, Op.UPDATE if key in self.rows else Op.INSERT, key, row))

    def delete(self, seq: int, key: bytes) -> None:
        self.apply(OpRecord(seq, Op.DELETE, key, self.rows.get(key)))

    def as_of(self, seq: int) -> TableModel:
        """The same table with no op after `seq`."""
        past = TableModel()
        past.apply_all(record for record in self.ops if record.seq <= seq)
        past.visible_seq = min(seq, self.visible_seq)
        return past

    def sorted_rows(self) -> list[Row]:
        """The rows in key order."""
        return [row for _, row in sorted(self.rows.items())]
