"""Iceberg tables of format version 3: deletion vectors as other writers make them, initial defaults."""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from pyiceberg import types as ice
from pyiceberg.avro.file import AvroOutputFile
from pyiceberg.catalog.sql import SqlCatalog
from pyiceberg.manifest import (
    DataFile,
    DataFileContent,
    FileFormat,
    ManifestEntry,
    ManifestFile,
    ManifestWriterV2,
)
from pyiceberg.schema import Schema
from pyiceberg.table import Table
from pyiceberg.table.snapshots import Operation
from pyiceberg.typedef import Record
from pyroaring import BitMap

from flight_replica.base.iceberg import IcebergBase
from flight_replica.errors import BaseError, BaseNotUsable
from flight_replica.primary.position_deletes import (
    RowLevelSnapshot,
    _DeleteManifestWriter,
    write_position_deletes,
)
from flight_replica.schema import Column

ICEBERG_SCHEMA = Schema(
    ice.NestedField(1, "id", ice.LongType(), required=True), ice.NestedField(2, "v", ice.StringType())
)


class VectorManifestWriter(_DeleteManifestWriter):
    """pyiceberg writes no manifests of version 3 yet."""

    def new_writer(self) -> AvroOutputFile[ManifestEntry]:
        return AvroOutputFile[ManifestEntry](
            output_file=self._output_file,
            file_schema=self._with_partition(3),
            record_schema=self._with_partition(3),
            schema_name="manifest_entry",
            metadata=self._meta,
        )


class VectorSnapshot(RowLevelSnapshot):
    def _manifest_of(self, entries: list[ManifestEntry], kind: type[ManifestWriterV2]) -> list[ManifestFile]:
        is_vectors = any(entry.data_file.file_format is FileFormat.PUFFIN for entry in entries)
        return super()._manifest_of(entries, VectorManifestWriter if is_vectors else kind)


def bitmaps(positions: Sequence[int]) -> bytes:
    """The 64-bit portable form: one 32-bit bitmap for each high half."""
    keys = sorted({position >> 32 for position in positions})
    parts = [
        struct.pack("<I", key) + BitMap([p & 0xFFFF_FFFF for p in positions if p >> 32 == key]).serialize()
        for key in keys
    ]
    return struct.pack("<Q", len(keys)) + b"".join(parts)


def blob(summed: bytes) -> bytes:
    return struct.pack(">I", len(summed)) + summed + struct.pack(">I", zlib.crc32(summed))


def vector_blob(positions: Sequence[int]) -> bytes:
    return blob(bytes.fromhex("d1d33964") + bitmaps(positions))


def vectors(path: Path, blobs: Mapping[str, tuple[bytes, int]]) -> list[DataFile]:
    """One standard Puffin file of vectors, data file -> (blob, cardinality), and its manifest entries."""
    data, footer, files = b"PFA1", [], []
    for referenced, (content, cardinality) in blobs.items():
        place = {"offset": len(data), "length": len(content)}
        footer.append(
            {"type": "deletion-vector-v1", "fields": [], "snapshot-id": -1, "sequence-number": -1, **place}
        )
        entry = DataFile.from_args(
            _table_format_version=3,
            content=DataFileContent.POSITION_DELETES,
            file_path=str(path),
            file_format=FileFormat.PUFFIN,
            partition=Record(),
            record_count=cardinality,
            referenced_data_file=referenced,
            content_offset=len(data),
            content_size_in_bytes=len(content),
        )
        entry.spec_id = 0
        files.append(entry)
        data += content
    payload = json.dumps({"blobs": footer}).encode()
    data += b"PFA1" + payload + struct.pack("<i", len(payload)) + bytes(4) + b"PFA1"
    path.write_bytes(data)
    for entry in files:
        entry._data[5] = len(data)
    return files


@pytest.fixture
def table(tmp_path: Path) -> Iterator[Table]:
    catalog = SqlCatalog("c", uri=f"sqlite:///{tmp_path}/catalog.db", warehouse=str(tmp_path))
    catalog.create_namespace("n")
    yield catalog.create_table("n.t", ICEBERG_SCHEMA)
    catalog.close()


def append(table: Table, *ids: int) -> str:
    """Add a data file; its path."""
    known = {task.file.file_path for task in table.scan().plan_files()}
    table.append(pa.Table.from_pylist([{"id": i, "v": str(i)} for i in ids], ICEBERG_SCHEMA.as_arrow()))
    (added,) = {task.file.file_path for task in table.scan().plan_files()} - known
    return added


def commit(table: Table, *files: DataFile) -> None:
    with table.transaction() as transaction:
        VectorSnapshot(transaction, {}, Operation.DELETE).add(files).commit()


def version_3(table: Table, tmp_path: Path, **changes: Any) -> IcebergBase:
    """A reader of the table as one of format version 3."""
    document = json.loads(Path(table.metadata_location).read_text())
    metadata = tmp_path / "v3.metadata.json"
    metadata.write_text(json.dumps(document | {"format-version": 3, "next-row-id": 100} | changes))
    return IcebergBase(str(metadata), table="t", base_seq=7, primary_key=["id"])


