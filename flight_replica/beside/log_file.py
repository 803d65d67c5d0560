"""`LogFileDecoder`: the bytes of one file of the engine's write-ahead log to write batches.

Pure: it opens nothing and waits for nothing. A file is a run of 32 KiB blocks; a record is one fragment
or several, each with a checksum and inside one block; a whole record is one write batch. Whoever reads a
file that is being written gives what there is and comes back with more: fragments whose checksum is
right are kept, what stands behind them is decoded again next time. What may be read, and what a bad end
of a file means, is decided in `engine_log.py`. The rows inside: `row_values.py`.
Source: merutable format, section 13.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import Enum
from itertools import chain
from typing import NamedTuple
from zlib import crc32

from flight_replica.errors import LimitExceeded
from flight_replica.log.source import Op

__all__ = [
    "BLOCK_BYTES",
    "HEADER_BYTES",
    "EndKind",
    "LogEnd",
    "LogFileDecoder",
    "LogRecord",
    "WriteBatch",
    "find_record",
]

BLOCK_BYTES = 32 * 1024
HEADER_BYTES = 7  # checksum u32, payload length u16, type u8, little-endian
BATCH_BYTES_MAX = 1 << 30  # a batch is held in memory whole; the engine's memtable has 64 MiB by default
SEQ_MAX = 2**56 - 2  # 2^56 - 1 is the engine's seek sentinel
RECORD_BYTES_MIN = 3  # op, length of the key, length of the value

_HEADER = struct.Struct("<IHB")
_BATCH_HEAD = struct.Struct("<QI")  # first seq, number of records
_OPS = {0: Op.DELETE, 1: Op.INSERT}  # the log doesn't know whether a put is an update


class LogRecord(NamedTuple):
    """One op as the log has it. `value` is the row of a put, a delete's pre-image or empty."""

    op: Op  # INSERT for every put, or DELETE
    pk_bytes: bytes
    value: bytes


class WriteBatch(NamedTuple):
    """What the engine wrote at once: record i has seq `first_seq + i`. There is at least one."""

    first_seq: int
    records: tuple[LogRecord, ...]
    file_number: int
    offset: int  # of its first fragment's header in the file

    @property
    def last_seq(self) -> int:
        return self.first_seq + len(self.records) - 1


class EndKind(Enum):
    WHOLE = "whole"  # nothing but whole batches, and zeros where there is room for a header
    CUT = "cut"  # the bytes at the end may be the beginning of a batch
    BAD = "bad"  # the bytes at `offset` can't become a batch, whatever follows


@dataclass(frozen=True, slots=True)
class LogEnd:
    """What stands behind the last whole batch. `offset` is where the unfinished or bad record starts."""

    kind: EndKind
    offset: int
    reason: str = ""


FULL, FIRST, MIDDLE, LAST = 1, 2, 3, 4  # types of fragments; plain ints, for an enum is slow here
ZEROS = 0  # not in the format: a header of zeros, which skips the rest of its block
_OUT_OF_ORDER = {
    FULL: "a full record inside a record of several fragments",
    FIRST: "a first fragment inside a record of several fragments",
    MIDDLE: "a middle fragment without a first one",
    LAST: "a last fragment without a first one",
}
_BEGINNINGS = (bytes([FULL]), bytes([FIRST]))


