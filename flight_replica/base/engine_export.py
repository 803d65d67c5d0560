"""Iceberg exports that merutable makes of its own tables: which of them can be a base.

There are two kinds. The older names the engine's data files themselves, with keys, seqs and ops: it is read
as the engine reads them. The newer copies the users' columns only, so that deleted rows and older versions
stand in it as if they were alive: it is a base only of a table whose rows were never changed, which nobody
but its owner can know. Source: merutable format, section 7.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Any, cast
from uuid import UUID

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pyarrow import fs

from flight_replica.base.data_files import BATCH_ROWS, CheckedFile, VersionBatch, check_file
from flight_replica.base.evolution import effective_schema
from flight_replica.base.folder import Folder
from flight_replica.base.manifest import ByteRange, DataFile, parse_object
from flight_replica.base.merge import sweep
from flight_replica.base.merutable import base_files
from flight_replica.base.newest import Versions
from flight_replica.base.source import BaseSnapshot
from flight_replica.errors import BaseError, BaseNotUsable
from flight_replica.keys import KeyCodec
from flight_replica.schema import TableSchema

__all__ = ["ExportedFile", "check_insert_only", "has_versions", "is_export", "snapshot_of_versions"]

_STAMP = "merutable.translator.version"
_VECTORS = "merutable.deletion-vectors"
_IKEY = "_merutable_ikey"
_META_KEY = b"merutable.meta"
_IN_CATALOG = re.compile(r"(?P<root>.*)/(?P<path>data/L[0-9]+/[^/]+)")
_FILE_MAGIC = b"PFA1"
_DISK = Folder(fs.LocalFileSystem(), "", True, "")  # paths in it lack their leading slash


@dataclass(frozen=True, slots=True)
class ExportedFile:
    """One data file as the export's manifest has it."""

    path: str  # absolute, local
    size_bytes: int
    row_count: int


def is_export(properties: Mapping[str, str]) -> bool:
    """Whether these properties of an Iceberg table are those of the engine's exports."""
    return _STAMP in properties


def has_versions(file: ExportedFile) -> bool:
    """Whether the file is one of the engine's own, with keys, seqs and ops."""
    with _reading(file), _DISK.open(_inside(file)) as opened:
        return _IKEY in pq.ParquetFile(opened).schema_arrow.names


# --- the older kind -----------------------------------------------------------------------------------


def snapshot_of_versions(
    table: str,
    files: Sequence[ExportedFile],
    properties: Mapping[str, str],
    names: Sequence[str],
    *,
    table_uuid: UUID,
    snapshot_id: int,
) -> BaseSnapshot:
    """The table that the engine's files make. `names`: the columns that the export states, its first ones.

    Raises `BaseNotUsable` when a file is gone, `BaseError` as `MerutableBase.load`.
    """
    vectors = _vectors(files, properties)
    checked = [check_file(_DISK, replace(_entry(f), deletion_vector=vectors.get(f.path))) for f in files]
    if not checked:
        raise BaseNotUsable(f"table {table!r}: the export names no data file")
    widest = max((file.schema for file in checked), key=lambda schema: len(schema.columns))
    if list(widest.names[: len(names)]) != list(names):
        raise BaseError(
            f"table {table!r}: the export has the columns {list(names)}, its files {widest.names}"
        )
    first = TableSchema(widest.columns[: len(names)], widest.primary_key)
    written = [(file.entry.path, file.schema) for file in checked]
    schema = effective_schema(first, written, None, table)
    return BaseSnapshot(
        table=table,
        lineage=table_uuid,
        base_seq=max(file.entry.seq_max for file in checked),
        version=snapshot_id,
        schema=schema,
        files=base_files(checked, schema),
        is_lower_bound=True,
    )


def _entry(file: ExportedFile) -> DataFile:
    """What the engine's manifest said of the file; its footer says it again."""
    with _reading(file), _DISK.open(_inside(file)) as opened:
        footer = pq.ParquetFile(opened).metadata.metadata or {}
    meta = parse_object(footer.get(_META_KEY, b"{}"), f"file {file.path}: footer key {_META_KEY.decode()}")
    try:
        return DataFile(
            path=_inside(file),
            size_bytes=file.size_bytes,
            row_count=file.row_count,
            level=int(str(meta["level"])),
            seq_min=int(str(meta["seq_min"])),
            seq_max=int(str(meta["seq_max"])),
            key_min=bytes.fromhex(str(meta["key_min"])),
            key_max=bytes.fromhex(str(meta["key_max"])),
            deletion_vector=None,
            is_dual=meta.get("format") == "dual",
        )
    except (KeyError, ValueError) as error:
        raise BaseError(f"file {file.path}: footer key {_META_KEY.decode()} lacks {error}") from error


