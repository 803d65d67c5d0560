"""The live data files of one Iceberg snapshot and the rows deleted in them (format versions 1 and 2).

Equality deletes, deletion vectors and files that aren't Parquet on a local disk are refused by name.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlparse

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pyiceberg.io import FileIO
from pyiceberg.manifest import DataFile, DataFileContent, FileFormat, ManifestEntry
from pyiceberg.table.snapshots import Snapshot

from flight_replica.errors import BaseError, BaseNotUsable

__all__ = ["LiveFile", "LiveFiles", "live_files", "local_path", "parquet_file"]

Positions = npt.NDArray[np.int64]

_NO_POSITIONS: Positions = np.empty(0, np.int64)


@dataclass(frozen=True, slots=True)
class LiveFile:
    """A data file of the snapshot. `deleted`: sorted, distinct 0-based rows."""

    data_file: DataFile
    deleted: Positions


@dataclass(frozen=True, slots=True)
class LiveFiles:
    data: tuple[LiveFile, ...]
    deletes: tuple[DataFile, ...]  # the position delete files that `deleted` was read from


def live_files(snapshot: Snapshot, io: FileIO) -> LiveFiles:
    """What `snapshot` holds. Raises `BaseError` for what isn't read, `BaseNotUsable` when a file is gone."""
    data: list[ManifestEntry] = []
    deletes: list[ManifestEntry] = []
    for entry in _entries(snapshot, io):
        _check_readable(entry.data_file)
        (data if entry.data_file.content is DataFileContent.DATA else deletes).append(entry)
    deleted = _deleted_positions(data, deletes)
    return LiveFiles(
        data=tuple(
            LiveFile(entry.data_file, deleted.get(entry.data_file.file_path, _NO_POSITIONS)) for entry in data
        ),
        deletes=tuple(entry.data_file for entry in deletes),
    )


def _entries(snapshot: Snapshot, io: FileIO) -> list[ManifestEntry]:
    try:
        return [entry for manifest in snapshot.manifests(io) for entry in manifest.fetch_manifest_entry(io)]
    except (OSError, EOFError, ValueError) as error:  # gone, cut off, or not Avro yet
        raise BaseNotUsable(
            f"Iceberg snapshot {snapshot.snapshot_id}: manifests of {snapshot.manifest_list}: {error}"
        ) from error


def _check_readable(file: DataFile) -> None:
    if file.content is DataFileContent.EQUALITY_DELETES:
        raise BaseError(
            f"{file.file_path}: equality deletes aren't read; compact the table to position deletes"
        )
    if file.file_format is FileFormat.PUFFIN:
        raise BaseError(f"{file.file_path}: deletion vectors (Iceberg format version 3) aren't read")
    if file.file_format is not FileFormat.PARQUET:
        raise BaseError(f"{file.file_path}: format {file.file_format.value}, only Parquet is read")
    local_path(file.file_path)


def local_path(location: str) -> Path:
    """The local path of a `file:` location or plain path, taken as written. Raises `BaseError` for others."""
    if location.startswith("/"):
        return Path(location)
    parsed = urlparse(location)
    if parsed.scheme != "file" or parsed.netloc not in ("", "localhost"):
        raise BaseError(f"{location}: not on a local disk, which is where base files are read from")
    return Path(parsed.path)


def parquet_file(location: str) -> pq.ParquetFile:
    """The open file. Raises `BaseNotUsable` where it is gone or cut off."""
    try:
        return pq.ParquetFile(local_path(location))
    except (OSError, pa.ArrowInvalid) as error:
        raise BaseNotUsable(f"{location}: can't be read: {error}") from error


def _deleted_positions(data: list[ManifestEntry], deletes: list[ManifestEntry]) -> dict[str, Positions]:
    """Data file path -> the rows deleted in it.

    A delete applies to data files that aren't newer than itself. Source: Iceberg spec v2, "Scan Planning".
    """
    sequence_by_path = {entry.data_file.file_path: _sequence(entry) for entry in data}
    parts: dict[str, list[Positions]] = {}
    for entry in deletes:
        for path, positions in _read_deletes(entry.data_file):
            if path in sequence_by_path and sequence_by_path[path] <= _sequence(entry):
                parts.setdefault(path, []).append(positions)
    return {path: np.unique(np.concatenate(positions)) for path, positions in parts.items()}


def _sequence(entry: ManifestEntry) -> int:
    return entry.sequence_number or 0


def _read_deletes(file: DataFile) -> Iterable[tuple[str, Positions]]:
    """Each data file that `file` names, with its positions."""
    with parquet_file(file.file_path) as reader:
        _check_row_count(file, reader.metadata.num_rows)
        table = reader.read(columns=["file_path", "pos"])
    paths = pc.dictionary_encode(table.column("file_path")).combine_chunks()
    positions = table.column("pos").cast(pa.int64()).to_numpy()
    codes = paths.indices.to_numpy()
    order = np.argsort(codes, kind="stable")
    starts = np.searchsorted(codes[order], np.arange(1, len(paths.dictionary)))
    return zip(paths.dictionary.to_pylist(), np.split(positions[order], starts), strict=True)


def _check_row_count(file: DataFile, found: int) -> None:
    if found != file.record_count:
        raise BaseError(f"{file.file_path}: holds {found} rows, the manifest says {file.record_count}")
