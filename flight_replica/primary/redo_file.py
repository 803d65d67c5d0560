"""`RedoFile`: the newest `RedoRecord` in a file of its own, `primary.redo`, forced to the disk.

One record is enough: the store has committed each one before the next is put in its place. It is a head
(`_HEAD`), a JSON text, and for each table the ops of all its commits as an Arrow IPC stream. A record that
was written in part is none.
"""

from __future__ import annotations

import json
import logging
import os
import struct
import zlib
from pathlib import Path
from typing import Any
from uuid import UUID

import pyarrow as pa

from flight_replica.log.batches import between, concat
from flight_replica.primary.redo import RedoRecord, TableRedo
from flight_replica.primary.transaction import Commit

__all__ = ["RedoFile"]

logger = logging.getLogger(__name__)

FILE_NAME = "primary.redo"
_HEAD = struct.Struct("<QIQ")  # bytes and CRC-32 of all that follows; bytes of the JSON text


class RedoFile:
    """Used by one thread. `close` lets go of the file, which stays."""

    def __init__(self, directory: Path) -> None:
        """The file need not exist yet. Raises `OSError`."""
        self._path = directory / FILE_NAME
        self._file = self._open()
        self._is_failing = False  # said once, until it works again

    def _open(self) -> int:
        file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        _force_names(self._path.parent)
        return file

    def put(self, record: RedoRecord) -> bool:
        """Make `record` durable in the place of the one before; False where the disk doesn't take it."""
        content = _encoded(record)
        try:
            self._write(content)
            if not self._is_in_place():
                logger.warning("redo file made anew, as it was removed or replaced path=%s", self._path)
                self._open_anew()
                self._write(content)
        except OSError as error:
            if not self._is_failing:
                logger.warning("redo record not written, commits go without it error=%s", error)
            self._is_failing = True
            self._take_back()
            return False
        self._is_failing = False
        return True

    def _write(self, content: bytes) -> None:
        if os.pwrite(self._file, content, 0) < len(content):
            raise OSError("the disk took a part of it")
        os.fdatasync(self._file)

    def _is_in_place(self) -> bool:
        """Whether the next start will find this file."""
        try:
            return os.path.samestat(os.fstat(self._file), os.stat(self._path))
        except FileNotFoundError:
            return False

    def _open_anew(self) -> None:
        before, self._file = self._file, self._open()
        os.close(before)

    def _take_back(self) -> None:
        """Let no record count that was refused: its transaction may yet fail."""
        try:
            os.ftruncate(self._file, 0)
            os.fsync(self._file)
        except OSError:
            try:
                self._path.unlink(missing_ok=True)
                _force_names(self._path.parent)
            except OSError as error:
                logger.error("redo record not taken back, the next start may find it error=%s", error)

    def read(self) -> RedoRecord | None:
        """The newest record; None without a whole one."""
        content = memoryview(os.pread(self._file, os.fstat(self._file).st_size, 0))
        if len(content) < _HEAD.size:
            return None
        size, checksum, text_size = _HEAD.unpack_from(content)
        body = content[_HEAD.size : _HEAD.size + size]
        if len(body) < size or zlib.crc32(body) != checksum:
            return None
        return _decoded(json.loads(bytes(body[:text_size])), body[text_size:])

    def close(self) -> None:
        os.close(self._file)


def _force_names(directory: Path) -> None:
    """Let files that were just made be found after a stop of the machine, and those that went not."""
    handle = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _encoded(record: RedoRecord) -> bytes:
    streams = [_stream(table) for table in record.tables]
    told = {
        "commit_time_us": record.commit_time_us,
        "tables": [
            {
                "id": table.table_id,
                "lineage": str(table.lineage),
                "low_water": table.low_water,
                "ends": [commit.through for commit in table.commits],
                "bytes": len(stream),
            }
            for table, stream in zip(record.tables, streams, strict=True)
        ],
    }
    text = json.dumps(told).encode()
    body = b"".join([text, *streams])
    return _HEAD.pack(len(body), zlib.crc32(body), len(text)) + body


def _stream(table: TableRedo) -> bytes:
    schema = table.commits[0].ops.schema
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, schema) as stream:
        stream.write_batch(concat([commit.ops for commit in table.commits], schema))
    return bytes(sink.getvalue())


def _decoded(told: dict[str, Any], streams: memoryview) -> RedoRecord:
    tables = []
    for table in told["tables"]:
        with pa.ipc.open_stream(streams[: table["bytes"]]) as stream:
            ops = stream.read_next_batch()
        streams = streams[table["bytes"] :]
        ends = table["ends"]
        commits = tuple(
            Commit(between(ops, since, end), end) for since, end in zip([0, *ends], ends, strict=False)
        )
        tables.append(TableRedo(table["id"], UUID(table["lineage"]), table["low_water"], commits))
    return RedoRecord(told["commit_time_us"], tuple(tables))
