"""Statements of the page: the way of every client, and cancelled like any other."""

from __future__ import annotations

import threading
from typing import Any

import httpx
import pytest

from flight_replica.http.page.queries import PAGE_QUERIES_MAX
from tests.integration.flightsql.test_cancel import ENDLESS
from tests.integration.http.page.conftest import HOSTILE, Paged
from tests.integration.http.page.live import now
from tests.processes import until

OUTER_SECONDS = 60.0


def run(client: httpx.Client, sql: str, session: str = "") -> httpx.Response:
    return client.post("/api/sql", json={"sql": sql, "session": session}, timeout=OUTER_SECONDS)


def test_an_answer_has_columns_rows_and_its_position(client: httpx.Client) -> None:
    answer = run(client, "SELECT id, item FROM orders ORDER BY id").json()
    assert [column["name"] for column in answer["columns"]] == ["id", "item"]
    assert [column["is_number"] for column in answer["columns"]] == [True, False]
    assert answer["rows"] == [["1", HOSTILE], ["2", None]]
    assert [(at["table"], at["visible_seq"]) for at in answer["positions"]] == [("orders", "2")]
    assert not answer["is_cut"]


def test_many_rows_are_cut_at_the_limit(client: httpx.Client, open_server: Paged) -> None:
    answer = run(client, "SELECT * FROM range(1000000)").json()
    assert (len(answer["rows"]), answer["is_cut"]) == (answer["rows_max"], True)
    assert open_server.flight.stats.queries == 0


@pytest.mark.parametrize(
    ("sql", "error"),
    [
        ("SELECT nothing FROM orders", "InvalidStatement"),
        ("SELECT * FROM nowhere", "TableNotFound"),
        ("DELETE FROM orders", "ReadOnly"),
        ("CREATE TABLE t (id BIGINT PRIMARY KEY)", "ReadOnly"),
        ("SELECT * FROM read_text('/etc/passwd')", "NotAllowed"),
        ("ATTACH '/tmp/x.db'", "NotAllowed"),
        ("SELECT 1; SELECT 2", "InvalidStatement"),
        ("", "InvalidStatement"),
    ],
)
def test_what_is_refused_is_told_with_its_kind(client: httpx.Client, sql: str, error: str) -> None:
    answer = run(client, sql)
    found = answer.json()
    assert answer.status_code == 200
    assert found["error"] == error
    assert found["message"]


HALF_A_PAIR = b'{"sql": "SELECT 1", "session": "\\ud800"}'


@pytest.mark.parametrize(
    "body", [b"", b"[]", b"{", b'{"sql": 1}', b'{"sql": "SELECT 1", "session": {}}', b"\xff", HALF_A_PAIR]
)
def test_a_body_that_is_no_statement_is_refused(client: httpx.Client, body: bytes) -> None:
    answer = client.post("/api/sql", content=body, headers={"content-type": "application/json"})
    assert (answer.status_code, answer.json()["error"]) == (400, "InvalidStatement")


def test_what_is_set_lasts_for_the_page_s_session(client: httpx.Client) -> None:
    session = run(client, "SET time_zone = 'Asia/Tokyo'").json()["session"]
    sql = "SELECT extract(hour FROM TIMESTAMPTZ '2026-01-01 00:00:00+00')::INTEGER"
    assert run(client, sql, session).json()["rows"] == [["9"]]
    assert run(client, sql).json()["rows"] == [["0"]]


class Running:
    """A statement without end, on a thread."""

    def __init__(self, client: httpx.Client, sql: str = ENDLESS) -> None:
        self.answers: list[httpx.Response] = []
        self._thread = threading.Thread(target=self._run, args=(client, sql))
        self._thread.start()

    def _run(self, client: httpx.Client, sql: str) -> None:
        self.answers.append(run(client, sql))

    def answer(self) -> httpx.Response:
        self._thread.join(OUTER_SECONDS)
        return self.answers[0]


def running(client: httpx.Client) -> list[dict[str, Any]]:
    return now(client)["running"]


def test_a_running_statement_is_listed_and_cancelled(client: httpx.Client, open_server: Paged) -> None:
    statement = Running(client)
    until(lambda: bool(running(client)), "it is listed")
    (found,) = running(client)
    assert (found["sql"], found["peer"]) == (ENDLESS, "page:127.0.0.1")
    assert client.post("/api/cancel", json={"id": found["id"]}).status_code == 200
    answer = statement.answer()
    assert answer.json()["error"] == "Cancelled"
    assert "cancelled" in answer.json()["message"]
    until(lambda: not running(client), "it is listed no longer")
    slow = now(client)["slow"][0]
    assert (slow["outcome"], slow["sql"]) == ("cancelled", ENDLESS)
    assert client.post("/api/cancel", json={"id": found["id"]}).status_code == 404


def test_a_running_statement_says_what_it_reads(client: httpx.Client) -> None:
    statement = Running(client, f"SELECT id, ({ENDLESS}) FROM orders")
    until(lambda: any(query["reads"] for query in running(client)), "it is planned")
    (found,) = running(client)
    assert found["reads"] == {"orders": "2"}
    client.post("/api/cancel", json={"id": found["id"]})
    assert statement.answer().json()["error"] == "Cancelled"


def test_a_statement_ends_when_the_browser_goes(client: httpx.Client, open_server: Paged) -> None:
    with httpx.Client(base_url=open_server.http.url) as other, pytest.raises(httpx.ReadTimeout):
        other.post("/api/sql", json={"sql": ENDLESS}, timeout=1.0)
    until(lambda: open_server.flight.stats.calls == 0, "nothing runs")


def test_no_more_statements_than_the_limit_run_at_once(client: httpx.Client, open_server: Paged) -> None:
    clients = [httpx.Client(base_url=open_server.http.url) for _ in range(PAGE_QUERIES_MAX)]
    try:
        statements = [Running(other) for other in clients]
        until(lambda: len(running(client)) == PAGE_QUERIES_MAX, "all of them run")
        refused = run(client, "SELECT 1")
        assert refused.json()["error"] == "Busy"
        assert "page_queries_max" in refused.json()["message"]
        for query in running(client):
            client.post("/api/cancel", json={"id": query["id"]})
        assert {statement.answer().json()["error"] for statement in statements} == {"Cancelled"}
        assert run(client, "SELECT 1").json()["rows"] == [["1"]]
    finally:
        for other in clients:
            other.close()
