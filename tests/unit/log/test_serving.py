"""The serving side of the feed (`flightsql/feeds.py`) over an `OpLog`, without a network."""

from __future__ import annotations

import pyarrow as pa
import pytest

from flight_replica.errors import LogGap, StatementNotFound, TableNotFound, Unavailable
from flight_replica.flightsql import feeds
from flight_replica.log.wire import decode_feed_metadata, decode_mark, feed_metadata
from flight_replica.schema import Column, TableSchema
from tests.unit.log.op_lists import (
    LINEAGE,
    OTHER_LINEAGE,
    SCHEMA,
    WIDER,
    commit,
    filled_log,
    new_log,
    op_batch,
)


def never() -> bool:
    return False


def test_a_bounded_plan_states_the_table_and_the_range() -> None:
    log = filled_log([2, 3])
    schema, mark = feeds.bounded(log, 1, LINEAGE)
    assert decode_feed_metadata(schema.metadata) == ("orders", LINEAGE, SCHEMA)
    assert (mark.after, mark.through, mark.commit_through, mark.commit_time_us) == (1, 5, 5, 5)


def test_a_bounded_stream_gives_the_range_of_its_plan_under_its_schema() -> None:
    log = filled_log([2, 3])
    schema, mark = feeds.bounded(log, 1, None)
    log.change_schema(WIDER)
    commit(log)
    table = pa.Table.from_batches(feeds.bounded_batches(log, 1, mark.through, schema))
    assert table.column("seq").to_pylist() == [2, 3, 4, 5]
    assert table.schema.names == schema.names


def test_batches_hold_a_mebibyte_at_most_or_one_row() -> None:
    wide = TableSchema((Column("id", pa.int64(), False), Column("v", pa.binary())), ("id",))
    log = new_log()
    log.change_schema(wide)
    ids = op_batch([1, 2, 3, 4])
    values = pa.array([b"x" * 400_000, b"x" * 400_000, b"x" * 3_000_000, b"x"])
    log.append(
        pa.RecordBatch.from_arrays([*ids.columns[:4], values], schema=wide.feed_schema),
        through=4,
        commit_time_us=0,
    )
    sizes = [(b.num_rows, b.nbytes <= feeds.BATCH_BYTES_MAX) for b in feeds.bounded_batches(log, 0, 4)]
    assert sum(rows for rows, _ in sizes) == 4
    assert all(is_small or rows == 1 for rows, is_small in sizes)


def test_a_lineage_that_differs_is_a_gap() -> None:
    log = filled_log([2])
    for plan in (feeds.bounded, feeds.follow):
        with pytest.raises(LogGap):
            plan(log, 0, OTHER_LINEAGE)


def test_a_bounded_plan_of_a_replica_waits_for_since_and_then_gives_up() -> None:
    log = new_log(is_cascading=True)
    log.append(op_batch([1, 2]), through=2, commit_time_us=0, high_water=5)
    with pytest.raises(Unavailable, match="visible is seq 0"):
        feeds.bounded(log, 2, None, wait_seconds=0.01)
    log.publish(2)
    assert feeds.bounded(log, 2, None)[1].through == 2


def test_a_follow_stream_says_something_at_once_then_each_commit() -> None:
    log = filled_log([2])
    messages = feeds.follow_batches(log, 2, never)
    ops, data = next(messages)
    assert (ops.num_rows, decode_mark(data).through) == (0, 2)
    commit(log, 3)
    ops, data = next(messages)
    assert (ops.num_rows, decode_mark(data).after, decode_mark(data).through) == (3, 2, 5)


def test_a_follow_stream_sends_commits_that_wait_together() -> None:
    log = filled_log([1] * 50)
    ops, data = next(feeds.follow_batches(log, 0, never))
    assert (ops.num_rows, decode_mark(data).commit_through) == (50, 50)


def test_a_follow_stream_says_heartbeats() -> None:
    messages = feeds.follow_batches(filled_log([2], heartbeat_ms=1), 2, never)
    assert [next(messages)[0].num_rows for _ in range(3)] == [0, 0, 0]


def test_a_heartbeat_is_due_before_its_interval_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    """Waking up and sending take time too: whoever wakes at the end of the interval is late."""
    log, waits = filled_log([2], heartbeat_ms=50), list[float]()
    monkeypatch.setattr(log, "wait", lambda since, timeout_seconds: waits.append(timeout_seconds))
    messages = feeds.follow_batches(log, 2, never)
    assert [next(messages)[0].num_rows for _ in range(2)] == [0, 0]
    assert max(waits) < 0.045


def test_a_follow_stream_ends_when_it_is_over() -> None:
    answers = iter([False, False, True])
    log = filled_log([2], heartbeat_ms=1)
    assert len(list(feeds.follow_batches(log, 2, lambda: next(answers)))) <= 2


def test_a_follow_stream_ends_after_the_last_op_of_its_schema() -> None:
    log = filled_log([2])
    schema = feeds.follow(log, 0, None)
    log.change_schema(WIDER)
    commit(log)
    batches = [ops for ops, _ in feeds.follow_batches(log, 0, never, schema)]
    assert [ops.column(0).to_pylist() for ops in batches] == [[1, 2]]
    assert batches[0].schema.names == SCHEMA.feed_schema.names


def test_a_follow_stream_that_retention_passes_raises_a_gap() -> None:
    log = filled_log([2])
    messages = feeds.follow_batches(log, 2, never)
    next(messages)
    commit(log, 3)
    log.trim(5)
    with pytest.raises(LogGap):
        next(messages)


def test_a_follow_stream_of_a_dropped_table_is_not_found() -> None:
    log = filled_log([2])
    messages = feeds.follow_batches(log, 2, never)
    next(messages)
    log.drop()
    with pytest.raises(TableNotFound):
        next(messages)


def test_a_plan_whose_schema_the_table_never_had_is_not_found() -> None:
    schema = feeds.follow(filled_log([1]), 0, None)
    other = TableSchema((Column("id", pa.int32(), False),), ("id",))
    planned = schema.with_metadata(feed_metadata("orders", LINEAGE, other))
    with pytest.raises(StatementNotFound):
        next(feeds.follow_batches(filled_log([1]), 0, never, planned))
