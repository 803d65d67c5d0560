"""`MerutableBase` against what the engine itself reads from the same files.

Every checkpoint must agree in rows (floats by their bits), seq of each row, and base_seq. Cases of
`s13` are one catalog, changed by hand in one place each.
"""

from __future__ import annotations

import json
import shutil
import struct
from pathlib import Path
from uuid import UUID

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from flight_replica._pb import manifest_pb2
from flight_replica.base.merutable import MerutableBase
from flight_replica.errors import BaseError, BaseNotUsable, SchemaMismatch
from flight_replica.schema import Column, TableSchema
from tests import samples
from tests.base_rows import assert_same_rows, rows

LINEAGE = UUID("0d4be0a8-8d6b-4d0e-9d53-6f2d5c1f8a11")

MANIFEST = "metadata/v4.metadata.pb"  # the current one in s13

COMPLETE = ["s01", "s02", "s03", "s04", "s05", "s06", "s08", "s10", "s11", "s12", "s15"]


@samples.needs_samples
@pytest.mark.parametrize("checkpoint", samples.checkpoints(COMPLETE))
def test_snapshot_equals_what_the_engine_reads_from_the_files_alone(checkpoint: Path, tmp_path: Path) -> None:
    scenario = samples.scenario_of(checkpoint)
    schema = samples.table_schema(scenario)
    catalog = samples.catalog(checkpoint, tmp_path / "catalog")
    base = MerutableBase(catalog, table=samples.table_name(scenario), schema=schema, lineage=LINEAGE)
    expected = samples.expected_base(checkpoint)

    snapshot = base.load()

    assert_same_rows(rows(snapshot), expected)
    assert snapshot.base_seq == samples.base_seq(expected)
    assert snapshot.row_count == expected.num_rows
    assert snapshot.version == base.poll()
    assert snapshot.schema == schema
    assert snapshot.lineage == LINEAGE
    assert snapshot.is_lower_bound
    for file in snapshot.files:
        assert file.deleted.dtype == np.int64
        assert (np.diff(file.deleted) > 0).all()


@samples.needs_samples
@pytest.mark.parametrize("checkpoint", samples.checkpoints(["s07"]))
def test_added_columns_read_as_the_engine_reads_them(checkpoint: Path, tmp_path: Path) -> None:
    """Stated is what the engine's process had open; files may hold more columns than that."""
    schema, expected = samples.session_schema(checkpoint), samples.expected_base(checkpoint)
    catalog = samples.catalog(checkpoint, tmp_path / "catalog")

    snapshot = MerutableBase(catalog, table="evo", schema=schema, lineage=LINEAGE).load()

    assert_same_rows(rows(snapshot).select(expected.column_names), expected)
    assert snapshot.base_seq == samples.base_seq(expected)


@samples.needs_samples
def test_rows_that_are_short_in_their_file_have_initial_defaults(tmp_path: Path) -> None:
    checkpoint = samples.scenario("s07b") / "checkpoints" / "c3_flushed"
    snapshot = MerutableBase(samples.catalog(checkpoint, tmp_path / "catalog"), table="evo2").load()
    found = {row["id"]: (row["d"], row["c2"]) for row in rows(snapshot).to_pylist()}
    assert found == {1: (7, -7), 3: (7, -7), 4: (7, -7), 5: (9, -9), 6: (1, 2)}
    assert snapshot.row_count == 5
    assert snapshot.adopt(tmp_path / "own").row_count == 5
    assert len(list((tmp_path / "own").iterdir())) == 2  # a file that is there twice is taken once


@samples.needs_samples
def test_a_not_null_column_without_initial_default_is_null_in_older_rows(tmp_path: Path) -> None:
    checkpoint = samples.scenario("s07_") / "checkpoints" / "c10b_not_null_write_default_only"
    base = MerutableBase(
        samples.catalog(checkpoint, tmp_path / "catalog"),
        table="evo",
        schema=samples.session_schema(checkpoint),
    )
    snapshot = base.load()
    assert snapshot.schema.columns[-1] == Column("f", pa.float64(), nullable=True)
    assert set(rows(snapshot)["f"].to_pylist()) == {None}


