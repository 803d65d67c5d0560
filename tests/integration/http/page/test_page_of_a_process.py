"""The page of real server processes: `--http-listen`."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest

from tests.integration.http.page.live import now
from tests.processes import Process, Server, rows, running, until

JSON = {"accept": "application/json"}


def http_of(process: Process) -> str:
    line = process.line()
    assert line.startswith("http on http"), line
    return line.removeprefix("http on ")


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Server, Server]]:
    """A primary with a table, and a replica of it, each with a page."""
    data = str(tmp_path_factory.mktemp("primary"))
    primary = Server("primary", "--data", data, "--http-listen", "127.0.0.1:0")
    with running(primary):
        rows(primary.uri, "CREATE TABLE orders (id BIGINT PRIMARY KEY, item VARCHAR)")
        replica = Server("serve", "--primary", primary.uri, "--http-listen", "127.0.0.1:0")
        with running(replica):
            yield primary, replica


def test_a_replica_s_page_shows_what_it_follows(pair: tuple[Server, Server]) -> None:
    primary, replica = pair
    url = http_of(replica)
    with httpx.Client(base_url=url, headers=JSON) as client:
        rows(primary.uri, "INSERT INTO orders VALUES (1, 'a'), (2, 'b')")

        def orders() -> dict[str, object]:
            return next((table for table in now(client)["tables"] if table["name"] == "orders"), {})

        until(lambda: orders().get("visible_seq") == "2", "both rows are visible")
        until(lambda: orders()["health"] == "ok", "it is well")
        found = now(client)
        assert found["server"]["product"] == "replica"
        assert found["server"]["uri"] == replica.uri
        assert found["advice"] == []
        answer = client.post("/api/sql", json={"sql": "SELECT count(*) FROM orders"}).json()
        assert answer["rows"] == [["2"]]
        told = [event for event in found["events"] if event["text"].startswith("serving")]
        assert [event["table"] for event in told][:1] == ["orders"]
        assert "flight_replica_" in client.get("/metrics").text


def test_a_base_that_is_served_as_it_lies_is_well(pair: tuple[Server, Server]) -> None:
    primary, _ = pair
    copy = Server("serve", "--base", f"orders=flight:{primary.uri}", "--http-listen", "127.0.0.1:0")
    with running(copy), httpx.Client(base_url=http_of(copy), headers=JSON) as client:

        def told() -> list[tuple[str, str, bool]]:
            return [
                (table["state"], table["health"], table["is_followed"]) for table in now(client)["tables"]
            ]

        until(lambda: told() == [("serving", "ok", False)], "it is served")


def test_a_primary_s_page_shows_its_tables(pair: tuple[Server, Server]) -> None:
    primary, _ = pair
    with httpx.Client(base_url=http_of(primary), headers=JSON) as client:
        found = now(client)
        assert found["server"]["product"] == "primary"
        assert [(table["name"], table["health"]) for table in found["tables"]] == [("orders", "ok")]
        refused = client.post("/api/sql", json={"sql": "DELETE FROM orders"})
        assert refused.json()["error"] == "ReadOnly"
