"""The contract that every `LogSource` keeps, over the same `OpLog`: in this process and over Flight.

Over Flight means the smallest server that a feed client needs; over Flight SQL, the real one.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from itertools import pairwise
from typing import Protocol

import pyarrow as pa
import pytest

from flight_replica.errors import Closed, LogGap, TableNotFound
from flight_replica.flightsql.server import FlightSqlServer
from flight_replica.log.change_feed import ChangeFeedLogSource
from flight_replica.log.in_process import InProcessLogSource
from flight_replica.log.op_log import OpLog
from flight_replica.log.source import LogSource, Op, OpBatch
from tests.integration.log.feed_server import FeedServer
from tests.integration.log.feed_service import FeedService
from tests.unit.log.op_lists import (
    LINEAGE,
    NOW_US,
    SCHEMA,
    WIDER,
    commit,
    filled_log,
    new_log,
    op_batch,
    seqs_in,
)

KINDS = ["in process", "over Flight", "over Flight SQL"]


class Closing(Protocol):
    def close(self) -> None: ...


class Bench:
    """Makes sources of one kind over any log, and ends them."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._closing: list[Closing] = []

    def source(self, log: OpLog) -> LogSource:
        if self.kind == "in process":
            source: LogSource = InProcessLogSource(log)
        else:
            source = ChangeFeedLogSource(self._serve(log), log.table)
        self._closing.append(source)
        return source

    def _serve(self, log: OpLog) -> str:
        if self.kind == "over Flight":
            server = FeedServer(log)
            self._closing.append(server)
            return server.uri
        service = FeedService(log)
        real = FlightSqlServer(service, "127.0.0.1", 0)
        self._closing += [service, real]
        return f"grpc://127.0.0.1:{real.port}"

    def close(self) -> None:
        for item in reversed(self._closing):
            item.close()


@pytest.fixture(params=KINDS)
def bench(request: pytest.FixtureRequest) -> Iterator[Bench]:
    bench = Bench(request.param)
    yield bench
    bench.close()


def until(stream: Iterator[OpBatch], seq: int) -> list[OpBatch]:
    """Batches of a follow stream through `seq`."""
    found = []
    for batch in stream:
        found.append(batch)
        if batch.mark.through >= seq:
            return found
    raise AssertionError(f"the stream ended before seq {seq}")


def assert_joined(batches: list[OpBatch], since: int) -> None:
    assert batches[0].mark.after == since
    assert all(first.mark.through == second.mark.after for first, second in pairwise(batches))
    for batch in batches:
        assert all(batch.mark.after < seq <= batch.mark.through for seq in seqs_in([batch]))


@pytest.mark.statement(1)
def test_stream_from_zero_gives_every_op_in_ascending_order(bench: Bench) -> None:
    batches = list(bench.source(filled_log([1, 1, 1])).stream(0))
    assert seqs_in(batches) == [1, 2, 3]
    assert {record.op for batch in batches for record in batch.records()} == {Op.INSERT}
    assert_joined(batches, 0)


@pytest.mark.statement(2, 82)
def test_stream_gives_only_ops_after_since(bench: Bench) -> None:
    assert seqs_in(bench.source(filled_log([1, 1])).stream(1)) == [2]


@pytest.mark.statement(3)
def test_stream_from_the_newest_seq_is_empty(bench: Bench) -> None:
    assert seqs_in(bench.source(filled_log([3])).stream(3)) == []


@pytest.mark.statement(4, 99)
def test_stream_from_above_the_newest_seq_is_a_gap(bench: Bench) -> None:
    with pytest.raises(LogGap) as caught:
        list(bench.source(filled_log([3])).stream(4))
    assert (caught.value.requested, caught.value.lineage) == (4, LINEAGE)


@pytest.mark.statement(5, 13)
def test_latest_seq_is_the_newest_one_at_the_time_of_the_call(bench: Bench) -> None:
    log = filled_log([5])
    source = bench.source(log)
    assert source.latest_seq() == 5
    commit(log)
    assert source.latest_seq() == 6


