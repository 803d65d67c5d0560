"""`OpSegments`: a table's recent ops in files of our own, appended at one end and forgotten at the other.

A segment is a file: a head with the Arrow schema, then frames. A frame is a range of seqs with its ops, the
checksum of each op as the log had it, and when they were seen. A frame that a kill left half written is cut
off when the folder is opened. Nothing is synced per op: after a power cut the owner trusts none of it.
"""

from __future__ import annotations

import os
import struct
import zlib
from bisect import bisect_right
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from flight_replica.errors import ConfigError, FeedError
from flight_replica.log.batches import seqs_of
from flight_replica.schema import TableSchema

_SUFFIX = ".ops"
_MAGIC = b"FROPS001"
_HEAD = struct.Struct("<8sII")  # magic, size and checksum of the table's schema in JSON, which follows
_FRAME = struct.Struct("<IIQQq")  # checksum and size of the body, after, through, time in µs
_CHECKSUM = struct.Struct("<I")  # of these, behind them
_FRAME_BYTES = _FRAME.size + _CHECKSUM.size
SEGMENT_PARTS = 8  # a full store is so many segments, and forgets one at a time

Hashes = npt.NDArray[np.uint64]


@dataclass(frozen=True, slots=True)
class StoredOps:
    """The ops of `(after, through]`, where `through` is the end of a write batch."""

    after: int
    through: int
    ops: pa.RecordBatch  # in the schema they were stored with
    hashes: Hashes  # of each op as the log had it
    seen_time_us: int


@dataclass(frozen=True, slots=True)
class _Frame:
    """Where stored ops lie."""

    segment: _Segment
    offset: int  # of the body
    size: int
    checksum: int  # of the body
    after: int
    through: int
    seen_time_us: int


@dataclass(frozen=True, slots=True)
class _Segment:
    path: Path
    schema: TableSchema


