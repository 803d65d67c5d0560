"""`LogDirectory`: which log files there are, each opened as soon as it is seen.

The engine removes a log once a flush has written its ops to the table's files; an open descriptor reads
on to the end all the same, so files are opened long before they are read. A file that came and went
between two looks is told by its number: the engine gives the next log the highest number + 1. A file that
was read stays open until it is removed, so that it can be asked whether it still is as it was read: an engine
that starts again reads it anew, and goes on with what it finds. Nothing is written here and no lock is taken.
What is in the files: `log_file.py`; their order: `engine_log.py`.
Source: merutable format, section 13.
"""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from xxhash import xxh3_128

from flight_replica.beside.log_file import LogFileDecoder, WriteBatch
from flight_replica.errors import Closed, FeedError

__all__ = ["LogDirectory", "OpenLog"]

OPEN_FILES_MAX = 256  # failing flushes pile up logs; those past this limit wait until others are read
READ_FILES_MAX = 64  # kept open after they were read; failing flushes pile these up too, the oldest go first
HASHED_BYTES = 1 << 20  # of one read
_NAME = re.compile(r"([0-9]{1,18})\.wal")


@dataclass(slots=True)
class OpenLog:
    """One log file, open for reading. Owned by its `LogDirectory`, used by the one reader."""

    number: int
    name: str
    descriptor: int
    inode: tuple[int, int]  # device and inode
    absent: range  # numbers between the log before and this one for which no file was there
    is_missed: bool  # … and at least one of them was there between two looks
    is_given_up: bool = False  # the rest of it is skipped: damage that was passed over
    decoder: LogFileDecoder = field(init=False)
    _hash: xxh3_128 = field(init=False)  # of the bytes in front of the decoder's position

    def __post_init__(self) -> None:
        self.decoder = LogFileDecoder(self.number)
        self._hash = xxh3_128()

    def decode(self, data: bytes) -> list[WriteBatch]:
        """As the decoder, whose position moves; `data` are the bytes from there on."""
        position = self.decoder.position
        batches = self.decoder.decode(data)
        self._hash.update(memoryview(data)[: self.decoder.position - position])
        return batches

    def skip_block(self) -> None:
        """As the decoder. The block is there."""
        position = self.decoder.position
        self.decoder.skip_block()
        self._hash.update(self.read(position, self.decoder.position - position))

    def is_as_read(self) -> bool:
        """Whether the bytes up to the decoder's position still are what they were."""
        found, position = xxh3_128(), 0
        while position < self.decoder.position:
            data = self.read(position, min(HASHED_BYTES, self.decoder.position - position))
            if not data:
                return False
            found.update(data)
            position += len(data)
        return bool(found.digest() == self._hash.digest())

    def size(self) -> int:
        """Bytes now; 0 once it is let go of."""
        try:
            return os.fstat(self.descriptor).st_size
        except OSError:
            return 0

    def read(self, position: int, byte_count: int) -> bytes:
        """Up to `byte_count` bytes from `position` on; fewer at the end. Raises `FeedError`."""
        try:
            return os.pread(self.descriptor, byte_count, position)
        except OSError as error:
            raise FeedError(f"log {self.name} can't be read at {position}: {error.strerror}") from error