def changed_catalog(case: str, target: Path) -> Path:
    """The catalog of `s13` after the change of this case."""
    scenario = samples.scenario("s13_")
    shutil.copytree(scenario / "base" / "catalog", target)
    for path in json.loads((scenario / "cases" / case / "case.json").read_text())["remove"]:
        (target / path).unlink()
    overlay = scenario / "cases" / case / "overlay"
    if overlay.exists():
        shutil.copytree(overlay, target, dirs_exist_ok=True)
    return target


def framed(message: manifest_pb2.Manifest) -> bytes:
    payload = message.SerializeToString()
    return struct.pack("<4sBI", b"MRUB", 1, len(payload)) + payload


def cases(kind: str) -> list[str]:
    found = [path for scenario in samples.scenarios(["s13_"]) for path in (scenario / "cases").iterdir()]
    return sorted(path.name for path in found if json.loads((path / "case.json").read_text())["kind"] == kind)


@samples.needs_samples
@pytest.mark.parametrize("case", cases("odd"))
def test_odd_but_sound_catalog_is_read_as_the_engine_reads_it(case: str, tmp_path: Path) -> None:
    catalog = changed_catalog(case, tmp_path / "catalog")
    base = MerutableBase(catalog, table="events")
    expected = samples.read_arrow(samples.scenario("s13_") / "cases" / case / "expected_base.arrow")

    snapshot = base.load()

    assert_same_rows(rows(snapshot), expected)
    assert snapshot.base_seq == samples.read_seq(expected)
    assert base.poll() == snapshot.version


@samples.needs_samples
def test_every_broken_catalog_is_refused_with_a_message_of_its_own(tmp_path: Path) -> None:
    messages: dict[str, str] = {}  # case -> message
    for case in cases("broken"):
        catalog = changed_catalog(case, tmp_path / case)
        with pytest.raises(BaseError) as caught:
            MerutableBase(catalog, table="events", catalog_name="events").load()
        messages[case] = str(caught.value).replace(str(catalog), "")
    assert len(set(messages.values())) == len(messages)


