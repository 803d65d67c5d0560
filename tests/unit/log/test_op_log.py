"""`OpLog`: retention, bounds, schemas and waiting. What every feed does: the contract of log sources."""

from __future__ import annotations

import threading
from itertools import accumulate

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flight_replica.errors import LogGap, TableNotFound, Unavailable
from flight_replica.log.op_log import OpLog
from flight_replica.log.source import OpBatch
from tests.unit.log.op_lists import (
    LINEAGE,
    NOW_US,
    OTHER_LINEAGE,
    SCHEMA,
    WIDER,
    commit,
    filled_log,
    new_log,
    op_batch,
    seqs_in,
)

ALL = 1 << 40  # more bytes than any log here has


def read_on(log: OpLog, since: int, through: int, byte_limit: int) -> list[OpBatch]:
    found: list[OpBatch] = []
    while since < through:
        found.append(log.read(since, through, byte_limit))
        since = found[-1].mark.through
    return found


@given(st.lists(st.integers(1, 30), min_size=1, max_size=12), st.data())
@settings(max_examples=60, deadline=None)
def test_any_range_in_any_portions_gives_each_op_once(sizes: list[int], data: st.DataObject) -> None:
    log = filled_log(sizes)
    newest = sum(sizes)
    since = data.draw(st.integers(0, newest))
    through = data.draw(st.integers(since, newest))
    byte_limit = data.draw(st.integers(1, 2000))
    batches = read_on(log, since, through, byte_limit)
    assert seqs_in(batches) == list(range(since + 1, through + 1))
    ends = [0, *accumulate(sizes)]
    position = since
    for batch in batches:
        assert batch.ops.num_rows == 1 or batch.ops.nbytes <= byte_limit
        mark = batch.mark
        assert mark.after == position
        assert mark.commit_through == max(end for end in ends if end <= mark.through)
        assert mark.commit_time_us == min(end for end in ends if end >= mark.through)
        position = mark.through


def test_one_large_batch_is_cut_without_a_copy() -> None:
    log = filled_log([1000])
    whole = log.read(0, None, ALL).ops
    part = log.read(500, None, 10_000).ops
    assert part.column(3).buffers()[1].address == whole.column(3).buffers()[1].address


def test_a_range_without_ops_is_proven_by_a_mark_alone() -> None:
    log = filled_log([2])
    log.append(op_batch([]), through=9, commit_time_us=5)
    batch = log.read(2, None, ALL)
    assert (batch.ops.num_rows, batch.mark.after, batch.mark.through) == (0, 2, 9)


def test_ops_of_one_seq_are_never_cut_apart() -> None:
    log = new_log()
    log.append(op_batch([1, 2, 2, 2, 3]), through=3, commit_time_us=0)
    batches = read_on(log, 0, 3, 1)
    assert [seqs_in([batch]) for batch in batches] == [[1], [2, 2, 2], [3]]


# --- retention ------------------------------------------------------------------------------------


def test_old_ops_go_when_the_limit_is_reached_and_low_water_says_so() -> None:
    log = filled_log([1] * 200, bytes_max=100_000)
    assert 0 < log.low_water < 200
    assert log.held_bytes <= 100_000
    assert seqs_in([log.read(log.low_water, None, ALL)]) == list(range(log.low_water + 1, 201))


def test_a_read_below_low_water_is_a_gap() -> None:
    log = filled_log([2, 2, 2])
    log.trim(4)
    with pytest.raises(LogGap) as caught:
        log.read(3, None, ALL)
    assert (caught.value.requested, caught.value.earliest_available, caught.value.lineage) == (3, 4, LINEAGE)
    assert seqs_in([log.read(4, None, ALL)]) == [5, 6]


def test_trimming_keeps_a_commit_that_is_only_partly_below() -> None:
    log = filled_log([2, 3])
    log.trim(4)
    assert log.low_water == 2


def test_the_newest_commit_stays_however_large_it_is() -> None:
    log = filled_log([10, 1000], bytes_max=1)
    assert log.low_water == 10
    assert len(seqs_in([log.read(10, None, ALL)])) == 1000


def test_readers_never_see_ops_below_low_water_while_it_moves() -> None:
    log = filled_log([1], bytes_max=20_000)
    over = threading.Event()
    wrong: list[object] = []

    def read() -> None:
        position = 0
        while not over.is_set():
            try:
                batch = log.read(position, None, 1000)
            except LogGap as gap:
                position = gap.earliest_available or 0
                continue
            if seqs_in([batch]) != list(range(position + 1, batch.mark.through + 1)):
                wrong.append(batch)
            position = batch.mark.through

    readers = [threading.Thread(target=read) for _ in range(2)]
    for reader in readers:
        reader.start()
    for _ in range(500):
        commit(log, 3)
    over.set()
    for reader in readers:
        reader.join()
    assert wrong == []


def test_another_lineage_is_a_gap() -> None:
    with pytest.raises(LogGap, match=str(OTHER_LINEAGE)):
        new_log().check_since(0, OTHER_LINEAGE)


def test_a_since_above_the_newest_seq_is_a_gap() -> None:
    with pytest.raises(LogGap):
        filled_log([2]).read(3, None, ALL)


# --- schemas --------------------------------------------------------------------------------------