@pytest.mark.statement(6)
def test_an_op_after_latest_seq_was_asked_for_is_given_all_the_same(bench: Bench) -> None:
    log = filled_log([5])
    source = bench.source(log)
    assert source.latest_seq() == 5
    commit(log)
    assert seqs_in(source.stream(0)) == [1, 2, 3, 4, 5, 6]


@pytest.mark.statement(84)
def test_a_table_without_ops_gives_an_empty_stream(bench: Bench) -> None:
    source = bench.source(new_log())
    assert (seqs_in(source.stream(0)), source.latest_seq()) == ([], 0)


@pytest.mark.statement(98)
def test_a_source_read_to_its_end_gives_what_comes_later_from_there(bench: Bench) -> None:
    log = filled_log([1] * 50)
    source = bench.source(log)
    assert seqs_in(source.stream(0)) == list(range(1, 51))
    for _ in range(50):
        commit(log)
    assert seqs_in(source.stream(50)) == list(range(51, 101))


@pytest.mark.statement(8)
def test_a_bounded_stream_ends_at_the_seq_it_was_opened_at(bench: Bench) -> None:
    log = filled_log([1] * 5)
    stream = bench.source(log).stream(0)
    for _ in range(11):
        commit(log)
    batches = list(stream)
    assert seqs_in(batches) == [1, 2, 3, 4, 5]
    assert batches[-1].mark.through == 5


@pytest.mark.statement(9)
def test_a_bounded_stream_ends_while_a_writer_goes_on(bench: Bench) -> None:
    log = filled_log([100])
    over = threading.Event()

    def write() -> None:
        while not over.is_set():
            commit(log)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        batches = list(bench.source(log).stream(0))
    finally:
        over.set()
        writer.join()
    assert seqs_in(batches) == list(range(1, batches[-1].mark.through + 1))


@pytest.mark.statement(10)
def test_more_ops_than_one_batch_holds_come_once_and_ascending(bench: Bench) -> None:
    batches = list(bench.source(filled_log([10_000, 1, 5_000])).stream(0))
    assert seqs_in(batches) == list(range(1, 15_002))
    assert_joined(batches, 0)


@pytest.mark.statement(11, 12)
def test_deletes_carry_their_key_and_their_pre_image(bench: Bench) -> None:
    log = filled_log([1])
    log.append(op_batch([2], op="DELETE"), through=2, commit_time_us=2)
    records = [record for batch in bench.source(log).stream(0) for record in batch.records()]
    assert [(record.op, record.pk_bytes, record.row) for record in records] == [
        (Op.INSERT, bytes.fromhex("8000000000000001"), {"id": 1, "v": 1}),
        (Op.DELETE, bytes.fromhex("8000000000000002"), {"id": 2, "v": 2}),
    ]


@pytest.mark.statement(13, 14, 79, 80)
def test_a_gap_says_what_was_asked_for_what_there_is_and_why(bench: Bench) -> None:
    source = bench.source(new_log(start=1000))
    for _ in range(2):
        with pytest.raises(LogGap) as caught:
            list(source.stream(500))
        gap = caught.value
        assert (gap.requested, gap.earliest_available, gap.lineage) == (500, 1000, LINEAGE)
        assert "500" in str(gap) and "1000" in str(gap) and gap.reason in str(gap)


def test_a_source_knows_lineage_and_schema_of_a_log_that_begins_late(bench: Bench) -> None:
    source = bench.source(new_log(start=1000))
    assert (source.lineage, source.schema) == (LINEAGE, SCHEMA)


def test_following_gives_what_is_there_then_each_commit(bench: Bench) -> None:
    log = filled_log([2])
    stream = iter(bench.source(log).follow(0))
    batches = until(stream, 2)
    commit(log, 3)
    batches += until(stream, 5)
    commit(log)
    batches += until(stream, 6)
    assert seqs_in(batches) == [1, 2, 3, 4, 5, 6]
    assert_joined(batches, 0)
    assert [batch.mark.commit_through for batch in batches if batch.ops.num_rows] == [2, 5, 6]


