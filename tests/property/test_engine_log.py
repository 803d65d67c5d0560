"""A growing log read at every step, a running writer followed, and bytes that nobody wrote.

Invariants: an op is given once, in order, as soon as its batch is whole and never before; a reader of a
live log never stops; damaged bytes never become another op, and no input raises anything but the errors
that are meant for it. Mutated inputs: some by default, 300 000 of most kinds with `-m long`.
"""

from __future__ import annotations

import os
import random
import shutil
import struct
import threading
import time
import zlib
from itertools import pairwise
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flight_replica.beside import few_rows
from flight_replica.beside.engine_log import EngineLog
from flight_replica.beside.log_file import EndKind, LogFileDecoder, LogRecord, WriteBatch
from flight_replica.beside.row_values import field_count, ops_of
from flight_replica.errors import DamagedLog, SchemaMismatch
from flight_replica.log.source import Op
from flight_replica.schema import Column, TableSchema
from tests.log_writing import BLOCK, DELETE, PUT, LogOp, LogWriter, batch, int_key, pieces, row
from tests.slow_rows import BadRow, slow_row

FEW, MANY = 2_000, 300_000  # mutated inputs of each kind, or a share of it where one is slow

SCHEMA = TableSchema(
    (
        Column("id", pa.int64(), False),
        Column("flag", pa.bool_()),
        Column("small", pa.int32()),
        Column("single", pa.float32()),
        Column("double", pa.float64(), True, 2.5),
        Column("bytes", pa.binary(), True, b"init"),
        Column("three", pa.binary(3)),
    ),
    ("id",),
)


# --- a log that grows -------------------------------------------------------------------------------

# Sizes of values around what is left of a block, so that records end everywhere near its end.
SIZES = st.one_of(
    st.integers(0, 200),
    st.integers(BLOCK - 120, BLOCK + 60),
    st.integers(2 * BLOCK - 150, 2 * BLOCK + 30),
)
OPS = st.tuples(st.sampled_from([PUT, DELETE]), st.binary(min_size=1, max_size=20), SIZES)
BATCHES = st.lists(st.lists(OPS, min_size=1, max_size=4), min_size=1, max_size=8)


def with_values(ops: list[tuple[int, bytes, int]]) -> list[LogOp]:
    return [(op, key, bytes([size % 251]) * size) for op, key, size in ops]


def plain(batches: list[WriteBatch]) -> list[tuple[int, list[LogOp]]]:
    return [
        (each.first_seq, [(PUT if r.op is Op.INSERT else DELETE, r.pk_bytes, r.value) for r in each.records])
        for each in batches
    ]


@settings(max_examples=40, deadline=None)
@given(BATCHES, st.randoms(use_true_random=False))
def test_a_log_read_between_any_two_writes_gives_each_batch_when_it_is_whole(
    tmp_path_factory: pytest.TempPathFactory,
    batches: list[list[tuple[int, bytes, int]]],
    choices: random.Random,
) -> None:
    directory = tmp_path_factory.mktemp("wal")
    writer, log = LogWriter(directory), EngineLog(directory)
    for ops in map(with_values, batches):
        first_seq = writer.next_seq
        *begun, last = writer.steps(ops)
        for piece in begun:
            cut = choices.randrange(len(piece) + 1)
            for part in (piece[:cut], piece[cut:]):
                writer.append(part)
                assert log.read_new() == []
        cut = choices.randrange(len(last))
        writer.append(last[:cut])
        assert log.read_new() == []
        writer.append(last[cut:])
        assert plain(log.read_new()) == [(first_seq, ops)]
        if choices.random() < 0.3:
            gone = writer.rotate()
            assert log.read_new() == []
            if choices.random() < 0.5:
                gone.unlink()
    assert log.read_new() == [] and log.pending is None
    log.close()
    writer.close()


@pytest.mark.parametrize("room_left", [0, 1, 6, 7, 8, 30])
def test_a_small_log_that_grows_byte_by_byte_is_read_at_every_byte(tmp_path: Path, room_left: int) -> None:
    """The first record ends `room_left` bytes before the end of its block; what follows grows by bytes."""
    writer, log = LogWriter(tmp_path), EngineLog(tmp_path)
    overhead = len(b"".join(pieces(batch(1, [(PUT, b"k", b"")]), 0))) + 2  # the length takes 3 bytes
    writer.write([(PUT, b"k", bytes(BLOCK - room_left - overhead))])
    assert os.stat(writer.path).st_size == BLOCK - room_left and len(log.read_new()) == 1
    for number in range(2, 5):
        ops = [(PUT, int_key(number), row(number)), (DELETE, int_key(number), b"")]
        data = b"".join(writer.steps(ops))
        for byte in data[:-1]:
            writer.append(bytes([byte]))
            assert log.read_new() == []
        writer.append(data[-1:])
        assert len(plain(log.read_new())) == 1 and log.pending is None
    writer.close()
    log.close()


