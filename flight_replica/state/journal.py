"""`Journal`: what a native state holds in memory, on the disk as well, so that a killed process has it again.

Ops that wait for the table (recent_ops.py) are appended here first, and go once the table has them. Two files
take turns: while the table takes what lies in one, what comes meanwhile goes into the other. A file is a
sequence of records, each a head (`_HEAD`) and an Arrow IPC stream of one batch of ops.

Nothing is forced to the disk: native_files.py says when such files count. Where the disk takes no more, ops
just come again when a later process follows.
"""

from __future__ import annotations

import logging
import os
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

__all__ = ["Journal", "JournalRecord"]

_log = logging.getLogger(__name__)

# Bytes and CRC-32 of the stream that follows; the seqs (after, through] that it stands for, and the time of
# the last commit (µs since 1970; 0 unknown).
_HEAD = struct.Struct("<QIQQq")


@dataclass(frozen=True, slots=True)
class JournalRecord:
    """Every op in `(after, through]`, in the schema that the feed had then."""

    after: int
    through: int
    commit_time_us: int
    ops: pa.RecordBatch


class Journal:
    """The two files of one state. Methods are called by one thread at a time."""

    def __init__(self, paths: tuple[Path, Path]) -> None:
        """The files need not exist yet."""
        self._paths = paths
        self._files: dict[Path, int] = {}  # descriptors of those that were written by this process
        self._current, self._other = paths
        self._is_cut = False  # whether the current file lacks a record, so that later ones are of no use

    def append(self, record: JournalRecord) -> None:
        """Keep `record`, which follows the one before."""
        if self._is_cut:
            return
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, record.ops.schema) as stream:
            stream.write_batch(record.ops)
        body = sink.getvalue()
        head = _HEAD.pack(body.size, zlib.crc32(body), record.after, record.through, record.commit_time_us)
        try:
            written = os.writev(self._open(self._current), [head, body])
        except OSError as error:
            self._cut(str(error))
        else:
            if written < len(head) + body.size:
                self._cut("the disk took a part of it")

    def _cut(self, reason: str) -> None:
        self._is_cut = True
        _log.warning("waiting ops not kept on disk file=%s reason=%s", self._current.name, reason)

    def turn(self) -> None:
        """What is appended from now on lies apart from what the table takes now, if there is a file free."""
        if _size(self._other) == 0:
            self._current, self._other = self._other, self._current
            self._is_cut = False

    def forget(self) -> None:
        """The table has all that was appended before the last `turn`."""
        self._empty(self._other)

    def clear(self) -> None:
        """The table has all."""
        for path in self._paths:
            self._empty(path)
        self._is_cut = False

    def read(self, after: int) -> list[JournalRecord]:
        """What follows on `after` without a gap; what is older, or was written in part, is left out."""
        records = []
        for record in sorted((r for path in self._paths for r in _records(path)), key=lambda r: r.through):
            if record.after > after:
                break
            if record.through > after:
                records.append(record)
                after = record.through
        return records

    def close(self) -> None:
        """Let go of the files, which stay."""
        while self._files:
            os.close(self._files.popitem()[1])

    def _open(self, path: Path) -> int:
        if path not in self._files:
            self._files[path] = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        return self._files[path]

    def _empty(self, path: Path) -> None:
        if _size(path) > 0:
            os.ftruncate(self._open(path), 0)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def _records(path: Path) -> Iterator[JournalRecord]:
    """Those that were written in whole, up to the first one that wasn't."""
    try:
        data = memoryview(path.read_bytes())
    except FileNotFoundError:
        return
    while len(data) >= _HEAD.size:
        size, checksum, after, through, commit_time_us = _HEAD.unpack_from(data)
        body = data[_HEAD.size : _HEAD.size + size]
        if len(body) < size or zlib.crc32(body) != checksum:
            break
        with pa.ipc.open_stream(body) as stream:
            yield JournalRecord(after, through, commit_time_us, stream.read_next_batch())
        data = data[_HEAD.size + size :]
    if len(data):
        _log.info("end of waiting ops left out file=%s bytes=%d", path.name, len(data))
