"""`compare`: where two tables differ at one seq. Digests narrow it down, then rows are looked at.

Memory goes with `differences_max` and the rows of a leaf, not with the table.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from math import ceil

import pyarrow as pa
from xxhash import xxh3_64_intdigest

from flight_replica.base.pinned_table import PinnedTable, ServerDigest
from flight_replica.digest import encode_values, row_hashes
from flight_replica.errors import FeedError
from flight_replica.keys import KeyCodec
from flight_replica.schema import TableSchema
from flight_replica.verify.moment import CommonMoment
from flight_replica.verify.ranges import WHOLE, KeyRange, cut, rows_in

__all__ = ["Comparison", "Difference", "compare"]

RANGE_BYTES = 64 << 20  # Arrow bytes of a range: each is one statement, and one step of what is shown
RANGES_MAX = 64  # each is a scan of the key's first column where the server's rows aren't in key order
SPLIT = 16  # parts of a range that differs
LEAF_ROWS = 20_000  # rows of a range that is no longer split
LEAF_KEYS_MAX = 200_000  # keys in memory; a leaf that can't be split and has more is read several times

OnRange = Callable[[int, int], None]
"""Told how many ranges of how many are done."""


@dataclass(frozen=True, slots=True)
class Difference:
    """One key whose rows aren't the same; a row is a batch of one, None where there is none."""

    pk_bytes: bytes
    a: pa.RecordBatch | None
    b: pa.RecordBatch | None

    @property
    def row(self) -> pa.RecordBatch:
        """One that is there; the key's columns are the same in both."""
        row = self.a if self.a is not None else self.b
        assert row is not None, "a key that is nowhere doesn't differ"
        return row

    @property
    def columns(self) -> list[str]:
        """Those whose values differ, bit for bit; none where a row is missing."""
        if self.a is None or self.b is None:
            return []
        pairs = zip(self.a.schema.names, self.a.columns, self.b.columns, strict=True)
        return [name for name, mine, theirs in pairs if encode_values(mine) != encode_values(theirs)]


@dataclass(frozen=True, slots=True)
class Comparison:
    """What came of one table."""

    a: ServerDigest
    b: ServerDigest
    range_count: int
    differing_ranges: int
    differences: list[Difference]  # ascending by key; the first ones

    @property
    def is_equal(self) -> bool:
        return not self.differing_ranges


def compare(
    moment: CommonMoment,
    differences_max: int,
    on_range: OnRange,
    *,
    range_bytes: int = RANGE_BYTES,
    leaf_rows: int = LEAF_ROWS,
    leaf_keys_max: int = LEAF_KEYS_MAX,
) -> Comparison:
    """Compare both tables, and find the first keys that differ.

    Raises `PinLost` when a server was started anew meanwhile, `Unavailable`, `FeedError`.
    """
    with ThreadPoolExecutor(2, "verify") as workers:
        comparing = _Comparing(moment, differences_max, workers, range_bytes, leaf_rows, leaf_keys_max)
        return comparing.run(on_range)


@dataclass(frozen=True, slots=True)
class _Pair:
    """A range, and what both servers count in it."""

    at: KeyRange
    a: ServerDigest
    b: ServerDigest

    @property
    def row_count(self) -> int:
        return max(self.a.row_count, self.b.row_count)


