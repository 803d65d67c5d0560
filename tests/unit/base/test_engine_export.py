"""Iceberg exports by merutable: the older kind reads as the engine's files do, the newer if it is whole."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from uuid import UUID

import pyarrow as pa
import pytest
from pyiceberg.catalog.sql import SqlCatalog
from pyiceberg.manifest import DataFileContent
from pyiceberg.table.snapshots import Operation

from flight_replica.base.iceberg import IcebergBase
from flight_replica.base.iceberg_schema import iceberg_schema
from flight_replica.base.manifest import decode_manifest
from flight_replica.errors import BaseError, BaseNotUsable
from flight_replica.primary.position_deletes import RowLevelSnapshot, described_file
from flight_replica.schema import Column, TableSchema
from tests import samples
from tests.base_rows import assert_same_rows, rows
from tests.iceberg_reading import rows_of_snapshot

LINEAGE = UUID("0d4be0a8-8d6b-4d0e-9d53-6f2d5c1f8a11")
STAMP = {"merutable.translator.version": "0.0.1"}


def export(name: str) -> str:
    """The metadata file of an export that the real engine made; its paths are of another host."""
    (found,) = [
        path
        for scenario in samples.scenarios(["s09"])
        for path in (scenario / name / "metadata").glob("v*.metadata.json")
    ]
    return str(found)


# --- the newer kind -----------------------------------------------------------------------------------


@samples.needs_samples
@pytest.mark.parametrize("name", ["export_upserts_deletes", "export_compacted", "export"])
def test_an_export_without_seqs_is_refused_with_reason_and_way_out(name: str) -> None:
    """Whether it is whole can't be seen in it: after compaction the lossy one has no key twice."""
    base = IcebergBase(export(name), table="events", base_seq=30)
    with pytest.raises(BaseError, match=r"stand in it as live ones.*catalog or mirror.*--insert-only"):
        base.load()


@samples.needs_samples
def test_an_insert_only_export_that_is_declared_so_is_the_table() -> None:
    checkpoint = samples.scenario("s09b") / "checkpoints" / "c1_insert_only"
    expected = samples.expected_base(checkpoint)
    base = IcebergBase(export("export"), table="events", base_seq=30, is_insert_only=True)

    snapshot = base.load()

    found = rows_of_snapshot(snapshot).sort_by("id")
    assert found.equals(expected.select(found.column_names).cast(found.schema))
    assert (snapshot.base_seq, snapshot.version, snapshot.schema.primary_key) == (30, base.poll(), ("id",))
    assert base.load().row_count == 30


@samples.needs_samples
def test_a_declaration_that_the_export_contradicts_is_refused() -> None:
    base = IcebergBase(export("export_upserts_deletes"), table="events", base_seq=27, is_insert_only=True)
    with pytest.raises(BaseError, match=r"names deletion vectors|has a key that is there twice"):
        base.load()


@samples.needs_samples
def test_keys_that_are_there_twice_are_found_without_the_engine_s_word(tmp_path: Path) -> None:
    metadata = Path(export("export_upserts_deletes"))
    shutil.copytree(metadata.parents[1], tmp_path / "moved")
    document = json.loads(metadata.read_text())
    document["properties"].pop("merutable.deletion-vectors", None)
    place = tmp_path / "moved" / "metadata" / metadata.name
    place.write_text(json.dumps(document))
    base = IcebergBase(str(place), table="events", base_seq=27, is_insert_only=True)
    with pytest.raises(BaseError, match=r"row \d+ of .*\.parquet has a key that is there twice"):
        base.load()


@samples.needs_samples
def test_a_declared_export_needs_its_seq() -> None:
    with pytest.raises(BaseError, match="doesn't say at which seq it was made: state it"):
        IcebergBase(export("export"), table="events", is_insert_only=True).load()


# --- the older kind -----------------------------------------------------------------------------------


@pytest.fixture
def iceberg(tmp_path: Path) -> Iterator[SqlCatalog]:
    catalog = SqlCatalog("c", uri=f"sqlite:///{tmp_path}/catalog.db", warehouse=str(tmp_path))
    catalog.create_namespace("n")
    yield catalog
    catalog.close()


def older_export(iceberg: SqlCatalog, catalog: Path, schema: TableSchema) -> str:
    """Metadata that names the data files of a catalog, as the engine made it before it copied them."""
    number = (catalog / "version-hint.text").read_text()
    manifest = decode_manifest((catalog / f"metadata/v{number}.metadata.pb").read_bytes(), number)
    vectors = [file.deletion_vector.path for file in manifest.files if file.deletion_vector is not None]
    properties = STAMP | ({"merutable.deletion-vectors": ",".join(vectors)} if vectors else {})
    first = TableSchema(schema.columns[: len(manifest.schema["columns"])], schema.primary_key)  # type: ignore[arg-type]
    without_key = iceberg_schema(first)
    table = iceberg.create_table("n.t", without_key, properties=properties)
    files = [
        described_file(DataFileContent.DATA, catalog / file.path, record_count=file.row_count)
        for file in manifest.files
    ]
    with table.transaction() as transaction:
        RowLevelSnapshot(transaction, {}, Operation.APPEND).add(files).commit()
    return str(table.metadata_location)


@samples.needs_samples
@pytest.mark.parametrize(
    ("scenario", "checkpoint"),
    [
        ("s02_upserts_dv_off", "c5_fourth_flush"),
        ("s02_upserts_dv_on", "c5_fourth_flush"),
        ("s04", "c5_after_second_compaction"),
        ("s06_all_types_row_blob", "c4_flushed"),
        ("s07_", "c4_flushed_wide"),
        ("s07b", "c3_flushed"),
        ("s10", "c1_large_dv_on_l1"),
    ],
)
def test_an_export_of_the_engine_s_own_files_reads_as_the_engine_reads_them(
    iceberg: SqlCatalog, scenario: str, checkpoint: str, tmp_path: Path
) -> None:
    directory = samples.scenario(scenario) / "checkpoints" / checkpoint
    catalog = samples.catalog(directory, tmp_path / "catalog")
    metadata = older_export(iceberg, catalog, samples.session_schema(directory))
    expected = samples.expected_base(directory)

    snapshot = IcebergBase(metadata, table="t", lineage=LINEAGE).load()

    assert_same_rows(rows(snapshot).select(expected.column_names), expected)
    assert snapshot.base_seq == samples.base_seq(expected)
    assert (snapshot.lineage, snapshot.is_lower_bound) == (LINEAGE, True)
    shutil.rmtree(catalog)
    with pytest.raises(BaseNotUsable, match="is gone"):
        IcebergBase(metadata, table="t").load()


@samples.needs_samples
def test_an_export_of_files_with_other_columns_is_refused(iceberg: SqlCatalog, tmp_path: Path) -> None:
    directory = samples.scenario("s01") / "checkpoints" / "c1_one_file"
    catalog = samples.catalog(directory, tmp_path / "catalog")
    own = samples.session_schema(directory)
    other = TableSchema((*own.columns[:-1], Column("cost", pa.float64())), own.primary_key)
    metadata = older_export(iceberg, catalog, other)
    with pytest.raises(BaseError, match=r"the export has the columns .*'cost'"):
        IcebergBase(metadata, table="t").load()