class LogDirectory:
    """The logs of one directory from the oldest that isn't read yet. Thread-safe."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.Lock()
        self._held: list[OpenLog] = []  # ascending; the first is being read
        self._read: list[OpenLog] = []  # ascending; to their end, and still there at the last look
        self._is_check_due = False  # a log appeared or went since the last `changed`
        self._newest: tuple[int, str] | None = None  # number and name of the last log that was opened
        self._listed: frozenset[str] = frozenset()  # the logs that the last look saw
        self._is_closed = False
        self._replaced: str | None = None

    def held(self) -> tuple[OpenLog, ...]:
        with self._lock:
            return tuple(self._held)

    @property
    def has_files(self) -> bool:
        """Whether the last look found a log."""
        with self._lock:
            return bool(self._listed)

    @property
    def replaced(self) -> str | None:
        """Why what lies there now can't be the log that was read before; None while it is."""
        return self._replaced

    def look(self) -> None:
        """Open what is new. A directory that isn't there yet has no logs.

        Raises `FeedError` when it was there before, or a log can't be opened.
        """
        with self._lock:
            if self._is_closed:
                raise Closed(f"log directory {self.path} was closed")
            if self._newest is None:
                self._look_first()
            elif self._replaced is None:
                self._look_again()

    def drop_first(self) -> None:
        """Leave the oldest log: it was read to its end, and a later one holds data."""
        with self._lock:
            if self._held:
                self._read.append(self._held.pop(0))
                while len(self._read) > READ_FILES_MAX:
                    os.close(self._read.pop(0).descriptor)

    def changed(self) -> OpenLog | None:
        """A log of which other bytes are there now than were read, None for none.

        They are looked at once after each look that saw a log appear or go, and those that went for the
        last time. For the one reader. Raises `FeedError`.
        """
        with self._lock:
            is_due, self._is_check_due = self._is_check_due, False
            logs = [*self._read, *self._held] if is_due else []
        changed = next((log for log in logs if not log.is_as_read()), None)
        with self._lock:
            for log in [log for log in self._read if log in logs and log.name not in self._listed]:
                self._read.remove(log)
                os.close(log.descriptor)
        return changed

    def start_over(self) -> None:
        """Forget what was read; the next look starts with the oldest log that is there."""
        with self._lock:
            self._let_go()
            self._newest, self._listed, self._replaced = None, frozenset(), None
            self._is_check_due = False

    def close(self) -> None:
        with self._lock:
            self._is_closed = True
            self._let_go()

    def _let_go(self) -> None:
        for log in [*self._read, *self._held]:
            os.close(log.descriptor)
        self._read, self._held = [], []

    def _look_first(self) -> None:
        """Start with a listing of which every file could be opened: none was removed meanwhile."""
        for _ in range(10):
            logs = self._list()
            if all(self._open(number, name) for number, name, _ in logs[:OPEN_FILES_MAX]):
                self._listed = frozenset(name for _, name, _ in logs)
                return
            self._let_go()
            self._newest = None
        raise FeedError(f"log directory {self.path}: logs vanish faster than they can be opened")

    def _look_again(self) -> None:
        logs = self._list()
        self._replaced = self._difference(logs) and self._difference(self._list())
        if self._replaced is not None:
            return
        self._listed = frozenset(name for _, name, _ in logs)
        if any(log.name not in self._listed for log in self._read):
            self._is_check_due = True
        for number, name, _ in logs:
            if self._newest is not None and (number, name) > self._newest:
                if len(self._held) >= OPEN_FILES_MAX:
                    return
                if self._open(number, name, is_live=True):
                    self._is_check_due = True

    def _difference(self, logs: list[tuple[int, str, int]]) -> str | None:
        """Why `logs` can't follow what was seen before, None when they can."""
        assert self._newest is not None, "only after the first look"
        known = {log.name: log for log in [*self._read, *self._held]}
        for number, name, inode in logs:
            if name in known and known[name].inode[1] != inode:
                return f"{name} is another file than the one that was read"
            if (number, name) <= self._newest and name not in self._listed:
                return f"{name} appeared after {self._newest[1]} was there"
        if logs and logs[-1][:2] < self._newest and self._newest[1] not in {log[1] for log in logs}:
            return f"{self._newest[1]} is gone, and the newest log is {logs[-1][1]}"
        return None

    def _list(self) -> list[tuple[int, str, int]]:
        """Number, name and inode of each log, ascending by number."""
        try:
            return sorted(_logs_in(self.path))
        except FileNotFoundError as error:
            if self._newest is None:
                return []
            raise FeedError(f"log directory {self.path} is gone") from error
        except OSError as error:
            raise FeedError(f"log directory {self.path} can't be read: {error.strerror}") from error

    def _open(self, number: int, name: str, *, is_live: bool = False) -> bool:
        """Whether the log could be opened; False when it was removed meanwhile."""
        try:
            descriptor = os.open(self.path / name, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return False
        except OSError as error:
            raise FeedError(f"log {self.path / name} can't be opened: {error.strerror}") from error
        status = os.fstat(descriptor)
        before = number - 1 if self._newest is None else self._newest[0]
        absent = range(before + 1, number)
        log = OpenLog(
            number, name, descriptor, (status.st_dev, status.st_ino), absent, is_live and bool(absent)
        )
        self._held.append(log)
        self._newest = (number, name)
        return True


def _logs_in(path: Path) -> Iterator[tuple[int, str, int]]:
    with os.scandir(path) as entries:
        for entry in entries:
            name = _NAME.fullmatch(entry.name)
            if name is not None and entry.is_file():
                yield int(name[1]), entry.name, entry.inode()
