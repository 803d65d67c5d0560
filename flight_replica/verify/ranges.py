"""Ranges of a table's key with both forms of their bounds: key bytes for digests, texts for SQL."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import pyarrow as pa

from flight_replica.base.key_ranges import Bound, is_usable
from flight_replica.base.pinned_table import PinnedTable
from flight_replica.conform import conform
from flight_replica.keys import KeyCodec
from flight_replica.schema import TableSchema

__all__ = ["WHOLE", "KeyBound", "KeyRange", "cut", "rows_in"]


@dataclass(frozen=True, slots=True)
class KeyBound:
    """A key of the table."""

    pk_bytes: bytes
    text: Bound


@dataclass(frozen=True, slots=True)
class KeyRange:
    """The keys from `low` on and below `high`; None: no bound."""

    low: KeyBound | None
    high: KeyBound | None

    @property
    def low_bytes(self) -> bytes | None:
        return self.low.pk_bytes if self.low is not None else None

    @property
    def high_bytes(self) -> bytes | None:
        return self.high.pk_bytes if self.high is not None else None

    def holds(self, key: bytes) -> bool:
        return (self.low is None or self.low.pk_bytes <= key) and (
            self.high is None or key < self.high.pk_bytes
        )


WHOLE = KeyRange(None, None)


def cut(pinned: PinnedTable, whole: KeyRange, row_count: int, count: int) -> list[KeyRange]:
    """`whole`, of `row_count` rows, in about `count` ranges, ascending; one where no key can be a bound."""
    if count <= 1:
        return [whole]
    sample = _sample(pinned, whole, row_count)
    places = [len(sample) * number // count for number in range(1, count)]
    chosen = {sample[place].pk_bytes: sample[place] for place in places if place < len(sample)}
    inside = [bound for key, bound in sorted(chosen.items()) if whole.holds(key) and key != whole.low_bytes]
    return [KeyRange(low, high) for low, high in pairwise([whole.low, *inside, whole.high])]


def _sample(pinned: PinnedTable, whole: KeyRange, row_count: int) -> list[KeyBound]:
    """Some keys of the range in order, without those that can't be bounds."""
    schema = pinned.schema
    width = len(schema.primary_key)
    low, high = (bound.text if bound is not None else None for bound in (whole.low, whole.high))
    found = pinned.collect(pinned.key_ranges.sample_in_sql(row_count, low, high))
    if not len(found):
        return []
    texts = list(zip(*(column.to_pylist() for column in found.columns[:width]), strict=True))
    typed = TableSchema(schema.key_columns, schema.primary_key)
    arrays = [column.combine_chunks() for column in found.columns[width:]]
    keys = conform(pa.RecordBatch.from_arrays(arrays, names=list(schema.primary_key)), typed)
    is_zero = [_is_zero(column) for column in keys.columns]
    coded = KeyCodec(schema).encode_batch(keys).to_pylist()
    return [
        KeyBound(key, text)
        for number, (key, text) in enumerate(zip(coded, texts, strict=True))
        if is_usable(text) and not any(zero[number] for zero in is_zero)
    ]


def _is_zero(column: pa.Array) -> list[bool]:
    """Which values are a float's zero: SQL has one of them, keys have two."""
    if not pa.types.is_floating(column.type):
        return [False] * len(column)
    return [value == 0 for value in column.to_pylist()]


def rows_in(pinned: PinnedTable, wanted: KeyRange) -> Iterator[pa.RecordBatch]:
    """The rows of a range as they come, in the table's types; a few around it may be among them."""
    low, high = (bound.text if bound is not None else None for bound in (wanted.low, wanted.high))
    names = list(pinned.schema.names)
    for batch in pinned.read(pinned.key_ranges.select_sql(low, high), lambda _cancel: None):
        yield conform(batch.rename_columns(names), pinned.schema)
