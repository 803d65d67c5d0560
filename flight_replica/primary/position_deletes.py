"""One Iceberg snapshot that adds data files and position deletes and removes whole files, which pyiceberg
can't write by itself.

This is the only module that leans on internals of pyiceberg, version 0.12 (`_SnapshotProducer` and the
manifest writer); `tests/unit/primary/test_position_deletes.py` pins what it relies on.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
from pyiceberg.manifest import (
    DataFile,
    DataFileContent,
    FileFormat,
    ManifestContent,
    ManifestEntry,
    ManifestEntryStatus,
    ManifestFile,
    ManifestWriterV2,
)
from pyiceberg.table import Transaction
from pyiceberg.table.snapshots import Operation, Summary
from pyiceberg.table.update.snapshot import _SnapshotProducer
from pyiceberg.typedef import EMPTY_DICT, Record

__all__ = ["DELETE_FILE_SCHEMA", "RowLevelSnapshot", "described_file", "write_position_deletes"]

Positions = npt.NDArray[np.int64]

_PATH_ID, _POSITION_ID = 2147483546, 2147483545  # Iceberg spec, "Reserved Field IDs"

DELETE_FILE_SCHEMA = pa.schema(
    [
        pa.field("file_path", pa.string(), False, {"PARQUET:field_id": str(_PATH_ID)}),
        pa.field("pos", pa.int64(), False, {"PARQUET:field_id": str(_POSITION_ID)}),
    ]
)


def write_position_deletes(path: Path, deletes: Mapping[str, Positions]) -> DataFile:
    """Write `deletes` (data file path -> sorted rows, at least one in all) and describe the file.

    The path bounds are whole, never cut, so that readers skip the file for every other data file.
    """
    paths = sorted(data_path for data_path, positions in deletes.items() if len(positions))
    assert paths, "an empty delete file"
    codes = np.repeat(np.arange(len(paths), dtype=np.int32), [len(deletes[data_path]) for data_path in paths])
    columns = [
        pa.DictionaryArray.from_arrays(codes, pa.array(paths)).cast(pa.string()),
        pa.array(np.concatenate([deletes[data_path] for data_path in paths])),
    ]
    pq.write_table(pa.Table.from_arrays(columns, schema=DELETE_FILE_SCHEMA), path, compression="zstd")
    return described_file(
        DataFileContent.POSITION_DELETES,
        path,
        record_count=len(codes),
        value_counts={_PATH_ID: len(codes), _POSITION_ID: len(codes)},
        null_value_counts={_PATH_ID: 0, _POSITION_ID: 0},
        lower_bounds={_PATH_ID: paths[0].encode()},
        upper_bounds={_PATH_ID: paths[-1].encode()},
    )


def described_file(content: DataFileContent, path: Path, **statistics: Any) -> DataFile:
    """The manifest's entry for a Parquet file of an unpartitioned table."""
    file = DataFile.from_args(
        content=content,
        file_path=str(path),
        file_format=FileFormat.PARQUET,
        partition=Record(),
        file_size_in_bytes=path.stat().st_size,
        sort_order_id=None,
        equality_ids=None,
        key_metadata=None,
        **statistics,
    )
    file.spec_id = 0
    return file


class _DeleteManifestWriter(ManifestWriterV2):
    """The v2 manifest writer for delete files; the package's own writes data files only."""

    def content(self) -> ManifestContent:
        return ManifestContent.DELETES

    @property
    def _meta(self) -> dict[str, str]:
        return {**super()._meta, "content": "deletes"}


class RowLevelSnapshot(_SnapshotProducer["RowLevelSnapshot"]):
    """A snapshot under way, staged in `transaction` by `commit()`; both kinds of files go in and out of it.

    Without removals the parent's manifests are carried over as they are. With removals every live entry is
    rewritten into one manifest per content, which also keeps the number of manifests small.
    """

    def __init__(self, transaction: Transaction, properties: Mapping[str, str], operation: Operation) -> None:
        # The summary collector of this pyiceberg version doesn't know REPLACE; see `_summary`.
        super().__init__(
            operation=Operation.OVERWRITE if operation is Operation.REPLACE else operation,
            transaction=transaction,
            io=transaction._table.io,
            snapshot_properties=dict(properties),
        )
        self._stated_operation = operation

    def add(self, files: Iterable[DataFile]) -> RowLevelSnapshot:
        self._added_data_files.extend(files)
        return self

    def remove(self, files: Iterable[DataFile]) -> RowLevelSnapshot:
        """Take live files of either kind out of the table."""
        self._deleted_data_files.update(files)
        return self

    def _summary(self, snapshot_properties: dict[str, str] = EMPTY_DICT) -> Summary:
        summary = super()._summary(snapshot_properties)
        return Summary(self._stated_operation, **summary.additional_properties)

    def _manifests(self) -> list[ManifestFile]:
        untouched = self._existing_manifests()
        entries = self._deleted_entries() + [self._added_entry(file) for file in self._added_data_files]
        data = [entry for entry in entries if entry.data_file.content is DataFileContent.DATA]
        deletes = [entry for entry in entries if entry.data_file.content is not DataFileContent.DATA]
        return (
            untouched
            + self._manifest_of(data, ManifestWriterV2)
            + self._manifest_of(deletes, _DeleteManifestWriter)
        )

    def _existing_manifests(self) -> list[ManifestFile]:
        """The parent's manifests that go on as they are: all, or none when files are removed."""
        return [] if self._deleted_data_files else self._parent_manifests()

    def _deleted_entries(self) -> list[ManifestEntry]:
        """The parent's live entries as this snapshot's manifests hold them: DELETED or EXISTING."""
        if not self._deleted_data_files:
            return []
        live = [
            entry
            for manifest in self._parent_manifests()
            for entry in manifest.fetch_manifest_entry(self._io)
        ]
        unknown = self._deleted_data_files - {entry.data_file for entry in live}
        assert not unknown, f"files to remove are not in the table: {sorted(f.file_path for f in unknown)}"
        return [self._carried_entry(entry) for entry in live]

    def _parent_manifests(self) -> list[ManifestFile]:
        parent = self._transaction.table_metadata.current_snapshot()
        return parent.manifests(self._io) if parent else []

    def _carried_entry(self, entry: ManifestEntry) -> ManifestEntry:
        is_removed = entry.data_file in self._deleted_data_files
        return ManifestEntry.from_args(
            status=ManifestEntryStatus.DELETED if is_removed else ManifestEntryStatus.EXISTING,
            snapshot_id=self._snapshot_id if is_removed else entry.snapshot_id,
            sequence_number=entry.sequence_number,
            file_sequence_number=entry.file_sequence_number,
            data_file=entry.data_file,
        )

    def _added_entry(self, file: DataFile) -> ManifestEntry:
        # Without a sequence number: readers inherit the one that the manifest list assigns.
        return ManifestEntry.from_args(
            status=ManifestEntryStatus.ADDED,
            snapshot_id=self._snapshot_id,
            sequence_number=None,
            file_sequence_number=None,
            data_file=file,
        )

    def _manifest_of(self, entries: list[ManifestEntry], kind: type[ManifestWriterV2]) -> list[ManifestFile]:
        if not entries:
            return []
        spec, schema = self._transaction.table_metadata.spec(), self.schema()
        output = self.new_manifest_output()
        with kind(spec, schema, output, self._snapshot_id, self._compression) as writer:
            for entry in entries:
                writer.add_entry(entry)
        return [writer.to_manifest_file()]
