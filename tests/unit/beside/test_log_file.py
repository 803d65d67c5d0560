"""The bytes of one log file, cut, grown, damaged. Written by `tests/log_writing.py`, read by the decoder."""

from __future__ import annotations

import struct
from collections.abc import Sequence

import pytest

from flight_replica.beside.log_file import EndKind, LogFileDecoder, WriteBatch, find_record
from flight_replica.log.source import Op
from tests.log_writing import BLOCK, DELETE, PUT, LogOp, batch, fragment, int_key, pieces, row, varint


def log_of(batches: Sequence[Sequence[LogOp]], first_seq: int = 1) -> tuple[bytes, list[int]]:
    """A log file with these batches, and the offset behind each."""
    data, ends, seq = b"", [], first_seq
    for ops in batches:
        data += b"".join(pieces(batch(seq, ops), len(data)))
        ends.append(len(data))
        seq += len(ops)
    return data, ends


def put(number: int, size: int = 0) -> LogOp:
    return PUT, int_key(number), row(number, bytes(size))


def decoded(data: bytes) -> tuple[list[WriteBatch], LogFileDecoder]:
    decoder = LogFileDecoder(1)
    batches: list[WriteBatch] = []
    while True:
        before = decoder.position
        batches += decoder.decode(data[before:])
        if decoder.position == before:
            return batches, decoder


def filling(position: int, room_left: int) -> list[LogOp]:
    """One put whose record begins at `position` and ends `room_left` bytes before its block does."""
    empty = len(b"".join(pieces(batch(1, [put(1)]), 0)))
    size = BLOCK - room_left - position % BLOCK - empty - 4  # two longer varints: row and bytes, 3 bytes each
    return [put(1, size)]


def test_ops_come_in_order_with_their_seqs_keys_and_values() -> None:
    ops = [(PUT, b"k1", b"v1"), (DELETE, b"k2", b""), (DELETE, b"k" * 200, b"pre" * 100)]
    data, ends = log_of([ops[:1], ops[1:]], first_seq=7)
    batches, decoder = decoded(data)
    assert [(b.first_seq, b.last_seq) for b in batches] == [(7, 7), (8, 9)]
    found = [record for b in batches for record in b.records]
    assert [(r.op, r.pk_bytes, r.value) for r in found] == [
        (Op.DELETE if op == DELETE else Op.INSERT, key, value) for op, key, value in ops
    ]
    assert [b.offset for b in batches] == [0, ends[0]]
    assert decoder.end.kind is EndKind.WHOLE and decoder.end.offset == len(data)


@pytest.mark.parametrize("room_left", range(9))
def test_a_record_that_ends_near_a_block_s_end_and_those_behind_it(room_left: int) -> None:
    data, ends = log_of([filling(0, room_left), [put(2)], [put(3, 3 * BLOCK)], [put(4)]])
    assert ends[0] == BLOCK - room_left
    batches, decoder = decoded(data)
    assert [b.first_seq for b in batches] == [1, 2, 3, 4]
    assert decoder.end.kind is EndKind.WHOLE


@pytest.mark.parametrize("room_left", [0, 1, 6, 7, 8, 20])
def test_a_log_cut_at_every_byte_gives_what_is_whole_and_is_never_bad(room_left: int) -> None:
    data, ends = log_of([filling(0, room_left), [put(2), put(3)], [put(4, 300)]])
    for cut in [*range(0, ends[0], 997), *range(ends[0] - 50, len(data) + 1)]:
        batches, decoder = decoded(data[:cut])
        assert len(batches) == sum(end <= cut for end in ends), cut
        assert decoder.end.kind is not EndKind.BAD, cut
        if cut in ends:
            assert decoder.end.kind is EndKind.WHOLE, cut


def test_a_file_that_grows_byte_by_byte_gives_each_batch_once() -> None:
    data, ends = log_of([[put(1)], [put(2), (DELETE, int_key(1), row(1))], [put(3, 200)]])
    decoder, batches = LogFileDecoder(1), []
    for size in range(len(data) + 1):
        batches += decoder.decode(data[decoder.position : size])
        assert len(batches) == sum(end <= size for end in ends)
    assert [b.first_seq for b in batches] == [1, 2, 4]


def test_bytes_that_were_wrong_at_first_are_read_again() -> None:
    """Some file systems show a new length before the bytes: zeros, for a moment."""
    data, _ = log_of([[put(1)], [put(2)]])
    decoder = LogFileDecoder(1)
    assert len(decoder.decode(data[:60] + bytes(len(data) - 60))) == 1
    assert decoder.end.kind is not EndKind.WHOLE
    assert len(decoder.decode(data[decoder.position :])) == 1


def test_zeros_behind_the_last_record_are_its_end() -> None:
    data, _ = log_of([[put(1)]])
    batches, decoder = decoded(data + bytes(5000))
    assert len(batches) == 1 and decoder.end.kind is EndKind.WHOLE and decoder.end.offset == len(data)