def test_following_from_the_newest_seq_proves_at_once_that_nothing_is_missing(bench: Bench) -> None:
    batch = next(iter(bench.source(filled_log([2])).follow(2)))
    assert batch.ops.num_rows == 0 and batch.ops.schema.names == SCHEMA.feed_schema.names
    assert batch.mark.is_caught_up and batch.mark.sent_time_us == NOW_US


def test_following_says_heartbeats_when_nothing_happens(bench: Bench) -> None:
    source = bench.source(filled_log([2], heartbeat_ms=10))
    stream = iter(source.follow(2))
    marks = [next(stream).mark for _ in range(3)]
    assert {(mark.after, mark.through, mark.is_caught_up) for mark in marks} == {(2, 2, True)}
    assert source.last_mark is not None and source.last_mark_at is not None


def test_a_commit_that_comes_in_parts_ends_with_its_last_part(bench: Bench) -> None:
    log = filled_log([2])
    stream = iter(bench.source(log).follow(2))
    next(stream)
    log.append(op_batch([3, 4]), through=4, commit_through=2, commit_time_us=9, high_water=5)
    mark = until(stream, 4)[-1].mark
    assert (mark.through, mark.commit_through, mark.high_water) == (4, 2, 5)
    log.append(op_batch([5]), through=5, commit_time_us=9)
    mark = until(stream, 5)[-1].mark
    assert (mark.through, mark.commit_through, mark.commit_time_us) == (5, 5, 9)


def test_following_ends_after_the_last_op_of_the_old_schema(bench: Bench) -> None:
    log = filled_log([2])
    source = bench.source(log)
    assert source.schema == SCHEMA
    stream = iter(source.follow(0))
    batches = until(stream, 2)
    log.append(op_batch([3]), through=3, commit_time_us=3)
    log.change_schema(WIDER)
    commit(log, 2)
    batches += stream
    assert seqs_in(batches) == [1, 2, 3]
    assert {batch.ops.schema.names[-1] for batch in batches} == {"v"}


def test_following_again_after_a_schema_change_gives_the_rest_in_the_new_schema(bench: Bench) -> None:
    log = filled_log([2])
    source = bench.source(log)
    assert source.schema == SCHEMA
    stream = iter(source.follow(0))
    position = until(stream, 2)[-1].mark.through
    log.change_schema(WIDER)
    commit(log, 2)
    assert seqs_in(stream) == []
    assert source.schema == WIDER
    assert seqs_in(until(iter(source.follow(position)), 4)) == [3, 4]


def test_older_ops_have_new_columns_as_their_default(bench: Bench) -> None:
    log = filled_log([2])
    log.change_schema(WIDER)
    commit(log)
    table = pa.Table.from_batches([batch.ops for batch in bench.source(log).stream(0) if batch.ops.num_rows])
    assert table.column("note").to_pylist() == ["none", "none", "note"]


def test_a_reader_that_retention_passes_gets_a_gap_and_no_op_after_it(bench: Bench) -> None:
    log = filled_log([2])
    stream = iter(bench.source(log).follow(2))
    next(stream)
    log.append(op_batch([3]), through=3, commit_time_us=3)
    until(stream, 3)
    with pytest.raises(LogGap):
        for _ in range(1000):
            commit(log)
            log.trim(log.high_water)
            next(stream)


def test_a_dropped_table_ends_a_follow_stream_as_not_found(bench: Bench) -> None:
    log = filled_log([2])
    stream = iter(bench.source(log).follow(2))
    next(stream)
    log.drop()
    with pytest.raises(TableNotFound):
        list(stream)


def test_closing_a_stream_ends_its_iteration(bench: Bench) -> None:
    stream = bench.source(filled_log([2], heartbeat_ms=50)).follow(2)
    arrived = threading.Event()
    batches: list[OpBatch] = []

    def consume() -> None:
        for batch in stream:
            batches.append(batch)
            arrived.set()

    consumer = threading.Thread(target=consume)
    consumer.start()
    assert arrived.wait(5)
    stream.close()
    consumer.join(5)
    assert not consumer.is_alive()


