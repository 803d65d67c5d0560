"""A mirror of a merutable catalog as a base: which manifest counts, and what is half written."""

from __future__ import annotations

import shutil
from pathlib import Path
from uuid import UUID

import pyarrow as pa
import pytest

from flight_replica.base.merutable import MerutableBase
from flight_replica.errors import BaseError, BaseNotUsable, LineageChanged
from flight_replica.schema import Column, TableSchema
from tests import samples
from tests.base_rows import assert_same_rows, rows
from tests.catalogs import CatalogWriter

SCHEMA = TableSchema((Column("id", pa.int64(), False), Column("v", pa.int64())), ("id",))
LINEAGE = UUID("0d4be0a8-8d6b-4d0e-9d53-6f2d5c1f8a11")


def mirrors() -> list[object]:
    return [
        pytest.param(checkpoint, id=checkpoint.name)
        for scenario in samples.scenarios(["s08"])
        for checkpoint in sorted((scenario / "checkpoints").iterdir())
        if (checkpoint / "expected_mirror.arrow").exists()
    ]


@samples.needs_samples
@pytest.mark.parametrize("checkpoint", mirrors())
def test_a_mirror_reads_as_the_engine_reads_its_newest_manifest(checkpoint: Path) -> None:
    base = MerutableBase(checkpoint / "mirror", table="mirrored")
    expected = samples.read_arrow(checkpoint / "expected_mirror.arrow")
    mirror = samples.checkpoint_facts(checkpoint)["mirror"]

    snapshot = base.load()

    assert_same_rows(rows(snapshot).select(expected.column_names), expected)
    assert snapshot.base_seq == samples.read_seq(expected)
    assert snapshot.version == base.poll() == mirror["payload_snapshot_id"]
    assert snapshot.is_lower_bound


@samples.needs_samples
def test_a_mirror_that_grows_is_followed_from_snapshot_to_snapshot(tmp_path: Path) -> None:
    """Versions have gaps, and one manifest's number isn't its snapshot's."""
    scenario = samples.scenario("s08")
    base = MerutableBase(tmp_path / "mirror", table="mirrored")
    seen = []
    for checkpoint in sorted((scenario / "checkpoints").iterdir()):
        if (checkpoint / "mirror").exists():
            shutil.copytree(checkpoint / "mirror", tmp_path / "mirror", dirs_exist_ok=True)
        polled = base.poll()
        seen.append((polled, base.load().base_seq if polled is not None else None))
    assert seen == [(None, None), (1, 8), (1, 8), (5, 19), (7, 23), (7, 23), (9, 25), (9, 25)]


def small_mirror(directory: Path, table_uuid: UUID = LINEAGE, snapshots: int = 2) -> CatalogWriter:
    """Snapshot n holds the keys up to n - 1, in a file each."""
    writer = CatalogWriter(directory, SCHEMA, table_uuid)
    for number in range(snapshots):
        writer.add_file(pa.table({"id": [number], "v": [number]}, SCHEMA.arrow_schema), [number + 1])
        writer.commit_to_mirror()
    return writer


def test_an_empty_directory_waits_for_its_first_snapshot(tmp_path: Path) -> None:
    base = MerutableBase(tmp_path, table="t")
    assert base.poll() is None
    (tmp_path / "metadata").mkdir()
    assert base.poll() is None


def test_what_is_there_before_low_water_is_not_usable_yet(tmp_path: Path) -> None:
    small_mirror(tmp_path)
    (tmp_path / "metadata/low_water.txt").unlink()
    with pytest.raises(BaseNotUsable, match=r"low_water\.txt is missing, but v2\.manifest\.bin exists"):
        MerutableBase(tmp_path, table="t").load()


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        ("", BaseError, r"low_water\.txt is '', expected a version number"),
        ("-1", BaseError, r"low_water\.txt is '-1'"),
        ("9", BaseNotUsable, r"v9\.manifest\.bin, which metadata/low_water\.txt names, is gone"),
        ("0", BaseNotUsable, r"went back to 0, but manifests up to v2 exist"),
    ],
)
def test_a_pointer_that_cannot_be_is_named(
    tmp_path: Path, text: str, error: type[BaseError], message: str
) -> None:
    small_mirror(tmp_path)
    (tmp_path / "metadata/low_water.txt").write_text(text)
    with pytest.raises(error, match=message) as caught:
        MerutableBase(tmp_path, table="t").load()
    assert type(caught.value) is error


def test_a_manifest_above_low_water_does_not_count_before_its_upload_is_done(tmp_path: Path) -> None:
    writer = small_mirror(tmp_path)
    (tmp_path / "metadata/low_water.txt").write_text("1")
    assert MerutableBase(tmp_path, table="t").load().version == 1
    manifest = tmp_path / "metadata/v2.manifest.bin"
    manifest.write_bytes(manifest.read_bytes()[:20])  # half written, as the upload goes
    assert MerutableBase(tmp_path, table="t").load().version == 1
    assert writer.snapshot_id == 2


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def test_a_half_written_snapshot_is_not_usable_and_the_older_one_stays_readable(tmp_path: Path) -> None:
    writer = small_mirror(tmp_path / "mirror")
    base = MerutableBase(tmp_path / "mirror", table="t")
    adopted = base.load().adopt(tmp_path / "own")
    newest = writer.add_file(pa.table({"id": [9], "v": [9]}, SCHEMA.arrow_schema), [9])
    writer.commit_to_mirror()
    data = tmp_path / "mirror" / newest.path
    whole = data.read_bytes()
    cut(data)
    with pytest.raises(BaseNotUsable, match=r"bytes, expected"):
        base.load()
    data.write_bytes(b"")
    with pytest.raises(BaseNotUsable, match="0 bytes, expected"):
        base.load()
    assert rows(adopted)["id"].to_pylist() == [0, 1]
    data.write_bytes(whole)
    cut(tmp_path / "mirror/metadata/v3.manifest.bin")
    with pytest.raises(BaseNotUsable, match="truncated"):
        base.load()


def test_a_table_created_anew_under_the_same_mirror_is_another_lineage(tmp_path: Path) -> None:
    other = UUID("11111111-2222-4333-8444-555555555555")
    small_mirror(tmp_path)
    base, joined = MerutableBase(tmp_path, table="t"), MerutableBase(tmp_path, table="t", lineage=LINEAGE)
    assert base.load().lineage == joined.load().lineage == LINEAGE
    shutil.rmtree(tmp_path)
    small_mirror(tmp_path, other, snapshots=1)
    assert base.load().lineage == other
    with pytest.raises(LineageChanged, match="was created anew"):
        joined.load()


def test_manifests_of_an_older_table_in_the_same_place_are_not_taken_for_the_new_one_s(
    tmp_path: Path,
) -> None:
    """The engine never overwrites a manifest, so the new table's first ones are missing."""
    small_mirror(tmp_path, snapshots=5)
    (tmp_path / "metadata/low_water.txt").write_text("1")
    with pytest.raises(BaseNotUsable, match="probably created anew"):
        MerutableBase(tmp_path, table="t").load()


def test_a_catalog_is_not_taken_for_a_mirror(tmp_path: Path) -> None:
    writer = small_mirror(tmp_path)
    writer.add_file(pa.table({"id": [7], "v": [7]}, SCHEMA.arrow_schema), [7])
    writer.commit()
    assert MerutableBase(tmp_path, table="t").load().version == 3
