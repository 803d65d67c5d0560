"""What the page hears of a server: tables, history, events, snippets, files."""

from __future__ import annotations

import logging

import httpx
import pyarrow as pa
import pytest

from tests.integration.flightsql.memory_service import MemoryService
from tests.integration.http.page.conftest import HOSTILE, Paged
from tests.integration.http.page.live import live, now
from tests.processes import until


def test_a_page_hears_everything_at_once(client: httpx.Client, open_server: Paged) -> None:
    found = now(client)
    assert found["server"]["uri"] == f"grpc://127.0.0.1:{open_server.flight.port}"
    assert found["server"]["version"]
    by_name = {table["name"]: table for table in found["tables"]}
    assert set(by_name) == {"orders", "secrets", HOSTILE}
    assert by_name["orders"]["visible_seq"] == "2"
    assert by_name["orders"]["health"] in ("ok", "behind")
    assert isinstance(found["running"], list)


def test_it_hears_of_new_rows_while_it_is_open(client: httpx.Client, service: MemoryService) -> None:
    with live(client) as messages:
        seen = [table for table in next(messages)["tables"] if table["name"] == "secrets"]
        service.put("secrets", pa.table({"id": [7], "item": ["x"]}))
        for message in messages:
            (table,) = [table for table in message["tables"] if table["name"] == "secrets"]
            if int(table["visible_seq"]) > int(seen[0]["visible_seq"]):
                break


def test_an_event_is_told_once(client: httpx.Client) -> None:
    logger = logging.getLogger("flight_replica.test")
    with live(client) as messages:
        next(messages)
        logger.warning("something odd table=%s", HOSTILE)
        told = []
        for message in messages:
            told += [event for event in message["events"] if event["table"] == HOSTILE]
            if told:
                break
        assert [event["text"] for event in told] == ["something odd"]
        assert not [event for event in next(messages)["events"] if event["table"] == HOSTILE]


def test_the_hour_of_a_table_can_be_asked_for(client: httpx.Client, open_server: Paged) -> None:
    def points() -> list[dict[str, list[object]]]:
        answer = client.get("/api/history", params={"table": "orders"}).json()
        assert [found["table"] for found in answer["tables"]] == ["orders"]
        return answer["tables"]

    until(lambda: len(points()[0]["time_ms"]) >= 3, "three samples")
    (found,) = points()
    assert len(found["time_ms"]) == len(found["lag_ms"]) == len(found["ops_per_second"])
    every = client.get("/api/history", params={"step_seconds": 60}).json()
    assert {points["table"] for points in every["tables"]} == {"orders", "secrets", HOSTILE}


@pytest.mark.parametrize("step", ["0", "x", "1e9", "nan", "-5", "59"])
def test_a_step_that_makes_no_sense_is_refused(client: httpx.Client, step: str) -> None:
    answer = client.get("/api/history", params={"step_seconds": step})
    assert answer.status_code == 400
    assert "step_seconds" in answer.json()["message"]


def test_files_are_sent_as_they_are_and_not_twice(client: httpx.Client) -> None:
    page = client.get("/")
    assert page.headers["content-type"].startswith("text/html")
    assert "script-src" in page.headers["content-security-policy"] or (
        "default-src 'self'" in page.headers["content-security-policy"]
    )
    script = client.get("/page/app.js")
    assert script.headers["content-type"].startswith("text/javascript")
    again = client.get("/page/app.js", headers={"if-none-match": script.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")


@pytest.mark.parametrize("path", ["nothing.js", "../page.py", "%2e%2e/page.py", "vendor/../../page.py", ""])
def test_nothing_but_the_page_s_files_is_sent(client: httpx.Client, path: str) -> None:
    assert client.get(f"/page/{path}").status_code == 404


def test_a_page_that_closes_leaves_its_place(client: httpx.Client, open_server: Paged) -> None:
    now(client)
    until(lambda: open_server.http.site.streams.count == 0, "the stream has ended")