def test_a_closed_source_ends_its_streams_and_opens_none(bench: Bench) -> None:
    source = bench.source(filled_log([2], heartbeat_ms=50))
    stream = iter(source.follow(2))
    next(stream)
    source.close()
    assert seqs_in(stream) == []
    with pytest.raises(Closed):
        source.follow(2)
    with pytest.raises(Closed):
        source.stream(2)


def test_the_clock_of_the_origin_is_known_within_its_error(bench: Bench) -> None:
    source = bench.source(filled_log([2]))
    next(iter(source.follow(2)))
    offset, error = source.clock_offset_us, source.clock_error_us
    assert offset is not None and error is not None
    distance = time.time_ns() // 1000 - round(time.monotonic() * 1e6) - offset
    assert abs(distance) <= error + 50_000


@pytest.mark.statement(83, 95, 97)
@pytest.mark.parametrize(
    ("op_count", "batch_size", "sizes"),
    [(5, 2, [2, 2, 1]), (500, 100, [100] * 5), (500, 10_000, [500]), (250, 7, [7] * 35 + [5])],
)
@pytest.mark.parametrize("is_one_commit", [True, False])
def test_batches_have_the_size_asked_for_and_each_begins_where_the_last_one_ended(
    op_count: int, batch_size: int, sizes: list[int], is_one_commit: bool
) -> None:
    log = filled_log([op_count] if is_one_commit else [1] * op_count)
    source = InProcessLogSource(log).with_batch_size(batch_size)
    batches = list(source.stream(0))
    assert [batch.ops.num_rows for batch in batches] == sizes
    assert seqs_in(batches) == list(range(1, op_count + 1))
    assert_joined(batches, 0)
    assert list(source.stream(op_count)) == []


@pytest.mark.statement(95, 97)
@pytest.mark.parametrize("size", [1, 100, 499, 500])
def test_a_stream_can_be_left_and_taken_up_again_at_the_position_reached(size: int) -> None:
    source = InProcessLogSource(filled_log([1] * 500)).with_batch_size(size)
    position, found = 0, list[OpBatch]()
    while position < 500:
        batch = next(iter(source.stream(position)))
        found.append(batch)
        position = batch.mark.through
    assert seqs_in(found) == list(range(1, 501))
    assert_joined(found, 0)


class CountingLog(OpLog):
    """An `OpLog` that counts the ops it gives out."""

    given = 0

    def read(
        self, since: int, through: int | None, byte_limit: int, schema_version: int | None = None
    ) -> OpBatch:
        batch = super().read(since, through, byte_limit, schema_version)
        self.given += batch.ops.num_rows
        return batch


def counting_log(op_count: int) -> CountingLog:
    log = CountingLog("orders", LINEAGE, SCHEMA, bytes_max=1 << 30, clock_us=lambda: NOW_US)
    for _ in range(op_count):
        commit(log)
    return log


@pytest.mark.statement(96)
def test_draining_in_small_batches_reads_each_op_once() -> None:
    log = counting_log(10_000)
    began = time.monotonic()
    batches = list(InProcessLogSource(log).with_batch_size(1024).stream(0))
    assert time.monotonic() - began < 5
    assert seqs_in(batches) == list(range(1, 10_001))
    assert log.given == 10_000


@pytest.mark.statement(99)
def test_a_stream_from_the_newest_seq_reads_no_op() -> None:
    log = counting_log(3)
    assert list(InProcessLogSource(log).stream(3)) == []
    assert log.given == 0


@pytest.mark.statement(7)
@pytest.mark.parametrize("size", [0, 1, 2, 3])
def test_a_batch_size_below_one_acts_as_one(size: int) -> None:
    source = InProcessLogSource(filled_log([3])).with_batch_size(size)
    batches = list(source.stream(0))
    assert seqs_in(batches) == [1, 2, 3]
    assert max(batch.ops.num_rows for batch in batches) == max(size, 1)
    assert_joined(batches, 0)
    assert batches[-1].mark.commit_through == 3
    assert all(batch.mark.commit_through in (0, 3) for batch in batches)
