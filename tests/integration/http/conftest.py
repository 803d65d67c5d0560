"""HTTP servers over a `StatedService`, open and with logins, and clients of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import pytest

from flight_replica.flightsql.auth import BasicLogins
from flight_replica.flightsql.tokens import Tokens
from flight_replica.flightsql.users import UsersFile
from flight_replica.http.server import HttpServer
from tests.accounts import write_users
from tests.integration.http.http_service import StatedService, entry

PASSWORDS = {"ann": "ann's pass phrase", "bob": "bob's pass phrase"}

ServeHttp = Callable[..., HttpServer]


@pytest.fixture(scope="module")
def shared_service() -> Iterator[StatedService]:
    with closing(StatedService()) as found:
        yield found


@pytest.fixture
def service(shared_service: StatedService) -> StatedService:
    """Each test finds two tables that are well."""
    shared_service.entries = [entry("orders"), entry("items")]
    shared_service.lost = ""
    return shared_service


@pytest.fixture
def serve_http(service: StatedService) -> Iterator[ServeHttp]:
    """Starts servers of the test's own."""
    servers: list[HttpServer] = []

    def start(**options: Any) -> HttpServer:
        servers.append(HttpServer(service, service.check, "127.0.0.1", 0, **options))
        return servers[-1]

    yield start
    for server in servers:
        server.close()


@pytest.fixture
def users(tmp_path: Path) -> Path:
    return make_users(tmp_path)


def make_users(directory: Path) -> Path:
    return write_users(
        directory / "users.json",
        ann={"password": PASSWORDS["ann"]},
        bob={"password": PASSWORDS["bob"], "read": ["orders"]},
    )


@pytest.fixture(scope="module")
def open_server(shared_service: StatedService) -> Iterator[HttpServer]:
    """Without logins."""
    server = HttpServer(shared_service, shared_service.check, "127.0.0.1", 0)
    yield server
    server.close()


@pytest.fixture
def open_http(open_server: HttpServer, service: StatedService) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=open_server.url) as client:
        yield client


@pytest.fixture(scope="module")
def closed_server(
    shared_service: StatedService, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[HttpServer]:
    """With users and passwords."""
    logins = BasicLogins(UsersFile(make_users(tmp_path_factory.mktemp("users"))), Tokens())
    server = HttpServer(shared_service, shared_service.check, "127.0.0.1", 0, logins=logins)
    yield server
    server.close()


@pytest.fixture
def closed_http(closed_server: HttpServer, service: StatedService) -> Iterator[httpx.Client]:
    """A client of it that isn't logged in."""
    with httpx.Client(base_url=closed_server.url) as client:
        yield client