@samples.needs_samples
@pytest.mark.parametrize(
    ("case", "error", "message"),
    [
        ("n01_bad_magic", BaseError, r"v4\.metadata\.pb: magic is 4d 52 55 43, expected 4d 52 55 42"),
        ("n02_format_version_2", BaseError, "format version 2, supported is 1"),
        ("n03_manifest_truncated_payload", BaseNotUsable, "truncated: payload of 1306 bytes, found 648"),
        ("n04_manifest_truncated_header", BaseNotUsable, "frame too short: 6 bytes, need 9"),
        ("n05_manifest_empty", BaseNotUsable, "frame too short: 0 bytes"),
        ("n06_length_too_large", BaseNotUsable, "truncated: payload of 1315 bytes, found 1306"),
        ("n07_length_too_small", BaseError, "payload of 1286 bytes, with 20 more after it, is no manifest"),
        ("n08_payload_garbage", BaseError, "payload of 1306 bytes, with 0 more after it, is no manifest"),
        ("n09_schema_property_missing", BaseError, r"property merutable\.schema\.json is missing"),
        ("n10_schema_property_not_json", BaseError, r"property merutable\.schema\.json is not JSON"),
        ("n11_flipped_bit_in_seq_max", BaseError, "its footer says seq_max 30, the manifest says 94"),
        ("n12_hint_to_missing_version", BaseNotUsable, "is gone"),
        ("n13_hint_not_a_number", BaseError, "expected a version number"),
        ("n14_hint_empty", BaseError, "hint.text is ''"),
        ("n15_hint_absent", BaseNotUsable, r"version-hint\.text is missing, but v4\.metadata\.pb exists"),
        ("n16_hint_negative", BaseError, "hint.text is '-1'"),
        (
            "n17_no_metadata_no_hint",
            BaseNotUsable,
            r"no commit yet, though there are data files .a first flush",
        ),
        ("n18_neither_magic_nor_json", BaseError, "magic is 58 58 58 58, expected 4d 52 55 42"),
        ("n20_data_file_missing", BaseNotUsable, r"data/L0/.*\.parquet is gone"),
        ("n21_data_file_truncated", BaseNotUsable, r"\.parquet: \d+ bytes, expected \d+"),
        ("n22_data_file_empty", BaseNotUsable, r"\.parquet: 0 bytes, expected"),
        ("n23_data_file_longer", BaseError, "7539 bytes, the manifest says 7535"),
        ("n24_file_size_mismatch_in_manifest", BaseError, "whole with 7535 bytes, the manifest says 7536"),
        ("n25_num_rows_mismatch", BaseError, "its footer says num_rows 30, the manifest says 31"),
        ("n26a_flipped_byte_detected", BaseError, "can't be read as Parquet: Corrupt snappy compressed data"),
        ("n26b_flipped_byte_not_detected", BaseError, "row 6: its columns disagree with its row blob"),
        ("n27_footer_key_missing", BaseError, r"footer key merutable\.meta is missing"),
        ("n28_wrong_file_content", BaseError, "its footer says seq_min 32, the manifest says 1"),
        ("n29_seq_max_too_low", BaseError, "its footer says seq_max 64, the manifest says 57"),
        ("n30_puffin_missing", BaseNotUsable, r"dv-4\.puffin is gone"),
        ("n31_puffin_truncated", BaseNotUsable, "too short: 74 bytes wanted at 4, 71 found"),
        ("n32_puffin_crc", BaseError, "checksum d45d23c9 stored, c9ea33ad computed"),
        ("n33_puffin_blob_magic", BaseError, "magic is c1d33964"),
        ("n34_puffin_length_field", BaseError, "length 66, but 70 bytes follow"),
        ("n35_dv_offset_wrong", BaseError, "length 18129, but 70 bytes follow"),
        ("n36_dv_length_beyond_file", BaseNotUsable, "too short: 1000000 bytes wanted at 4, 304 found"),
        ("n37_dv_triple_incomplete", BaseError, r"only \['dv_path'\] given"),
        ("n38_dv_two_bitmaps", BaseError, "2 bitmaps, expected 0 or 1"),
        ("n39_dv_key_not_zero", BaseError, "bitmap key 1, expected 0"),
        ("n40_puffin_file_magic", BaseError, "expected b'PFA1'"),
        ("n41_duplicate_file_entry", BaseError, "is listed twice"),
        ("n42_path_escapes", BaseError, "leaves the catalog directory"),
        ("n43_unknown_status", BaseError, "unknown status 7"),
        ("n45_level_negative", BaseError, "negative level -1"),
        ("n46_level_disagrees_with_path", BaseError, "its footer says level 0, the manifest says 1"),
        ("n47_unknown_format", BaseError, "unknown format 9"),
        ("n49_table_name_differs", BaseError, "is of table 'other', asked for 'events'"),
    ],
)
def test_damage_is_named(case: str, error: type[BaseError], message: str, tmp_path: Path) -> None:
    base = MerutableBase(changed_catalog(case, tmp_path / "catalog"), table="events", catalog_name="events")
    with pytest.raises(error, match=message) as caught:
        base.load()
    assert type(caught.value) is error