class _Comparing:
    def __init__(
        self,
        moment: CommonMoment,
        differences_max: int,
        workers: ThreadPoolExecutor,
        range_bytes: int,
        leaf_rows: int,
        leaf_keys_max: int,
    ) -> None:
        self._moment = moment
        self._max = differences_max
        self._workers = workers
        self._range_bytes = range_bytes
        self._leaf_rows = leaf_rows
        self._leaf_keys_max = leaf_keys_max

    def run(self, on_range: OnRange) -> Comparison:
        row_count = self._moment.a.row_count()
        ranges_wanted = min(RANGES_MAX, ceil(row_count * self._moment.a.width_bytes() / self._range_bytes))
        ranges = cut(self._moment.a, WHOLE, row_count, ranges_wanted)
        pairs = []
        for number, at in enumerate(ranges):
            pairs.append(self._pair(at))
            on_range(number + 1, len(ranges))
        differing = [pair for pair in pairs if pair.a != pair.b]
        differences: list[Difference] = []
        for pair in differing:
            if len(differences) < self._max:
                differences += self._narrowed(pair, self._max - len(differences))
        return Comparison(
            _sum([pair.a for pair in pairs]),
            _sum([pair.b for pair in pairs]),
            len(ranges),
            len(differing),
            differences,
        )

    def _pair(self, at: KeyRange) -> _Pair:
        a = self._workers.submit(self._moment.digest_a, at.low_bytes, at.high_bytes)
        b = self._workers.submit(self._moment.digest_b, at.low_bytes, at.high_bytes)
        return _Pair(at, a.result(), b.result())

    def _narrowed(self, pair: _Pair, wanted: int) -> list[Difference]:
        """The first `wanted` differences in a range that has some."""
        if pair.row_count <= self._leaf_rows:
            return self._leaf(pair, wanted)
        has_more_rows = self._moment.a if pair.a.row_count >= pair.b.row_count else self._moment.b
        parts = cut(
            has_more_rows, pair.at, pair.row_count, min(SPLIT, ceil(pair.row_count / self._leaf_rows) + 1)
        )
        if len(parts) == 1:  # no key can be a bound
            return self._leaf(pair, wanted)
        found: list[Difference] = []
        for part in parts:
            if len(found) >= wanted:
                break
            inner = self._pair(part)
            if inner.a != inner.b:
                found += self._narrowed(inner, wanted - len(found))
        return found

    # --- rows -------------------------------------------------------------------------------------

    def _leaf(self, pair: _Pair, wanted: int) -> list[Difference]:
        keys: list[bytes] = []
        sums = [0, 0]
        passes = max(1, ceil(pair.row_count / self._leaf_keys_max))
        for number in range(passes):
            found = self._differing_keys(pair.at, number, passes, sums)
            keys = heapq.nsmallest(wanted, [*keys, *found])
        if [total % 2**64 for total in sums] != [pair.a.digest, pair.b.digest]:
            raise FeedError(
                f"table {self._moment.at.table!r}: rows and digests of a range don't agree at a server; "
                f"it begins at key {(pair.at.low_bytes or b'').hex() or '(none)'}"
            )
        chosen = set(keys)
        a, b = self._chosen_a(pair.at, chosen), _chosen(self._moment.b, pair.at, chosen)
        return [Difference(key, a.get(key), b.get(key)) for key in keys]

    def _differing_keys(self, at: KeyRange, number: int, passes: int, sums: list[int]) -> list[bytes]:
        """Keys of one of `passes` parts of the range; what the rows add up to goes to `sums`."""

        def is_ours(key: bytes) -> bool:
            return xxh3_64_intdigest(key) % passes == number

        hash_by_key = {key: value for key, value in _hashed(self._moment.a, at) if is_ours(key)}
        for key in self._moment.keys_between(at.low_bytes, at.high_bytes):
            new = self._moment.between[key]
            if is_ours(key):
                hash_by_key.pop(key, None)
                if new is not None:
                    hash_by_key[key] = new.hash
        sums[0] += sum(hash_by_key.values())
        differing = []
        for key, value in _hashed(self._moment.b, at):
            if is_ours(key):
                sums[1] += value
                if hash_by_key.pop(key, None) != value:
                    differing.append(key)
        return [*differing, *hash_by_key]

    def _chosen_a(self, at: KeyRange, keys: set[bytes]) -> dict[bytes, pa.RecordBatch]:
        rows = _chosen(self._moment.a, at, keys)
        for key in keys & self._moment.between.keys():
            rows.pop(key, None)
            new = self._moment.between[key]
            if new is not None:
                rows[key] = new.batch
        return rows


def _sum(parts: list[ServerDigest]) -> ServerDigest:
    return ServerDigest(sum(part.row_count for part in parts), sum(part.digest for part in parts) % 2**64)


def _hashed(pinned: PinnedTable, at: KeyRange) -> Iterator[tuple[bytes, int]]:
    for batch in rows_in(pinned, at):
        yield from ((key, value) for key, value in row_hashes(batch, pinned.schema) if at.holds(key))


def _chosen(pinned: PinnedTable, at: KeyRange, keys: set[bytes]) -> dict[bytes, pa.RecordBatch]:
    """key bytes -> its row, of those that are there."""
    found = {}
    for batch in rows_in(pinned, at):
        for number, key in enumerate(_keys(batch, pinned.schema)):
            if key in keys:
                # A slice would keep its whole batch in memory.
                found[key] = batch.take(pa.array([number]))
    return found


def _keys(batch: pa.RecordBatch, schema: TableSchema) -> list[bytes]:
    coded: list[bytes] = KeyCodec(schema).encode_batch(batch).to_pylist()
    return coded
