"""What a mirror's current snapshot holds, what a change makes of it, and which files to rewrite when."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from uuid import uuid4

import numpy as np
import numpy.typing as npt
from pyiceberg.manifest import DataFile
from pyiceberg.table import Table, Transaction
from pyiceberg.table.snapshots import Operation

from flight_replica.base.iceberg_files import live_files
from flight_replica.primary.mirror_files import KeyedFile, SortedKeys, matching_rows
from flight_replica.primary.position_deletes import RowLevelSnapshot, write_position_deletes
from flight_replica.schema import TableSchema

__all__ = ["Change", "MirrorLimits", "MirrorState", "key_groups", "stage"]

Positions = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class MirrorLimits:
    """Sizes of data files, and from when on they are rewritten."""

    file_rows: int = 1_000_000
    file_bytes: int = 256 << 20  # as Arrow data; about 128 MiB or less as Parquet
    row_group_rows: int = 122_880  # DuckDB's own number, the unit of its parallel scans
    small_file_fraction: float = 0.25  # a data file below this part of both sizes is small
    small_files_max: int = 16  # small data files, and delete files, that readers put up with
    deleted_fraction_max: float = 0.2  # of the rows in the data files

    def is_small(self, file: KeyedFile) -> bool:
        rows, size = file.data_file.record_count, file.data_file.file_size_in_bytes
        part = self.small_file_fraction
        return rows < part * self.file_rows and size < part * self.file_bytes


@dataclass(frozen=True, slots=True)
class MirrorState:
    """The live data files by path, and the files that hold their position deletes."""

    files: Mapping[str, KeyedFile]
    delete_files: tuple[DataFile, ...] = ()

    @classmethod
    def of(cls, table: Table) -> MirrorState:
        """The state of the table's current snapshot. Raises `BaseError` for damaged or foreign files."""
        snapshot = table.current_snapshot()
        if snapshot is None:
            return cls({})
        live = live_files(snapshot, table.io)
        files = [KeyedFile.open(file) for file in live.data]
        return cls({file.path: file for file in files}, live.deletes)

    @property
    def row_count(self) -> int:
        return sum(file.row_count for file in self.files.values())

    def rows_of(self, keys: SortedKeys, schema: TableSchema) -> dict[str, Positions]:
        """Data file path -> rows in the table, at least one, whose key is among `keys`."""
        found = {path: matching_rows(file, keys, schema) for path, file in self.files.items()}
        return {path: positions for path, positions in found.items() if len(positions)}

    def after(self, change: Change, written: tuple[DataFile, ...]) -> MirrorState:
        gone = {file.path for file in change.removed}
        files = {path: file for path, file in self.files.items() if path not in gone}
        for path, positions in change.deletes.items():
            files[path] = files[path].without(positions)
        files |= {file.path: file for file in change.added}
        return MirrorState(files, (() if change.renews_deletes else self.delete_files) + written)

    def rewrite_due(self, limits: MirrorLimits) -> tuple[KeyedFile, ...] | None:
        """The data files to rewrite, by lowest key; `()` for the delete files alone, None for nothing."""
        files = self.files.values()
        small = [file for file in files if limits.is_small(file)]
        due = {file.path for file in small} if len(small) > limits.small_files_max else set()
        rows = sum(file.data_file.record_count for file in files)
        if rows - self.row_count > limits.deleted_fraction_max * rows:
            worn = (
                f for f in files if len(f.deleted) > limits.deleted_fraction_max * f.data_file.record_count
            )
            due |= {file.path for file in worn}
        if not due and len(self.delete_files) <= limits.small_files_max:
            return None
        return tuple(sorted((self.files[path] for path in due), key=lambda file: file.ranges[0]))

    def deletes_without(self, files: tuple[KeyedFile, ...]) -> dict[str, Positions]:
        """The deletes of every other file, as a rewrite has to write them again."""
        gone = {file.path for file in files}
        return {p: f.deleted for p, f in self.files.items() if p not in gone and len(f.deleted)}


@dataclass(frozen=True, slots=True)
class Change:
    """What a snapshot changes: data files in and out, and rows hidden by position deletes.

    With `renews_deletes` the `deletes` replace all that are in the table, otherwise they are added.
    """

    operation: Operation
    added: tuple[KeyedFile, ...] = ()
    removed: tuple[KeyedFile, ...] = ()
    deletes: Mapping[str, Positions] = field(default_factory=dict)
    renews_deletes: bool = False


def stage(
    transaction: Transaction,
    state: MirrorState,
    change: Change,
    properties: Mapping[str, str],
    directory: Path,
) -> MirrorState:
    """Stage one snapshot that turns `state` into the returned state, true once `transaction` is committed.

    Delete files go to `directory`.
    """
    path = directory / f"{uuid4()}-deletes.parquet"
    written = (write_position_deletes(path, change.deletes),) if change.deletes else ()
    removed = [file.data_file for file in change.removed]
    removed += state.delete_files if change.renews_deletes else ()
    snapshot = RowLevelSnapshot(transaction, properties, change.operation)
    snapshot.add([file.data_file for file in change.added]).add(written).remove(removed).commit()
    return state.after(change, written)


def key_groups(files: tuple[KeyedFile, ...], limits: MirrorLimits) -> Iterator[list[KeyedFile]]:
    """`files` in the given order, in groups that fit into one new data file each."""
    group: list[KeyedFile] = []
    for file in files:
        both = [*group, file]
        is_full = sum(f.row_count for f in both) > limits.file_rows
        if group and (is_full or sum(f.data_file.file_size_in_bytes for f in both) > limits.file_bytes // 2):
            yield group
            both = [file]
        group = both
    if group:
        yield group
