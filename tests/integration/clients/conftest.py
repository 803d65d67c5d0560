"""A primary and a replica of it as real processes, and the client programs of other languages."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass

import adbc_driver_flightsql.dbapi as adbc
import pyarrow as pa
import pytest

from flight_replica.flightsql.limits import DEFAULT_LIMITS, ServerLimits
from flight_replica.flightsql.server import FlightSqlServer
from flight_replica.schema import Column, TableSchema
from flight_replica.sql.view import View
from tests.clients.programs import Program, go_command, jdbc_command
from tests.integration.clients.jdbc_client import Jdbc
from tests.integration.flightsql.memory_service import MemoryService
from tests.processes import Server, is_answered, running, until

CREATE = """CREATE TABLE orders (
  id BIGINT PRIMARY KEY, item VARCHAR, price DECIMAL(9, 2), weight DOUBLE, paid BOOLEAN,
  ordered_at TIMESTAMP, due DATE, opens TIME, blob_value BLOB)"""
ROWS = """INSERT INTO orders VALUES
  (1, 'apple', 1.50, 0.5, true, '2020-02-03 04:05:06.789', '2020-02-03', '04:05:06.789', '\\xAB'::BLOB),
  (2, 'pear', 22.00, 1.25, false, '1969-12-31 23:59:59', '1970-01-01', '00:00:00', ''::BLOB),
  (3, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL)"""
ODD = 'CREATE TABLE "odd _%name" (b INTEGER, a VARCHAR, PRIMARY KEY (a, b))'


@dataclass(frozen=True, slots=True)
class Line:
    """Where the primary and its replica listen, as HOST:PORT."""

    primary: str
    replica: str

    def until_replica_has(self, sql: str, expected: list[tuple[object, ...]]) -> None:
        until(is_answered(f"grpc://{self.replica}", sql, expected), f"{sql} gives {expected}")


@pytest.fixture(scope="session")
def line(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Line]:
    primary = Server("primary", "--data", str(tmp_path_factory.mktemp("primary")))
    with running(primary):
        with adbc.connect(primary.uri, autocommit=True) as connection, connection.cursor() as cursor:
            for sql in (CREATE, ODD, ROWS):
                cursor.execute(sql)
                cursor.fetchall()
        replica = Server("serve", "--primary", primary.uri)
        with running(replica):
            found = Line(primary.address, replica.address)
            found.until_replica_has("SELECT count(*) FROM orders", [(3,)])
            found.until_replica_has('SELECT count(*) FROM "odd _%name"', [(0,)])
            yield found


@pytest.fixture(scope="session")
def jdbc_program() -> Iterator[Program]:
    program = Program(jdbc_command())
    yield program
    program.close()


@pytest.fixture(scope="session")
def go_program() -> Iterator[Program]:
    program = Program(go_command())
    yield program
    program.close()


@pytest.fixture
def jdbc(jdbc_program: Program) -> Jdbc:
    return Jdbc(jdbc_program)


class MemoryServer:
    """Servers over one `MemoryService` in this process, which sees what they hold."""

    def __init__(self, service: MemoryService, query_begins: threading.Event) -> None:
        self.service = service
        self.query_begins = query_begins  # set as soon as a query is about to run
        self._servers: list[FlightSqlServer] = []
        self.address = f"127.0.0.1:{self.serve(DEFAULT_LIMITS).port}"

    def serve(self, limits: ServerLimits) -> FlightSqlServer:
        self._servers.append(FlightSqlServer(self.service, "127.0.0.1", 0, limits))
        return self._servers[-1]

    def close(self) -> None:
        for server in self._servers:
            server.close()


@pytest.fixture
def memory(monkeypatch: pytest.MonkeyPatch) -> Iterator[MemoryServer]:
    monkeypatch.setattr(sys, "tracebacklimit", 0, raising=False)  # as a server's process has it
    begins = threading.Event()
    execute = View.execute

    def noted(view: View, *arguments: object) -> pa.RecordBatchReader:
        begins.set()
        return execute(view, *arguments)

    monkeypatch.setattr(View, "execute", noted)
    with closing(MemoryService()) as service:
        service.add_table("orders", TableSchema((Column("id", pa.int64(), False),), ("id",)))
        with closing(MemoryServer(service, begins)) as server:
            yield server
