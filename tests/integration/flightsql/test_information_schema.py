"""information_schema, SHOW, DESCRIBE, SUMMARIZE and EXPLAIN over Flight."""

from __future__ import annotations

from collections.abc import Iterator

import duckdb
import pyarrow as pa
import pytest

from flight_replica._pb import flight_sql_pb2 as pb
from flight_replica.flightsql.commands import unpack
from flight_replica.flightsql.information_schema import TABLES
from flight_replica.schema import Column, TableSchema
from tests.integration.flightsql.clients import RawClient
from tests.integration.flightsql.memory_service import MemoryService

PAIRS = TableSchema(
    (
        Column("k", pa.int16(), False),
        Column("name", pa.string(), False),
        Column("price", pa.decimal128(9, 2), True, None),
        Column("note", pa.string(), True, "it's"),
    ),
    ("name", "k"),
)
PLACE = {"table_catalog": "merutable", "table_schema": "main"}


@pytest.fixture(autouse=True)
def pairs(service: MemoryService) -> Iterator[None]:
    service.add_table("pairs", PAIRS)
    yield


def _rows(raw: RawClient, sql: str) -> list[dict[str, object]]:
    rows: list[dict[str, object]] = raw.rows(sql).to_pylist()
    return rows


@pytest.mark.parametrize("name", sorted(TABLES))
def test_the_columns_are_duckdbs(raw: RawClient, name: str) -> None:
    ours = raw.info(f"FROM information_schema.{name}").schema.remove_metadata()
    with duckdb.connect() as session:
        duckdbs = session.sql(f"FROM information_schema.{name}").limit(0).to_arrow_table().schema
    assert ours == duckdbs


def test_tables_are_exactly_the_served_ones(raw: RawClient, service: MemoryService) -> None:
    sql = (
        "SELECT table_catalog, table_schema, table_name, table_type FROM information_schema.tables ORDER BY 3"
    )
    kind = {"table_type": "BASE TABLE"}
    assert _rows(raw, sql) == [PLACE | {"table_name": name} | kind for name in ("odd", "orders", "pairs")]
    service.add_table("another", PAIRS)
    assert _rows(raw, sql)[0]["table_name"] == "another"


def test_schemata_agree_with_the_metadata_commands(raw: RawClient) -> None:
    sql = "SELECT catalog_name, schema_name AS db_schema_name FROM information_schema.schemata"
    assert _rows(raw, sql) == raw.reply(pb.CommandGetDbSchemas()).to_pylist()


def test_columns_have_types_order_defaults_and_nullability(raw: RawClient) -> None:
    sql = """
    SELECT column_name, ordinal_position, column_default, is_nullable, data_type, numeric_precision,
        numeric_precision_radix, numeric_scale
    FROM information_schema.columns WHERE table_name = 'pairs' ORDER BY ordinal_position
    """
    assert [tuple(row.values()) for row in _rows(raw, sql)] == [
        ("k", 1, None, "NO", "SMALLINT", 16, 2, 0),
        ("name", 2, None, "NO", "VARCHAR", None, None, None),
        ("price", 3, None, "YES", "DECIMAL(9,2)", 9, 10, 2),
        ("note", 4, "'it''s'", "YES", "VARCHAR", None, None, None),
    ]


def test_keys_are_found_as_power_bi_looks_for_them(raw: RawClient) -> None:
    sql = """
    SELECT c.constraint_name, k.column_name, k.ordinal_position
    FROM information_schema.table_constraints c JOIN information_schema.key_column_usage k
        USING (constraint_catalog, constraint_schema, constraint_name, table_name)
    WHERE c.constraint_type = 'PRIMARY KEY' AND c.table_name = 'pairs' ORDER BY 3
    """
    assert [tuple(row.values()) for row in _rows(raw, sql)] == [
        ("pairs_pkey", "name", 1),
        ("pairs_pkey", "k", 2),
    ]


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT orders.id FROM orders",
        "SELECT main.orders.id FROM main.orders",
        "SELECT merutable.main.orders.id FROM merutable.main.orders",
        'SELECT "orders"."id" FROM "merutable"."main"."orders"',
        "SELECT o.id FROM merutable.main.ORDERS AS o",
        "SELECT id FROM (SELECT * FROM merutable.main.orders)",
    ],
)
def test_a_table_goes_by_its_name_its_schema_and_its_catalog(raw: RawClient, sql: str) -> None:
    assert sorted(row["id"] for row in _rows(raw, sql)) == [1, 2, 3]


def test_the_current_names_are_those_of_the_metadata(raw: RawClient) -> None:
    sql = "SELECT current_database() AS d, current_catalog AS c, current_schema() AS s, current_schema AS t"
    assert _rows(raw, sql) == [{"d": "merutable", "c": "merutable", "s": "main", "t": "main"}]


