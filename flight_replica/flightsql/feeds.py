"""The serving side of `merutable_changes` over any `TableFeed`: what goes out, and in which order.

`bounded` and `follow` plan a stream; `bounded_batches` and `follow_batches` are its generators, pulled
by the Flight server as the client takes them. A client that doesn't read holds one batch, no queue.
Turning their errors into Flight errors is `status.py`'s.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from uuid import UUID

import pyarrow as pa

from flight_replica.errors import StatementNotFound, Unavailable
from flight_replica.log.feed import TableFeed
from flight_replica.log.reading import read_on, read_range
from flight_replica.log.source import FeedMark
from flight_replica.log.wire import decode_feed_metadata, encode_mark, feed_metadata

BATCH_BYTES_MAX = 1 << 20  # of one feed batch, or one row however large (CF 1)
PLAN_WAIT_SECONDS = 10.0  # how long a replica's feed waits for a `since` that it isn't at yet


def bounded(
    feed: TableFeed, since: int, lineage: UUID | None, wait_seconds: float = PLAN_WAIT_SECONDS
) -> tuple[pa.Schema, FeedMark]:
    """Schema and mark of `(since, high_water now]`; the mark's `through` bounds the rows.

    A replica's feed waits until it is at `since`. Raises `LogGap`, `TableNotFound`, `Unavailable`.
    """
    deadline = time.monotonic() + wait_seconds
    feed.check_since(since, lineage)
    while feed.high_water < since:
        remaining = deadline - time.monotonic()
        if remaining <= 0:
            raise Unavailable(f"table {feed.table!r}: asked since {since}, visible is seq {feed.high_water}")
        feed.wait(since - 1, remaining)
        feed.check_since(since, lineage)
    while True:
        version = feed.schema_version
        through = feed.high_water
        if feed.schema_end(version) is None:  # so `through` is under this schema
            mark = feed.read(through, through, BATCH_BYTES_MAX).mark
            return _stream_schema(feed, version), replace(mark, after=since)


def bounded_batches(
    feed: TableFeed, since: int, through: int, schema: pa.Schema | None = None
) -> Iterator[pa.RecordBatch]:
    """The ops of `(since, through]` in batches of at most `BATCH_BYTES_MAX`, or one row.

    `schema` is the plan's (None: the current one). Raises `LogGap` when retention passes the reader,
    `TableNotFound`.
    """
    for batch in read_range(feed, since, through, BATCH_BYTES_MAX, _version_of(feed, schema)):
        if batch.ops.num_rows:
            yield batch.ops


def follow(feed: TableFeed, since: int, lineage: UUID | None) -> pa.Schema:
    """The schema of a follow stream from `since`. Raises `LogGap`, `TableNotFound`, `Unavailable`."""
    feed.check_since(since, lineage)
    return _stream_schema(feed, feed.schema_version)


def follow_batches(
    feed: TableFeed, since: int, is_over: Callable[[], bool], schema: pa.Schema | None = None
) -> Iterator[tuple[pa.RecordBatch, bytes]]:
    """Batches and their serialized marks: one at once, then each commit as it happens, and heartbeats.

    Ends when `is_over`, which is asked at least once a heartbeat interval, or after the last op under
    `schema`, the plan's (None: the current one). Commits that are already there are sent together, up
    to `BATCH_BYTES_MAX`. Raises `LogGap` when retention passes the reader, `TableNotFound`.
    """
    for batch in read_on(feed, since, is_over, BATCH_BYTES_MAX, _version_of(feed, schema)):
        yield batch.ops, encode_mark(batch.mark)


def _stream_schema(feed: TableFeed, version: int) -> pa.Schema:
    schema = feed.schema_at(version)
    return schema.feed_schema.with_metadata(feed_metadata(feed.table, feed.lineage, schema))


def _version_of(feed: TableFeed, schema: pa.Schema | None) -> int:
    """The newest schema version that a plan with this Arrow schema can have had."""
    newest = feed.schema_version
    if schema is None:
        return newest
    _, _, planned = decode_feed_metadata(schema.metadata)
    for version in range(newest, -1, -1):
        if feed.schema_at(version) == planned:
            return version
    raise StatementNotFound(f"table {feed.table!r} never had the schema of this plan")