def test_zeros_that_fill_a_block_are_skipped_and_told() -> None:
    first, _ = log_of([[put(1)]])
    data = first + bytes(BLOCK - len(first)) + b"".join(pieces(batch(2, [put(2)]), BLOCK))
    decoder = LogFileDecoder(1)
    assert [b.first_seq for b in decoder.decode(data)] == [1]
    assert (decoder.zeros_at, decoder.position) == (len(first), BLOCK)
    assert [b.first_seq for b in decoder.decode(data[BLOCK:])] == [2]
    assert decoder.zeros_at is None


GOOD, _ = log_of([[put(1)]])
TORN = b"".join(fragment(2, batch(2, [put(2)])[:9]))


@pytest.mark.parametrize(
    ("tail", "kind", "reason"),
    [
        (b"\1\2\3", EndKind.CUT, "3 of the 7 bytes of a header"),
        (b"".join(fragment(1, b"12345678"))[:-3], EndKind.CUT, "5 of 8 bytes behind a record's header"),
        (TORN, EndKind.CUT, "the first 9 bytes of a record of several fragments"),
        (struct.pack("<IHB", 7, 3, 1) + b"abc", EndKind.BAD, "the checksum of 3 bytes isn't the one"),
        (b"".join(fragment(9, b"abc")), EndKind.BAD, "unknown record type 9"),
        (b"".join(fragment(6, b"abc")), EndKind.BAD, "unknown record type 6"),
        (struct.pack("<IHB", 7, 40000, 1), EndKind.BAD, "a record of 40007 bytes where its block has"),
        (b"".join(fragment(3, b"abc")), EndKind.BAD, "a middle fragment without a first one"),
        (b"".join(fragment(4, b"abc")), EndKind.BAD, "a last fragment without a first one"),
        (TORN + GOOD, EndKind.BAD, "a full record inside a record of several fragments"),
        (TORN + TORN, EndKind.BAD, "a first fragment inside a record of several fragments"),
        (bytes(9) + b"x", EndKind.BAD, "zeros where a record should start"),
        (b"".join(fragment(1, b"abc")), EndKind.BAD, "no write batch: 3 bytes, at least 12 are needed"),
    ],
)
def test_each_kind_of_end_says_what_is_there(tail: bytes, kind: EndKind, reason: str) -> None:
    batches, decoder = decoded(GOOD + tail)
    assert [b.first_seq for b in batches] == [1]
    assert decoder.end.kind is kind and reason in decoder.end.reason and decoder.end.offset == len(GOOD)


def ops_bytes(*ops: LogOp) -> bytes:
    return batch(1, ops)[12:]


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        (struct.pack("<QI", 0, 1) + ops_bytes(put(1)), "1 records from seq 0"),
        (struct.pack("<QI", 2**56 - 2, 1) + ops_bytes(put(1)), "records from seq 72057594037927934"),
        (struct.pack("<QI", 1, 2**32 - 1) + ops_bytes(put(1)), "4294967295 records can't be in"),
        (struct.pack("<QI", 1, 2) + ops_bytes(put(1)), "record 1 of 2 is cut off"),
        (struct.pack("<QI", 1, 1) + ops_bytes(put(1), put(2)), "its 1 records end at byte"),
        (struct.pack("<QI", 1, 1) + ops_bytes(put(1))[:-1], "its 1 records end at byte"),
        (struct.pack("<QI", 1, 1) + b"\7\1k\1v", "record 0 of 1 has op 7"),
        (struct.pack("<QI", 1, 1) + b"\1" + varint(2**40) + b"k\1v", "record 0 of 1 is cut off"),
        (struct.pack("<QI", 1, 1) + b"\1" + b"\xff" * 11 + b"k\1v", "record 0 of 1 is cut off"),
    ],
)
def test_a_record_with_a_right_checksum_that_is_no_batch_is_bad(payload: bytes, reason: str) -> None:
    batches, decoder = decoded(GOOD + b"".join(fragment(1, payload)))
    assert len(batches) == 1 and decoder.end.kind is EndKind.BAD and reason in decoder.end.reason


def test_a_batch_without_ops_is_passed_by() -> None:
    batches, decoder = decoded(GOOD + b"".join(fragment(1, batch(2, []))) + log_of([[put(2)]], 2)[0])
    assert [b.first_seq for b in batches] == [1, 2] and decoder.end.kind is EndKind.WHOLE


def test_a_record_is_found_wherever_it_stands_behind_a_bad_one() -> None:
    record, _ = log_of([[put(5)]], first_seq=5)
    assert find_record(b"\1" * 1000 + record, 50, 4, 2 * BLOCK) == 1050
    assert find_record(b"\1" * 1000 + record, 50, 5, 2 * BLOCK) is None, "not a newer one"
    assert find_record(b"\1" * (BLOCK - 50) + record, 50, 4, 0) == BLOCK, "where a block starts"
    assert find_record(b"\1" * 1000 + record[:-1] + b"?", 50, 4, 2 * BLOCK) is None