@samples.needs_samples
def test_key_bounds_that_the_file_contradicts_are_refused(tmp_path: Path) -> None:
    catalog = changed_catalog("v12_no_format_stamp", tmp_path / "catalog")
    message = manifest_pb2.Manifest.FromString((catalog / MANIFEST).read_bytes()[9:])
    message.data_files[0].key_max += b"\0"
    (catalog / MANIFEST).write_bytes(framed(message))
    with pytest.raises(
        BaseError, match="its footer says key_max 800000000000001e, the manifest says 800000000000001e00"
    ):
        MerutableBase(catalog, table="events").load()


@samples.needs_samples
def test_file_that_lacks_a_column_of_its_own_schema_is_refused(tmp_path: Path) -> None:
    catalog = changed_catalog("v12_no_format_stamp", tmp_path / "catalog")
    message = manifest_pb2.Manifest.FromString((catalog / MANIFEST).read_bytes()[9:])
    file = catalog / message.data_files[0].path
    table = pq.read_table(file).drop_columns(["price"])
    pq.write_table(table.replace_schema_metadata(pq.read_metadata(file).metadata), file)
    message.data_files[0].file_size = file.stat().st_size
    (catalog / MANIFEST).write_bytes(framed(message))
    with pytest.raises(BaseError, match="column 'price' is missing"):
        MerutableBase(catalog, table="events").load()


SCHEMA = TableSchema((Column("id", pa.int64(), False), Column("name", pa.binary())), ("id",))


def test_catalog_without_a_commit_has_no_snapshot_yet(tmp_path: Path) -> None:
    base = MerutableBase(tmp_path, table="events")
    assert base.poll() is None
    with pytest.raises(BaseNotUsable, match="has no commit yet, waiting for a flush"):
        base.load()


def test_catalog_directory_that_is_missing_is_named(tmp_path: Path) -> None:
    base = MerutableBase(tmp_path / "nowhere", table="events")
    assert base.poll() is None
    with pytest.raises(BaseNotUsable, match="nowhere does not exist"):
        base.load()


def test_stated_schema_gives_an_empty_table_before_the_first_flush(tmp_path: Path) -> None:
    base = MerutableBase(str(tmp_path), table="events", schema=SCHEMA, lineage=LINEAGE)
    snapshot = base.load()
    assert (snapshot.base_seq, snapshot.files, snapshot.row_count) == (0, (), 0)
    assert snapshot.schema == SCHEMA
    assert snapshot.version == base.poll() == 0


def test_empty_table_needs_a_stated_lineage(tmp_path: Path) -> None:
    with pytest.raises(BaseNotUsable, match="state the lineage"):
        MerutableBase(tmp_path, table="events", schema=SCHEMA).load()


@samples.needs_samples
def test_lineage_is_the_table_uuid_unless_stated(tmp_path: Path) -> None:
    catalog = changed_catalog("v04_stale_hint_tmp", tmp_path / "catalog")
    manifest = samples.scenario("s02_upserts_dv_on") / "checkpoints" / "c5_fourth_flush" / "manifest.json"
    table_uuid = UUID(json.loads(manifest.read_text())["table_uuid"])
    assert MerutableBase(catalog, table="events").load().lineage == table_uuid
    assert MerutableBase(catalog, table="events", lineage=LINEAGE).load().lineage == LINEAGE


@samples.needs_samples
def test_table_created_anew_is_refused_under_the_old_lineage(tmp_path: Path) -> None:
    catalog = tmp_path / "catalog"
    base = MerutableBase(catalog, table="events", lineage=LINEAGE)
    samples.catalog(samples.scenario("s01_") / "checkpoints" / "c1_one_file", catalog)
    base.load()
    shutil.rmtree(catalog)
    samples.catalog(samples.scenario("s02_upserts_dv_on") / "checkpoints" / "c2_second_flush", catalog)
    with pytest.raises(BaseError, match="was created anew"):
        base.load()


@samples.needs_samples
def test_poll_follows_the_hint(tmp_path: Path) -> None:
    checkpoints = samples.scenario("s01_") / "checkpoints"
    base = MerutableBase(tmp_path / "catalog", table="events")
    samples.catalog(checkpoints / "c1_one_file", tmp_path / "catalog")
    assert base.poll() == 1
    samples.catalog(checkpoints / "c2_two_files_and_log", tmp_path / "catalog")
    assert base.poll() == 2
    assert base.load().version == 2


