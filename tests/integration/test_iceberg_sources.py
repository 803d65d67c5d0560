"""`serve` on Iceberg tables of others: named in a catalog, or exported by the engine."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest
from pyiceberg import types as ice
from pyiceberg.catalog.sql import SqlCatalog
from pyiceberg.schema import Schema

from tests import samples
from tests.processes import Process, Server, is_answered, position, running, until

SCHEMA = Schema(
    ice.NestedField(1, "id", ice.LongType(), required=True), ice.NestedField(2, "v", ice.StringType())
)
MIRROR = {
    "merutable.lineage": "3f2b8c1e-0000-4000-8000-000000000002",
    "merutable.base-seq": "9",
    "merutable.schema": '{"columns": [{"name": "id", "type": "int64", "nullable": false}, '
    '{"name": "v", "type": "string", "nullable": true}], "primary_key": ["id"]}',
}


@pytest.fixture
def catalog(tmp_path: Path) -> Iterator[SqlCatalog]:
    catalog = SqlCatalog("lake", uri=f"sqlite:///{tmp_path}/lake.db", warehouse=str(tmp_path))
    catalog.create_namespace("sales")
    yield catalog
    catalog.close()


def configured(tmp_path: Path) -> dict[str, str]:
    return {
        "PYICEBERG_CATALOG__LAKE__URI": f"sqlite:///{tmp_path}/lake.db",
        "PYICEBERG_CATALOG__LAKE__TYPE": "sql",
    }


def rows(*ids: int) -> pa.Table:
    return pa.Table.from_pylist([{"id": i, "v": f"v{i}"} for i in ids], SCHEMA.as_arrow())


def test_a_table_in_a_catalog_is_followed_from_snapshot_to_snapshot(
    catalog: SqlCatalog, tmp_path: Path
) -> None:
    table = catalog.create_table("sales.orders", SCHEMA)
    table.append(rows(1, 2), snapshot_properties=MIRROR)
    server = Server("serve", "--base=t=iceberg:catalog:lake/sales.orders", env=configured(tmp_path))
    with running(server):
        until(is_answered(server.uri, "SELECT count(*) FROM t", [(2,)]), "the table is served")
        table.append(rows(3), snapshot_properties=MIRROR | {"merutable.base-seq": "10"})
        until(is_answered(server.uri, "SELECT count(*) FROM t", [(3,)]), "the newer snapshot is adopted")
        assert position(server.uri, "t")["visible_seq"] == 10


def test_a_table_of_others_in_a_catalog_is_served_as_it_is_now(catalog: SqlCatalog, tmp_path: Path) -> None:
    catalog.create_table("sales.orders", SCHEMA).append(rows(1, 2))
    server = Server(
        "serve",
        "--base=t=iceberg:catalog:lake/sales.orders",
        "--key=t=id",
        "--base-seq=t=4",
        env=configured(tmp_path),
    )
    with running(server):
        until(is_answered(server.uri, "SELECT v FROM t ORDER BY id", [("v1",), ("v2",)]), "it is served")
        assert position(server.uri, "t")["visible_seq"] == 4


@pytest.mark.parametrize(
    ("place", "message"),
    [
        ("catalog:orders", "Iceberg table 'orders': expected CATALOG/NAMESPACE.TABLE"),
        ("catalog:pond/sales.orders", "Iceberg catalog 'pond' isn't configured for pyiceberg"),
    ],
)
def test_a_place_that_is_no_table_of_a_catalog_is_one_clear_line(
    place: str, message: str, tmp_path: Path
) -> None:
    process = Process("flight_replica", "serve", f"--base=t=iceberg:{place}", "--key=t=id", "--base-seq=t=1")
    assert process.wait() == 1
    assert message in process.errors[-1]


@samples.needs_samples
def test_an_export_of_the_engine_is_served_once_it_is_declared_whole() -> None:
    (metadata,) = (samples.scenario("s09b") / "export" / "metadata").glob("v*.metadata.json")
    refused = Process("flight_replica", "serve", f"--base=t=iceberg:{metadata}", "--base-seq=t=30")
    assert refused.wait() == 1
    assert "--insert-only t" in refused.errors[-1]
    server = Server("serve", f"--base=t=iceberg:{metadata}", "--base-seq=t=30", "--insert-only=t")
    with running(server):
        until(
            is_answered(server.uri, "SELECT count(*), count(DISTINCT id) FROM t", [(30, 30)]), "it is served"
        )


def test_a_declaration_without_its_base_is_refused(tmp_path: Path) -> None:
    process = Process("flight_replica", "serve", f"--base=t=merutable:{tmp_path}", "--insert-only=t")
    assert process.wait() == 1
    assert "--insert-only t: it doesn't go with a --base of kind merutable" in process.errors[-1]
