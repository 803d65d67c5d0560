"""Ops on orders whose effect at every seq is a formula: 60 % updates, 25 % inserts, 15 % deletes.

The base has the ids 0 to K − 1 at seq K. Updates go through these in strides, so that they are spread over
the whole table and no key comes twice within K of them; update number u writes u into `customer` and `again`
into `note`. Inserts take the ids from K on, deletes the oldest of those. `updated_at` tells the seq that
wrote a row. So whoever reads a row, or all of them, knows from the seq of the answer what it has to be.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import numpy as np
import pyarrow as pa

from benchmarks.orders_table import SEED, orders_schema
from flight_replica.demo_orders import orders
from flight_replica.keys import KeyCodec

UPDATE, INSERT, DELETE = range(3)
# Of 20 ops; an insert comes first, so that there is always something to delete.
_CYCLE = np.array([1, 0, 0, 0, 1, 0, 0, 2, 0, 0, 1, 0, 2, 0, 1, 0, 0, 2, 1, 0])
_LABELS = pa.array(["UPDATE", "INSERT", "DELETE"])
_WRITTEN_AT = datetime(2025, 1, 1, tzinfo=UTC)  # later than any order of the base; plus seq microseconds
_WRITTEN_AT_US = int(_WRITTEN_AT.timestamp()) * 1_000_000
_GOLDEN = (math.sqrt(5) - 1) / 2

# Everything that `CountedOps.whole` tells, in one row.
WHOLE = (
    "SELECT count(*) AS rows, sum(id) AS ids, count(*) FILTER (note = 'again') AS updated, "
    "sum(customer) FILTER (note = 'again') AS stamps, max(updated_at) AS newest FROM orders"
)
ONE = "SELECT customer, note, updated_at FROM orders WHERE id = {key}"

Kinds = np.ndarray[tuple[int], np.dtype[np.int64]]  # UPDATE, INSERT or DELETE each
Answer = dict[str, list[object]]  # as `pa.Table.to_pydict` gives it


@dataclass(frozen=True, slots=True)
class CountedOps:
    """The ops after a base of `base_rows` orders at seq `base_rows`."""

    base_rows: int

    @property
    def _stride(self) -> int:
        """Without a factor in common with the number of rows, so that every key is met."""
        stride = max(1, int(self.base_rows * _GOLDEN))
        while math.gcd(stride, self.base_rows) != 1:
            stride += 1
        return stride

    def ops(self, since: int, count: int, random: np.random.Generator | None = None) -> pa.RecordBatch:
        """The `count` ops after seq `since`, as a feed has them. `random` makes up what no formula tells."""
        if since < self.base_rows:  # no base brings these
            assert since + count <= self.base_rows, f"ops over the end of the base, {self.base_rows}"
            rows = orders(np.arange(since, since + count), random or np.random.default_rng(SEED))
            return _as_ops(rows, since, np.full(count, INSERT))
        numbers = np.arange(since - self.base_rows, since - self.base_rows + count)
        kinds = _CYCLE[numbers % len(_CYCLE)]
        within = np.stack([np.cumsum(kind == _CYCLE) - (kind == _CYCLE) for kind in range(3)])
        each = np.bincount(_CYCLE)
        ranks = numbers // len(_CYCLE) * each[kinds] + within[kinds, numbers % len(_CYCLE)]
        ids = np.where(
            kinds == UPDATE, ranks % max(1, self.base_rows) * self._stride % max(1, self.base_rows), 0
        )
        ids = np.where(kinds == UPDATE, ids, self.base_rows + ranks)
        rows = orders(ids, random or np.random.default_rng(SEED))
        seqs = np.arange(since + 1, since + count + 1)
        stamped = {
            "customer": pa.array(np.where(kinds == UPDATE, ranks, 0).astype(np.int32)),
            "note": pa.array(["again", "new", None]).take(pa.array(kinds)),
            "updated_at": pa.array(_WRITTEN_AT_US + seqs, rows.schema.field("updated_at").type),
        }
        columns = [
            stamped.get(name, column) for name, column in zip(rows.schema.names, rows.columns, strict=True)
        ]
        return _as_ops(pa.RecordBatch.from_arrays(columns, rows.schema.names), since, kinds)

    def counts(self, seq: int) -> tuple[int, int, int]:
        """Updates, inserts and deletes through `seq`."""
        cycles, rest = divmod(seq - self.base_rows, len(_CYCLE))
        each = cycles * np.bincount(_CYCLE) + np.bincount(_CYCLE[:rest], minlength=3)
        updates, inserts, deletes = (int(count) for count in each)
        return updates, inserts, deletes

    def row_count(self, seq: int) -> int:
        """Rows of the table at `seq`."""
        _, inserts, deletes = self.counts(seq)
        return self.base_rows + inserts - deletes

    def whole(self, seq: int) -> Answer:
        """What `WHOLE` gives at `seq`, some op after the base."""
        updates, inserts, deletes = self.counts(seq)
        base, lasting = self.base_rows, min(updates, self.base_rows)
        ids = base * (base - 1) // 2 + _sum_of_range(base + deletes, base + inserts)
        newest = seq
        while _CYCLE[(newest - base - 1) % len(_CYCLE)] == DELETE:
            newest -= 1
        return {
            "rows": [self.row_count(seq)],
            "ids": [ids],
            "updated": [lasting],
            "stamps": [_sum_of_range(updates - lasting, updates) if lasting else None],
            "newest": [_written_at(newest)],
        }

    def one(self, key: int, seq: int) -> Answer | None:
        """What `ONE` gives for `key` at `seq`; None where the row is still as the base has it."""
        updates, inserts, deletes = self.counts(seq)
        base = self.base_rows
        if key >= base:
            is_there = deletes <= key - base < inserts
            number, kind, note = key - base, INSERT, "new"
            stamp = 0
        else:
            number = key * pow(self._stride, -1, base) % base
            if number >= updates:
                return None
            number += (updates - 1 - number) // base * base
            is_there, kind, note, stamp = True, UPDATE, "again", number
        if not is_there:
            return {"customer": [], "note": [], "updated_at": []}
        cycle, rank = divmod(number, int(np.bincount(_CYCLE)[kind]))
        place = int(np.flatnonzero(kind == _CYCLE)[rank])
        wrote = base + cycle * len(_CYCLE) + place + 1
        return {"customer": [stamp], "note": [note], "updated_at": [_written_at(wrote)]}

    def is_right(self, key: int, seq: int, found: Mapping[str, list[object]]) -> bool:
        """Whether `found` is what `ONE` has to give; a row of the base is known by its note and time."""
        expected = self.one(key, seq)
        if expected is not None:
            return dict(found) == expected
        (note,), (written,) = found["note"], found["updated_at"]
        return note not in ("again", "new") and isinstance(written, datetime) and written < _WRITTEN_AT


def _as_ops(rows: pa.RecordBatch, since: int, kinds: Kinds) -> pa.RecordBatch:
    schema = orders_schema()
    seqs = pa.array(np.arange(since + 1, since + 1 + len(rows)), pa.uint64())
    keys = KeyCodec(schema).encode([rows.column(0)])
    labels = _LABELS.take(pa.array(kinds))
    return pa.RecordBatch.from_arrays([seqs, labels, keys, *rows.columns], schema=schema.feed_schema)


def _written_at(seq: int) -> datetime:
    return _WRITTEN_AT + timedelta(microseconds=seq)


def _sum_of_range(first: int, end: int) -> int:
    """first + … + (end − 1)."""
    return (end - first) * (first + end - 1) // 2
