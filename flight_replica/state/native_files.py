"""`NativeFolder`: one table's database files, which outlive a process; `NativeFile`: one of them.

    native/NAME/000012.duckdb   a native state, with its write-ahead log 000012.duckdb.wal, and what waits
                                in memory in 000012.duckdb.ops1 and .ops2 (journal.py)
    native/NAME/current.json    which file counts; others were never finished, or are left over
    set-aside/…                 files that nobody could go on with, the newest few

What is committed is written, but not forced to the disk: a killed process loses nothing, while a stop of the
whole machine may leave half of it. So a file that wasn't closed in order counts only within the boot in which
it was written.
"""

from __future__ import annotations

import json
import logging
import os
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from flight_replica.state.journal import Journal

_log = logging.getLogger(__name__)

SET_ASIDE_MAX = 3  # files of all tables together: each may be as large as its table

FILE_SETTINGS = (
    # Forcing each commit to the disk costs as much as a small batch; what it would be for: see above.
    "SET GLOBAL fsync_mode = 'NONE'",
    # Files that go need none, and those that stay are read again with their write-ahead log.
    "SET GLOBAL checkpoint_on_detach = 'DISABLED'",
    # A checkpoint would write row groups with deleted rows anew, for seconds, while commits wait for it.
    # A table that has many of those is built anew as a whole.
    "SET GLOBAL max_vacuum_tasks = 0",
)  # of a database to which such files are attached

_CURRENT = "current.json"
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


class NativeFile:
    """One database file. Whoever has it attached calls `keep` once it counts, and `let_go` in the end."""

    def __init__(self, folder: NativeFolder, path: Path) -> None:
        self._folder = folder
        self.path = path
        self._fault = ""

    @property
    def byte_count(self) -> int:
        """On the disk, with its write-ahead log and its journal."""
        return sum(path.stat().st_size for path in _all(self.path) if path.exists())

    @property
    def log_byte_count(self) -> int:
        """Of its write-ahead log, which can't be folded in while anybody reads."""
        log = _log_of(self.path)
        return log.stat().st_size if log.exists() else 0

    def journal(self) -> Journal | None:
        """Where ops that its table lacks are kept for a later process; None where there is none to come."""
        return Journal(_journal_of(self.path)) if self._folder.is_lasting else None

    def keep(self) -> None:
        """From now on this is the table's file, in place of the one before, which goes when it is let go."""
        self._folder.keep(self.path)

    def condemn(self, fault: str) -> None:
        """It doesn't count any more, and is set aside when it is let go."""
        self._fault = fault
        self._folder.forget(self.path)

    def forget(self) -> None:
        """It doesn't count any more, and is removed when it is let go."""
        self._folder.forget(self.path)

    def let_go(self) -> None:
        """It isn't attached any longer: it stays for the next process where it counts, else it goes."""
        self._folder.let_go(self.path, self._fault)


