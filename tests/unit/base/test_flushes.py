"""What the engine's flushes and its close leave in a catalog, and that a base reads it in either setting.

Deletion vectors mask the older rows of each flushed key, and a file's newest vector holds the ones before.
The samples s02 and s03 are written with them and without.
"""

from __future__ import annotations

import struct
from itertools import pairwise
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from flight_replica._pb import manifest_pb2
from flight_replica.base.deletion_vectors import read_deletion_vector
from flight_replica.base.manifest import Manifest, decode_manifest
from flight_replica.base.merutable import MerutableBase
from tests import samples

pytestmark = samples.needs_samples

WITH_VECTORS = ["s02_upserts_dv_on", "s03_deletes_dv_on"]
WITHOUT = ["s02_upserts_dv_off", "s03_deletes_dv_off"]


def manifest_file(catalog: Path) -> Path:
    number = (catalog / "version-hint.text").read_text()
    return catalog / "metadata" / f"v{number}.metadata.pb"


def manifest_of(checkpoint: Path) -> Manifest:
    file = manifest_file(checkpoint / "catalog")
    return decode_manifest(file.read_bytes(), file.name)


def masked_rows(checkpoint: Path) -> dict[str, set[int]]:
    """file -> its masked rows, for each live file, the oldest first."""
    files = sorted(manifest_of(checkpoint).files, key=lambda file: file.seq_min)
    return {
        file.path: set()
        if file.deletion_vector is None
        else set(read_deletion_vector(checkpoint / "catalog", file.deletion_vector).tolist())
        for file in files
    }


def keys_of(checkpoint: Path, path: str) -> list[bytes]:
    ikeys = pq.read_table(checkpoint / "catalog" / path, columns=["_merutable_ikey"])
    return [ikey[:-8] for ikey in ikeys.column(0).to_pylist()]


def checkpoints_of(prefix: str) -> list[Path]:
    return sorted((samples.scenario(prefix) / "checkpoints").iterdir())


@pytest.mark.statement(113)
@pytest.mark.parametrize("checkpoint", samples.checkpoints(WITH_VECTORS))
def test_a_flush_masks_each_older_row_of_its_keys_and_no_other(checkpoint: Path) -> None:
    masked = masked_rows(checkpoint)
    newer: set[bytes] = set()
    for path in reversed(masked):
        keys = keys_of(checkpoint, path)
        assert masked[path] == {row for row, key in enumerate(keys) if key in newer}
        newer.update(keys)


@pytest.mark.statement(115)
@pytest.mark.parametrize("prefix", WITH_VECTORS)
def test_a_vector_holds_the_rows_of_the_ones_before_it(prefix: str) -> None:
    grown = 0
    for older, newer in pairwise(map(masked_rows, checkpoints_of(prefix))):
        for path in older.keys() & newer.keys():
            assert older[path] <= newer[path]
            grown += bool(older[path]) and older[path] < newer[path]
    assert grown > 1


@pytest.mark.statement(113)
@pytest.mark.parametrize("checkpoint", samples.checkpoints(WITHOUT))
def test_without_vectors_no_row_is_masked(checkpoint: Path) -> None:
    assert set().union(*masked_rows(checkpoint).values()) == set()


def restamp(catalog: Path, stamp: str | None) -> str:
    """The catalog's `merutable.flush_dv_emission`, which is then set to `stamp`, or taken out."""
    file = manifest_file(catalog)
    message = manifest_pb2.Manifest.FromString(file.read_bytes()[9:])
    said = message.properties.pop("merutable.flush_dv_emission")
    if stamp is not None:
        message.properties["merutable.flush_dv_emission"] = stamp
    payload = message.SerializeToString()
    file.write_bytes(struct.pack("<4sBI", b"MRUB", 1, len(payload)) + payload)
    return said


@pytest.mark.statement(114)
@pytest.mark.parametrize("stamp", ["true", "false", None])
@pytest.mark.parametrize("checkpoint", samples.checkpoints([*WITH_VECTORS, *WITHOUT]))
def test_the_stamp_says_whether_a_flush_writes_vectors_and_changes_nothing_of_the_rows(
    checkpoint: Path, stamp: str | None, tmp_path: Path
) -> None:
    catalog = samples.catalog(checkpoint, tmp_path)
    as_written = MerutableBase(catalog, table="t").load()
    is_with_vectors = samples.scenario_of(checkpoint).name in WITH_VECTORS
    assert restamp(catalog, stamp) == ("true" if is_with_vectors else "false")
    restamped = MerutableBase(catalog, table="t").load()
    assert restamped.base_seq == as_written.base_seq
    assert [f.deleted.tolist() for f in restamped.files] == [f.deleted.tolist() for f in as_written.files]
    assert restamped.row_count == samples.expected_base(checkpoint).num_rows


@pytest.mark.statement(112)
@pytest.mark.parametrize(
    ("prefix", "name"), [("s01", "c9_closed"), ("s08", "c6_closed_last_flush_unmirrored")]
)
def test_the_files_of_a_closed_table_hold_its_last_op(prefix: str, name: str, tmp_path: Path) -> None:
    checkpoint = samples.scenario(prefix) / "checkpoints" / name
    snapshot = MerutableBase(samples.catalog(checkpoint, tmp_path), table="t").load()
    whole = samples.expected(checkpoint)
    assert (snapshot.base_seq, snapshot.row_count) == (samples.read_seq(whole), whole.num_rows)
    assert samples.expected_base(checkpoint).equals(whole)


@pytest.mark.statement(116)
def test_what_a_flush_adds_is_in_the_next_snapshot(tmp_path: Path) -> None:
    base = MerutableBase(tmp_path, table="t")
    found = []
    for name in ("c1_one_file", "c2_two_files_and_log", "c4_flushed_again"):
        checkpoint = samples.scenario("s01") / "checkpoints" / name
        samples.catalog(checkpoint, tmp_path)
        snapshot = base.load()
        assert snapshot.row_count == samples.expected_base(checkpoint).num_rows
        found.append((snapshot.base_seq, snapshot.version))
    assert found == [(20, 1), (35, 2), (50, 3)]
