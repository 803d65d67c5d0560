"""Bases in an object store: catalogs and mirrors of the engine in a bucket of a real S3 server."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from pyiceberg.catalog.sql import SqlCatalog

from flight_replica.base.iceberg import IcebergBase
from flight_replica.base.merutable import MerutableBase
from flight_replica.errors import BaseNotUsable, ConfigError
from flight_replica.log.no_log import NoLog
from flight_replica.replica.replica import Replica
from flight_replica.schema import Column, TableSchema
from flight_replica.state.workspace import Workspace
from tests import samples
from tests.base_rows import assert_same_rows, rows
from tests.catalogs import CatalogWriter
from tests.iceberg_reading import rows_of_snapshot
from tests.object_store import ENVIRONMENT, SECRET, ObjectStore, object_store

pytest.importorskip("moto", reason="no S3 server: pip install 'moto[server]'")

SCHEMA = TableSchema((Column("id", pa.int64(), False), Column("v", pa.binary())), ("id",))


@pytest.fixture(scope="module")
def store() -> Iterator[ObjectStore]:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in ENVIRONMENT.items():
            patch.setenv(name, value)
        with object_store("tables") as store:
            yield store


@samples.needs_samples
@pytest.mark.parametrize(
    ("scenario", "checkpoint"),
    [
        ("s02_upserts_dv_on", "c5_fourth_flush"),
        ("s06_all_types_row_blob", "c4_flushed"),
        ("s07b", "c3_flushed"),
        ("s10", "c1_large_dv_on_l1"),
    ],
)
def test_a_catalog_in_a_bucket_reads_as_one_on_disk(
    store: ObjectStore, scenario: str, checkpoint: str, tmp_path: Path
) -> None:
    directory = samples.scenario(scenario) / "checkpoints" / checkpoint
    store.upload(directory / "catalog", f"catalogs/{scenario}")
    base = MerutableBase(store.uri(f"catalogs/{scenario}"), table="t")

    snapshot = base.load()

    expected = samples.expected_base(directory)
    assert snapshot.version == base.poll()
    assert snapshot.base_seq == samples.base_seq(expected)
    assert_same_rows(rows(snapshot.adopt(tmp_path)), expected)


@samples.needs_samples
def test_a_mirror_in_a_bucket_is_followed(store: ObjectStore, tmp_path: Path) -> None:
    checkpoints = samples.scenario("s08") / "checkpoints"
    base = MerutableBase(store.uri("mirror"), table="mirrored")
    assert base.poll() is None
    for checkpoint in ("c1_mirrored", "c3_number_differs_from_payload", "c8_compacted_and_mirrored"):
        store.upload(checkpoints / checkpoint / "mirror", "mirror")
        expected = samples.read_arrow(checkpoints / checkpoint / "expected_mirror.arrow")
        snapshot = base.load().adopt(tmp_path / checkpoint)
        assert_same_rows(rows(snapshot).select(expected.column_names), expected)


def upload_table(store: ObjectStore, directory: Path, prefix: str, row_count: int = 10) -> CatalogWriter:
    writer = CatalogWriter(directory, SCHEMA)
    ids = np.arange(row_count)
    noise = np.random.default_rng(1).bytes(32 * row_count)
    values = [noise[32 * n : 32 * n + 32] for n in range(row_count)]
    writer.add_file(pa.table({"id": ids, "v": pa.array(values, pa.binary())}, SCHEMA.arrow_schema), ids + 1)
    writer.commit()
    store.upload(directory, prefix)
    return writer


def test_a_replica_reads_from_its_own_copy_and_needs_the_bucket_no_longer(
    store: ObjectStore, tmp_path: Path
) -> None:
    writer = upload_table(store, tmp_path / "catalog", "gone")
    base = MerutableBase(store.uri("gone"), table="t")
    log = NoLog(writer.table_uuid, SCHEMA)
    with (
        closing(Workspace(tmp_path / "data")) as workspace,
        closing(Replica.open(base, log, workspace=workspace)) as replica,
    ):
        store.delete(f"gone/{writer.files[0].path}")
        found = replica.query("SELECT count(*), sum(id) FROM t").read_all()
        assert [tuple(row.values()) for row in found.to_pylist()] == [(10, 45)]
    with pytest.raises(BaseNotUsable, match=r"00000001\.parquet is gone"):
        base.load()


def test_a_file_is_copied_by_parts_and_the_copy_is_logged(
    store: ObjectStore, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    part_bytes = 100_000
    monkeypatch.setattr("flight_replica.base.adopt.COPY_BYTES", part_bytes)
    writer = upload_table(store, tmp_path / "catalog", "large", row_count=20_000)
    size_bytes = writer.files[0].file_size
    assert size_bytes > 5 * part_bytes
    snapshot = MerutableBase(store.uri("large"), table="t").load()
    with caplog.at_level(logging.INFO, "flight_replica.base"):
        adopted = snapshot.adopt(tmp_path / "own")
    copied = Path(adopted.files[0].path)
    assert copied.read_bytes() == (tmp_path / "catalog" / writer.files[0].path).read_bytes()
    assert f"base copied table=t files=1 bytes={size_bytes}" in caplog.text


def test_what_is_half_uploaded_or_gone_may_be_tried_again(store: ObjectStore, tmp_path: Path) -> None:
    writer = upload_table(store, tmp_path / "catalog", "half")
    file = writer.files[0]
    data = (tmp_path / "catalog" / file.path).read_bytes()
    base = MerutableBase(store.uri("half"), table="t")
    snapshot = base.load()
    store.put(f"half/{file.path}", data[:-100])
    with pytest.raises(BaseNotUsable, match=r"bytes, expected"):
        base.load()
    store.delete(f"half/{file.path}")
    with pytest.raises(BaseNotUsable, match="is gone"):
        snapshot.adopt(tmp_path / "own")
    store.put(f"half/{file.path}", data)
    assert base.load().adopt(tmp_path / "again").row_count == 10


def test_no_secret_is_shown_when_the_store_refuses(
    store: ObjectStore, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    other = ObjectStore(store.port, "no-such-bucket")
    base = MerutableBase(other.uri("t"), table="t")
    with caplog.at_level(logging.DEBUG), pytest.raises(BaseNotUsable) as caught:
        base.load()
    assert "no-such-bucket" in str(caught.value)
    assert SECRET not in str(caught.value) + caplog.text


def test_a_store_that_does_not_answer_may_be_tried_again(store: ObjectStore, tmp_path: Path) -> None:
    with object_store("passing") as passing:
        upload_table(passing, tmp_path / "catalog", "t")
        base = MerutableBase(passing.uri("t"), table="t")
        assert base.load().row_count == 10
    with pytest.raises(BaseNotUsable, match="can't be read"):
        base.poll()


def test_an_iceberg_table_whose_catalog_keeps_it_in_a_bucket_is_read(
    store: ObjectStore, tmp_path: Path
) -> None:
    options = {
        "warehouse": "s3://tables/lake",
        "s3.endpoint": f"http://127.0.0.1:{store.port}",
        "s3.region": "us-east-1",
        "s3.access-key-id": ENVIRONMENT["AWS_ACCESS_KEY_ID"],
        "s3.secret-access-key": SECRET,
    }
    catalog = SqlCatalog("lake", uri=f"sqlite:///{tmp_path}/lake.db", **options)
    try:
        catalog.create_namespace("n")
        rows = pa.table({"id": pa.array([1, 2, 3]), "v": pa.array(["a", "b", None])})
        table = catalog.create_table("n.t", rows.schema)
        table.append(rows)
        base = IcebergBase(catalog.load_table("n.t"), table="t", base_seq=3, primary_key=["id"])
        snapshot = base.load()
        assert all(file.store is not None for file in snapshot.files)
        assert rows_of_snapshot(snapshot.adopt(tmp_path / "own")).to_pylist() == rows.to_pylist()
    finally:
        catalog.close()


@pytest.mark.parametrize(
    "uri",
    [
        f"s3://AKIA:{SECRET}@bucket/t?region=us-east-1",
        f"s3://bucket/t?region=us-east-1&secret_key={SECRET}&access_key=AKIA",
    ],
)
def test_credentials_in_a_uri_are_refused_and_not_repeated(uri: str) -> None:
    with pytest.raises(ConfigError, match="credentials don't belong in a URI") as caught:
        MerutableBase(uri, table="t")
    assert SECRET not in str(caught.value)


def test_a_uri_of_no_store_is_refused() -> None:
    with pytest.raises(ConfigError, match="ftp://host/t: no object store that can be read"):
        MerutableBase("ftp://host/t", table="t")


@samples.needs_samples
def test_a_local_uri_is_a_path(tmp_path: Path) -> None:
    checkpoint = samples.scenario("s01") / "checkpoints" / "c1_one_file"
    place = tmp_path / "a place"
    shutil.copytree(checkpoint / "catalog", place)
    assert MerutableBase(place.as_uri(), table="t").load().row_count == 20
