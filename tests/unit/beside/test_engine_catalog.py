"""Versions of an engine's catalog, and whether there is a newer one."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa

from flight_replica.beside.engine_catalog import EngineCatalog
from tests.bases import ID_V
from tests.catalogs import CatalogWriter


def test_a_version_that_another_has_read_is_still_newer(tmp_path: Path) -> None:
    writer = CatalogWriter(tmp_path / "catalog", ID_V)
    catalog = EngineCatalog(tmp_path / "catalog", "t", ID_V)
    versions = [catalog.read()]
    for seq in (1, 2):
        assert not catalog.has_moved(versions[-1])
        writer.add_file(pa.table({"id": pa.array([seq]), "v": pa.array([seq])}), [seq])
        writer.commit()
        versions.append(catalog.read())
        assert [catalog.has_moved(version) for version in versions] == [True] * seq + [False]
    assert [version.file_seq for version in versions] == [0, 1, 2]
