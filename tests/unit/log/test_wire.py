"""The feed's messages as bytes and back."""

from __future__ import annotations

import pytest
from google.protobuf.any_pb2 import Any as AnyMessage

from flight_replica._pb import feed_pb2, status_pb2
from flight_replica.errors import FeedError, LogGap, SchemaMismatch
from flight_replica.log.source import FeedMark
from flight_replica.log.wire import (
    decode_feed_metadata,
    decode_log_gap,
    decode_mark,
    decode_name,
    decode_positions,
    encode_log_gap,
    encode_mark,
    encode_name,
    encode_positions,
    feed_metadata,
)
from flight_replica.position import TablePosition
from tests.unit.log.op_lists import LINEAGE, SCHEMA, WIDER

BIG = 2**64 - 1
MARK = FeedMark(LINEAGE, BIG - 2, BIG - 1, 3, BIG, -5, 1_700_000_000_000_000, BIG - 1, 250)


def test_a_mark_comes_back_as_it_was_at_the_ends_of_its_ranges() -> None:
    assert decode_mark(encode_mark(MARK)) == MARK


def test_a_mark_is_the_bare_message() -> None:
    message = feed_pb2.FeedMark.FromString(encode_mark(MARK))
    assert (message.lineage, message.after, message.heartbeat_ms) == (LINEAGE.bytes, BIG - 2, 250)


@pytest.mark.parametrize("data", [b"", b"\xff\xff", feed_pb2.FeedMark(lineage=b"short").SerializeToString()])
def test_bytes_that_are_no_mark_are_a_feed_error(data: bytes) -> None:
    with pytest.raises(FeedError):
        decode_mark(data)


def test_positions_come_back_with_and_without_a_mark() -> None:
    tables = (
        TablePosition("orders", LINEAGE, 1, 2, -3, -1, 4),
        TablePosition("ö", LINEAGE, 0, BIG, 5, 6, BIG),
    )
    assert decode_positions(encode_positions(tables)) == (tables, None)
    assert decode_positions(encode_positions([], MARK)) == ((), MARK)


def test_bytes_that_are_no_positions_are_a_feed_error() -> None:
    with pytest.raises(FeedError):
        decode_positions(b"\xff\xff")


@pytest.mark.parametrize("earliest", [None, 0, 1000])
def test_a_gap_comes_back_out_of_a_status(earliest: int | None) -> None:
    data = encode_log_gap(LogGap(500, earliest, "retention", LINEAGE), 2, "text. Detail: Failed")
    status = status_pb2.Status.FromString(data)
    assert (status.code, status.message, len(status.details)) == (2, "text. Detail: Failed", 1)
    gap = decode_log_gap(data)
    assert gap is not None
    assert (gap.requested, gap.earliest_available, gap.reason, gap.lineage) == (
        500,
        earliest,
        "retention",
        LINEAGE,
    )


def test_a_gap_is_recognised_as_a_bare_any_of_any_prefix() -> None:
    bare = AnyMessage(
        type_url="example.com/merutable.feed.v1.LogGap",
        value=feed_pb2.LogGap(requested=7, reason="gone").SerializeToString(),
    )
    gap = decode_log_gap(bare.SerializeToString())
    assert gap is not None
    assert (gap.requested, gap.earliest_available, gap.lineage) == (7, None, None)


@pytest.mark.parametrize("data", [None, b"", b"\xff\xff", b"plain text", encode_mark(MARK)])
def test_other_extra_info_is_no_gap(data: bytes | None) -> None:
    assert decode_log_gap(data) is None


def test_feed_metadata_defines_the_table() -> None:
    metadata = feed_metadata("örders", LINEAGE, WIDER)
    assert metadata[b"merutable.lineage"] == str(LINEAGE).encode()
    assert metadata[b"merutable.primary_key"] == b'["id"]'
    assert decode_feed_metadata(metadata) == ("örders", LINEAGE, WIDER)


@pytest.mark.parametrize("key", ["lineage", "table", "primary_key", "schema"])
def test_feed_metadata_without_one_of_its_keys_is_a_feed_error(key: str) -> None:
    metadata = feed_metadata("orders", LINEAGE, SCHEMA)
    del metadata[f"merutable.{key}".encode()]
    with pytest.raises(FeedError, match=key):
        decode_feed_metadata(metadata)


@pytest.mark.parametrize(
    ("key", "value"),
    [("lineage", b"x"), ("primary_key", b'["v"]'), ("primary_key", b"{"), ("table", b"\xff")],
)
def test_feed_metadata_that_contradicts_itself_is_a_feed_error(key: str, value: bytes) -> None:
    metadata = feed_metadata("orders", LINEAGE, SCHEMA) | {f"merutable.{key}".encode(): value}
    with pytest.raises(FeedError):
        decode_feed_metadata(metadata)


@pytest.mark.parametrize("name", ["orders", "a=b,c", "größe", "50%", "sales/eu", " "])
def test_a_name_travels_in_a_header_as_ascii(name: str) -> None:
    text = encode_name(name)
    assert text.isascii() and not set(text) & set("=, /")
    assert decode_name(text) == name


def test_a_name_that_is_not_utf8_is_refused() -> None:
    with pytest.raises(SchemaMismatch, match="%FF"):
        decode_name("%FF")
