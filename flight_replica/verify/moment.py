"""`CommonMoment`: one table of two servers, held still by a pin at each, and what it takes to have one seq.

While a primary writes, the second pin is often some ops ahead of the first. Then the first server's own feed
tells these ops, and the first table is compared as they make it. Nothing is compared at two seqs.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace

import pyarrow as pa

from flight_replica.base.key_ranges import quoted
from flight_replica.base.pinned_table import PinnedTable, ServerDigest
from flight_replica.conform import conform
from flight_replica.digest import row_hashes
from flight_replica.errors import FeedError, LineageChanged, SchemaMismatch, Unavailable
from flight_replica.log.feed_client import Endpoint, FeedClient, changes_sql
from flight_replica.log.source import Op
from flight_replica.log.wire import decode_positions, encode_name
from flight_replica.position import TablePosition
from flight_replica.schema import TableSchema

__all__ = ["CommonMoment", "NewRow", "common_moment", "rows_between"]

ATTEMPTS = 10  # pairs of pins before ops in between are taken from the feed: mostly one pair is at one seq
BETWEEN_KEYS_MAX = 1000  # keys changed between two pins; each costs a look at the first server
_FEED_COLUMNS = 3  # seq, op and pk_bytes stand before a table's columns


@dataclass(frozen=True, slots=True)
class NewRow:
    """What an op leaves behind: a row of the table, as a batch, and its hash."""

    batch: pa.RecordBatch
    hash: int


@dataclass(frozen=True, slots=True)
class CommonMoment:
    """Both tables, pinned; `b` is at the common seq, `a` is after the ops of `between`."""

    a: PinnedTable
    b: PinnedTable
    between: dict[bytes, NewRow | None]  # key bytes -> its row at the common seq, None: deleted

    @property
    def at(self) -> TablePosition:
        return self.b.at

    @property
    def schema(self) -> TableSchema:
        return self.b.schema

    def keys_between(self, low: bytes | None, high: bytes | None) -> list[bytes]:
        """Keys of `between` with `low <= key < high`, ascending."""
        return sorted(key for key in self.between if (low or b"") <= key and (high is None or key < high))

    def digest_a(self, low: bytes | None, high: bytes | None) -> ServerDigest:
        """Of the first table at the common seq: its own digest, without old rows and with new ones."""
        found = self.a.digest(_unheeded, low, high)
        row_count, value = found.row_count, found.digest
        for key in self.keys_between(low, high):
            old = self.a.digest(_unheeded, key, key + b"\0")  # the next key there could be
            new = self.between[key]
            row_count += (new is not None) - old.row_count
            value += (new.hash if new is not None else 0) - old.digest
        return ServerDigest(row_count, value % 2**64)

    def digest_b(self, low: bytes | None, high: bytes | None) -> ServerDigest:
        return self.b.digest(_unheeded, low, high)


@contextmanager
def common_moment(a: Endpoint, b: Endpoint, table: str, wait_seconds: float) -> Iterator[CommonMoment]:
    """The table of both servers at one seq, until the end of the block.

    Waits up to `wait_seconds` for the server that is behind. Raises `TableNotFound`, `Unavailable`,
    `LineageChanged`, `SchemaMismatch`, `LogGap`, `ConfigError`, `FeedError`.
    """
    _check_lineages(a, b, table)  # a seq of another lineage would be waited for in vain
    with ExitStack() as pins:
        for attempt in range(ATTEMPTS):
            pins.close()
            first = pins.enter_context(_closing(PinnedTable(a, table)))
            seq = first.pin().visible_seq
            second = pins.enter_context(_closing(PinnedTable(_waiting(b, table, seq, wait_seconds), table)))
            at = second.pin()
            is_one_schema = first.schema == second.schema
            if first.at.lineage != at.lineage:
                raise LineageChanged(f"table {table!r} was created anew while it was being compared")
            if at.visible_seq == seq or (attempt == ATTEMPTS - 1 and is_one_schema):
                break
        if first.schema != second.schema:
            raise SchemaMismatch(
                f"table {table!r} has another schema at each server at seq {at.visible_seq}: "
                f"{_first_schema_difference(first.schema, second.schema)}"
            )
        between = rows_between(_waiting(a, table, at.visible_seq, wait_seconds), table, seq, second)
        yield CommonMoment(first, second, between)


def _check_lineages(a: Endpoint, b: Endpoint, table: str) -> None:
    lineages = []
    for at in (a, b):
        with FeedClient(at) as client:
            positions, _ = decode_positions(
                client.plan(f"SELECT * FROM {quoted(table)} LIMIT 0").app_metadata
            )
        if not positions:
            raise FeedError(f"{at.uri}: its answers state no position: it isn't a server of merutable tables")
        lineages.append(positions[0].lineage)
    if lineages[0] != lineages[1]:
        raise LineageChanged(
            f"table {table!r} is of lineage {lineages[0]} at {a.uri}, of {lineages[1]} at {b.uri}"
        )


@contextmanager
def _closing(pinned: PinnedTable) -> Iterator[PinnedTable]:
    try:
        yield pinned
    finally:
        pinned.close()


def _waiting(at: Endpoint, table: str, seq: int, wait_seconds: float) -> Endpoint:
    """The endpoint, with calls that wait until its table has reached `seq`."""
    headers = {
        **at.headers,
        "merutable-min-seq": f"{encode_name(table)}={seq}",
        "merutable-wait-timeout-ms": f"{wait_seconds * 1000:.0f}",
    }
    return replace(at, headers=headers, rpc_timeout_seconds=at.rpc_timeout_seconds + wait_seconds)


def rows_between(at: Endpoint, table: str, after: int, second: PinnedTable) -> dict[bytes, NewRow | None]:
    """What the ops in `(after, seq of second]` leave behind, as the feed at `at` tells them."""
    through = second.at.visible_seq
    found: dict[bytes, NewRow | None] = {}
    if through == after:
        return found
    last = after
    with FeedClient(at) as client:
        info = client.plan(changes_sql(table, after), second.at.lineage)
        _, mark = decode_positions(info.app_metadata)
        if mark is None or mark.through < through:
            ends = "nowhere" if mark is None else f"at seq {mark.through}"
            raise FeedError(f"{at.uri}: the feed of table {table!r} ends {ends}, needed is seq {through}")
        stream = client.open(info, second.at.lineage)
        while last < through and (chunk := client.next_chunk(stream)) is not None:
            if chunk.data is None or not chunk.data.num_rows:
                continue
            for seq, key, row in _ops(chunk.data, second.schema):
                if seq <= through:
                    found[key] = row
                last = seq
            if len(found) > BETWEEN_KEYS_MAX:
                raise Unavailable(
                    f"table {table!r}: more than {BETWEEN_KEYS_MAX} keys change between the two pins "
                    f"(seqs {after} and {through}); try again when less is written"
                )
        stream.cancel()
    return found


def _ops(batch: pa.RecordBatch, schema: TableSchema) -> Iterator[tuple[int, bytes, NewRow | None]]:
    """seq, key and what is left of it, of each op; a few hundred at most are read."""
    seqs, ops, keys = (batch.column(place).to_pylist() for place in range(_FEED_COLUMNS))
    columns = batch.columns[_FEED_COLUMNS : _FEED_COLUMNS + len(schema.names)]
    rows = pa.RecordBatch.from_arrays(columns, names=list(schema.names))
    for number, (seq, op, key) in enumerate(zip(seqs, ops, keys, strict=True)):
        if op == Op.DELETE:
            yield seq, key, None
            continue
        row = conform(rows.slice(number, 1), schema)
        yield seq, key, NewRow(row, row_hashes(row, schema)[0][1])


def _first_schema_difference(a: TableSchema, b: TableSchema) -> str:
    if a.primary_key != b.primary_key:
        return f"key {list(a.primary_key)} and {list(b.primary_key)}"
    for mine, theirs in zip(a.columns, b.columns, strict=False):
        if mine != theirs:
            return f"{mine} and {theirs}"
    return f"{len(a.columns)} and {len(b.columns)} columns"


def _unheeded(_cancel: object) -> None:
    """A digest of one range is short: nobody cancels it."""
