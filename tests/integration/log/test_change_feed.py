"""`ChangeFeedLogSource` when the network or the feed misbehaves, over real sockets."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace

import pyarrow as pa
import pytest

from flight_replica.errors import ConfigError, LogGap, TableNotFound, Unavailable
from flight_replica.log.backoff import BackoffConfig
from flight_replica.log.change_feed import ChangeFeedLogSource
from flight_replica.log.op_log import OpLog
from flight_replica.log.source import FeedMark, OpBatch
from tests.faults import Fault, TcpProxy, duplicated, forged, swapped
from tests.integration.log.feed_server import FeedServer
from tests.unit.log.op_lists import (
    LINEAGE,
    OTHER_LINEAGE,
    SCHEMA,
    WIDER,
    commit,
    filled_log,
    op_batch,
    seqs_in,
)

FAST = BackoffConfig(first_seconds=0.001, max_seconds=0.02)


class Link:
    """A log, the server that serves it, a proxy, and a source that reads it through the proxy."""

    def __init__(self, log: OpLog, **options: object) -> None:
        self.log = log
        self.server = FeedServer(log)
        self.proxy = TcpProxy(self.server.port)
        settings: dict[str, object] = {"stall_seconds_min": 0.2, "backoff": FAST} | options
        self.source = ChangeFeedLogSource(f"grpc://127.0.0.1:{self.proxy.port}", log.table, **settings)

    def close(self) -> None:
        self.source.close()
        self.proxy.close()
        self.server.close()


@pytest.fixture
def open_link() -> Iterator[Callable[..., Link]]:
    with contextlib.ExitStack() as stack:

        def open_one(log: OpLog, **options: object) -> Link:
            link = Link(log, **options)
            stack.callback(link.close)
            return link

        yield open_one


def until(stream: Iterator[OpBatch], seq: int) -> list[int]:
    """The seqs of a follow stream through `seq`."""
    seqs: list[int] = []
    for batch in stream:
        seqs += seqs_in([batch])
        if batch.mark.through >= seq:
            return seqs
    raise AssertionError(f"the stream ended before seq {seq}")


def wait_for(condition: Callable[[], bool]) -> None:
    """Until `condition` holds; five seconds at most."""
    deadline = time.monotonic() + 5
    waiting = threading.Event()
    while not condition():
        assert time.monotonic() < deadline, "waited 5 s in vain"
        waiting.wait(0.002)


def feed_threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("feed-")]


# --- broken connections ---------------------------------------------------------------------------


def test_a_cut_connection_loses_and_doubles_nothing(open_link: Callable[..., Link]) -> None:
    link = open_link(filled_log([3], heartbeat_ms=20))
    stream = iter(link.source.follow(0))
    seqs = until(stream, 3)
    for _ in range(5):
        link.proxy.cut()
        commit(link.log, 2)
        seqs += until(stream, link.log.high_water)
    assert seqs == list(range(1, 14))
    assert link.server.follow_count >= 6


def test_a_stream_truncated_in_the_middle_of_a_batch_is_read_again(open_link: Callable[..., Link]) -> None:
    link = open_link(filled_log([20_000], heartbeat_ms=20))
    assert link.source.lineage == LINEAGE
    link.proxy.truncate_after(100_000)
    stream = link.source.follow(0)
    wait_for(lambda: link.source.failure_count > 0)
    link.proxy.heal()
    assert until(iter(stream), 20_000) == list(range(1, 20_001))


def test_a_slow_network_delays_and_loses_nothing(open_link: Callable[..., Link]) -> None:
    link = open_link(filled_log([3], heartbeat_ms=20))
    link.proxy.delay(0.02)
    stream = iter(link.source.follow(0))
    assert until(stream, 3) == [1, 2, 3]
    commit(link.log)
    assert until(stream, 4) == [4]
    offset, error = link.source.clock_offset_us, link.source.clock_error_us
    assert offset is not None and error is not None
    true_offset = time.time_ns() // 1000 - round(time.monotonic() * 1e6)
    assert error >= 20_000 and abs(true_offset - offset) <= error


def test_a_stalled_connection_is_noticed_and_replaced(open_link: Callable[..., Link]) -> None:
    link = open_link(filled_log([3], heartbeat_ms=20))
    stream = iter(link.source.follow(0))
    assert until(stream, 3) == [1, 2, 3]
    link.proxy.stall()
    commit(link.log)
    began = time.monotonic()
    healer = threading.Timer(0.6, link.proxy.heal)
    healer.start()
    assert until(stream, 4) == [4]
    assert link.source.failure_count >= 1
    assert 0.2 <= time.monotonic() - began < 5
    healer.join()


def test_a_server_that_comes_back_is_followed_from_where_it_was(open_link: Callable[..., Link]) -> None:
    link = open_link(filled_log([3], heartbeat_ms=20))
    stream = iter(link.source.follow(0))
    assert until(stream, 3) == [1, 2, 3]
    port = link.server.port
    link.server.close()
    commit(link.log, 2)
    wait_for(lambda: link.source.last_error is not None)
    link.server = FeedServer(link.log, port)
    assert until(stream, 5) == [4, 5]
    wait_for(lambda: link.source.last_error is None)


def test_a_source_follows_a_server_that_is_not_there_yet() -> None:
    log = filled_log([2])
    with TcpProxy(1) as nothing:
        port = nothing.port
    source = ChangeFeedLogSource(f"grpc://127.0.0.1:{port}", log.table, backoff=FAST)
    stream = source.follow(0)
    wait_for(lambda: isinstance(source.last_error, Unavailable))
    server = FeedServer(log, port)
    try:
        assert until(iter(stream), 2) == [1, 2]
    finally:
        source.close()
        server.close()


def test_a_bounded_stream_of_a_server_that_is_not_there_is_unavailable() -> None:
    with TcpProxy(1) as nothing:
        port = nothing.port
    source = ChangeFeedLogSource(f"grpc://127.0.0.1:{port}", "orders")
    with pytest.raises(Unavailable):
        source.stream(0)
    source.close()


def test_a_bounded_stream_that_is_cut_off_is_unavailable(open_link: Callable[..., Link]) -> None:
    link = open_link(filled_log([100_000]))
    assert link.source.latest_seq() == 100_000
    link.proxy.truncate_after(200_000)
    with pytest.raises(Unavailable):
        list(link.source.stream(0))


def test_a_uri_that_means_nothing_is_a_config_error() -> None:
    with pytest.raises(ConfigError, match="nowhere"):
        ChangeFeedLogSource("nowhere", "orders")


# --- closing --------------------------------------------------------------------------------------


@pytest.mark.parametrize("is_read", [True, False], ids=["in a read", "before the first answer"])
def test_closing_in_a_stalled_network_returns_at_once(open_link: Callable[..., Link], is_read: bool) -> None:
    link = open_link(filled_log([3], heartbeat_ms=20), stall_seconds_min=60.0)
    if not is_read:
        link.proxy.stall()
    stream = link.source.follow(0)
    if is_read:
        wait_for(lambda: link.source.last_mark is not None)
        link.proxy.stall()
    consumer = threading.Thread(target=lambda: list(stream))
    consumer.start()
    began = time.monotonic()
    stream.close()
    consumer.join(5)
    assert time.monotonic() - began < 0.2
    assert not consumer.is_alive()


def test_a_server_that_opens_a_stream_and_says_nothing_is_given_up(
    open_link: Callable[..., Link],
) -> None:
    link = open_link(filled_log([3], heartbeat_ms=20))
    link.server.hold()
    stream = link.source.follow(0)
    seqs: list[int] = []
    consumer = threading.Thread(target=lambda: seqs.extend(until(iter(stream), 3)))
    consumer.start()
    wait_for(lambda: link.source.failure_count >= 1)
    link.server.let_go()
    consumer.join(5)
    assert seqs == [1, 2, 3]
    wait_for(lambda: not feed_threads())


def test_every_thread_ends_with_its_stream(open_link: Callable[..., Link]) -> None:
    link = open_link(filled_log([3], heartbeat_ms=20))
    following = iter(link.source.follow(0))
    next(following)
    assert feed_threads() == ["feed-follow-orders"]
    assert seqs_in(link.source.stream(0)) == [1, 2, 3]
    link.source.close()
    wait_for(lambda: not feed_threads())


def test_a_consumer_that_stops_iterating_ends_the_stream(open_link: Callable[..., Link]) -> None:
    link = open_link(filled_log([3], heartbeat_ms=20))
    for _ in link.source.follow(0):
        break
    wait_for(lambda: not feed_threads())


# --- what the feed may not say --------------------------------------------------------------------

Forge = Callable[[pa.RecordBatch, FeedMark], tuple[pa.RecordBatch, FeedMark]]


def with_column(batch: pa.RecordBatch, number: int, values: list[object]) -> pa.RecordBatch:
    columns = batch.columns
    columns[number] = pa.array(values, batch.schema.field(number).type)
    return pa.RecordBatch.from_arrays(columns, schema=batch.schema)


IMPOSSIBLE: dict[str, tuple[Forge, str]] = {
    "another lineage": (lambda b, m: (b, replace(m, lineage=OTHER_LINEAGE)), "lineage"),
    "a hole before it": (lambda b, m: (b, replace(m, after=m.after + 1)), "expected after 0"),
    "a through that goes back": (lambda b, m: (b.slice(0, 0), replace(m, after=3, through=2)), "after seq 3"),
    "a through below after": (
        lambda b, m: (b.slice(0, 0), replace(m, after=0, through=0, commit_through=1)),
        "order",
    ),
    "a through above high_water": (lambda b, m: (b, replace(m, high_water=2)), "high_water 2"),
    "a seq at after": (lambda b, m: (with_column(b, 0, [0, 2, 3]), m), "outside"),
    "a seq above through": (lambda b, m: (with_column(b, 0, [1, 2, 4]), m), "outside"),
    "seqs that go back": (lambda b, m: (with_column(b, 0, [2, 1, 3]), m), "seq 1 follows seq 2"),
    "an unknown op": (lambda b, m: (with_column(b, 1, ["INSERT", "UPSERT", "DELETE"]), m), "UPSERT"),
    "a key too short": (lambda b, m: (with_column(b, 2, [b"\x80" * 8, b"", b"\x80" * 8]), m), "key"),
}


@pytest.mark.statement(15)
@pytest.mark.parametrize("what", IMPOSSIBLE)
def test_an_impossible_batch_is_refused_whole_and_read_again(
    open_link: Callable[..., Link], what: str, caplog: pytest.LogCaptureFixture
) -> None:
    forge, words = IMPOSSIBLE[what]
    link = open_link(filled_log([3], heartbeat_ms=20))
    link.server.fault = forged(forge)
    stream = iter(link.source.follow(0))
    assert until(stream, 3) == [1, 2, 3]
    (warning,) = [record.getMessage() for record in caplog.records if record.name.endswith("origin")]
    assert warning.startswith("feed interrupted table=orders error=feed of table 'orders': ")
    assert words in warning
    assert (link.server.follow_count, link.source.failure_count) == (2, 1)


@pytest.mark.statement(15)
@pytest.mark.parametrize("fault", [duplicated, swapped])
def test_batches_that_come_twice_or_in_another_order_are_never_applied_twice(
    open_link: Callable[..., Link], fault: Fault
) -> None:
    link = open_link(filled_log([1], heartbeat_ms=20))
    link.server.fault = fault
    stream = iter(link.source.follow(0))
    for _ in range(3):
        commit(link.log)
    assert until(stream, 4) == [1, 2, 3, 4]


def test_a_row_that_repeats_seq_and_key_of_the_one_before_is_dropped(
    open_link: Callable[..., Link],
) -> None:
    link = open_link(filled_log([3], heartbeat_ms=20))
    link.server.fault = forged(lambda b, m: (b.take(pa.array([0, 1, 1, 2][: 2 * b.num_rows])), m))
    assert until(iter(link.source.follow(0)), 3) == [1, 2, 3]
    assert link.server.follow_count == 1


# --- gaps, schemas, drops -------------------------------------------------------------------------


def test_a_gap_that_retention_makes_while_cut_off_is_raised(open_link: Callable[..., Link]) -> None:
    link = open_link(filled_log([3], heartbeat_ms=20))
    stream = iter(link.source.follow(0))
    until(stream, 3)
    port = link.server.port
    link.server.close()
    commit(link.log, 2)
    link.log.trim(5)
    link.server = FeedServer(link.log, port)
    with pytest.raises(LogGap) as caught:
        list(stream)
    assert (caught.value.requested, caught.value.earliest_available) == (3, 5)


def test_a_table_created_again_is_a_gap_with_its_new_lineage(open_link: Callable[..., Link]) -> None:
    link = open_link(filled_log([3], heartbeat_ms=20))
    stream = iter(link.source.follow(0))
    until(stream, 3)
    again = OpLog("orders", OTHER_LINEAGE, SCHEMA, bytes_max=1 << 20, clock_us=lambda: 0)
    again.append(op_batch(range(1, 10)), through=9, commit_time_us=0)
    link.server.feed = again
    link.log.drop()
    with pytest.raises(LogGap) as caught:
        list(stream)
    assert caught.value.lineage == OTHER_LINEAGE
    with pytest.raises(LogGap):
        link.source.latest_seq()


def test_a_table_that_is_not_there_is_not_found(open_link: Callable[..., Link]) -> None:
    link = open_link(filled_log([3]))
    missing = ChangeFeedLogSource(link.server.uri, "it's not there")
    with pytest.raises(TableNotFound, match="no table"):
        _ = missing.schema
    with pytest.raises(TableNotFound):
        list(missing.follow(0))
    missing.close()


def test_a_schema_that_changed_while_cut_off_ends_the_stream(open_link: Callable[..., Link]) -> None:
    link = open_link(filled_log([3], heartbeat_ms=20))
    stream = iter(link.source.follow(0))
    until(stream, 3)
    port = link.server.port
    link.server.close()
    link.log.change_schema(WIDER)
    commit(link.log)
    link.server = FeedServer(link.log, port)
    assert seqs_in(stream) == []
    assert link.source.schema == WIDER


def test_a_stream_under_a_schema_that_is_already_old_ends_at_once(open_link: Callable[..., Link]) -> None:
    link = open_link(filled_log([3], heartbeat_ms=20))
    assert link.source.schema == SCHEMA
    link.log.change_schema(WIDER)
    assert seqs_in(link.source.follow(0)) == []
    assert link.source.schema == WIDER


def test_a_stream_that_ends_without_a_schema_change_is_opened_again(open_link: Callable[..., Link]) -> None:
    link = open_link(filled_log([3], heartbeat_ms=20))
    link.server.fault = lambda messages: iter([next(iter(messages))])
    stream = iter(link.source.follow(0))
    assert until(stream, 3) == [1, 2, 3]
    commit(link.log)
    assert until(stream, 4) == [4]
    assert link.server.follow_count == 2


# --- the queue ------------------------------------------------------------------------------------


def test_a_slow_consumer_gets_what_is_queued_as_one_batch(open_link: Callable[..., Link]) -> None:
    link = open_link(filled_log([1], heartbeat_ms=20))
    stream = iter(link.source.follow(0))
    next(stream)
    for seq in range(2, 52):
        commit(link.log)
        wait_for(lambda seq=seq: (link.source.last_mark or next(stream).mark).through >= seq)
    batch = next(stream)
    assert (batch.mark.after, batch.mark.through, batch.mark.commit_through) == (1, 51, 51)
    assert seqs_in([batch]) == list(range(2, 52))


def test_a_consumer_that_does_not_read_bounds_what_is_held(open_link: Callable[..., Link]) -> None:
    limit = 100_000
    link = open_link(filled_log([50_000] * 20), queue_bytes_max=limit)
    stream = link.source.follow(0)
    wait_for(lambda: stream.queued_bytes >= limit)
    sent = wait_until_steady(lambda: len(link.server.batch_sizes))
    assert stream.queued_bytes < limit + (1 << 20)
    assert sum(link.server.batch_sizes[:sent]) < 1_000_000
    assert until(iter(stream), 1_000_000) == list(range(1, 1_000_001))


def wait_until_steady(value: Callable[[], int]) -> int:
    """The value once it hasn't changed for a while."""
    last, since = value(), time.monotonic()
    waiting = threading.Event()
    while time.monotonic() - since < 0.2:
        waiting.wait(0.01)
        if value() != last:
            last, since = value(), time.monotonic()
    return last


def test_the_clock_of_the_origin_is_read_again_after_a_minute(open_link: Callable[..., Link]) -> None:
    moved = [0.0]
    link = open_link(filled_log([1], heartbeat_ms=10), monotonic=lambda: time.monotonic() + moved[0])
    stream = iter(link.source.follow(0))
    next(stream)
    wait_for(lambda: link.server.clock_count == 1)
    moved[0] = 61.0
    wait_for(lambda: next(stream) is not None and link.server.clock_count >= 2)
