"""`Workspace`: the DuckDB database and the folder that all states of one process share."""

from __future__ import annotations

import fcntl
import itertools
import os
import shutil
import tempfile
import time
from pathlib import Path

import duckdb

from flight_replica.errors import ConfigError
from flight_replica.folder_lock import FolderLock
from flight_replica.sql.database import open_database

_MARK = "flight-replica.lock"
_PREFIX = "flight-replica-"  # of temporary folders
_LEFT_OVER_SECONDS = 60.0  # a younger folder may be one that its process is about to lock


class Workspace:
    """One process's place for states: a folder nobody else uses, and one database over it.

    `directory` None: a temporary folder, removed at `close`. What an earlier process left is removed at open.
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
        self._remove_files()
        self._states.mkdir()
        self._numbers = itertools.count(1)
        try:
            self.database = open_database(
                readable=[self._states], memory_limit=memory_limit, temp_directory=self.directory / "spill"
            )
        except BaseException:
            self._let_go()
            raise

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

    def new_folder(self) -> Path:
        """A folder for a base that is fetched; whoever makes it removes it, at the latest this does."""
        return self._fetched / f"{next(self._numbers):06d}"

    def _remove_files(self) -> None:
        for folder in (self._states, self._fetched):
            shutil.rmtree(folder, ignore_errors=True)

    def session(self) -> duckdb.DuckDBPyConnection:
        return self.database.cursor()

    def close(self) -> None:
        """Close the database and let go of the folder. No state or view may be left."""
        self.database.close()
        self._let_go()

    def _let_go(self) -> None:
        self._remove_files()
        self._lock.release()
        if self._is_temporary:
            shutil.rmtree(self.directory, ignore_errors=True)


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