def test_a_running_writer_is_followed_through_rotations_and_removals(tmp_path: Path) -> None:
    """Readers come and go meanwhile; each gives every op from its first one on, once, in order."""
    writer, log = LogWriter(tmp_path), EngineLog(tmp_path)
    op_count, is_over, has_looked = 6_000, threading.Event(), threading.Semaphore(0)

    def write() -> None:
        choices, old = random.Random(1), list[Path]()
        try:
            while writer.next_seq < op_count:
                sizes = [choices.choice([5, 300, 9000]) for _ in range(choices.randint(1, 4))]
                writer.write([(PUT, int_key(1), bytes(size)) for size in sizes])
                if choices.random() < 0.02:
                    old.append(writer.rotate())
                if len(old) > 2:
                    # A flush takes longer than the pause between two looks; otherwise files are missed.
                    while has_looked.acquire(blocking=False):
                        pass
                    assert has_looked.acquire(timeout=60) and has_looked.acquire(timeout=60)
                    old.pop(0).unlink()
        finally:
            is_over.set()

    assert log.read_new() == []
    thread = threading.Thread(target=write, name="writer")
    thread.start()
    try:
        last, deadline = 0, time.monotonic() + 120
        while last < writer.next_seq - 1 or not is_over.is_set():
            assert time.monotonic() < deadline
            log.wait(0.05)
            for each in log.read_new():
                assert each.first_seq == last + 1
                last = each.last_seq
            has_looked.release()
            late = EngineLog(tmp_path)
            found = late.read_new()
            assert all(b.first_seq == a.last_seq + 1 for a, b in pairwise(found))
            late.close()
        assert last == writer.next_seq - 1 and log.accepted == []
    finally:
        log.close()
        thread.join()
        writer.close()


# --- bytes that nobody wrote ------------------------------------------------------------------------


def mutated(data: bytes, choices: random.Random) -> bytes:
    """`data` with one to four places changed: a bit, a byte, a run removed, doubled, or of noise."""
    found = bytearray(data)
    for _ in range(choices.randint(1, 4)):
        at = choices.randrange(len(found)) if found else 0
        run = choices.randint(1, 40)
        match choices.randrange(6):
            case 0 if found:
                found[at] ^= 1 << choices.randrange(8)
            case 1 if found:
                found[at] = choices.choice([0, 1, 2, 127, 128, 255])
            case 2:
                del found[at : at + run]
            case 3:
                found[at:at] = found[at : at + run]
            case 4:
                found[at : at + run] = choices.randbytes(run)
            case _:
                del found[at:]
    return bytes(found)


