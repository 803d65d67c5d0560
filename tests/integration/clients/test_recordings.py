"""What each client sends for each thing it is asked to do, compared with what it sent when last looked at.

A new version of a driver that speaks differently fails here, with the difference, before it surprises
anybody. When the difference is fine, run these tests with FLIGHT_REPLICA_RECORD=1 and look at what changed.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import closing

import adbc_driver_flightsql.dbapi as adbc
import adbc_driver_manager
import pyarrow as pa
import pytest

from flight_replica.schema import Column, TableSchema
from tests.clients.programs import ClientError, Program
from tests.integration.clients.go_client import Go
from tests.integration.clients.jdbc_client import Jdbc
from tests.integration.clients.recording import RecordingServer, check_recording
from tests.integration.flightsql.memory_service import MemoryService

COLUMNS = (Column("id", pa.int64(), False), Column("item", pa.string()))
ROWS = pa.table({"id": pa.array([7, 8], pa.int64()), "item": ["x", "y"]})
SELECT = "SELECT id FROM orders"
SELECT_BOUND = "SELECT id FROM orders WHERE id = ?"
INSERT = "INSERT INTO orders VALUES (100, 'a')"
INSERT_BOUND = "INSERT INTO orders VALUES (?, ?)"


@pytest.fixture(scope="module")
def server() -> Iterator[RecordingServer]:
    with pytest.MonkeyPatch.context() as patch, closing(MemoryService()) as service:
        patch.setattr(sys, "tracebacklimit", 0, raising=False)
        service.add_table("orders", TableSchema(COLUMNS, ("id",)))
        with closing(RecordingServer(service, "127.0.0.1", 0)) as found:
            yield found


# --- ADBC -------------------------------------------------------------------------------------------------


def _adbc_connect(server: RecordingServer, **options: object) -> adbc.Connection:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # where there are no transactions, ADBC says so
        return adbc.connect(f"grpc://127.0.0.1:{server.port}", **options)


def _adbc_logged_in(server: RecordingServer) -> adbc.Connection:
    return _adbc_connect(server, db_kwargs={"username": "u", "password": "pw"}, autocommit=True)


def _adbc_rows(connection: adbc.Connection, sql: str, parameters: object = None) -> None:
    with connection.cursor() as cursor:
        cursor.execute(sql, parameters)
        cursor.fetchall()


def _adbc_many(connection: adbc.Connection) -> None:
    with connection.cursor() as cursor:
        cursor.executemany(INSERT_BOUND, [(1, "a"), (2, "b")])


def _adbc_ingest(connection: adbc.Connection) -> None:
    with connection.cursor() as cursor:
        cursor.adbc_ingest("orders", ROWS, mode="append")


def _adbc_low_level(connection: adbc.Connection, method: str, sql: str) -> None:
    with adbc_driver_manager.AdbcStatement(connection.adbc_connection) as statement:
        statement.set_sql_query(sql)
        answer = getattr(statement, method)()
        if method == "execute_query":
            pa.RecordBatchReader._import_from_c(answer[0].address).read_all()


def _adbc_schema(connection: adbc.Connection) -> None:
    with connection.cursor() as cursor:
        cursor.adbc_execute_schema(SELECT)


def _adbc_partitions(connection: adbc.Connection) -> None:
    with connection.cursor() as cursor:
        partitions, _ = cursor.adbc_execute_partitions(SELECT)
        for partition in partitions:
            cursor.adbc_read_partition(partition)
            cursor.fetchall()


ADBC: dict[str, Callable[[adbc.Connection], object]] = {
    "execute": lambda c: _adbc_rows(c, SELECT),
    "execute with parameters": lambda c: _adbc_rows(c, SELECT_BOUND, (1,)),
    "execute a write": lambda c: _adbc_rows(c, INSERT),
    "executemany": _adbc_many,
    "ingest": _adbc_ingest,
    "low-level query": lambda c: _adbc_low_level(c, "execute_query", SELECT),
    "low-level update": lambda c: _adbc_low_level(c, "execute_update", "DELETE FROM orders WHERE id > 5"),
    "execute_schema": _adbc_schema,
    "partitions": _adbc_partitions,
    "get_objects catalogs": lambda c: c.adbc_get_objects(depth="catalogs").read_all(),
    "get_objects db_schemas": lambda c: c.adbc_get_objects(depth="db_schemas").read_all(),
    "get_objects tables": lambda c: c.adbc_get_objects(depth="tables").read_all(),
    "get_objects columns": lambda c: c.adbc_get_objects(depth="columns").read_all(),
    "get_objects filtered": lambda c: c.adbc_get_objects(
        depth="all",
        catalog_filter="x",
        db_schema_filter="main",
        table_name_filter="o%",
        table_types_filter=["TABLE"],
    ).read_all(),
    "get_table_schema": lambda c: c.adbc_get_table_schema("orders"),
    "get_table_types": lambda c: c.adbc_get_table_types(),
    "get_info": lambda c: c.adbc_get_info(),
    "current catalog": lambda c: c.adbc_current_catalog,
}


@pytest.mark.parametrize("operation", ADBC)
def test_adbc_sends_what_it_sent(server: RecordingServer, operation: str) -> None:
    with _adbc_connect(server, autocommit=True) as connection, server.calls.during() as lines:
        ADBC[operation](connection)
    check_recording("adbc", operation, lines)


ADBC_CONNECTIONS: dict[str, Callable[[RecordingServer], None]] = {
    "connect with autocommit, close": lambda s: _adbc_connect(s, autocommit=True).close(),
    "connect, close": lambda s: _adbc_connect(s).close(),
    "connect with user and password, close": lambda s: _adbc_logged_in(s).close(),
}


@pytest.mark.parametrize("operation", ADBC_CONNECTIONS)
def test_adbc_connects_as_it_did(server: RecordingServer, operation: str) -> None:
    with server.calls.during() as lines:
        ADBC_CONNECTIONS[operation](server)
    check_recording("adbc", operation, lines)


def test_adbc_runs_a_transaction_as_it_did(server: RecordingServer) -> None:
    with _adbc_connect(server) as connection:
        with server.calls.during() as lines:
            _adbc_rows(connection, SELECT)
            connection.commit()
        check_recording("adbc", "execute, commit", lines)


# --- JDBC -------------------------------------------------------------------------------------------------


def _jdbc_prepared(jdbc: Jdbc, address: str, sql: str, method: str, *values: tuple[str, object]) -> None:
    statement = jdbc.connect(address).prepare(sql)
    for number, (setter, value) in enumerate(values, 1):
        statement.call(setter, number, value)
    if method == "executeBatch":
        statement.call("addBatch")
    statement.call(method)
    statement.close()


def _jdbc_update(jdbc: Jdbc, address: str) -> None:
    statement = jdbc.connect(address).statement()
    statement.call("executeUpdate", INSERT)
    statement.close()


def _jdbc_settings(jdbc: Jdbc, address: str) -> None:
    connection = jdbc.connect(address)
    connection.call("setAutoCommit", False)
    connection.call("commit")
    connection.call("isValid", 1)


def _jdbc_with_catalog(jdbc: Jdbc, address: str) -> None:
    catalog = jdbc.connect(address).metadata("getCatalogs")
    connection = jdbc.connect(address, catalog=catalog[0]["TABLE_CAT"] if catalog else "main")
    with pytest.raises(ClientError, match="Channel shutdown"):  # the driver's close always fails then
        connection.call("close")


_LONG, _TEXT = ("setLong", 1), ("setString", "a")
JDBC: dict[str, Callable[[Jdbc, str], object]] = {
    "connect, close": lambda j, a: j.connect(a).call("close"),
    "connect with user and password": lambda j, a: j.connect(a, user="u", password="pw"),
    "connect with token": lambda j, a: j.connect(a, token="t"),
    "connect with catalog, close": _jdbc_with_catalog,
    "settings, commit": _jdbc_settings,
    "query": lambda j, a: j.connect(a).rows(SELECT),
    "update": _jdbc_update,
    "prepared query": lambda j, a: _jdbc_prepared(j, a, SELECT_BOUND, "executeQuery", _LONG),
    "prepared update": lambda j, a: _jdbc_prepared(j, a, INSERT_BOUND, "executeUpdate", _LONG, _TEXT),
    "batch": lambda j, a: _jdbc_prepared(j, a, INSERT_BOUND, "executeBatch", _LONG, _TEXT),
    "every metadata method without arguments": lambda j, a: j.connect(a).every_metadata(),
    **{
        method: lambda j, a, method=method, arguments=arguments: j.connect(a).metadata(method, *arguments)
        for method, arguments in {
            "getCatalogs": (),
            "getSchemas": (None, "%"),
            "getTables": (None, None, "%", ["TABLE"]),
            "getColumns": (None, None, "orders", "%"),
            "getTableTypes": (),
            "getPrimaryKeys": (None, None, "orders"),
            "getImportedKeys": (None, None, "orders"),
            "getExportedKeys": (None, None, "orders"),
            "getCrossReference": (None, None, "orders", None, None, "orders"),
            "getTypeInfo": (),
            "getIndexInfo": (None, None, "orders", False, False),
        }.items()
    },
}


@pytest.mark.parametrize("operation", JDBC)
def test_jdbc_sends_what_it_sent(server: RecordingServer, jdbc: Jdbc, operation: str) -> None:
    with server.calls.during() as lines:
        JDBC[operation](jdbc, f"127.0.0.1:{server.port}")
    check_recording("jdbc", operation, lines)


# --- Go ---------------------------------------------------------------------------------------------------


def _go_prepared(go: Go, address: str) -> None:
    statement = go.open(address).prepare(SELECT_BOUND)
    statement.rows("", 1)
    statement.rows("", 2)
    statement.close()


def _go_transaction(go: Go, address: str, end: str) -> None:
    transaction = go.open(address).begin()
    transaction.rows(SELECT)
    getattr(transaction, end)()


def _go_metadata(go: Go, address: str, verb: str, **fields: object) -> None:
    go.raw(address).do(verb, **fields)


GO: dict[str, Callable[[Go, str], object]] = {
    "open, close": lambda g, a: g.open(a).close(),
    "query": lambda g, a: g.open(a).rows(SELECT),
    "query with arguments": lambda g, a: g.open(a).rows(SELECT_BOUND, 1),
    "exec": lambda g, a: g.open(a).execute(INSERT),
    "exec with arguments": lambda g, a: g.open(a).execute(INSERT_BOUND, 1, "a"),
    "prepared query, twice": _go_prepared,
    "transaction, commit": lambda g, a: _go_transaction(g, a, "commit"),
    "transaction, rollback": lambda g, a: _go_transaction(g, a, "rollback"),
    "raw login": lambda g, a: _go_metadata(g, a, "login", arguments=["u", "pw"]),
    "raw query": lambda g, a: _go_metadata(g, a, "query", sql=SELECT),
    "raw schema": lambda g, a: _go_metadata(g, a, "schema", sql=SELECT),
    "raw update": lambda g, a: _go_metadata(g, a, "update", sql=INSERT),
    "raw tables": lambda g, a: _go_metadata(g, a, "tables", table="o%", tabletypes=["TABLE"]),
    "raw sql info": lambda g, a: _go_metadata(g, a, "sql_info", codes=[504]),
    "raw type info": lambda g, a: _go_metadata(g, a, "xdbc_type_info", datatype=-5),
}


@pytest.mark.parametrize("operation", GO)
def test_go_sends_what_it_sent(server: RecordingServer, go_program: Program, operation: str) -> None:
    with server.calls.during() as lines:
        GO[operation](Go(go_program), f"127.0.0.1:{server.port}")
    check_recording("go", operation, lines)