@samples.needs_samples
def test_adopted_snapshot_survives_its_catalog(tmp_path: Path) -> None:
    checkpoint = samples.scenario("s02_upserts_dv_on") / "checkpoints" / "c3_third_flush"
    catalog = samples.catalog(checkpoint, tmp_path / "catalog")
    snapshot = MerutableBase(catalog, table="events").load()
    adopted = snapshot.adopt(tmp_path / "own")
    shutil.rmtree(catalog)
    assert_same_rows(rows(adopted), samples.expected_base(checkpoint))
    with pytest.raises(BaseNotUsable, match="is gone"):
        snapshot.adopt(tmp_path / "again")


@samples.needs_samples
def test_stated_schema_may_have_columns_that_no_file_holds_yet(tmp_path: Path) -> None:
    checkpoint = samples.scenario("s01_") / "checkpoints" / "c2_two_files_and_log"
    known = samples.table_schema(samples.scenario_of(checkpoint))
    wider = TableSchema((*known.columns, Column("extra", pa.int32(), True, 7)), known.primary_key)
    snapshot = MerutableBase(checkpoint / "catalog", table="events", schema=wider).load()
    assert snapshot.schema == wider
    assert all("extra" not in file.columns for file in snapshot.files)
    assert rows(snapshot)["extra"].to_pylist() == [7] * 35


ID, NAME = Column("id", pa.int64(), False), Column("name", pa.binary())
QTY, PRICE = Column("qty", pa.int32()), Column("price", pa.float64())
COUNTED = Column("qty", pa.int32(), False)


@pytest.mark.statement(45)
@samples.needs_samples
@pytest.mark.parametrize(
    "other",
    [
        TableSchema((Column("id", pa.int32(), False),), ("id",)),
        TableSchema((ID, NAME, QTY, Column("price", pa.int64())), ("id",)),
        TableSchema((ID, Column("label", pa.binary()), QTY, PRICE), ("id",)),
        TableSchema((ID, QTY, NAME, PRICE), ("id",)),
        TableSchema((ID, NAME, COUNTED, PRICE), ("id",)),
        TableSchema((ID, NAME, COUNTED, PRICE, Column("more", pa.int64())), ("id",)),
        TableSchema((ID, NAME, COUNTED, PRICE), ("id", "qty")),
    ],
    ids=["another table", "retyped", "renamed", "reordered", "not null", "not null and wider", "another key"],
)
def test_stated_schema_of_another_table_is_refused(other: TableSchema) -> None:
    checkpoint = samples.scenario("s01_") / "checkpoints" / "c1_one_file"
    with pytest.raises(SchemaMismatch, match="table 'events': "):
        MerutableBase(checkpoint / "catalog", table="events", schema=other).load()


@samples.needs_samples
def test_a_catalog_is_served_under_any_name(tmp_path: Path) -> None:
    catalog = samples.catalog(_one_checkpoint(), tmp_path / "catalog")
    snapshot = MerutableBase(catalog, table="another name").load()
    assert (snapshot.table, snapshot.row_count > 0) == ("another name", True)


@samples.needs_samples
def test_a_catalog_with_another_uuid_than_the_stated_one_is_refused(tmp_path: Path) -> None:
    catalog = samples.catalog(_one_checkpoint(), tmp_path / "catalog")
    with pytest.raises(BaseError, match="now has table UUID"):
        MerutableBase(catalog, table="t", lineage=LINEAGE, table_uuid=LINEAGE).load()


def _one_checkpoint() -> Path:
    (checkpoint, *_) = sorted((samples.scenario("s02_upserts_dv_on") / "checkpoints").iterdir())
    return checkpoint
