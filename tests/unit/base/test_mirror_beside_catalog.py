"""The engine's mirror beside its catalog at each checkpoint of s08: the same bytes, some snapshots behind."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from flight_replica.base.merutable import MerutableBase
from tests import samples
from tests.base_rows import assert_same_rows, rows

pytestmark = samples.needs_samples

# checkpoint -> (the newest snapshot in the mirror, in the catalog); None before the first one
SNAPSHOTS = {
    "c0_nothing_mirrored": (None, None),
    "c1_mirrored": (1, 1),
    "c2_mirror_behind_three_versions": (1, 4),
    "c3_number_differs_from_payload": (5, 5),
    "c5_before_close": (7, 7),
    "c6_closed_last_flush_unmirrored": (7, 8),
    "c8_compacted_and_mirrored": (9, 9),
    "c9_one_behind": (9, 10),
}


@pytest.fixture
def checkpoint(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A copy of one checkpoint, with the empty directories that the samples lack."""
    source = samples.scenario("s08") / "checkpoints" / request.param
    samples.catalog(source, tmp_path / "catalog")
    if (source / "mirror").exists():
        shutil.copytree(source / "mirror", tmp_path / "mirror")
    else:
        (tmp_path / "mirror").mkdir()
    return tmp_path


@pytest.mark.statement(121)
@pytest.mark.parametrize("checkpoint", SNAPSHOTS, indirect=True)
def test_a_mirror_has_nothing_at_first_and_is_never_ahead_of_its_catalog(
    checkpoint: Path, request: pytest.FixtureRequest
) -> None:
    mirror = MerutableBase(checkpoint / "mirror", table="t")
    catalog = MerutableBase(checkpoint / "catalog", table="t")
    assert (mirror.poll(), catalog.poll()) == SNAPSHOTS[request.node.callspec.params["checkpoint"]]
    if mirror.poll() is not None:
        assert mirror.load().base_seq <= catalog.load().base_seq


@pytest.mark.statement(120)
@pytest.mark.parametrize("checkpoint", ["c1_mirrored", "c8_compacted_and_mirrored"], indirect=True)
def test_a_mirrored_snapshot_is_the_catalog_s_byte_for_byte_and_reads_as_it(checkpoint: Path) -> None:
    mirror, catalog = checkpoint / "mirror", checkpoint / "catalog"
    low_water = (mirror / "metadata" / "low_water.txt").read_text()
    assert low_water == (catalog / "version-hint.text").read_text()
    manifests = [
        mirror / "metadata" / f"v{low_water}.manifest.bin",
        catalog / "metadata" / f"v{low_water}.metadata.pb",
    ]
    assert manifests[0].read_bytes()[:5] == manifests[1].read_bytes()[:5] == b"MRUB\1"
    files = [path.relative_to(catalog) for path in (catalog / "data").rglob("*") if path.is_file()]
    assert files
    for file in files:
        assert (mirror / file).read_bytes() == (catalog / file).read_bytes()
    base = MerutableBase(mirror, table="t")
    found, expected = base.load(), MerutableBase(catalog, table="t").load()
    assert (found.base_seq, found.version) == (expected.base_seq, expected.version)
    assert found.lineage == expected.lineage
    assert_same_rows(rows(found), rows(expected))
    assert base.poll() == found.version  # nothing is new when one looks again