def test_each_schema_version_can_be_read_to_its_end() -> None:
    log = filled_log([2])
    log.change_schema(WIDER)
    commit(log, 2)
    assert (log.schema_version, log.schema_end(0), log.schema_end(1)) == (1, 2, None)
    assert (log.schema_at(0), log.schema) == (SCHEMA, WIDER)
    old, new = log.read(0, None, ALL, 0), log.read(0, None, ALL)
    assert (seqs_in([old]), old.ops.schema.names) == ([1, 2], SCHEMA.feed_schema.names)
    assert new.ops.column("note").to_pylist() == ["none", "none", "note", "note"]


def test_a_delete_without_pre_image_can_be_read_in_a_newer_schema() -> None:
    log = new_log()
    columns = op_batch([1], op="DELETE").columns[:3]
    bare = pa.RecordBatch.from_arrays([*columns, *[pa.nulls(1, pa.int64())] * 2], schema=SCHEMA.feed_schema)
    log.append(bare, through=1, commit_time_us=0)
    log.change_schema(WIDER)
    assert log.read(0, None, ALL).ops.column("id").to_pylist() == [None]


# --- cascading ------------------------------------------------------------------------------------


def cascading_log() -> OpLog:
    """Ops through 6, of which 4 are published, of an origin that was at 10 when it was heard."""
    log = new_log(is_cascading=True)
    log.append(op_batch(range(1, 5)), through=4, commit_time_us=1, high_water=8, sent_time_us=50)
    log.publish(4)
    log.append(
        op_batch([5, 6]), through=6, commit_through=4, commit_time_us=2, high_water=10, sent_time_us=60
    )
    return log


def test_readers_of_a_replica_see_what_is_published_and_the_origins_times() -> None:
    log = cascading_log()
    batch = log.read(0, None, ALL)
    assert seqs_in([batch]) == [1, 2, 3, 4]
    assert (log.high_water, batch.mark.high_water, batch.mark.sent_time_us) == (4, 10, 60)
    assert not batch.mark.is_caught_up


def test_a_heartbeat_of_the_origin_is_passed_on() -> None:
    log = cascading_log()
    log.note(11, 70)
    mark = log.read(4, None, ALL).mark
    assert (mark.through, mark.high_water, mark.sent_time_us) == (4, 11, 70)


def test_a_since_that_is_known_but_not_visible_waits() -> None:
    log = cascading_log()
    log.check_since(10, LINEAGE)
    batch = log.read(10, None, ALL)
    assert (batch.ops.num_rows, batch.mark.after, batch.mark.through) == (0, 10, 10)
    assert not log.wait(10, 0.0)


def test_a_since_that_a_replica_has_not_heard_of_is_unavailable() -> None:
    with pytest.raises(Unavailable):
        cascading_log().check_since(11, LINEAGE)


def test_what_is_not_published_is_not_trimmed() -> None:
    log = cascading_log()
    log.trim(6)
    assert log.low_water == 4


def test_the_owner_of_a_replicas_log_reads_what_is_not_published() -> None:
    log = cascading_log()
    assert (log.newest_seq, log.high_water) == (6, 4)
    assert seqs_in([log.read_received(4, ALL)]) == [5, 6]


def test_a_restart_forgets_what_came_after_its_seq() -> None:
    log = cascading_log()
    log.restart(5)
    log.append(op_batch([6, 7]), through=7, commit_time_us=3, high_water=10)
    assert seqs_in([log.read_received(0, ALL)]) == [1, 2, 3, 4, 5, 6, 7]


def test_a_restart_beyond_the_end_leaves_no_hole_to_readers() -> None:
    log = cascading_log()
    log.restart(20)
    assert (log.low_water, log.newest_seq) == (20, 20)
    with pytest.raises(LogGap):
        log.read(4, None, ALL)


def test_a_restart_ends_an_old_schema_no_later_than_its_seq() -> None:
    log = cascading_log()
    log.change_schema(WIDER)
    log.restart(5)
    assert log.schema_end(0) == 5


# --- waiting --------------------------------------------------------------------------------------


@pytest.mark.parametrize("event", ["commit", "drop", "wake", "schema"])
def test_waiting_ends_when_something_happens(event: str) -> None:
    log = filled_log([2])
    results: list[bool] = []
    waiter = threading.Thread(target=lambda: results.append(log.wait(2, 30)))
    waiter.start()
    while waiter.is_alive():  # the waiter may not wait yet when the first one happens
        if event == "commit":
            commit(log)
        elif event == "drop":
            log.drop()
        elif event == "wake":
            log.wake()
        else:
            log.change_schema(WIDER)
        waiter.join(0.01)
    assert results == [event == "commit"]


def test_waiting_ends_when_the_time_is_up() -> None:
    assert not filled_log([2]).wait(2, 0.001)


def test_a_dropped_table_is_not_found() -> None:
    log = filled_log([2])
    log.drop()
    with pytest.raises(TableNotFound, match="orders"):
        log.read(0, None, ALL)
    with pytest.raises(TableNotFound):
        log.check_since(0, None)


def test_marks_carry_the_clock_of_the_log() -> None:
    assert filled_log([2]).read(2, None, ALL).mark.sent_time_us == NOW_US
