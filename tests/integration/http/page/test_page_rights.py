"""Who sees what of the page, and what other sites can do with it: nothing."""

from __future__ import annotations

import logging
import threading

import httpx
import pytest

from flight_replica.http import streams
from tests.integration.http.page.conftest import HOSTILE, Paged
from tests.integration.http.page.live import live, now
from tests.integration.http.page.test_page_sql import Running, run, running
from tests.processes import until

READS = ["/api/live", "/api/history", "/api/history?table=orders", "/api/snippets"]
CHANGES = {"/api/sql": {"sql": "SELECT 1"}, "/api/cancel": {"id": "00000000"}}


@pytest.mark.parametrize("path", READS)
def test_nothing_is_shown_without_login(stranger: httpx.Client, path: str) -> None:
    answer = stranger.get(path)
    assert (answer.status_code, answer.json()["error"]) == (401, "Unauthenticated")


@pytest.mark.parametrize("path", CHANGES)
def test_nothing_is_done_without_login(stranger: httpx.Client, path: str) -> None:
    assert stranger.post(path, json=CHANGES[path]).status_code == 401


def test_the_page_leads_to_the_login(stranger: httpx.Client) -> None:
    answer = stranger.get("/")
    assert (answer.status_code, answer.headers["location"]) == (303, "/login")
    assert stranger.get("/page/style.css").status_code == 200  # which the form needs


def test_a_user_sees_the_tables_that_he_may_read(ann: httpx.Client, bob: httpx.Client) -> None:
    assert {table["name"] for table in now(ann)["tables"]} == {"orders", "secrets", HOSTILE}
    found = now(bob)
    assert [table["name"] for table in found["tables"]] == ["orders"]
    assert {name for advice in found["advice"] for name in advice["tables"]} <= {"orders"}
    assert found["server"]["user"] == "bob"
    history = bob.get("/api/history").json()["tables"]
    assert [points["table"] for points in history] == ["orders"]
    assert bob.get("/api/history", params={"table": "secrets"}).json()["tables"] == []
    assert run(bob, "SELECT * FROM secrets").json()["error"] == "TableNotFound"
    assert run(bob, "SELECT count(*) FROM orders").json()["rows"] == [["2"]]


def test_events_of_other_tables_are_for_those_who_may_read_them(ann: httpx.Client, bob: httpx.Client) -> None:
    logger = logging.getLogger("flight_replica.test")
    logger.warning("odd things table=%s", "secrets")
    logger.warning("things of the server bytes=%d", 1)
    logger.warning("odd things table=%s", "orders")
    texts = {(event["table"], event["text"]) for event in now(bob)["events"]}
    assert ("orders", "odd things") in texts
    assert {table for table, _ in texts} == {"orders"}
    assert {"", "secrets"} <= {event["table"] for event in now(ann)["events"]}


def test_a_user_sees_and_ends_his_own_statements_alone(
    ann: httpx.Client, bob: httpx.Client, closed_server: Paged
) -> None:
    statement = Running(ann)
    until(lambda: bool(running(ann)), "it is listed")
    (found,) = running(ann)
    assert found["user"] == "ann"
    assert running(bob) == []
    assert bob.post("/api/cancel", json={"id": found["id"]}).status_code == 404
    assert ann.post("/api/cancel", json={"id": found["id"]}).status_code == 200
    assert statement.answer().json()["error"] == "Cancelled"
    assert now(bob)["slow"] == [query for query in now(ann)["slow"] if query["user"] == "bob"]


def test_an_administrator_sees_and_ends_those_of_others(ann: httpx.Client, bob: httpx.Client) -> None:
    statement = Running(bob)
    until(lambda: bool(running(ann)), "it is listed")
    (found,) = running(ann)
    assert found["user"] == "bob"
    assert ann.post("/api/cancel", json={"id": found["id"]}).status_code == 200
    assert "'ann'" in statement.answer().json()["message"]


@pytest.mark.parametrize("path", CHANGES)
def test_a_change_carries_the_login_s_token(ann: httpx.Client, path: str) -> None:
    del ann.headers["x-csrf-token"]
    assert ann.post(path, json=CHANGES[path]).status_code == 403


@pytest.mark.parametrize("path", CHANGES)
@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "http://evil.example"},
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site", "sec-fetch-mode": "cors"},
        {"host": "evil.example"},
    ],
)
def test_another_site_can_do_nothing_even_without_logins(
    client: httpx.Client, path: str, headers: dict[str, str]
) -> None:
    assert client.post(path, json=CHANGES[path], headers=headers).status_code in (403, 421)


@pytest.mark.parametrize("path", CHANGES)
def test_a_form_of_another_site_is_no_change(client: httpx.Client, path: str) -> None:
    answer = client.post(path, content='{"sql": "SELECT 1"}', headers={"content-type": "text/plain"})
    assert (answer.status_code, answer.json()["error"]) == (400, "InvalidStatement")


def test_another_site_cannot_listen(client: httpx.Client) -> None:
    for headers in ({"sec-fetch-site": "cross-site", "sec-fetch-mode": "cors"}, {"host": "evil.example"}):
        assert client.get("/api/live", headers=headers).status_code in (403, 421)


def test_a_stream_ends_with_its_login(
    closed_server: Paged, bob: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streams, "CHECK_SECONDS", 0.1)
    ended = threading.Event()

    def listen() -> None:
        with live(bob) as messages:
            for _ in messages:
                pass
        ended.set()

    thread = threading.Thread(target=listen)
    thread.start()
    until(lambda: closed_server.http.site.streams.count == 1, "it listens")
    with httpx.Client(base_url=closed_server.http.url, cookies=dict(bob.cookies)) as other:
        csrf = bob.headers["x-csrf-token"]
        assert other.post("/logout", data={"csrf": csrf}).status_code == 303
    assert ended.wait(30.0)
    thread.join()