def deleted(base: IcebergBase) -> dict[str, list[int]]:
    return {file.path: file.deleted.tolist() for file in base.load().files}


def test_vectors_of_several_data_files_in_one_puffin_file_are_applied(table: Table, tmp_path: Path) -> None:
    first, second, third = append(table, 0, 1, 2, 3), append(table, 4, 5), append(table, 6)
    marked = {first: (vector_blob([1, 3]), 2), second: (vector_blob([0]), 1)}
    commit(table, *vectors(tmp_path / "d.puffin", marked))
    base = version_3(table, tmp_path)
    assert deleted(base) == {first: [1, 3], second: [0], third: []}
    assert base.load().row_count == 4


def test_a_vector_replaces_position_deletes_and_is_not_for_newer_files(table: Table, tmp_path: Path) -> None:
    first = append(table, 0, 1, 2)
    commit(table, write_position_deletes(tmp_path / "p.parquet", {first: np.array([0], np.int64)}))
    commit(table, *vectors(tmp_path / "d.puffin", {first: (vector_blob([0, 2]), 2)}))
    assert deleted(version_3(table, tmp_path)) == {first: [0, 2]}


@pytest.mark.parametrize(
    ("content", "cardinality", "message"),
    [
        (vector_blob([1])[:10], 1, "a deletion vector of 10 bytes"),
        (vector_blob([1]) + b"x", 1, "length 34, but magic and bitmaps have 35 bytes"),
        (blob(b"\xd1\xd3\x39\x65" + bitmaps([1])), 1, "blob magic is d1d33965, expected d1d33964"),
        (vector_blob([1])[:-1] + b"\x00", 1, r"checksum \w+ stored, \w+ computed"),
        (blob(bytes.fromhex("d1d33964") + struct.pack("<Q", 2)), 1, "2 bitmaps, but their bytes end"),
        (blob(bytes.fromhex("d1d33964") + bitmaps([1])[:-1]), 1, "bitmap can't be decoded: ends within"),
        (vector_blob([1]), 2, "1 rows below 3, the manifest says 2"),
        (vector_blob([1, 3]), 2, "1 rows below 3, the manifest says 2"),
        (vector_blob([1, 2**33]), 2, "1 rows below 3, the manifest says 2"),
    ],
)
def test_a_damaged_vector_is_refused_with_its_reason(
    table: Table, tmp_path: Path, content: bytes, cardinality: int, message: str
) -> None:
    path = append(table, 0, 1, 2)
    commit(table, *vectors(tmp_path / "d.puffin", {path: (content, cardinality)}))
    with pytest.raises(BaseError, match=f"d.puffin at 4: {message}") as caught:
        version_3(table, tmp_path).load()
    assert type(caught.value) is BaseError


def test_a_vector_file_that_is_cut_off_or_gone_may_be_tried_again(table: Table, tmp_path: Path) -> None:
    path = append(table, 0, 1, 2)
    puffin = tmp_path / "d.puffin"
    commit(table, *vectors(puffin, {path: (vector_blob([1]), 1)}))
    whole = puffin.read_bytes()
    puffin.write_bytes(whole[:20])
    with pytest.raises(BaseNotUsable, match="16 bytes, expected"):
        version_3(table, tmp_path).load()
    puffin.unlink()
    with pytest.raises(BaseNotUsable, match="can't be read"):
        version_3(table, tmp_path).load()
    puffin.write_bytes(b"X" + whole[1:])
    with pytest.raises(BaseError, match="magic is 58464131"):
        version_3(table, tmp_path).load()


def test_two_vectors_of_one_file_are_refused(table: Table, tmp_path: Path) -> None:
    path = append(table, 0, 1, 2)
    for name in ("d.puffin", "e.puffin"):
        commit(table, *vectors(tmp_path / name, {path: (vector_blob([1]), 1)}))
    with pytest.raises(BaseError, match="has two deletion vectors"):
        version_3(table, tmp_path).load()


def test_initial_defaults_are_what_older_rows_hold(table: Table, tmp_path: Path) -> None:
    append(table, 0, 1)
    schema = {
        "type": "struct",
        "schema-id": 0,
        "fields": [
            {"id": 1, "name": "id", "required": True, "type": "long"},
            {"id": 2, "name": "v", "required": False, "type": "string"},
            {"id": 3, "name": "n", "required": True, "type": "int", "initial-default": 5},
            {"id": 4, "name": "f", "required": False, "type": "float", "initial-default": 0.1},
            {"id": 5, "name": "b", "required": False, "type": "binary", "initial-default": "00ff"},
            {"id": 6, "name": "d", "required": False, "type": "decimal(9,2)", "initial-default": "14.20"},
        ],
    }
    snapshot = version_3(table, tmp_path, schemas=[schema], **{"last-column-id": 6}).load()
    assert snapshot.schema.columns[2] == Column("n", pa.int32(), False, 5)
    assert [column.default for column in snapshot.schema.columns[3:5]] == [
        float(np.float32(0.1)),
        b"\x00\xff",
    ]
    assert str(snapshot.schema.columns[5].default) == "14.20"
    assert all(file.columns == ("id", "v") for file in snapshot.files)
