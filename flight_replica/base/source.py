"""The seam to a table's Parquet base, whatever keeps it: a snapshot is files, deleted rows and a seq."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol
from uuid import UUID

import numpy as np
import numpy.typing as npt

from flight_replica.schema import TableSchema


@dataclass(frozen=True, slots=True)
class BaseFile:
    """One Parquet file of a snapshot. Table columns are matched by name, absent ones have their default."""

    path: str  # local
    row_count: int  # physical rows
    deleted: npt.NDArray[np.int64]  # sorted, 0-based physical rows that aren't in the table
    columns: tuple[str, ...]  # the table's columns that the file holds


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

    @property
    def row_count(self) -> int:
        return sum(file.row_count - len(file.deleted) for file in self.files)

    def adopt(self, directory: Path) -> BaseSnapshot:
        """The same snapshot on files of our own: hard links into `directory`, copies where links can't be.

        Raises `BaseNotUsable` when a file is gone.
        """
        from flight_replica.base.adopt import link_or_copy

        files = tuple(
            replace(file, path=str(link_or_copy(Path(file.path), directory / f"{number:05d}.parquet")))
            for number, file in enumerate(self.files)
        )
        return replace(self, files=files)


class BaseSource(Protocol):
    """Where a table's base snapshots come from."""

    def poll(self) -> int | None:
        """The version of the newest usable snapshot, None where there is none yet. Cheap."""
        ...

    def load(self) -> BaseSnapshot:
        """The newest snapshot. Raises `BaseNotUsable` (half written, gone: keep the old one), `BaseError`."""
        ...