def counts(share: int = 1) -> list[object]:
    return [FEW // share, pytest.param(MANY // share, marks=pytest.mark.long)]


@pytest.mark.parametrize("count", counts())
def test_a_mutated_log_gives_none_but_the_ops_that_were_written(count: int) -> None:
    choices, data, seq, written = random.Random(7), b"", 1, set()
    for size in [5, 300, 1, 0, BLOCK - 900, 40, 700, 2 * BLOCK, 3]:
        ops = [(PUT, int_key(seq), bytes(size)), (DELETE, int_key(seq), b"")]
        data += b"".join(pieces(batch(seq, ops), len(data)))
        written.add((seq, tuple(ops)))
        seq += 2
    started = time.monotonic()
    for number in range(count):
        decoder, found, mutant = LogFileDecoder(1), list[WriteBatch](), mutated(data, choices)
        while True:
            before = decoder.position
            found += decoder.decode(mutant[before : before + 2 * BLOCK])
            if decoder.position == before:
                break
        assert {(first, tuple(ops)) for first, ops in plain(found)} <= written, number
        assert decoder.end.kind in EndKind and 0 <= decoder.end.offset <= len(mutant)
    assert time.monotonic() - started < 20 + count / 100, "each takes well under 10 ms"


def recovered(files: list[bytes]) -> list[tuple[int, list[LogOp]]]:
    """What the engine takes from its logs: of each file, up to the first record that isn't right."""
    found: list[tuple[int, list[LogOp]]] = []
    for data in files:
        at, parts = 0, list[bytes]()
        while at + 7 <= len(data):
            room = BLOCK - at % BLOCK
            checksum, length, kind = struct.unpack_from("<IHB", data, at)
            if room < 7 or (checksum, length, kind) == (0, 0, 0):
                at += room
                continue
            payload = data[at + 7 : at + 7 + length]
            is_right = 7 + length <= room and len(payload) == length and kind in (1, 2, 3, 4)
            is_right = is_right and zlib.crc32(bytes([kind]) + payload) == checksum
            if not is_right or bool(parts) is (kind in (1, 2)):
                break
            parts.append(payload)
            at += 7 + length
            if kind in (1, 4):
                whole = plain(LogFileDecoder(1).decode(b"".join(pieces(b"".join(parts), 0))))
                found, parts = found + whole, []
                if not whole:  # no batch
                    break
    return found


@pytest.mark.parametrize("count", counts(share=30))
def test_mutated_logs_stop_or_are_recovered_from_as_the_engine_does(tmp_path: Path, count: int) -> None:
    """And whatever was accepted, a file that comes later is read."""
    choices, files, written = random.Random(11), list[bytes](), list[tuple[int, list[LogOp]]]()
    for sizes in ([5, 300], [BLOCK - 900, 40, 700], [], [0, 2 * BLOCK, 3]):
        data = b""
        for size in sizes:
            written.append((len(written) + 1, [(PUT, int_key(size), bytes(size))]))
            data += b"".join(pieces(batch(*written[-1]), len(data)))
        files.append(data)
    for number in range(count):
        directory = tmp_path / str(number)
        directory.mkdir()
        victim = choices.randrange(len(files))
        changed = [mutated(data, choices) if at == victim else data for at, data in enumerate(files)]
        for at, data in enumerate(changed, start=1):
            (directory / f"{at:06}.wal").write_bytes(data)
        strict, lenient = EngineLog(directory), EngineLog(directory, accept_damage=True)
        found = list[WriteBatch]()
        try:
            while batches := strict.read_new():
                found += batches
        except DamagedLog:
            assert plain(found) == written[: len(found)]
        else:
            assert plain(found) == recovered(changed)
        accepted = list[WriteBatch]()
        while batches := lenient.read_new():
            accepted += batches
        assert plain(accepted) == recovered(changed), number
        (directory / "000005.wal").write_bytes(b"".join(pieces(batch(*written[0]), 0)))
        assert plain(lenient.read_new()) == written[:1]
        strict.close()
        lenient.close()
        shutil.rmtree(directory)


@pytest.mark.parametrize("count", counts())
def test_a_mutated_batch_with_a_right_checksum_is_a_batch_or_bad(count: int) -> None:
    choices = random.Random(8)
    payload = batch(
        5, [(PUT, int_key(1), row(1, True)), (DELETE, int_key(2), b""), (PUT, b"k" * 200, b"v" * 300)]
    )
    for _ in range(count):
        decoder, mutant = LogFileDecoder(1), mutated(payload, choices)
        if not mutant:
            continue
        data = b"".join(pieces(mutant, 0))
        found = decoder.decode(data)
        if not found:
            assert decoder.end.kind is EndKind.BAD or mutant[8:12] == bytes(4)
            continue
        ((first_seq, ops),) = plain(found)
        assert 0 < first_seq < 2**56 and len(ops) <= len(mutant)
        if len(mutant) == len(batch(first_seq, ops)):  # else a number was written longer than it needs
            assert batch(first_seq, ops) == mutant


@pytest.mark.parametrize("count", counts(share=2))
@pytest.mark.parametrize("few", [0, 1], ids=["by columns", "row by row"])
def test_a_mutated_row_is_read_as_one_decodes_it_by_hand_or_refused(
    count: int, few: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(few_rows, "FEW_ROWS", few)
    choices = random.Random(9 + few)
    rows = [
        row(1, True, ("i32", -5), ("f32", 1.5), -0.25, b"abc", b"xyz"),
        row(2**62, None, ("i32", 2**31 - 1), None, 1e300, b"", None),
        row(-(2**63), False),
        row(3, True, None, None, None, bytes(200), b"\0\0\0"),
        b'{"fields": [{"Int64": 5}, {"Boolean": true}, null, {"Float": 1.5}]}',
    ]
    for number in range(count):
        value = mutated(choices.choice(rows), choices)
        given_batch = WriteBatch(1, (LogRecord(Op.INSERT, int_key(1), value),), 1, 0)
        try:
            expected = slow_row(value, SCHEMA, int_key(1))
        except BadRow:
            with pytest.raises((DamagedLog, SchemaMismatch)):
                ops_of([given_batch], SCHEMA)
            continue
        ops = ops_of([given_batch], SCHEMA)
        ops.validate(full=True)
        assert repr(list(ops.to_pylist()[0].values())[3:]) == repr(expected), number
        assert field_count(value) <= len(SCHEMA.columns)


FIELDS = st.tuples(
    st.integers(-(2**63), 2**63 - 1),
    st.none() | st.booleans(),
    st.none() | st.integers(-(2**31), 2**31 - 1).map(lambda number: ("i32", number)),
    st.none() | st.floats(width=32).map(lambda number: ("f32", number)),
    st.none() | st.floats(),
    st.none() | st.binary(max_size=300),
    st.none() | st.binary(min_size=3, max_size=3),
)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(FIELDS, st.integers(1, 7), st.booleans()), max_size=2 * few_rows.FEW_ROWS))
def test_many_rows_at_once_are_the_same_as_one_by_one(
    rows: list[tuple[tuple[object, ...], int, bool]],
) -> None:
    records = [
        LogRecord(Op.DELETE if is_delete else Op.INSERT, int_key(number), row(*fields[:count]))
        for number, (fields, count, is_delete) in enumerate(rows)
    ]
    ops = ops_of([WriteBatch(1, tuple(records), 1, 0)] if records else [], SCHEMA)
    ops.validate(full=True)
    found = [list(line.values())[3:] for line in ops.to_pylist()]
    assert repr(found) == repr([slow_row(record.value, SCHEMA, record.pk_bytes) for record in records])