class LogFileDecoder:
    """Decodes one log file as it grows. Owned by one reader, not thread-safe."""

    def __init__(self, file_number: int) -> None:
        self.file_number = file_number
        self.position = 0  # offset in the file behind the last fragment that is right: read on from here
        self.end = LogEnd(EndKind.WHOLE, 0)
        self.zeros_at: int | None = None  # where the last call skipped zeros to the next block
        self._parts: list[bytes] = []  # payloads of the record that is open
        self._record_at = 0  # offset of that record

    def decode(self, data: bytes) -> list[WriteBatch]:
        """The batches that end in `data`, which are the file's bytes from `position` on; sets `end`.

        Give it at least two blocks where the file has them, else it may not get on. It returns early
        behind zeros that fill a block, and says so in `zeros_at`.
        Raises `LimitExceeded` for a batch of more than 1 GiB.
        """
        batches: list[WriteBatch] = []
        start, at = self.position, 0
        self.zeros_at = None
        while (fragment := self._fragment(data, at, start + at)) is not None:
            kind, header, stop = fragment
            if kind == ZEROS:
                at = stop
                break
            is_beginning = kind in (FULL, FIRST)
            if is_beginning is bool(self._parts):
                self._stop(EndKind.BAD, start + header, _OUT_OF_ORDER[kind])
                break
            if is_beginning:
                self._record_at = start + header
            payload = data[header + HEADER_BYTES : stop]
            if kind in (FIRST, MIDDLE):
                if (len(self._parts) + 1) * BLOCK_BYTES > BATCH_BYTES_MAX:
                    if batches:
                        break  # what stands before it comes first
                    raise self._too_large()
                self._parts.append(payload)
            else:
                if self._parts:
                    payload = b"".join([*self._parts, payload])
                try:
                    batch = _batch(payload, self.file_number, self._record_at)
                except ValueError as error:
                    self._stop(EndKind.BAD, start + header, f"a record that is no write batch: {error}")
                    break
                self._parts = []
                if batch.records:
                    batches.append(batch)
            at = stop
        self.position = start + at
        return batches

    def _fragment(self, data: bytes, at: int, offset: int) -> tuple[int, int, int] | None:
        """The next right fragment: its type, where its header is in `data`, and where it ends.

        None where there is none, with the reason in `end`. `offset` is where `at` is in the file.
        """
        room = BLOCK_BYTES - offset % BLOCK_BYTES
        if room < HEADER_BYTES:  # zero padding
            at, offset, room = at + room, offset + room, BLOCK_BYTES
        if len(data) - at < HEADER_BYTES:
            self._stop_at_the_end(offset, data[at:])
            return None
        checksum, length, kind = _HEADER.unpack_from(data, at)
        stop = at + HEADER_BYTES + length
        if kind == 0 and not length and not checksum:
            return (ZEROS, at, at + room) if self._are_zeros_skipped(data, at, offset, room) else None
        if kind not in _OUT_OF_ORDER:
            self._stop(EndKind.BAD, offset, f"unknown record type {kind}")
            return None
        if stop - at > room:
            size = HEADER_BYTES + length
            self._stop(EndKind.BAD, offset, f"a record of {size} bytes where its block has {room} left")
            return None
        if stop > len(data):
            found = len(data) - at - HEADER_BYTES
            self._stop(EndKind.CUT, offset, f"{found} of {length} bytes behind a record's header")
            return None
        if crc32(data[at + 6 : stop]) != checksum:
            reason = f"the checksum of {length} bytes isn't the one in their header"
            self._stop(EndKind.BAD, offset, reason)
            return None
        return kind, at, stop

    def skip_block(self) -> None:
        """Go on at the next block, as the engine does behind a header of zeros."""
        self._parts = []
        self.position += BLOCK_BYTES - self.position % BLOCK_BYTES

    @property
    def is_inside_record(self) -> bool:
        return bool(self._parts)

    def _too_large(self) -> LimitExceeded:
        place = f"log {self.file_number:06}.wal, offset {self._record_at}"
        return LimitExceeded(f"{place}: a batch of more than {BATCH_BYTES_MAX} bytes")

    def _are_zeros_skipped(self, data: bytes, at: int, offset: int, room: int) -> bool:
        """Whether reading goes on at the next block: the rest of this one is zeros, and data follows it."""
        rest = data[at : at + room]
        if rest.count(0) < len(rest):
            self._stop(EndKind.BAD, offset, "zeros where a record should start, and data behind them")
        elif len(data) - at <= room:
            kind = EndKind.CUT if self._parts else EndKind.WHOLE
            self._stop(kind, offset, f"{len(rest)} zeros at the end")
        elif self._parts:
            self._stop(EndKind.BAD, offset, "zeros inside a record of several fragments")
        else:
            self.zeros_at = offset
            self.end = LogEnd(EndKind.WHOLE, offset + room)
            return True
        return False

    def _stop_at_the_end(self, offset: int, rest: bytes) -> None:
        if self._parts:
            size = sum(map(len, self._parts))
            reason = f"the first {size} bytes of a record of several fragments"
            self._stop(EndKind.CUT, offset, reason)
        elif rest.count(0) < len(rest):
            self._stop(EndKind.CUT, offset, f"{len(rest)} of the 7 bytes of a header")
        else:
            self._stop(EndKind.WHOLE, offset, "")

    def _stop(self, kind: EndKind, offset: int, reason: str) -> None:
        if self._parts and kind is not EndKind.WHOLE and offset != self._record_at:
            reason = f"{reason} (in offset {offset})" if kind is EndKind.BAD else reason
            offset = self._record_at
        self.end = LogEnd(kind, offset, reason)


