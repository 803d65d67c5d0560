"""`IcebergBase` on tables as pyiceberg itself and others write them; the mirror's own: `test_mirror.py`."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from uuid import UUID, uuid4

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyiceberg import types as ice
from pyiceberg.catalog.sql import SqlCatalog
from pyiceberg.manifest import DataFile, DataFileContent, FileFormat
from pyiceberg.partitioning import PartitionField, PartitionSpec
from pyiceberg.schema import Schema
from pyiceberg.table import Table
from pyiceberg.table.snapshots import Operation
from pyiceberg.transforms import IdentityTransform

from flight_replica.base.iceberg import IcebergBase
from flight_replica.errors import BaseError, BaseNotUsable, ConfigError, SchemaMismatch
from flight_replica.primary.position_deletes import RowLevelSnapshot, described_file, write_position_deletes
from flight_replica.schema import Column, TableSchema
from tests.iceberg_reading import by_key, rows_of_snapshot

LINEAGE = UUID("3f2b8c1e-0000-4000-8000-000000000002")
SCHEMA = TableSchema((Column("id", pa.int64(), False), Column("v", pa.string())), ("id",))
ICEBERG_SCHEMA = Schema(
    ice.NestedField(1, "id", ice.LongType(), required=True), ice.NestedField(2, "v", ice.StringType())
)
PROPERTIES = {
    "merutable.lineage": str(LINEAGE),
    "merutable.base-seq": "9",
    "merutable.commit-time-us": "123",
    "merutable.schema": SCHEMA.to_json(),
}


@pytest.fixture
def catalog(tmp_path: Path) -> Iterator[SqlCatalog]:
    catalog = SqlCatalog("c", uri=f"sqlite:///{tmp_path}/catalog.db", warehouse=str(tmp_path))
    catalog.create_namespace("n")
    yield catalog
    catalog.close()


@pytest.fixture
def table(catalog: SqlCatalog) -> Table:
    return catalog.create_table("n.t", ICEBERG_SCHEMA)


def rows(*ids: int) -> pa.Table:
    return pa.Table.from_pylist([{"id": i, "v": str(i)} for i in ids], SCHEMA.arrow_schema)


def base(table: Table) -> IcebergBase:
    return IcebergBase(table.metadata_location, table="t")


def by_hand(table: Table) -> IcebergBase:
    return IcebergBase(table.metadata_location, table="t", base_seq=3, primary_key=["id"])


def current_files(table: Table) -> list[DataFile]:
    return [task.file for task in table.scan().plan_files()]


def commit_files(table: Table, *files: DataFile) -> None:
    with table.transaction() as transaction:
        RowLevelSnapshot(transaction, PROPERTIES, Operation.OVERWRITE).add(files).commit()


def test_snapshot_is_read_with_what_its_summary_says(table: Table) -> None:
    table.append(rows(1, 2, 3), snapshot_properties=PROPERTIES)
    snapshot = base(table).load()
    assert (snapshot.lineage, snapshot.base_seq, snapshot.commit_time_us) == (LINEAGE, 9, 123)
    assert (snapshot.schema, snapshot.table) == (SCHEMA, "t")
    assert base(table).poll() == snapshot.version
    assert snapshot.files[0].columns == ("id", "v")
    assert by_key(rows_of_snapshot(snapshot), SCHEMA) == by_key(rows(1, 2, 3), SCHEMA)


def test_position_deletes_of_several_files_are_joined(table: Table, tmp_path: Path) -> None:
    table.append(rows(0, 1, 2, 3), snapshot_properties=PROPERTIES)
    table.append(rows(4, 5), snapshot_properties=PROPERTIES)
    paths = {file.record_count: file.file_path for file in current_files(table)}
    for number, positions in enumerate([{4: [2, 3]}, {4: [0, 2], 2: [1]}]):
        deletes = {paths[count]: np.array(p, np.int64) for count, p in positions.items()}
        commit_files(table, write_position_deletes(tmp_path / f"d{number}.parquet", deletes))
    snapshot = base(table).load()
    assert {file.path: file.deleted.tolist() for file in snapshot.files} == {
        paths[4]: [0, 2, 3],
        paths[2]: [1],
    }
    assert {file.deleted.dtype for file in snapshot.files} == {np.dtype(np.int64)}
    assert by_key(rows_of_snapshot(snapshot), SCHEMA) == by_key(rows(1, 4), SCHEMA)


def test_deletes_that_are_older_than_the_data_do_not_apply(table: Table, tmp_path: Path) -> None:
    table.append(rows(0, 1), snapshot_properties=PROPERTIES)
    (file,) = current_files(table)
    copy = tmp_path / "late.parquet"
    shutil.copy(file.file_path, copy)
    deletes = write_position_deletes(tmp_path / "d.parquet", {str(copy): np.array([0], np.int64)})
    commit_files(table, deletes)
    table.delete()
    commit_files(table, described_file(DataFileContent.DATA, copy, record_count=2))
    (found,) = base(table).load().files
    assert found.deleted.tolist() == []


def test_loaded_snapshot_stays_what_it_was_when_the_table_moves_on(table: Table) -> None:
    table.append(rows(1), snapshot_properties=PROPERTIES)
    source = IcebergBase(table.metadata_location, table="t", load_table=table.refresh)
    first = source.load()
    table.overwrite(rows(2, 3), snapshot_properties=PROPERTIES | {"merutable.base-seq": "12"})
    assert source.poll() != first.version
    assert source.load().base_seq == 12
    assert by_key(rows_of_snapshot(first), SCHEMA) == by_key(rows(1), SCHEMA)


def test_table_without_properties_is_refused_with_their_names(table: Table) -> None:
    table.append(rows(1))
    with pytest.raises(
        BaseError, match=r"lacks.*merutable\.lineage, merutable\.base-seq, merutable\.schema;"
    ):
        base(table).load()
    table.append(rows(2), snapshot_properties=PROPERTIES | {"merutable.base-seq": "x"})
    with pytest.raises(BaseError, match="can't be read"):
        base(table).load()


def test_table_without_properties_is_read_with_seq_and_key_by_hand(table: Table) -> None:
    table.append(rows(1, 2))
    snapshot = by_hand(table).load()
    assert (snapshot.lineage, snapshot.base_seq) == (table.metadata.table_uuid, 3)
    assert snapshot.schema == SCHEMA
    assert by_key(rows_of_snapshot(snapshot), SCHEMA) == by_key(rows(1, 2), SCHEMA)


def test_schema_by_hand_replaces_the_table_s_own(table: Table) -> None:
    table.append(rows(1), snapshot_properties=PROPERTIES)
    wider = TableSchema((*SCHEMA.columns, Column("new", pa.int32(), True, 4)), ("id",))
    snapshot = IcebergBase(table.metadata_location, table="t", schema=wider).load()
    assert snapshot.schema == wider
    assert snapshot.files[0].columns == ("id", "v")


def test_what_is_said_by_hand_must_agree_with_the_table(table: Table) -> None:
    table.append(rows(1), snapshot_properties=PROPERTIES)
    location, other = table.metadata_location, uuid4()
    with pytest.raises(BaseError, match=f"lineage by hand is {other}, the Iceberg snapshot says {LINEAGE}"):
        IcebergBase(location, table="t", lineage=other).load()
    with pytest.raises(BaseError, match="base_seq by hand is 8, the Iceberg snapshot says 9"):
        IcebergBase(location, table="t", base_seq=8).load()
    with pytest.raises(BaseError, match="primary key by hand"):
        IcebergBase(location, table="t", primary_key=["v"]).load()


def test_seq_by_hand_does_not_go_with_a_table_that_moves(table: Table) -> None:
    with pytest.raises(ConfigError, match="base_seq 3"):
        IcebergBase("x", table="t", base_seq=3, primary_key=["id"], load_table=lambda: None)


def test_key_that_is_no_column_is_refused(table: Table) -> None:
    table.append(rows(1))
    with pytest.raises(SchemaMismatch, match="'nokey'"):
        IcebergBase(table.metadata_location, table="t", base_seq=3, primary_key=["nokey"]).load()


def append_ids(table: Table, *ids: int) -> None:
    """Rows whose other columns are null."""
    schema = table.schema().as_arrow()
    columns = [pa.array(ids, schema[0].type), *(pa.nulls(len(ids), field.type) for field in list(schema)[1:])]
    table.append(pa.Table.from_arrays(columns, schema=schema))


def test_nested_and_promoted_columns_are_read_as_iceberg_describes_them(catalog: SqlCatalog) -> None:
    inner = ice.StructType(ice.NestedField(5, "x", ice.UUIDType(), required=True))
    schema = Schema(
        ice.NestedField(1, "id", ice.IntegerType(), required=True),
        ice.NestedField(2, "l", ice.ListType(4, inner, element_required=True)),
    )
    table = catalog.create_table("n.nested", schema)
    append_ids(table, 1)
    with table.update_schema() as update:
        update.update_column("id", ice.LongType())
    assert by_hand(table).load().schema.columns[0].type == pa.int32()  # as of the snapshot
    append_ids(table, 2)
    snapshot = by_hand(table).load()
    assert [column.type for column in snapshot.schema.columns] == [
        pa.int64(),
        pa.list_(pa.field("element", pa.struct([("x", pa.uuid())]))),
    ]
    assert sorted(rows_of_snapshot(snapshot).column("id").to_pylist()) == [1, 2]


def test_added_column_is_not_among_the_columns_of_older_files(table: Table) -> None:
    table.append(rows(1))
    with table.update_schema() as update:
        update.add_column("new", ice.StringType())
    table.append(pa.table({"id": pa.array([2]), "v": ["2"], "new": ["n"]}, schema=table.schema().as_arrow()))
    held = {file.columns for file in by_hand(table).load().files}
    assert held == {("id", "v"), ("id", "v", "new")}


def test_renamed_and_recreated_columns_are_refused_by_name(table: Table) -> None:
    table.append(rows(1))
    with table.update_schema() as update:
        update.rename_column("v", "w")
    table.append(pa.table({"id": pa.array([2]), "w": ["2"]}, schema=table.schema().as_arrow()))
    with pytest.raises(BaseError, match=r"column 'w' .*another name"):
        by_hand(table).load()
    with table.update_schema() as update:
        update.delete_column("w")
    with table.update_schema() as update:
        update.add_column("v", ice.StringType())
    table.append(pa.table({"id": pa.array([3]), "v": ["3"]}, schema=table.schema().as_arrow()))
    with pytest.raises(BaseError, match=r"column 'v' .*another name"):
        by_hand(table).load()


def test_partitioned_table_is_read(catalog: SqlCatalog) -> None:
    spec = PartitionSpec(PartitionField(1, 1000, IdentityTransform(), "id"))
    table = catalog.create_table("n.parts", ICEBERG_SCHEMA, partition_spec=spec)
    table.append(rows(1, 2), snapshot_properties=PROPERTIES)
    snapshot = base(table).load()
    assert len(snapshot.files) == 2
    assert by_key(rows_of_snapshot(snapshot), SCHEMA) == by_key(rows(1, 2), SCHEMA)
    for file in snapshot.files:  # as a migrated Hive table has it: the value in the partition alone
        pq.write_table(pq.read_table(file.path).drop_columns("id"), file.path)
    with pytest.raises(BaseError, match="column 'id' is held by the partition only"):
        base(table).load()


def test_no_snapshot_or_metadata_yet_is_retryable(table: Table, tmp_path: Path) -> None:
    assert base(table).poll() is None
    with pytest.raises(BaseNotUsable, match="no snapshot yet"):
        base(table).load()
    missing = IcebergBase(str(tmp_path / "none.metadata.json"), table="t")
    assert missing.poll() is None
    with pytest.raises(BaseNotUsable, match="gone or half written"):
        missing.load()


@pytest.mark.parametrize("kept", [0, 0.5, 0.99])
def test_half_written_metadata_is_retryable(table: Table, tmp_path: Path, kept: float) -> None:
    table.append(rows(1), snapshot_properties=PROPERTIES)
    whole = Path(table.metadata_location).read_bytes()
    cut = tmp_path / "cut.metadata.json"
    cut.write_bytes(whole[: int(len(whole) * kept)])
    source = IcebergBase(str(cut), table="t")
    assert source.poll() is None
    with pytest.raises(BaseNotUsable, match="gone or half written"):
        source.load()
    cut.write_bytes(whole)
    assert source.load().base_seq == 9


@pytest.mark.parametrize("pattern", ["**/snap-*.avro", "**/*-m0.avro", "**/data/*.parquet"])
@pytest.mark.parametrize("damage", ["gone", "empty", "cut"])
def test_missing_and_cut_files_are_retryable(table: Table, tmp_path: Path, pattern: str, damage: str) -> None:
    table.append(rows(1), snapshot_properties=PROPERTIES)
    (path,) = tmp_path.glob(pattern)
    whole = path.read_bytes()
    path.unlink()
    if damage != "gone":
        path.write_bytes(whole[: len(whole) // 2 if damage == "cut" else 0])
    with pytest.raises(BaseNotUsable) as caught:
        base(table).load()
    assert caught.value.retryable
    path.write_bytes(whole)
    assert base(table).load().row_count == 1


def test_file_that_contradicts_its_row_count_is_refused(table: Table, tmp_path: Path) -> None:
    table.append(rows(1, 2), snapshot_properties=PROPERTIES)
    (path,) = tmp_path.glob("**/data/*.parquet")
    pq.write_table(pq.read_table(path).slice(0, 1), path)
    with pytest.raises(BaseError, match="holds 1 rows, the manifest says 2") as caught:
        base(table).load()
    assert not caught.value.retryable


def test_delete_beyond_the_end_of_a_file_is_refused(table: Table, tmp_path: Path) -> None:
    table.append(rows(1, 2), snapshot_properties=PROPERTIES)
    path = current_files(table)[0].file_path
    commit_files(table, write_position_deletes(tmp_path / "d.parquet", {path: np.array([2], np.int64)}))
    with pytest.raises(BaseError, match="rows 2 to 2 are deleted, it has 2"):
        base(table).load()


@pytest.mark.parametrize(
    ("content", "file_format", "message"),
    [
        (DataFileContent.EQUALITY_DELETES, FileFormat.PARQUET, "equality deletes"),
        (DataFileContent.POSITION_DELETES, FileFormat.PUFFIN, "a deletion vector without the data file"),
        (DataFileContent.DATA, FileFormat.ORC, "format ORC, only Parquet is read"),
    ],
)
def test_what_is_not_read_is_refused_by_name(
    table: Table, tmp_path: Path, content: DataFileContent, file_format: FileFormat, message: str
) -> None:
    path = tmp_path / "odd.file"
    path.write_bytes(b"x")
    file = described_file(content, path, record_count=1)
    file._data[2] = file_format
    commit_files(table, file)
    with pytest.raises(BaseError, match=f"odd.file: {message}"):
        base(table).load()


def test_later_format_version_is_refused(table: Table, tmp_path: Path) -> None:
    table.append(rows(1), snapshot_properties=PROPERTIES)
    document = json.loads(Path(table.metadata_location).read_text())
    later = tmp_path / "v4.metadata.json"
    later.write_text(json.dumps(document | {"format-version": 4, "next-row-id": 0}))
    with pytest.raises(BaseError, match="Iceberg format version 4; up to 3 is read"):
        IcebergBase(str(later), table="t").load()


def test_other_places_than_a_local_disk_are_refused() -> None:
    with pytest.raises(BaseError, match=r"s3://bucket/x\.metadata\.json: not on a local disk"):
        IcebergBase("s3://bucket/x.metadata.json", table="t").load()
    with pytest.raises(ConfigError, match="/x/table: not an Iceberg metadata file"):
        IcebergBase("/x/table", table="t").load()


def test_metadata_is_found_by_uri_encoded_or_not(tmp_path: Path) -> None:
    directory = tmp_path / "a b%41#ü"
    directory.mkdir()
    catalog = SqlCatalog("c", uri="sqlite:///:memory:", warehouse=str(directory))
    catalog.create_namespace("n")
    table = catalog.create_table("n.t", ICEBERG_SCHEMA, location=str(directory))
    table.append(rows(1), snapshot_properties=PROPERTIES)
    catalog.close()
    path = Path(table.metadata_location)
    for location in (str(path), path.as_uri()):
        assert IcebergBase(location, table="t").load().row_count == 1
    plain = tmp_path / "a b.metadata.json"
    shutil.copy(path, plain)
    assert IcebergBase(f"file://{plain}", table="t").load().row_count == 1
