"""The live data files of one Iceberg snapshot and the rows deleted in them (format versions 1 to 3).

Equality deletes and files that aren't Parquet on a local disk are refused by name. Deletion vectors:
`iceberg_vectors.py`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from urllib.parse import urlparse

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pyarrow import fs
from pyiceberg.avro.file import AvroFile
from pyiceberg.io import FileIO, InputFile, OutputFile
from pyiceberg.io.pyarrow import PyArrowFileIO
from pyiceberg.manifest import (
    MANIFEST_ENTRY_SCHEMAS,
    DataFile,
    DataFileContent,
    FileFormat,
    ManifestEntry,
    ManifestEntryStatus,
    ManifestFile,
)
from pyiceberg.table.snapshots import Snapshot

from flight_replica.base.iceberg_vectors import read_vector, referenced_file
from flight_replica.errors import BaseError, BaseNotUsable

__all__ = ["LiveFile", "LiveFiles", "MovedIO", "live_files", "local_path", "parquet_file", "place_of"]

Positions = npt.NDArray[np.int64]

_ENTRY_VERSION: Literal[3] = 3
_NO_POSITIONS: Positions = np.empty(0, np.int64)


@dataclass(frozen=True, slots=True)
class LiveFile:
    """A data file of the snapshot. `deleted`: sorted, distinct 0-based rows."""

    data_file: DataFile
    deleted: Positions


@dataclass(frozen=True, slots=True)
class LiveFiles:
    data: tuple[LiveFile, ...]
    deletes: tuple[DataFile, ...]  # position delete files and vectors that `deleted` was read from


class MovedIO(FileIO):
    """Reads a table whose folder isn't where its metadata says, since somebody moved it."""

    def __init__(self, inner: FileIO, stated: str, metadata_location: str) -> None:
        """`stated`: the table's location. Its metadata file lies in `metadata/` of the real one."""
        super().__init__(inner.properties)
        self._inner = inner
        self._stated = stated.rstrip("/")
        self._real = str(Path(metadata_location).parent.parent)

    def place(self, location: str) -> str:
        """Where the file of that location lies."""
        inside = location.removeprefix(self._stated + "/")
        return location if inside == location else f"{self._real}/{inside}"

    def new_input(self, location: str) -> InputFile:
        return self._inner.new_input(self.place(location))

    def new_output(self, location: str) -> OutputFile:
        raise AssertionError("bases are never written to")

    def delete(self, location: str | InputFile | OutputFile) -> None:
        raise AssertionError("bases are never written to")


def place_of(location: str, store: PyArrowFileIO | None) -> tuple[str, fs.FileSystem | None]:
    """(a path, the object store that it is in: None for a local disk) of a data or delete file.

    `store` reaches object stores; without it, what isn't local is refused with `BaseError`.
    """
    if store is None or urlparse(location).scheme in ("", "file"):
        return str(local_path(location)), None
    scheme, host, path = store.parse_location(location, store.properties)
    return path, store.fs_by_scheme(scheme, host)


def live_files(snapshot: Snapshot, io: FileIO, store: PyArrowFileIO | None = None) -> LiveFiles:
    """What `snapshot` holds; `store` as in `place_of`.

    Raises `BaseError` for what isn't read, `BaseNotUsable` when a file is gone.
    """
    data: list[ManifestEntry] = []
    deletes: list[ManifestEntry] = []
    for entry in _entries(snapshot, io):
        _check_readable(entry.data_file, store)
        (data if entry.data_file.content is DataFileContent.DATA else deletes).append(entry)
    deleted = _deleted_positions(data, deletes, store)
    return LiveFiles(
        data=tuple(
            LiveFile(entry.data_file, deleted.get(entry.data_file.file_path, _NO_POSITIONS)) for entry in data
        ),
        deletes=tuple(entry.data_file for entry in deletes),
    )


def _entries(snapshot: Snapshot, io: FileIO) -> list[ManifestEntry]:
    try:
        return [entry for manifest in snapshot.manifests(io) for entry in _entries_of(manifest, io)]
    except (OSError, EOFError, ValueError) as error:  # gone, cut off, or not Avro yet
        raise BaseNotUsable(
            f"Iceberg snapshot {snapshot.snapshot_id}: manifests of {snapshot.manifest_list}: {error}"
        ) from error


