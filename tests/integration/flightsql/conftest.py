"""A server over a `MemoryService` with two tables, and raw and ADBC clients of it."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import adbc_driver_flightsql.dbapi as adbc
import pyarrow as pa
import pytest
from pyarrow import flight

from flight_replica.flightsql.limits import DEFAULT_LIMITS, ServerLimits
from flight_replica.flightsql.server import FlightSqlServer
from flight_replica.flightsql.status import hide_tracebacks
from flight_replica.schema import Column, TableSchema
from flight_replica.sql.view import View
from tests.integration.flightsql.clients import RawClient
from tests.integration.flightsql.memory_service import MemoryService

ORDERS = TableSchema(
    (Column("id", pa.int64(), False), Column("item", pa.string()), Column("price", pa.float64())), ("id",)
)
ODD = TableSchema((Column("seq", pa.int32(), False), Column("op", pa.string())), ("seq",))

Serve = Callable[..., FlightSqlServer]


@pytest.fixture(autouse=True)
def no_tracebacks(monkeypatch: pytest.MonkeyPatch) -> None:
    """As a server's process has it."""
    monkeypatch.setattr(sys, "tracebacklimit", 1000, raising=False)
    hide_tracebacks()


@pytest.fixture
def service() -> Iterator[MemoryService]:
    with closing(MemoryService()) as found:
        found.add_table("orders", ORDERS)
        found.add_table("odd", ODD)
        found.put("orders", pa.table({"id": [1, 2, 3], "item": ["a", "b", None], "price": [1.5, 2.5, 3.5]}))
        yield found


@pytest.fixture
def serve(service: MemoryService) -> Iterator[Serve]:
    servers: list[FlightSqlServer] = []

    def start(limits: ServerLimits = DEFAULT_LIMITS, **access: Any) -> FlightSqlServer:
        servers.append(FlightSqlServer(service, "127.0.0.1", 0, limits, **access))
        return servers[-1]

    yield start
    for server in servers:
        server.close()


@pytest.fixture
def server(serve: Serve) -> FlightSqlServer:
    return serve()


@pytest.fixture
def raw(server: FlightSqlServer) -> Iterator[RawClient]:
    with flight.connect(f"grpc://127.0.0.1:{server.port}") as client:
        yield RawClient(client)


@pytest.fixture
def connection(server: FlightSqlServer) -> Iterator[adbc.Connection]:
    with adbc.connect(f"grpc://127.0.0.1:{server.port}", autocommit=True) as found:
        yield found


@pytest.fixture
def query_begins(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """Set as soon as a query is about to run."""
    begins = threading.Event()
    execute = View.execute

    def noted(view: View, *arguments: object) -> pa.RecordBatchReader:
        begins.set()
        return execute(view, *arguments)

    monkeypatch.setattr(View, "execute", noted)
    return begins
