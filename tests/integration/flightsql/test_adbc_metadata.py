"""What ADBC makes of the metadata commands, and dataframes through ADBC."""

from __future__ import annotations

import adbc_driver_flightsql.dbapi as adbc
import pyarrow as pa
import pytest

from tests.integration.flightsql.memory_service import MemoryService

pandas = pytest.importorskip("pandas", reason="pandas isn't installed")
polars = pytest.importorskip("polars", reason="polars isn't installed")


def _objects(connection: adbc.Connection, **arguments: object) -> list[dict[str, object]]:
    rows: list[dict[str, object]] = connection.adbc_get_objects(**arguments).read_all().to_pylist()
    return rows


def test_get_objects_at_each_depth(connection: adbc.Connection) -> None:
    assert _objects(connection, depth="catalogs") == [
        {"catalog_name": "merutable", "catalog_db_schemas": None}
    ]
    schemas = [{"db_schema_name": "main", "db_schema_tables": None}]
    assert _objects(connection, depth="db_schemas") == [
        {"catalog_name": "merutable", "catalog_db_schemas": schemas}
    ]
    (catalog,) = _objects(connection, depth="tables")
    (schema,) = catalog["catalog_db_schemas"]
    assert [(t["table_name"], t["table_type"], t["table_columns"]) for t in schema["db_schema_tables"]] == [
        ("odd", "TABLE", None),
        ("orders", "TABLE", None),
    ]


def test_get_objects_describes_columns(connection: adbc.Connection) -> None:
    (catalog,) = _objects(connection, depth="all", table_name_filter="orders")
    (schema,) = catalog["catalog_db_schemas"]
    (table,) = schema["db_schema_tables"]
    columns = table["table_columns"]
    assert [(c["column_name"], c["ordinal_position"], c["xdbc_type_name"]) for c in columns] == [
        ("id", 1, "BIGINT"),
        ("item", 2, "VARCHAR"),
        ("price", 3, "DOUBLE"),
    ]
    scopes = {(c["xdbc_scope_catalog"], c["xdbc_scope_schema"], c["xdbc_scope_table"]) for c in columns}
    assert scopes == {("merutable", "main", "orders")}
    assert [c["xdbc_is_autoincrement"] for c in columns] == [False] * 3


@pytest.mark.parametrize(
    ("arguments", "count"),
    [
        ({"catalog_filter": "merutable"}, 2),
        ({"db_schema_filter": "m%"}, 2),
        ({"table_name_filter": "ORD%"}, 1),
        ({"table_types_filter": ["TABLE"]}, 2),
        ({"table_types_filter": ["BASE TABLE"]}, 2),
        ({"table_types_filter": ["VIEW"]}, 0),
    ],
    ids=str,
)
def test_get_objects_filters(connection: adbc.Connection, arguments: dict[str, object], count: int) -> None:
    (catalog,) = _objects(connection, depth="tables", **arguments)
    (schema,) = catalog["catalog_db_schemas"]
    assert len(schema["db_schema_tables"]) == count


def test_get_table_schema_takes_the_very_table(connection: adbc.Connection, service: MemoryService) -> None:
    service.add_table("o_d", service.tables_by_name["orders"].schema)
    assert connection.adbc_get_table_schema("odd").names == ["seq", "op"]
    assert connection.adbc_get_table_schema("o_d").names == ["id", "item", "price"]
    found = connection.adbc_get_table_schema("orders", catalog_filter="merutable", db_schema_filter="main")
    assert [(field.name, field.type, field.nullable) for field in found] == [
        ("id", pa.int64(), False),
        ("item", pa.string(), True),
        ("price", pa.float64(), True),
    ]
    with pytest.raises(adbc.Error, match="NOT_FOUND"):
        connection.adbc_get_table_schema("nothing")


def test_get_info_names_the_product(connection: adbc.Connection) -> None:
    info = connection.adbc_get_info()
    assert info["vendor_name"] == "flight-replica test"
    assert info["vendor_arrow_version"] == pa.__version__
    assert connection.adbc_get_table_types() == ["SYSTEM TABLE", "TABLE", "VIEW"]


def test_a_write_through_adbc_says_its_seq(connection: adbc.Connection) -> None:
    with connection.cursor() as cursor:
        cursor.execute("INSERT INTO merutable.main.orders VALUES (4, 'd', 4.5)")
        assert cursor.fetchall() == [(1, 4)]


def test_pandas_reads_sql(connection: adbc.Connection) -> None:
    frame = pandas.read_sql("SELECT id, item, price FROM orders ORDER BY id", connection)
    assert frame["id"].tolist() == [1, 2, 3] and frame["price"].tolist() == [1.5, 2.5, 3.5]
    typed = pandas.read_sql("SELECT * FROM orders", connection, dtype_backend="pyarrow")
    assert typed["item"].isna().sum() == 1


def test_polars_reads_a_database(connection: adbc.Connection) -> None:
    frame = polars.read_database("SELECT id, item, price FROM orders ORDER BY id", connection)
    assert frame.schema == {"id": polars.Int64, "item": polars.String, "price": polars.Float64}
    assert frame.rows() == [(1, "a", 1.5), (2, "b", 2.5), (3, None, 3.5)]
    some = polars.read_database(
        "SELECT id FROM orders WHERE id > ?", connection, execute_options={"parameters": (1,)}
    )
    assert sorted(some["id"].to_list()) == [2, 3]