def find_record(data: bytes, position: int, after_seq: int, near_bytes: int) -> int | None:
    """The offset in the file of a record in `data` that was written after `after_seq`, None without one.

    `data` are the file's bytes from `position` on. A record counts by its first fragment: a right checksum
    and a larger seq. In the first `near_bytes` every offset is tried, since behind a failed append the
    writer's blocks and the file's no longer agree; after that only where blocks start.
    """
    far = range(-position % BLOCK_BYTES, len(data), BLOCK_BYTES)
    near = range(min(len(data), near_bytes))
    for at in chain(near, far):
        if data[at + 6 : at + 7] not in _BEGINNINGS:
            continue
        checksum, length, _ = _HEADER.unpack_from(data, at)
        stop = at + HEADER_BYTES + length
        if not 8 <= length <= BLOCK_BYTES or stop > len(data):
            continue
        seq = int.from_bytes(data[at + HEADER_BYTES : at + HEADER_BYTES + 8], "little")
        if after_seq < seq <= SEQ_MAX and crc32(data[at + 6 : stop]) == checksum:
            return position + at
    return None


def _batch(payload: bytes, file_number: int, offset: int) -> WriteBatch:
    """Raises ValueError with the reason."""
    size, at = len(payload), _BATCH_HEAD.size
    if size < at:
        raise ValueError(f"{size} bytes, at least {at} are needed")
    first_seq, count = _BATCH_HEAD.unpack_from(payload)
    if not 0 < first_seq <= SEQ_MAX - count:
        raise ValueError(f"{count} records from seq {first_seq}")
    if count * RECORD_BYTES_MIN > size - at:
        raise ValueError(f"{count} records can't be in {size - at} bytes")
    records = []
    op = -1
    try:
        for _ in range(count):
            op, key_size = payload[at], payload[at + 1]
            at += 2
            if key_size > 127:
                key_size, at = _varint(payload, at - 1)
            value_at = at + key_size
            key, value_size = payload[at:value_at], payload[value_at]
            at = value_at + 1
            if value_size > 127:
                value_size, at = _varint(payload, value_at)
            value_end = at + value_size
            records.append(LogRecord(_OPS[op], key, payload[at:value_end]))
            at = value_end
    except (IndexError, OverflowError) as error:
        raise ValueError(f"record {len(records)} of {count} is cut off") from error
    except KeyError as error:
        raise ValueError(f"record {len(records)} of {count} has op {op}") from error
    if at != size:
        raise ValueError(f"its {count} records end at byte {at} of {size}")
    return WriteBatch(first_seq, tuple(records), file_number, offset)


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """The LEB128 number at `at`, and where it ends. Raises IndexError, or OverflowError past 64 bits."""
    value = shift = 0
    while shift < 64:
        byte = data[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128 and value < 1 << 64:
            return value, at
        shift += 7
    raise OverflowError(f"a number of more than 64 bits at byte {at}")
