"""Reading a `TableFeed` from a seq on: as far as another seq, or on and on. The same for every reader."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

from flight_replica.errors import Unavailable
from flight_replica.log.feed import TableFeed
from flight_replica.log.source import OpBatch

# A mark is promised at least every interval, and waking up, reading and sending take time too.
_EARLY = 0.8


def read_range(
    feed: TableFeed, since: int, through: int, byte_limit: int, schema_version: int
) -> Iterator[OpBatch]:
    """The ops of `(since, through]` under this schema version, in batches of about `byte_limit` bytes.

    Raises `LogGap` when retention passes the reader, `TableNotFound` after a drop, `Unavailable` when
    the version ended below `through`.
    """
    position = since
    while position < through:
        batch = feed.read(position, through, byte_limit, schema_version)
        if batch.mark.through == position:
            raise Unavailable(f"table {feed.table!r}: its schema changed at seq {position}, open again")
        position = batch.mark.through
        yield batch


def read_on(
    feed: TableFeed, since: int, is_over: Callable[[], bool], byte_limit: int, schema_version: int
) -> Iterator[OpBatch]:
    """A batch at once, then each commit as it happens, and an empty batch a heartbeat interval.

    Ends when `is_over`, which is asked at least once a heartbeat interval, or after the last op under
    this schema version. What is already there comes together, up to `byte_limit`. Raises `LogGap` when
    retention passes the reader, `TableNotFound` after a drop.
    """
    position, due = since, 0.0  # the first batch is due at once
    while not is_over():
        end = feed.schema_end(schema_version)
        batch = feed.read(position, None, byte_limit, schema_version)
        if batch.mark.through > position or time.monotonic() >= due:
            position = batch.mark.through
            yield batch
            due = time.monotonic() + batch.mark.heartbeat_ms / 1000 * _EARLY
        elif end is not None and position >= end:
            return
        else:
            feed.wait(position, max(due - time.monotonic(), 0.0))


def wait_until_at(feed: TableFeed, seq: int, timeout_seconds: float, is_over: Callable[[], bool]) -> bool:
    """Block until the feed is at `seq`, and say so; False when the time is up or `is_over`.

    Whoever makes it over calls `feed.wake`. Raises `TableNotFound` after a drop.
    """
    deadline = time.monotonic() + timeout_seconds
    while feed.high_water < seq:
        remaining = deadline - time.monotonic()
        if remaining <= 0 or is_over():
            return False
        feed.wait(seq - 1, remaining)
        feed.check_since(feed.high_water, None)
    return True