def _vectors(files: Sequence[ExportedFile], properties: Mapping[str, str]) -> dict[str, ByteRange]:
    """Data file -> its deletion vector; the export names the vectors' files only."""
    found: dict[str, ByteRange] = {}
    by_place = {match.groups(): file.path for file in files if (match := _IN_CATALOG.fullmatch(file.path))}
    roots = {root for root, _ in by_place}
    for relative in filter(None, properties.get(_VECTORS, "").split(",")):
        for root in roots:
            place = f"{root}/{relative}".lstrip("/")
            for referenced, where in _footer_of_vectors(place):
                if (root, referenced) in by_place:
                    found[by_place[root, referenced]] = where
    return found


def _footer_of_vectors(place: str) -> Iterator[tuple[str, ByteRange]]:
    """(data file, where its vector lies) of one file of vectors, by the footer that merutable writes."""
    with _DISK.reading(f"deletion vector file /{place}"):
        data = _DISK.read(place)
    tail = len(_FILE_MAGIC) + 4
    if not (data.startswith(_FILE_MAGIC) and data.endswith(_FILE_MAGIC) and len(data) >= 2 * tail):
        raise BaseError(f"deletion vector file /{place}: not between two {_FILE_MAGIC!r}")
    (size,) = struct.unpack("<i", data[-tail : -len(_FILE_MAGIC)])
    footer = parse_object(data[-tail - max(size, 0) : -tail], f"deletion vector file /{place}: footer")
    try:
        for blob in cast(list[dict[str, Any]], footer["blobs"]):
            yield (
                str(blob["fields"]["referenced-data-file"]),
                ByteRange(place, blob["offset"], blob["length"]),
            )
    except (KeyError, TypeError) as error:
        raise BaseError(f"deletion vector file /{place}: footer lacks {error}") from error


# --- the newer kind -----------------------------------------------------------------------------------


def check_insert_only(
    table: str,
    files: Sequence[ExportedFile],
    properties: Mapping[str, str],
    schema: TableSchema,
    *,
    is_declared: bool,
    base_seq: int | None,
) -> None:
    """Raise `BaseError` unless the export is declared to be whole, and nothing in it says otherwise.

    What it can't show is a row that was deleted without being written again.
    """
    place = f"table {table!r}: this Iceberg export of merutable"
    if not is_declared:
        raise BaseError(
            f"{place} holds neither seqs nor deletes: rows that were deleted or changed stand in it as live "
            "ones. Serve the engine's catalog or mirror instead (merutable:DIR), or declare that no row of "
            f"the table was ever changed or deleted (--insert-only {table})"
        )
    if properties.get(_VECTORS):
        raise BaseError(f"{place} is declared to be insert-only, but names deletion vectors")
    if base_seq is None:
        raise BaseError(f"{place} doesn't say at which seq it was made: state it (--base-seq {table}=N)")
    checked = [CheckedFile(_DISK, _unbounded(file), schema, False) for file in files]
    for file, found in zip(files, sweep(checked, _keys_alone, _nothing_masked), strict=True):
        if len(found.dead):
            raise BaseError(
                f"{place} is declared to be insert-only, but row {found.dead[0]} of {file.path} has a key "
                "that is there twice"
            )


def _unbounded(file: ExportedFile) -> DataFile:
    return DataFile(_inside(file), file.size_bytes, file.row_count, 0, 0, 0, b"", b"", None)


def _keys_alone(file: CheckedFile) -> Iterator[VersionBatch]:
    """Every row as a put at seq 0, so that of two with a key one is dead."""
    codec, last = KeyCodec(file.schema), None
    with file.folder.reading(f"file /{file.entry.path}"), file.folder.open(file.entry.path) as opened:
        names = list(file.schema.primary_key)
        for batch in pq.ParquetFile(opened).iter_batches(BATCH_ROWS, columns=names):
            if not len(batch):
                continue
            keys = codec.encode([batch.column(name) for name in names]).cast(pa.large_binary())
            is_ascending = pc.all(pc.less_equal(keys[:-1], keys[1:]), min_count=0).as_py()
            if not is_ascending or (last is not None and keys[0].as_py() < last):
                raise BaseError(f"file /{file.entry.path}: rows aren't in the order of their keys")
            last = keys[-1].as_py()
            count = len(keys)
            yield VersionBatch(Versions(keys, np.zeros(count, np.uint64), np.ones(count, np.bool_)), {})


def _nothing_masked(file: CheckedFile) -> np.ndarray:
    return np.empty(0, np.int64)


def _inside(file: ExportedFile) -> str:
    return file.path.lstrip("/")


def _reading(file: ExportedFile) -> AbstractContextManager[None]:
    return _DISK.reading(f"file {file.path}")
