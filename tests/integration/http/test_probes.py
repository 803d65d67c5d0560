"""`/livez` and `/readyz`: what they say, to whom, and why not."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from flight_replica.flightsql.auth import BasicLogins, Headers, Login
from flight_replica.flightsql.tokens import Tokens
from flight_replica.flightsql.users import UsersFile
from flight_replica.http.probes import PROBE_THREADS
from flight_replica.http.server import HttpServer
from tests.integration.http.conftest import PASSWORDS, ServeHttp
from tests.integration.http.http_service import StatedService, entry

JSON = {"accept": "application/json"}


def test_a_server_that_answers_is_alive(open_http: httpx.Client) -> None:
    answer = open_http.get("/livez")
    assert (answer.status_code, answer.text) == (200, "alive\n")
    assert open_http.head("/livez").status_code == 200


def test_a_server_whose_database_is_lost_is_neither_alive_nor_ready(
    open_http: httpx.Client, service: StatedService
) -> None:
    service.lost = "DuckDB has closed the database"
    answer = open_http.get("/livez")
    assert (answer.status_code, answer.text) == (503, "not alive\nDuckDB has closed the database\n")
    assert open_http.get("/readyz").status_code >= 500


def test_a_server_whose_tables_all_serve_is_ready(open_http: httpx.Client) -> None:
    answer = open_http.get("/readyz")
    assert (answer.status_code, answer.text) == (200, "ready\n")


@pytest.mark.parametrize(
    ("table", "asked", "reason"),
    [
        (entry("orders", "loading", "reading its base"), "", "loading: reading its base"),
        (entry("orders", "waiting", "no base yet"), "", "waiting: no base yet"),
        (entry("orders", "degraded", "log gap"), "", "degraded: log gap"),
        (entry("orders", "paused", "by ann"), "?degraded=ok", "paused: by ann"),
        (entry("orders", lag_us=-1), "?max_lag_ms=1000", "no proof of freshness"),
        (entry("orders", lag_us=1_234_567), "?max_lag_ms=500", "lag 1234.6 ms > 500 ms"),
        (
            entry("orders", "degraded", "log gap", lag_us=2_000_000),
            "?max_lag_ms=1000",
            "degraded: log gap; lag 2000.0 ms > 1000 ms",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_server_that_is_not_ready_says_why_for_each_table(
    open_http: httpx.Client, service: StatedService, table: object, asked: str, reason: str
) -> None:
    service.entries = [entry("items"), table]  # type: ignore[list-item]
    answer = open_http.get(f"/readyz{asked}")
    assert (answer.status_code, answer.text) == (503, f"not ready\norders: {reason}\n")
    found = open_http.get(f"/readyz{asked}", headers=JSON).json()
    assert [state["reasons"] for state in found["tables"]] == [[], reason.split("; ")]


@pytest.mark.parametrize("asked", ["", "?table=items&max_lag_ms=10", "?degraded=ok", "?table=ITEMS"])
def test_only_what_was_asked_for_has_to_hold(
    open_http: httpx.Client, service: StatedService, asked: str
) -> None:
    service.entries = [entry("items", lag_us=9_000), entry("orders", "degraded", "no primary", lag_us=-1)]
    assert open_http.get(f"/readyz{asked}").status_code == (200 if asked else 503)


@pytest.mark.parametrize(
    ("asked", "status", "says"),
    [
        ("?max_lag_ms=fast", 400, "expected a number of milliseconds"),
        ("?max_lag_ms=-1", 400, "expected a number of milliseconds"),
        ("?max_lag_ms=nan", 400, "expected a number of milliseconds"),
        ("?max_lag=5", 400, "unknown parameter 'max_lag'"),
        ("?degraded=maybe", 400, "expected ok or no"),
        ("?table=other", 404, "there is no table 'other'"),
    ],
)
def test_a_probe_that_is_wrong_is_told_so(
    open_http: httpx.Client, asked: str, status: int, says: str
) -> None:
    answer = open_http.get(f"/readyz{asked}")
    assert answer.status_code == status
    assert says in answer.text


def test_a_server_that_drains_is_alive_and_not_ready(serve_http: ServeHttp) -> None:
    server = serve_http()
    server.drain()
    answer = httpx.get(f"{server.url}/readyz")
    assert (answer.status_code, answer.text) == (503, "not ready\ndraining: the server is shutting down\n")
    assert httpx.get(f"{server.url}/livez").status_code == 200


def test_a_probe_without_login_learns_counts_and_no_names(
    closed_http: httpx.Client, service: StatedService
) -> None:
    assert closed_http.get("/livez").status_code == 200
    assert closed_http.get("/readyz").text == "ready\n"
    service.entries = [
        entry("orders", "loading", "grpc://10.0.0.1"),
        entry("items", lag_us=-1),
        entry("people"),
    ]
    for headers in ({}, JSON):
        answer = closed_http.get("/readyz?max_lag_ms=5", headers=headers)
        assert answer.status_code == 503
        assert "2 of 3 tables: 1 loading, 1 not proven fresh enough" in answer.text
        assert not [name for name in ("orders", "items", "people", "10.0.0.1") if name in answer.text]
    assert closed_http.get("/readyz?table=orders").status_code == 401
    assert closed_http.get("/readyz?table=nothing").status_code == 401


def test_a_probe_with_login_sees_the_tables_of_its_user(
    closed_server: HttpServer, service: StatedService
) -> None:
    service.entries = [entry("orders", "loading", "reading its base"), entry("items", "loading", "too")]
    ann, bob = (httpx.Client(base_url=closed_server.url, auth=(name, PASSWORDS[name])) for name in PASSWORDS)
    with ann, bob:
        assert (
            ann.get("/readyz").text == "not ready\norders: loading: reading its base\nitems: loading: too\n"
        )
        assert bob.get("/readyz").text == "not ready\norders: loading: reading its base\n"
        assert bob.get("/readyz?table=items").status_code == 404
    assert httpx.get(f"{closed_server.url}/readyz", auth=("bob", "wrong")).status_code == 401


class HeldLogins(BasicLogins):
    """Checks no password before the test lets it go on."""

    def __init__(self, users: UsersFile, tokens: Tokens) -> None:
        super().__init__(users, tokens)
        self.go_on = threading.Event()
        self.waiting = threading.Semaphore(0)

    def login(self, headers: Headers, is_handshake: bool) -> Login:
        self.waiting.release()
        assert self.go_on.wait(60.0), "the test never let it go on"
        return super().login(headers, is_handshake)


def test_probes_do_not_wait_for_those_who_try_passwords(serve_http: ServeHttp, users: Path) -> None:
    logins = HeldLogins(UsersFile(users), Tokens())
    url = f"{serve_http(logins=logins).url}/readyz"
    count = 2 * PROBE_THREADS
    with ThreadPoolExecutor(count) as threads:
        tried = [threads.submit(httpx.get, url, auth=(f"user {i}", "?"), timeout=60) for i in range(count)]
        try:
            assert all(logins.waiting.acquire(timeout=60) for _ in range(count))
            assert httpx.get(url, timeout=60).text == "ready\n"
        finally:
            logins.go_on.set()
    assert {one.result().status_code for one in tried} == {401}
