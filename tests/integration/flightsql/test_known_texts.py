"""A text that was asked before: its answer is that of a new one, whatever has changed meanwhile."""

from __future__ import annotations

from dataclasses import replace

import adbc_driver_flightsql.dbapi as adbc
import adbc_driver_manager
import pyarrow as pa
import pytest

from flight_replica.schema import Column, TableSchema
from tests.integration.flightsql.memory_service import MemoryService

SCHEMA = TableSchema(
    (
        Column("id", pa.int64(), False),
        Column("moment", pa.timestamp("us", "UTC")),
        Column("small", pa.int8()),
    ),
    ("id",),
)


@pytest.fixture(autouse=True)
def table(service: MemoryService) -> None:
    service.add_table("k", SCHEMA)
    rows = [{"id": number, "moment": number * 1_000_000, "small": number} for number in range(10)]
    service.put("k", pa.Table.from_pylist(rows, SCHEMA.arrow_schema))


def ask(connection: adbc.Connection, sql: str, *parameters: object) -> pa.Table:
    with connection.cursor() as cursor:
        cursor.execute(sql, parameters or None)
        return cursor.fetch_arrow_table()


def test_each_number_has_its_own_rows(connection: adbc.Connection) -> None:
    for number in (3, 7, 3, 11):
        found = ask(connection, f"SELECT id FROM k WHERE id = {number}")
        assert found["id"].to_pylist() == ([number] if number < 10 else [])
        assert found.schema.names == ["id"]
    for number in (3, 7):
        assert ask(connection, f"SELECT id, {number} FROM k LIMIT 1").schema.names == ["id", str(number)]


def test_each_value_that_is_bound_has_its_own_rows(connection: adbc.Connection) -> None:
    for value in (3, "7", 3.0, None):
        found = ask(connection, "SELECT id FROM k WHERE id = ?", value)
        assert found["id"].to_pylist() == ([int(value)] if value is not None else [])


def test_a_column_that_was_added_is_there(service: MemoryService, connection: adbc.Connection) -> None:
    assert ask(connection, "SELECT * FROM k WHERE id = 1").schema.names == ["id", "moment", "small"]
    known = service.tables_by_name["k"]
    service.run(f"ALTER TABLE {known.stored} ADD COLUMN note VARCHAR")
    known.schema = TableSchema((*SCHEMA.columns, Column("note", pa.string())), ("id",))
    found = ask(connection, "SELECT * FROM k WHERE id = 2")
    assert found.schema.field("note").type == pa.string() and found["id"].to_pylist() == [2]


def test_a_column_of_another_type_has_it(service: MemoryService, connection: adbc.Connection) -> None:
    assert ask(connection, "SELECT small FROM k WHERE id = 1").schema.field(0).type == pa.int8()
    known = service.tables_by_name["k"]
    service.run(f"ALTER TABLE {known.stored} ALTER small TYPE BIGINT")
    columns = (*SCHEMA.columns[:2], replace(SCHEMA.columns[2], type=pa.int64()))
    known.schema = TableSchema(columns, ("id",))
    assert ask(connection, "SELECT small FROM k WHERE id = 2").schema.field(0).type == pa.int64()


def test_a_table_that_is_gone_is_not_found(service: MemoryService, connection: adbc.Connection) -> None:
    ask(connection, "SELECT * FROM k WHERE id = 1")
    del service.tables_by_name["k"]
    with pytest.raises(adbc_driver_manager.Error, match="isn't served here"):
        ask(connection, "SELECT * FROM k WHERE id = 2")


def test_another_time_zone_is_shown(connection: adbc.Connection) -> None:
    for zone in ("UTC", "Europe/Berlin", "UTC"):
        with connection.cursor() as cursor:
            cursor.adbc_statement.set_options(**{"adbc.flight.sql.rpc.call_header.merutable-time-zone": zone})
            cursor.execute("SELECT moment FROM k WHERE id = 1")
            assert cursor.fetch_arrow_table().schema.field("moment").type == pa.timestamp("us", zone)


def test_a_number_that_does_not_fit_is_told_as_ever(connection: adbc.Connection) -> None:
    assert len(ask(connection, "SELECT * FROM k WHERE small = 3")) == 1
    assert len(ask(connection, "SELECT * FROM k WHERE small = 3000000000")) == 0
    assert len(ask(connection, "SELECT * FROM k WHERE small < 300")) == 10
    with pytest.raises(adbc_driver_manager.Error, match="INVALID_ARGUMENT"):
        ask(connection, "SELECT * FROM k WHERE moment = 3")
