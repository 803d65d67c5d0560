"""A writer of the engine's write-ahead log, for tests: what `flight_replica/beside/log_file.py` reads.

Written from merutable format, section 13, not from the reader. Every step that the engine makes as a write
call of its own is a piece of bytes of its own, so that tests can stop between any two.
"""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path

BLOCK = 32768
DELETE, PUT = 0, 1
LogOp = tuple[int, bytes, bytes]  # PUT or DELETE, key bytes, value


def varint(number: int) -> bytes:
    low, rest = number & 127, number >> 7
    return bytes([low | 128]) + varint(rest) if rest else bytes([low])


def row(*fields: object) -> bytes:
    """A value: the marker and the postcard row of None, bool, ("i32", n), int, ("f32", x), float, bytes."""
    return b"\x01" + varint(len(fields)) + b"".join(map(_field, fields))


def _field(value: object) -> bytes:
    match value:
        case None:
            return b"\0"
        case bool():
            return bytes([1, 0, value])
        case ("i32", int(number)):
            return b"\x01\x01" + varint(_zigzag(number))
        case int():
            return b"\x01\x02" + varint(_zigzag(value))
        case ("f32", float(number)):
            return b"\x01\x03" + struct.pack("<f", number)
        case float():
            return b"\x01\x04" + struct.pack("<d", value)
        case bytes():
            return b"\x01\x05" + varint(len(value)) + value
    raise AssertionError(f"no field: {value!r}")


def _zigzag(number: int) -> int:
    return number * 2 if number >= 0 else -number * 2 - 1


def int_key(number: int) -> bytes:
    """The key bytes of one Int64 key column."""
    return struct.pack(">Q", number + (1 << 63))


def batch(first_seq: int, ops: Sequence[LogOp]) -> bytes:
    """One write batch as the payload of a logical record."""
    parts = [struct.pack("<QI", first_seq, len(ops))]
    for op, key, value in ops:
        parts += [bytes([op]), varint(len(key)), key, varint(len(value)), value]
    return b"".join(parts)


def fragment(kind: int, payload: bytes) -> tuple[bytes, bytes]:
    """Header and payload of one physical record."""
    checksum = zlib.crc32(bytes([kind]) + payload)
    return struct.pack("<IHB", checksum, len(payload), kind), payload


def pieces(payload: bytes, position: int) -> Iterator[bytes]:
    """What the engine writes for one record at `position` of a file, one piece for each write call."""
    is_first = True
    while payload:
        room = BLOCK - position % BLOCK
        if room < 7:
            yield bytes(room)
            position += room
            continue
        part, payload = payload[: room - 7], payload[room - 7 :]
        kind = (1 if not payload else 2) if is_first else (4 if not payload else 3)
        yield from fragment(kind, part)
        position += 7 + len(part)
        is_first = False


class LogWriter:
    """Writes logs into a directory as the engine does: one file at a time, appended to."""

    def __init__(self, directory: Path, number: int = 1) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.directory = directory
        self.next_seq = 1
        self._number = number - 1
        self._descriptor = -1
        self.rotate()

    @property
    def path(self) -> Path:
        return self.directory / f"{self._number:06}.wal"

    def rotate(self) -> Path:
        """Begin the next file; the path of the one before."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
        before = self.path
        self._number += 1
        self._descriptor = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        self._position = 0
        return before

    def write(self, ops: Sequence[LogOp], *, first_seq: int | None = None) -> int:
        """Append one batch; its first seq."""
        for piece in self.steps(ops, first_seq=first_seq):
            os.write(self._descriptor, piece)
        return self.next_seq - len(ops)

    def steps(self, ops: Sequence[LogOp], *, first_seq: int | None = None) -> list[bytes]:
        """The pieces of the next batch, for a caller that appends them itself by `append`."""
        first = self.next_seq if first_seq is None else first_seq
        self.next_seq = first + len(ops)
        found = list(pieces(batch(first, ops), self._position))
        self._position += sum(map(len, found))
        return found

    def append(self, data: bytes) -> None:
        os.write(self._descriptor, data)

    def sync(self) -> None:
        os.fdatasync(self._descriptor)

    def close(self) -> None:
        os.close(self._descriptor)