class OpSegments:
    """Frames of `(start, end]` without a hole. One writer; reading is safe from any thread.

    The owner serialises `append`, `trim` and `restart`.
    """

    def __init__(self, directory: Path, bytes_max: int) -> None:
        """What lies in `directory`, which is nobody else's. Raises `ConfigError` for what isn't of here."""
        self._directory = directory
        self._segment_bytes = max(bytes_max // SEGMENT_PARTS, 1)
        self._bytes_max = bytes_max
        self._frames: list[_Frame] = []
        self._file: BinaryIO | None = None  # of the last segment, which is written
        self._file_bytes = 0
        self._held_bytes = 0
        try:
            directory.mkdir(parents=True, exist_ok=True)
            self._open()
        except OSError as error:
            raise ConfigError(f"ops in {directory} can't be read: {error.strerror}") from error

    @property
    def is_empty(self) -> bool:
        return not self._frames

    @property
    def start(self) -> int:
        return self._frames[0].after

    @property
    def end(self) -> int:
        return self._frames[-1].through

    # --- writing ----------------------------------------------------------------------------------

    def append(self, stored: StoredOps, schema: TableSchema) -> None:
        """Add what follows `end`; `schema` is that of the ops. Raises `OSError`."""
        assert self.is_empty or stored.after == self.end, f"append after {stored.after}, end {self.end}"
        last = self._frames[-1].segment if self._frames else None
        if (
            self._file is None
            or self._file_bytes >= self._segment_bytes
            or last is None
            or last.schema != schema
        ):
            last = self._begin(stored.after, schema)
        assert self._file is not None, "a segment without a file"
        body = _encode(stored)
        checksum, times = zlib.crc32(body), stored.seen_time_us
        head = _FRAME.pack(checksum, len(body), stored.after, stored.through, times)
        try:
            self._file.write(head + _CHECKSUM.pack(zlib.crc32(head)) + body)
        except OSError:
            self._file.truncate(self._file_bytes)
            self._file.seek(self._file_bytes)
            raise
        offset = self._file_bytes + _FRAME_BYTES
        self._file_bytes += _FRAME_BYTES + len(body)
        self._held_bytes += _FRAME_BYTES + len(body)
        self._frames.append(_Frame(last, offset, len(body), checksum, stored.after, stored.through, times))

    def excess(self, through: int) -> int:
        """Up to which seq segments may go so that the rest keeps the limit: whole ones, none past `through`.

        `start` where nothing is to go.
        """
        target, held = self.start, self._held_bytes
        for path, end in self._segment_ends()[:-1]:
            if held <= self._bytes_max or end > through:
                break
            held -= path.stat().st_size
            target = end
        return target

    def trim(self, through: int) -> None:
        """Forget segments that end at or below `through`."""
        ends = self._segment_ends()
        gone = {path for path, end in ends[:-1] if end <= through}
        self._frames = [frame for frame in self._frames if frame.segment.path not in gone]
        for path in gone:
            self._held_bytes -= path.stat().st_size
            path.unlink()

    def restart(self, seq: int, schema: TableSchema) -> None:
        """Forget everything; the next ops follow `seq`."""
        gone = {frame.segment.path for frame in self._frames}
        self._close_file()
        self._frames = []
        for path in gone:
            path.unlink()
        self._held_bytes = 0
        nothing = pa.RecordBatch.from_pylist([], schema=schema.feed_schema)
        self.append(StoredOps(seq, seq, nothing, np.empty(0, np.uint64), 0), schema)

    def close(self) -> None:
        self._close_file()

    # --- reading ----------------------------------------------------------------------------------

    def next_after(self, since: int) -> StoredOps | None:
        """The first stored ops that end after `since`, None for none.

        Raises `FileNotFoundError` where they were just forgotten, `FeedError` for damage.
        """
        frames = self._frames
        number = bisect_right(frames, since, key=_through)
        return _read(frames[number]) if number < len(frames) else None

    def hashes(self, since: int, through: int) -> tuple[Hashes, Hashes]:
        """Seqs and hashes of the ops stored in `(since, through]`."""
        seqs, hashes = [np.empty(0, np.uint64)], [np.empty(0, np.uint64)]
        frames = self._frames
        for frame in frames[bisect_right(frames, since, key=_through) :]:
            if frame.after >= through:
                break
            stored = _read(frame)
            found = seqs_of(stored.ops)
            inside = (found > since) & (found <= through)
            seqs.append(found[inside])
            hashes.append(stored.hashes[inside])
        return np.concatenate(seqs), np.concatenate(hashes)

    # --- files ------------------------------------------------------------------------------------

    def _segment_ends(self) -> list[tuple[Path, int]]:
        ends: dict[Path, int] = {}
        for frame in self._frames:
            ends[frame.segment.path] = frame.through
        return list(ends.items())

    def _begin(self, after: int, schema: TableSchema) -> _Segment:
        self._close_file()
        number = 1 + max((int(path.stem) for path in self._directory.glob(f"*{_SUFFIX}")), default=0)
        path = self._directory / f"{number:012d}{_SUFFIX}"
        text = schema.to_json().encode()
        self._file = path.open("xb", buffering=0)
        self._file.write(_HEAD.pack(_MAGIC, len(text), zlib.crc32(text)) + text)
        self._file_bytes = _HEAD.size + len(text)
        self._held_bytes += self._file_bytes
        return _Segment(path, schema)

    def _close_file(self) -> None:
        if self._file is not None:
            os.fsync(self._file.fileno())
            self._file.close()
            self._file = None

    def _open(self) -> None:
        """Take up the newest run of segments that join; a half-written end is cut off."""
        for path in sorted(self._directory.glob(f"*{_SUFFIX}")):
            frames = _frames_of(path)
            if self._frames and frames and frames[0].after != self._frames[-1].through:
                for old in {frame.segment.path for frame in self._frames}:
                    old.unlink()
                self._frames = []
            if not frames:
                path.unlink()
            self._frames += frames
        self._held_bytes = sum(path.stat().st_size for path, _ in self._segment_ends())


def _through(frame: _Frame) -> int:
    return frame.through


def _encode(stored: StoredOps) -> bytes:
    hashes = stored.hashes.tobytes()
    ops: bytes = stored.ops.serialize().to_pybytes()
    return len(hashes).to_bytes(4, "little") + hashes + ops


def _read(frame: _Frame) -> StoredOps:
    with frame.segment.path.open("rb") as file:
        file.seek(frame.offset)
        body = file.read(frame.size)
    if zlib.crc32(body) != frame.checksum:
        raise FeedError(f"stored ops {frame.segment.path} at {frame.offset} are damaged")
    size = int.from_bytes(body[:4], "little")
    hashes = np.frombuffer(body, np.uint64, size // 8, 4)
    message = pa.py_buffer(body)[4 + size :]
    ops = pa.ipc.read_record_batch(message, frame.segment.schema.feed_schema)
    return StoredOps(frame.after, frame.through, ops, hashes, frame.seen_time_us)


def _frames_of(path: Path) -> list[_Frame]:
    """The segment's whole frames; the file is cut off behind them."""
    frames: list[_Frame] = []
    with path.open("r+b") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(0)
        head = file.read(_HEAD.size)
        if len(head) < _HEAD.size:
            return []
        magic, schema_size, schema_checksum = _HEAD.unpack(head)
        if magic != _MAGIC:
            raise ConfigError(f"{path} isn't a file of this program's")
        text = file.read(schema_size)
        if len(text) < schema_size:
            return []
        if zlib.crc32(text) != schema_checksum:
            raise ConfigError(f"{path} is damaged: its schema isn't what was written")
        segment = _Segment(path, TableSchema.from_json(text.decode()))
        end = file.tell()
        while len(raw := file.read(_FRAME_BYTES)) == _FRAME_BYTES:
            checksum, body_size, after, through, seen_time_us = _FRAME.unpack_from(raw)
            offset = end + _FRAME_BYTES
            is_right = _CHECKSUM.unpack(raw[_FRAME.size :])[0] == zlib.crc32(raw[: _FRAME.size])
            if not is_right or offset + body_size > size:
                break
            frame = _Frame(segment, offset, body_size, checksum, after, through, seen_time_us)
            is_next = not frames or after == frames[-1].through
            if not is_next or (offset + body_size == size and not _is_whole(frame)):
                break
            frames.append(frame)
            end = offset + body_size
            file.seek(end)
        file.truncate(end)
    return frames


def _is_whole(frame: _Frame) -> bool:
    try:
        _read(frame)
    except FeedError:
        return False
    return True