def _entries_of(manifest: ManifestFile, io: FileIO) -> list[ManifestEntry]:
    """Live entries with the fields of version 3, which pyiceberg itself leaves out."""
    with AvroFile[ManifestEntry](
        io.new_input(manifest.manifest_path),
        MANIFEST_ENTRY_SCHEMAS[_ENTRY_VERSION],
        read_types={-1: ManifestEntry, 2: DataFile},
        read_enums={0: ManifestEntryStatus, 101: FileFormat, 134: DataFileContent},
    ) as reader:
        entries = [entry for entry in reader if entry.status != ManifestEntryStatus.DELETED]
    for entry in entries:
        is_inherited = manifest.sequence_number == 0 or entry.status == ManifestEntryStatus.ADDED
        if entry.sequence_number is None and is_inherited:
            entry.sequence_number = manifest.sequence_number
        entry.data_file.spec_id = manifest.partition_spec_id
    return entries


def _check_readable(file: DataFile, store: PyArrowFileIO | None) -> None:
    if file.content is DataFileContent.EQUALITY_DELETES:
        raise BaseError(
            f"{file.file_path}: equality deletes aren't read; compact the table to position deletes"
        )
    is_vector = file.content is DataFileContent.POSITION_DELETES and file.file_format is FileFormat.PUFFIN
    if not is_vector and file.file_format is not FileFormat.PARQUET:
        raise BaseError(f"{file.file_path}: format {file.file_format.value}, only Parquet is read")
    if store is None:
        local_path(file.file_path)


def local_path(location: str) -> Path:
    """The local path of a `file:` location or plain path, taken as written. Raises `BaseError` for others."""
    if location.startswith("/"):
        return Path(location)
    parsed = urlparse(location)
    if parsed.scheme != "file" or parsed.netloc not in ("", "localhost"):
        raise BaseError(f"{location}: not on a local disk, which is where base files are read from")
    return Path(parsed.path)


def parquet_file(location: str, store: PyArrowFileIO | None = None) -> pq.ParquetFile:
    """The open file. Raises `BaseNotUsable` where it is gone or cut off."""
    try:
        path, filesystem = place_of(location, store)
        return pq.ParquetFile(path, filesystem=filesystem)
    except (OSError, pa.ArrowInvalid) as error:
        raise BaseNotUsable(f"{location}: can't be read: {error}") from error


def _deleted_positions(
    data: list[ManifestEntry], deletes: list[ManifestEntry], store: PyArrowFileIO | None
) -> dict[str, Positions]:
    """Data file path -> the rows deleted in it.

    A delete applies to data files that aren't newer than itself; where there is a vector, it alone counts.
    Source: Iceberg spec, "Scan Planning".
    """
    sequence_by_path = {entry.data_file.file_path: _sequence(entry) for entry in data}
    rows_by_path = {entry.data_file.file_path: entry.data_file.record_count for entry in data}
    vectors: dict[str, Positions] = {}
    parts: dict[str, list[Positions]] = {}
    for entry in deletes:
        if entry.data_file.file_format is FileFormat.PUFFIN:
            path, place = referenced_file(entry.data_file), entry.data_file.file_path
            if path in sequence_by_path and sequence_by_path[path] <= _sequence(entry):
                if path in vectors:
                    raise BaseError(f"{path}: has two deletion vectors")
                vectors[path] = read_vector(entry.data_file, rows_by_path[path], *place_of(place, store))
            continue
        for path, positions in _read_deletes(entry.data_file, store):
            if path in sequence_by_path and sequence_by_path[path] <= _sequence(entry):
                parts.setdefault(path, []).append(positions)
    return {path: np.unique(np.concatenate(positions)) for path, positions in parts.items()} | vectors


def _sequence(entry: ManifestEntry) -> int:
    return entry.sequence_number or 0


def _read_deletes(file: DataFile, store: PyArrowFileIO | None) -> Iterable[tuple[str, Positions]]:
    """Each data file that `file` names, with its positions."""
    with parquet_file(file.file_path, store) as reader:
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