def test_show_gives_duckdbs_columns_over_what_is_served(raw: RawClient) -> None:
    names = [{"name": name} for name in ("odd", "orders", "pairs")]
    assert _rows(raw, "SHOW TABLES") == _rows(raw, "SHOW TABLES FROM merutable.main") == names
    assert _rows(raw, "SHOW DATABASES") == [{"database_name": "merutable"}]
    assert _rows(raw, "SHOW SCHEMAS") == [
        {"database_name": "merutable", "schema_name": "main", "current": True}
    ]
    assert _rows(raw, "SHOW ALL TABLES")[0] == {
        "database": "merutable",
        "schema": "main",
        "name": "odd",
        "column_names": ["seq", "op"],
        "column_types": ["INTEGER", "VARCHAR"],
        "temporary": False,
    }


@pytest.mark.parametrize(
    "sql", ["DESCRIBE pairs", "DESC PAIRS", "SHOW pairs", "DESCRIBE merutable.main.pairs"]
)
def test_describe_shows_key_nullability_and_default(raw: RawClient, sql: str) -> None:
    assert [tuple(row.values()) for row in _rows(raw, sql)] == [
        ("k", "SMALLINT", "NO", "PRI", None, None),
        ("name", "VARCHAR", "NO", "PRI", None, None),
        ("price", "DECIMAL(9,2)", "YES", None, None, None),
        ("note", "VARCHAR", "YES", None, "'it''s'", None),
    ]


@pytest.mark.parametrize(
    "sql",
    [
        *("SHOW TABLES", "SHOW ALL TABLES", "SHOW DATABASES", "SHOW SCHEMAS", "DESCRIBE", "DESCRIBE orders"),
        *("DESCRIBE SELECT id FROM orders", "SUMMARIZE orders", "SUMMARIZE SELECT id FROM orders"),
        *("EXPLAIN SELECT * FROM orders", "EXPLAIN ANALYZE SELECT * FROM orders", "EXPLAIN DESCRIBE orders"),
        *("DESCRIBE information_schema.tables", "SUMMARIZE information_schema.columns"),
        *("FROM information_schema.tables", "SELECT 'a'::ENUM('a', 'b') AS e, 1.5::DECIMAL(9,2) AS d"),
    ],
)
def test_prepare_announces_the_schema_that_the_stream_has(raw: RawClient, sql: str) -> None:
    (body,) = raw.act("CreatePreparedStatement", pb.ActionCreatePreparedStatementRequest(query=sql))
    result = unpack(body, "the result")
    assert result.HasField("is_update") and result.is_update is False
    announced = pa.ipc.read_schema(pa.py_buffer(result.dataset_schema))
    rows = raw.rows(sql)
    assert announced.remove_metadata() == rows.schema.remove_metadata() and rows.num_rows > 0
    assert not any(b"REMARKS" in key for field in announced for key in field.metadata or {})


def test_explain_gives_a_plan_and_analyze_a_measured_one(raw: RawClient) -> None:
    (plan,) = _rows(raw, "EXPLAIN SELECT count(*) FROM orders WHERE id > 1")
    assert plan["explain_key"] == "physical_plan" and "Filter" in str(plan["explain_value"])
    for analyze in ("ANALYZE", "(ANALYZE)"):
        (measured,) = _rows(raw, f"EXPLAIN {analyze} SELECT count(*) FROM orders")
        assert measured["explain_key"] == "analyzed_plan" and "Total Time" in str(measured["explain_value"])


def test_result_columns_are_such_as_clients_can_take(raw: RawClient) -> None:
    sql = """
    SELECT 'a'::ENUM('a', 'b') AS e, ['b'::ENUM('a', 'b')] AS l, 1.5::DECIMAL(9,2) AS d,
        sum(1::BIGINT) AS h, 'x' AS s
    """
    info = raw.info(sql)
    rows = raw.rows(sql)
    assert info.schema.remove_metadata() == rows.schema.remove_metadata()
    assert [str(kind) for kind in rows.schema.types] == [
        *("string", "list<l: string>", "decimal128(9, 2)", "decimal128(38, 0)", "string")
    ]
    for schema in (info.schema, rows.schema):
        assert schema.field("d").metadata == {
            b"ARROW:FLIGHT:SQL:PRECISION": b"9",
            b"ARROW:FLIGHT:SQL:SCALE": b"2",
        }
        assert schema.field("h").metadata == {
            b"ARROW:FLIGHT:SQL:PRECISION": b"38",
            b"ARROW:FLIGHT:SQL:SCALE": b"0",
        }
        assert schema.field("s").metadata is None
    assert rows.select(["e", "l"]).to_pylist() == [{"e": "a", "l": ["b"]}]
