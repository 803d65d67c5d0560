"""`Workspace`: the DuckDB database and the folder that all states of one process share."""

from __future__ import annotations

import fcntl
import itertools
import logging
import os
import re
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from urllib.parse import quote

import duckdb

from flight_replica.errors import ConfigError
from flight_replica.folder_lock import FolderLock
from flight_replica.sql.database import open_database
from flight_replica.sql.standing_sessions import StandingSessions
from flight_replica.state.native_files import FILE_SETTINGS, NativeFolder, SetAside

_log = logging.getLogger(__name__)

_MARK = "flight-replica.lock"
_SPILL = "spill"  # how folders are called of what didn't fit into memory
_PREFIX = "flight-replica-"  # of temporary folders
_NAME_MAX = 100  # characters of a table's folder
_TURN_SECONDS = 0.2  # how often a table that waits for its turn looks whether it still wants it
_LEFT_OVER_SECONDS = 60.0  # a younger folder may be one that its process is about to lock


class Workspace:
    """One process's place for states: a folder nobody else uses, and one database over it.

    `directory` None: a temporary folder, removed at `close`. What an earlier process left is removed at open,
    but for native states, which tables may go on with.
    Raises `ConfigError` when the folder is in use or holds something else, or the limit is no size.
    Thread-safe.
    """

    def __init__(self, directory: Path | None = None, *, memory_limit: str | None = None) -> None:
        self._is_temporary = directory is None
        if directory is None:
            _remove_left_over()
        self.directory = directory or Path(tempfile.mkdtemp(prefix=_PREFIX))
        self._lock = self._claim()
        self._states = self.directory / "states"
        self._fetched = self.directory / "fetched"
        self._native = self.directory / "native"
        self._remove_files()
        self._states.mkdir()
        self._native.mkdir(exist_ok=True)
        set_aside = self.directory / "set-aside"
        self._numbers = itertools.count(_newest_number(self._native, set_aside) + 1)
        self._set_aside = SetAside(set_aside, self._numbers)
        self._making = threading.Lock()
        self._building = threading.Lock()
        self._native_by_table: dict[str, NativeFolder] = {}
        try:
            self.database = open_database(
                readable=[self._states, self._native],
                memory_limit=memory_limit,
                temp_directory=self.directory / _SPILL,
                settings=FILE_SETTINGS,
            )
        except BaseException:
            self._let_go()
            raise
        self.standing_sessions = StandingSessions(self.session)

    def _claim(self) -> FolderLock:
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
            names = set(os.listdir(self.directory))
            if names and _MARK not in names:
                raise ConfigError(f"data folder {self.directory} holds other files; give an empty or new one")
        except OSError as error:
            raise ConfigError(f"data folder {self.directory} can't be used: {error.strerror}") from error
        return FolderLock(self.directory / _MARK, f"data folder {self.directory}")

    def new_state(self) -> tuple[int, Path]:
        """A number for a new state's tables, and the folder for its files."""
        number = next(self._numbers)
        return number, self._states / f"{number:06d}"

    def new_number(self) -> int:
        """A number for the database of a native state."""
        return next(self._numbers)

    def native_folder(self, table: str) -> NativeFolder:
        """Where the native states of a table lie, those of earlier processes too."""
        with self._making:
            if table not in self._native_by_table:
                directory = self._native / _folder_name(table)
                self._native_by_table[table] = NativeFolder(
                    table, directory, self._set_aside, self._numbers, is_lasting=not self._is_temporary
                )
            return self._native_by_table[table]

    def forget_others(self, tables: Collection[str]) -> None:
        """Remove what earlier processes left of tables that aren't among `tables`, nor known to this one."""
        with self._making:
            known = {_folder_name(table) for table in (*tables, *self._native_by_table)}
            for directory in list(self._native.iterdir()):
                if directory.name not in known:
                    shutil.rmtree(directory, ignore_errors=True)
                    _log.info("native files of a table that is gone removed folder=%s", directory.name)

    def native_bytes(self, besides: str) -> int:
        """What the native states of all tables but one take on the disk."""
        own = self._native / _folder_name(besides)
        files = (path for path in self._native.glob("*/*.duckdb*") if path.parent != own)
        return sum(_size(path) for path in files)

    @contextmanager
    def one_build(self, check: Callable[[], None]) -> Iterator[None]:
        """The only one in the block: native states are made one at a time, since each takes all cores.

        While another one is in it, `check` is called now and then; what it raises ends the wait.
        """
        while not self._building.acquire(timeout=_TURN_SECONDS):
            check()
        try:
            yield
        finally:
            self._building.release()

    def new_folder(self) -> Path:
        """A folder for a base that is fetched; whoever makes it removes it, at the latest this does."""
        return self._fetched / f"{next(self._numbers):06d}"

    def _remove_files(self) -> None:
        for folder in (self._states, self._fetched, *self.directory.glob(f"{_SPILL}*")):
            shutil.rmtree(folder, ignore_errors=True)

    def session(self) -> duckdb.DuckDBPyConnection:
        return self.database.cursor()

    def close(self) -> None:
        """Close the database and let go of the folder. No state or view may be left."""
        self.standing_sessions.close()
        self.database.close()
        self._let_go()

    def _let_go(self) -> None:
        self._remove_files()
        self._lock.release()
        if self._is_temporary:
            shutil.rmtree(self.directory, ignore_errors=True)


def _folder_name(table: str) -> str:
    """A file name of its own for each table, readable where that can be."""
    name = quote(table, safe="").replace(".", "%2E")
    if len(name) <= _NAME_MAX:
        return name
    return f"{name[:_NAME_MAX]}-{sha256(table.encode()).hexdigest()[:32]}"


def _size(path: Path) -> int:
    """Of a file that may go at any moment."""
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def _newest_number(*directories: Path) -> int:
    """The largest number of a file that is left there; 0 for none."""
    names = (path.name for directory in directories for path in directory.rglob("*.duckdb"))
    return max((int(found[0]) for name in names if (found := re.match(r"\d+", name))), default=0)


def _remove_left_over() -> None:
    """Remove temporary folders of processes that were killed: those whose lock nobody holds."""
    for folder in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        try:
            if time.time() - folder.stat().st_mtime < _LEFT_OVER_SECONDS:
                continue
            handle = os.open(folder / _MARK, os.O_RDWR)
        except OSError:  # not ours, or just being made
            continue
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(folder, ignore_errors=True)
        except OSError:  # in use
            continue
        finally:
            os.close(handle)
