"""The seam to a table's Parquet base, whatever keeps it: a snapshot is files, deleted rows and a seq."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol
from uuid import UUID

import numpy as np
import numpy.typing as npt
from pyarrow import fs

from flight_replica.base.adopt import copy_from, link_or_copy
from flight_replica.schema import TableSchema

_log = logging.getLogger(__name__)

PROGRESS_SECONDS = 5.0  # between log lines of a copy that takes long


@dataclass(frozen=True, slots=True)
class BaseFile:
    """Rows of one Parquet file. Table columns are matched by name, absent ones have their default.

    A file can be there twice, for different rows.
    """

    path: str  # local, or in `store`
    row_count: int  # physical rows
    deleted: npt.NDArray[np.int64]  # sorted, 0-based physical rows that aren't in the table
    columns: tuple[str, ...]  # the table's columns that the file holds for these rows
    store: fs.FileSystem | None = None  # the object store it lies in, None: a local disk


@dataclass(frozen=True, slots=True)
class BaseSnapshot:
    """The whole table at one seq: rows of `files` minus their deleted ones, one row a key.

    Values are as `schema` says after a lossless cast of each column.
    """

    table: str
    lineage: UUID
    base_seq: int
    version: int  # snapshot id of the source; only equality means something
    schema: TableSchema
    files: tuple[BaseFile, ...]
    commit_time_us: int = 0  # 0 unknown
    is_lower_bound: bool = False  # base_seq may be below the state that the files hold
    is_key_stated: bool = False  # by hand, of files whose writer may not have kept to it

    @property
    def row_count(self) -> int:
        return sum(file.row_count - len(file.deleted) for file in self.files)

    def adopt(self, directory: Path) -> BaseSnapshot:
        """The same snapshot on files of our own: hard links into `directory`, copies where links can't be.

        Raises `BaseNotUsable` when a file is gone.
        """
        return replace(self, files=_adopted(self.table, self.files, directory))


def _adopted(table: str, files: tuple[BaseFile, ...], directory: Path) -> tuple[BaseFile, ...]:
    """A file that is there twice is taken once. Copies that take long are logged on the way."""
    target_by_path: dict[str, str] = {}  # of `files` -> our own
    copied_bytes, began = 0, time.monotonic()
    logged_at = began
    for file in files:
        if file.path in target_by_path:
            continue
        target = directory / f"{len(target_by_path):05d}.parquet"
        if file.store is None:
            link_or_copy(Path(file.path), target)
        else:
            copied_bytes += copy_from(file.store, file.path, target).stat().st_size
        target_by_path[file.path] = str(target)
        if (now := time.monotonic()) - logged_at >= PROGRESS_SECONDS:
            logged_at = now
            _log.info("base copying table=%s files=%d bytes=%d", table, len(target_by_path), copied_bytes)
    if copied_bytes:
        _log.info(
            "base copied table=%s files=%d bytes=%d seconds=%.3f",
            table,
            len(target_by_path),
            copied_bytes,
            time.monotonic() - began,
        )
    return tuple(replace(file, path=target_by_path[file.path], store=None) for file in files)


class BaseSource(Protocol):
    """Where a table's base snapshots come from."""

    def poll(self) -> int | None:
        """The version of the newest usable snapshot, None where there is none yet. Cheap."""
        ...

    def load(self) -> BaseSnapshot:
        """The newest snapshot. Raises `BaseNotUsable` (half written, gone: keep the old one), `BaseError`."""
        ...