class NativeFolder:
    """The files of one table in a workspace. Thread-safe."""

    def __init__(
        self, table: str, directory: Path, set_aside: SetAside, numbers: Iterator[int], *, is_lasting: bool
    ) -> None:
        """`is_lasting`: a later process may find the folder again."""
        self._table = table
        self.is_lasting = is_lasting
        self._directory = directory
        self._set_aside = set_aside
        self._numbers = numbers
        self._lock = threading.RLock()
        self._in_use: set[Path] = set()
        self._current: Path | None = None  # the file that counts, if this process knows of one

    def new_file(self) -> NativeFile:
        """A place for a new file, which doesn't count yet."""
        with self._lock:
            self._directory.mkdir(parents=True, exist_ok=True)
            return self._use(self._directory / f"{next(self._numbers):06d}.duckdb")

    def take_up(self) -> NativeFile | None:
        """The file that counts, None without one that can be gone on with. What else lies here goes."""
        with self._lock:
            if self._in_use or not self._directory.exists():
                return None
            path = self._trusted()
            for other in self._directory.glob("*.duckdb*"):
                if path is None or other not in _all(path):
                    other.unlink()
                    _log.info("unfinished native file removed table=%s file=%s", self._table, other.name)
            if path is None:
                self._point_to(None)
                return None
            self._point_to(path)
            return self._use(path)

    def keep(self, path: Path) -> None:
        with self._lock:
            former = self._current
            self._point_to(path)
            if former in (None, path):
                return
            if former in self._in_use:
                # Whoever reads it has all of it in file and memory; the rest was for a later process.
                for path in (_log_of(former), *_journal_of(former)):
                    _empty(path)
            else:
                _remove(former)

    def forget(self, path: Path | None = None) -> None:
        """No file counts any more, or not this one; it is removed at once where nobody uses it."""
        with self._lock:
            former = self._current
            if former is None or path not in (None, former):
                return
            self._point_to(None)
            if former not in self._in_use:
                _remove(former)

    def let_go(self, path: Path, fault: str) -> None:
        with self._lock:
            self._in_use.discard(path)
            if fault:
                self._set_aside.take(self._table, path, fault)
            elif path == self._current and self.is_lasting:
                for file in _all(path):
                    if file.exists():
                        _force(file)
                self._point_to(path, is_clean=True)
            else:
                _remove(path)

    def _use(self, path: Path) -> NativeFile:
        self._in_use.add(path)
        return NativeFile(self, path)

    def _trusted(self) -> Path | None:
        """The file that `current.json` names, unless it may be half written; that one is set aside."""
        try:
            told = json.loads((self._directory / _CURRENT).read_text())
            path = self._directory / Path(told["file"]).name
            boot, is_clean = told["boot"], told["is_clean"] is True
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError) as error:
            _log.warning("native state not told table=%s file=%s error=%s", self._table, _CURRENT, error)
            return None
        if not path.exists():
            _log.warning("native state gone table=%s file=%s", self._table, path.name)
            return None
        if is_clean or (boot and boot == _boot_id()):
            return path
        self._set_aside.take(self._table, path, "the machine stopped while it was written")
        return None

    def _point_to(self, path: Path | None, *, is_clean: bool = False) -> None:
        """Name the file that counts, so that the next process finds either this one or the one before."""
        pointer = self._directory / _CURRENT
        self._current = path
        if not self.is_lasting:
            return
        if path is None:
            pointer.unlink(missing_ok=True)
            return
        told = {"file": path.name, "boot": _boot_id(), "is_clean": is_clean}
        beside = pointer.with_suffix(".new")
        beside.write_text(json.dumps(told) + "\n")
        _force(beside)
        beside.replace(pointer)
        _force(self._directory)


class SetAside:
    """Where files go that nobody could go on with, for whoever wants to look; the newest few stay."""

    def __init__(self, directory: Path, numbers: Iterator[int]) -> None:
        self._directory = directory
        self._numbers = numbers

    def take(self, table: str, path: Path, reason: str) -> None:
        self._directory.mkdir(parents=True, exist_ok=True)
        name = f"{next(self._numbers):06d}-{path.parent.name}.duckdb"
        for source, target in zip(_all(path), _all(self._directory / name), strict=True):
            with suppress(FileNotFoundError):
                source.rename(target)
        _log.warning("native state set aside table=%s file=%s reason=%s", table, name, reason)
        for old in sorted(self._directory.glob("*.duckdb"))[:-SET_ASIDE_MAX]:
            _remove(old)


def _log_of(path: Path) -> Path:
    return path.with_name(path.name + ".wal")


def _journal_of(path: Path) -> tuple[Path, Path]:
    return path.with_name(path.name + ".ops1"), path.with_name(path.name + ".ops2")


def _all(path: Path) -> tuple[Path, ...]:
    """The file and what belongs to it."""
    return path, _log_of(path), *_journal_of(path)


def _remove(path: Path) -> None:
    for file in _all(path):
        file.unlink(missing_ok=True)


def _empty(path: Path) -> None:
    """Give the room back, which the file keeps while it is open even if it is removed."""
    with suppress(FileNotFoundError):
        os.truncate(path, 0)


def _force(path: Path) -> None:
    """Let what was written be on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _boot_id() -> str:
    """Another one after each start of the machine; empty where the system doesn't tell."""
    try:
        return _BOOT_ID.read_text().strip()
    except OSError:
        return ""
