"""The Flight SQL front through the ADBC driver, as Python, R, Go and BI tools use it."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from typing import NoReturn

import adbc_driver_flightsql.dbapi as adbc
import adbc_driver_manager
import pyarrow as pa
import pytest
from google.protobuf.any_pb2 import Any as AnyMessage

from flight_replica._pb import feed_pb2
from flight_replica.errors import Unavailable
from flight_replica.flightsql.server import FlightSqlServer
from tests.integration.flightsql.clients import wait_until
from tests.integration.flightsql.memory_service import MemoryService


@pytest.fixture
def cursor(connection: adbc.Connection) -> Iterator[adbc.Cursor]:
    with connection.cursor() as found:
        yield found


def _rows(cursor: adbc.Cursor, sql: str, parameters: object = None) -> list[tuple[object, ...]]:
    cursor.execute(sql, parameters)
    return list(cursor.fetchall())


def test_a_query_with_parameters_gives_the_rows_they_ask_for(cursor: adbc.Cursor) -> None:
    assert _rows(cursor, "SELECT id, item FROM orders WHERE id > ? ORDER BY id", (1,)) == [
        (2, "b"),
        (3, None),
    ]
    assert _rows(cursor, "SELECT $2 || item FROM orders WHERE id = $1", (1, "x")) == [("xa",)]
    assert _rows(cursor, "SELECT ?::DECIMAL(9,2), ?", (None, "é")) == [(None, "é")]


def test_a_prepared_statement_is_bound_again_and_again(cursor: adbc.Cursor) -> None:
    for order_id in (1, 2, 3):
        assert _rows(cursor, "SELECT id FROM orders WHERE id = ?", (order_id,)) == [(order_id,)]


def test_a_statement_is_planned_here_and_its_partitions_are_read_by_another_connection(
    cursor: adbc.Cursor, server: FlightSqlServer
) -> None:
    partitions, schema = cursor.adbc_execute_partitions("SELECT id FROM orders ORDER BY id")
    assert (len(partitions), schema.names) == (1, ["id"])
    with adbc.connect(f"grpc://127.0.0.1:{server.port}", autocommit=True) as other, other.cursor() as reader:
        reader.adbc_read_partition(partitions[0])
        assert reader.fetchall() == [(1,), (2,), (3,)]


def test_the_wrong_number_of_parameters_is_named(cursor: adbc.Cursor) -> None:
    with pytest.raises(adbc.ProgrammingError, match="takes 1 parameters, 0 were bound"):
        cursor.execute("SELECT id FROM orders WHERE id = ?")


def test_execute_runs_dml_exactly_once_and_says_rows_and_seq(
    cursor: adbc.Cursor, service: MemoryService
) -> None:
    assert _rows(cursor, "INSERT INTO orders VALUES (4, 'd', 4.5), (5, 'e', 5.5)") == [(2, 5)]
    assert service.writes_total == 1
    assert _rows(cursor, "SELECT count(*) FROM orders") == [(5,)]


def test_a_write_is_done_when_execute_returns_even_if_nobody_fetches(
    connection: adbc.Connection, service: MemoryService
) -> None:
    with connection.cursor() as unread:
        unread.execute("INSERT INTO orders VALUES (4, 'd', 4.5)")
        assert service.tables_by_name["orders"].seq == 4


def test_execute_with_parameters_runs_dml(cursor: adbc.Cursor) -> None:
    assert _rows(cursor, "INSERT INTO orders VALUES (?, ?, ?)", (4, "d", 4.5)) == [(1, 4)]
    assert _rows(cursor, "SELECT item FROM orders WHERE id = 4") == [("d",)]


def test_executemany_writes_every_row_in_one_write(cursor: adbc.Cursor, service: MemoryService) -> None:
    cursor.executemany("INSERT INTO orders VALUES (?, ?, ?)", [(4, "d", 4.5), (5, "e", 5.5), (6, "f", 6.5)])
    assert cursor.rowcount == 3
    assert service.writes_total == 1
    assert _rows(cursor, "SELECT count(*) FROM orders") == [(6,)]


def test_execute_update_without_preparing_writes(connection: adbc.Connection, cursor: adbc.Cursor) -> None:
    with adbc_driver_manager.AdbcStatement(connection.adbc_connection) as statement:
        statement.set_sql_query("DELETE FROM orders WHERE id < 3")
        assert statement.execute_update() == 2
    assert _rows(cursor, "SELECT id FROM orders") == [(3,)]


def test_ingestion_creates_appends_and_refuses(cursor: adbc.Cursor) -> None:
    rows = pa.table({"k": [1, 2], "v": ["x", "y"]})
    assert cursor.adbc_ingest("fresh", rows, mode="create") == 2
    assert cursor.adbc_ingest("fresh", rows.slice(0, 1), mode="append") == 1
    assert _rows(cursor, "SELECT count(*) FROM fresh") == [(3,)]
    with pytest.raises(adbc.Error, match="exists"):
        cursor.adbc_ingest("fresh", rows, mode="create")


def test_ingestion_into_another_catalog_or_schema_is_refused(connection: adbc.Connection) -> None:
    rows = pa.table({"id": [9], "item": ["x"], "price": [0.5]})
    for place in ({"catalog_name": "merutable", "db_schema_name": "MAIN"}, {"db_schema_name": "main"}):
        with connection.cursor() as cursor:
            assert cursor.adbc_ingest("orders", rows, mode="append", **place) == 1
    for wrong in ({"catalog_name": "other"}, {"db_schema_name": "other"}):
        with connection.cursor() as cursor, pytest.raises(adbc.ProgrammingError, match="'other', only"):
            cursor.adbc_ingest("orders", rows, mode="append", **wrong)


def test_a_statement_is_not_to_blame_for_a_table_that_cannot_be_read_yet(
    cursor: adbc.Cursor, service: MemoryService, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> NoReturn:
        raise Unavailable("table 'orders' is loading")

    monkeypatch.setattr(service, "open_view", refuse)
    with pytest.raises(adbc.OperationalError, match=r"'orders' is loading .*Unavailable"):
        cursor.adbc_prepare("SELECT item FROM orders WHERE id = ?")


def test_a_replica_refuses_writes_at_prepare_with_its_reason(
    cursor: adbc.Cursor, service: MemoryService
) -> None:
    service.read_only_reason = "this is a replica; write to grpc://primary:1"
    for sql in ("DELETE FROM orders", "CREATE TABLE t (id INT PRIMARY KEY)"):
        with pytest.raises(adbc.ProgrammingError, match="write to grpc://primary:1"):
            cursor.adbc_prepare(sql)
    with pytest.raises(adbc.ProgrammingError, match="write to grpc://primary:1"):
        cursor.adbc_ingest("orders", pa.table({"id": [9]}), mode="append")
    assert service.writes_total == 0


def test_the_schema_is_known_before_the_statement_runs(cursor: adbc.Cursor) -> None:
    schema = cursor.adbc_execute_schema("SELECT id, item FROM orders WHERE id = 1")
    assert schema.remove_metadata() == pa.schema({"id": pa.int64(), "item": pa.string()})


def test_the_position_stands_in_the_schema_of_a_result(cursor: adbc.Cursor) -> None:
    cursor.execute("SELECT * FROM orders")
    reader = cursor.fetch_record_batch()
    position = json.loads(reader.schema.metadata[b"merutable.position"])
    assert [(at["table"], at["visible_seq"]) for at in position["tables"]] == [("orders", 3)]


def test_connect_with_user_and_password_is_let_in(server: FlightSqlServer) -> None:
    options = {"username": "anybody", "password": "anything"}
    with (
        adbc.connect(f"grpc://127.0.0.1:{server.port}", db_kwargs=options, autocommit=True) as connection,
        connection.cursor() as cursor,
    ):
        assert _rows(cursor, "SELECT 1") == [(1,)]


def test_get_objects_shows_tables_columns_and_types(connection: adbc.Connection) -> None:
    (catalog,) = connection.adbc_get_objects(depth="all").read_all().to_pylist()
    (schema,) = catalog["catalog_db_schemas"]
    assert schema["db_schema_name"] == "main"
    columns = {
        t["table_name"]: [c["column_name"] for c in t["table_columns"]] for t in schema["db_schema_tables"]
    }
    assert columns == {"orders": ["id", "item", "price"], "odd": ["seq", "op"]}
    assert connection.adbc_get_table_types() == ["SYSTEM TABLE", "TABLE", "VIEW"]
    assert connection.adbc_get_table_schema("orders").names == ["id", "item", "price"]
    assert connection.adbc_get_info()["vendor_name"] == "flight-replica test"


def test_an_unknown_table_is_not_found_and_a_syntax_error_invalid(cursor: adbc.Cursor) -> None:
    with pytest.raises(adbc.ProgrammingError, match=r"NOT_FOUND.*nope") as found:
        cursor.execute("SELECT * FROM nope")
    assert "Traceback" not in str(found.value)
    with pytest.raises(adbc.ProgrammingError, match=r"INVALID_ARGUMENT.*syntax error"):
        cursor.execute("SELEC")


def test_an_error_while_rows_are_read_keeps_its_text(cursor: adbc.Cursor) -> None:
    with pytest.raises(adbc.Error, match="Could not convert string 'b'") as found:
        _rows(cursor, "SELECT item::INT FROM orders WHERE id = 2")
    assert "Traceback" not in str(found.value)


def test_a_cancelled_cursor_frees_the_server_within_a_second(
    connection: adbc.Connection, service: MemoryService, query_begins: threading.Event
) -> None:
    cursor = connection.cursor()
    cursor.execute(
        "SELECT sum(a.range * b.range) FROM range(10000000) a, range(10000000) b WHERE a.range <> b.range"
    )
    assert query_begins.wait(5)
    cursor.adbc_cancel()
    cursor.close()
    assert wait_until(lambda: service.open_views == 0) < 1.0


def test_a_log_gap_reaches_adbc_with_text_and_details(cursor: adbc.Cursor) -> None:
    with pytest.raises(adbc.Error, match="log gap: requested since 99, earliest available 0") as found:
        cursor.execute("SELECT * FROM merutable_changes('orders', 99)")
    (detail,) = [value for key, value in found.value.details if key == b"grpc-status-details-bin"]
    carrier, gap = AnyMessage(), feed_pb2.LogGap()
    carrier.ParseFromString(detail)
    assert carrier.Unpack(gap) and gap.requested == 99


def test_changes_are_a_relation_like_any_other(cursor: adbc.Cursor) -> None:
    sql = (
        "SELECT c.seq, o.item FROM merutable_changes('orders', 0) c JOIN orders o USING (id) WHERE c.seq > 1"
    )
    assert sorted(_rows(cursor, sql)) == [(2, "b"), (3, None)]
