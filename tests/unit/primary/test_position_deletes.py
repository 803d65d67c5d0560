"""What the mirror relies on in pyiceberg 0.12: one snapshot with both kinds of files, by its internals."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyiceberg import types as ice
from pyiceberg.catalog.sql import SqlCatalog
from pyiceberg.manifest import DataFile, DataFileContent, ManifestContent, ManifestEntryStatus
from pyiceberg.schema import Schema
from pyiceberg.table import Table
from pyiceberg.table.snapshots import Operation

from flight_replica.primary.position_deletes import (
    DELETE_FILE_SCHEMA,
    RowLevelSnapshot,
    described_file,
    write_position_deletes,
)


@pytest.fixture
def table(tmp_path: Path) -> Iterator[Table]:
    catalog = SqlCatalog("c", uri=f"sqlite:///{tmp_path}/catalog.db", warehouse=str(tmp_path))
    catalog.create_namespace("n")
    schema = Schema(ice.NestedField(1, "id", ice.LongType(), required=True))
    yield catalog.create_table("n.t", schema, location=str(tmp_path))
    catalog.close()


def data_file(directory: Path, name: str, ids: list[int]) -> DataFile:
    path = directory / f"{name}.parquet"
    field = pa.field("id", pa.int64(), False, {"PARQUET:field_id": "1"})
    pq.write_table(pa.Table.from_arrays([pa.array(ids)], schema=pa.schema([field])), path)
    return described_file(DataFileContent.DATA, path, record_count=len(ids))


def delete_file(directory: Path, name: str, deletes: dict[str, list[int]]) -> DataFile:
    positions = {path: np.array(rows, np.int64) for path, rows in deletes.items()}
    return write_position_deletes(directory / f"{name}.parquet", positions)


def snap(
    table: Table,
    operation: Operation,
    add: tuple[DataFile, ...] = (),
    remove: tuple[DataFile, ...] = (),
    **properties: str,
) -> None:
    with table.transaction() as transaction:
        RowLevelSnapshot(transaction, properties, operation).add(add).remove(remove).commit()


def ids(table: Table) -> list[int]:
    return sorted(table.scan().to_arrow().column("id").to_pylist())


def manifests(table: Table) -> dict[ManifestContent, list[tuple[str, ManifestEntryStatus, int | None]]]:
    """Content -> (file name, status, sequence number) of the entries, in order."""
    snapshot = table.current_snapshot()
    assert snapshot is not None
    found: dict[ManifestContent, list[tuple[str, ManifestEntryStatus, int | None]]] = {}
    for manifest in snapshot.manifests(table.io):
        for entry in manifest.fetch_manifest_entry(table.io, discard_deleted=False):
            name = Path(entry.data_file.file_path).stem
            found.setdefault(manifest.content, []).append((name, entry.status, entry.sequence_number))
    return {content: sorted(entries) for content, entries in found.items()}


def test_installed_pyiceberg_is_the_version_that_these_internals_belong_to() -> None:
    assert version("pyiceberg").startswith("0.12.")


def test_data_and_deletes_come_in_one_snapshot_with_one_sequence_number(table: Table, tmp_path: Path) -> None:
    first = data_file(tmp_path, "first", [1, 2, 3])
    snap(table, Operation.APPEND, (first,))
    second = data_file(tmp_path, "second", [2, 4])
    deletes = delete_file(tmp_path, "deletes", {first.file_path: [1], second.file_path: [1]})
    snap(table, Operation.OVERWRITE, (second, deletes), note="x")
    assert len(table.metadata.snapshots) == 2
    assert manifests(table) == {
        ManifestContent.DATA: [
            ("first", ManifestEntryStatus.ADDED, 1),
            ("second", ManifestEntryStatus.ADDED, 2),
        ],
        ManifestContent.DELETES: [("deletes", ManifestEntryStatus.ADDED, 2)],
    }
    assert ids(table) == [1, 2, 3]


def test_deletes_apply_only_to_data_that_is_not_newer(table: Table, tmp_path: Path) -> None:
    late = data_file(tmp_path, "late", [1, 2])
    snap(table, Operation.DELETE, (delete_file(tmp_path, "deletes", {late.file_path: [0]}),))
    snap(table, Operation.APPEND, (late,))
    assert ids(table) == [1, 2]


def test_summary_counts_both_kinds_and_carries_the_properties(table: Table, tmp_path: Path) -> None:
    first = data_file(tmp_path, "first", [1, 2, 3])
    deletes = delete_file(tmp_path, "deletes", {first.file_path: [0, 2]})
    snap(table, Operation.OVERWRITE, (first, deletes), **{"merutable.base-seq": "7"})
    snapshot = table.current_snapshot()
    assert snapshot is not None and snapshot.summary is not None
    summary = snapshot.summary.additional_properties
    expected = {"total-records": "3", "total-position-deletes": "2", "total-delete-files": "1"}
    assert {name: summary[name] for name in expected} == expected
    assert summary["merutable.base-seq"] == "7"


def test_removal_keeps_the_other_files_with_their_sequence_numbers(table: Table, tmp_path: Path) -> None:
    files = [data_file(tmp_path, name, [number]) for number, name in enumerate("abc")]
    deletes = delete_file(tmp_path, "deletes", {files[1].file_path: [0]})
    snap(table, Operation.APPEND, tuple(files))
    snap(table, Operation.DELETE, (deletes,))
    merged = data_file(tmp_path, "merged", [0])
    snap(table, Operation.REPLACE, (merged,), (files[0], files[1], deletes))
    deleted, existing = ManifestEntryStatus.DELETED, ManifestEntryStatus.EXISTING
    assert manifests(table) == {
        ManifestContent.DATA: [
            ("a", deleted, 1),
            ("b", deleted, 1),
            ("c", existing, 1),
            ("merged", ManifestEntryStatus.ADDED, 3),
        ],
        ManifestContent.DELETES: [("deletes", deleted, 2)],
    }
    assert ids(table) == [0, 2]
    snapshot = table.current_snapshot()
    assert snapshot is not None and snapshot.summary is not None
    assert snapshot.summary.operation is Operation.REPLACE


def test_removing_a_file_that_is_not_in_the_table_is_refused(table: Table, tmp_path: Path) -> None:
    snap(table, Operation.APPEND, (data_file(tmp_path, "first", [1]),))
    with pytest.raises(AssertionError, match="not in the table"):
        snap(table, Operation.REPLACE, (), (data_file(tmp_path, "stranger", [1]),))
    assert ids(table) == [1]


def test_snapshot_without_files_changes_the_summary_only(table: Table) -> None:
    snap(table, Operation.APPEND, note="x")
    assert ids(table) == []
    assert manifests(table) == {}


def test_delete_file_is_sorted_and_its_path_bounds_are_whole(tmp_path: Path) -> None:
    paths = [f"/{'long' * 30}/{name}.parquet" for name in "ba"]
    file = delete_file(tmp_path, "deletes", {paths[0]: [0, 5], paths[1]: [3], "/unused": []})
    found = pq.read_table(file.file_path)
    assert found.schema.equals(DELETE_FILE_SCHEMA)
    assert found.to_pylist() == [
        {"file_path": paths[1], "pos": 3},
        {"file_path": paths[0], "pos": 0},
        {"file_path": paths[0], "pos": 5},
    ]
    assert file.lower_bounds == {2147483546: paths[1].encode()}
    assert file.upper_bounds == {2147483546: paths[0].encode()}
    assert file.record_count == 3


def test_manifest_of_deletes_says_so_in_its_header(table: Table, tmp_path: Path) -> None:
    first = data_file(tmp_path, "first", [1])
    snap(table, Operation.OVERWRITE, (first, delete_file(tmp_path, "deletes", {first.file_path: [0]})))
    snapshot = table.current_snapshot()
    assert snapshot is not None
    headers = {
        manifest.content: Path(manifest.manifest_path).read_bytes()[:4000]
        for manifest in snapshot.manifests(table.io)
    }
    assert b"content\x0edeletes" in headers[ManifestContent.DELETES]  # 0x0e: length 7 in Avro's zigzag
    assert b"content\x08data" in headers[ManifestContent.DATA]
