"""Servers with their page, open and with logins, over tables in memory, and clients of them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path

import httpx
import pyarrow as pa
import pytest

from flight_replica.control.control import Control
from flight_replica.flightsql.auth import BasicLogins, Logins
from flight_replica.flightsql.server import FlightSqlServer
from flight_replica.flightsql.tokens import Tokens
from flight_replica.flightsql.users import UsersFile
from flight_replica.http.page.page import Page
from flight_replica.http.page.snippets import Address
from flight_replica.http.server import HttpServer
from flight_replica.schema import Column, TableSchema
from tests.accounts import write_users
from tests.integration.flightsql.memory_service import MemoryService

ORDERS = TableSchema((Column("id", pa.int64(), False), Column("item", pa.string())), ("id",))
HOSTILE = "<script>alert(1)</script>"
PASSWORDS = {"ann": "ann's pass phrase", "bob": "bob's pass phrase"}


@dataclass(frozen=True, slots=True)
class Paged:
    """A server with its page."""

    flight: FlightSqlServer
    page: Page
    http: HttpServer


def serve_page(closing_later: ExitStack, service: MemoryService, logins: Logins | None = None) -> Paged:
    """A server that is closed with the stack."""
    flight = FlightSqlServer(service, "127.0.0.1", 0, logins=logins)
    closing_later.callback(flight.close)
    control = Control(flight, service, None, slow_seconds=0.0)
    address = Address("127.0.0.1", flight.port, is_login_needed=logins is not None)
    page = Page(control, flight.reads, address)
    closing_later.callback(page.close)
    http = HttpServer(service, lambda: None, "127.0.0.1", 0, logins=logins, routes=page.routes)
    closing_later.callback(http.close)
    return Paged(flight, page, http)


@pytest.fixture(scope="module")
def service() -> Iterator[MemoryService]:
    with closing(MemoryService()) as found:
        found.add_table("orders", ORDERS)
        found.add_table("secrets", ORDERS)
        found.add_table(HOSTILE, ORDERS)
        found.put("orders", pa.table({"id": [1, 2], "item": [HOSTILE, None]}))
        yield found


@pytest.fixture(scope="module")
def open_server(service: MemoryService) -> Iterator[Paged]:
    """Without logins."""
    with ExitStack() as stack:
        yield serve_page(stack, service)


@pytest.fixture(scope="module")
def closed_server(service: MemoryService, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Paged]:
    """With users: ann administers, bob may read `orders`."""
    path = write_users(
        Path(tmp_path_factory.mktemp("users")) / "users.json",
        ann={"password": PASSWORDS["ann"], "admin": True},
        bob={"password": PASSWORDS["bob"], "read": ["orders"]},
    )
    with ExitStack() as stack:
        yield serve_page(stack, service, BasicLogins(UsersFile(path), Tokens()))


@pytest.fixture
def client(open_server: Paged) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=open_server.http.url, headers={"accept": "application/json"}) as found:
        yield found


@pytest.fixture
def stranger(closed_server: Paged) -> Iterator[httpx.Client]:
    """A client that isn't logged in."""
    with httpx.Client(base_url=closed_server.http.url, headers={"accept": "application/json"}) as found:
        yield found


def logged_in(paged: Paged, name: str) -> httpx.Client:
    """A browser of this user, with the token that its changes carry."""
    found = httpx.Client(base_url=paged.http.url, headers={"accept": "application/json"})
    assert found.post("/login", data={"user": name, "password": PASSWORDS[name]}).status_code == 303
    found.headers["x-csrf-token"] = found.get("/api/session").json()["csrf"]
    return found


@pytest.fixture
def ann(closed_server: Paged) -> Iterator[httpx.Client]:
    with closing(logged_in(closed_server, "ann")) as found:
        yield found


@pytest.fixture
def bob(closed_server: Paged) -> Iterator[httpx.Client]:
    with closing(logged_in(closed_server, "bob")) as found:
        yield found
