"""The HTTP port of real server processes, from the command line to the end of a drain."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from pyarrow import flight

from flight_replica._pb import flight_sql_pb2 as pb
from flight_replica.flightsql.commands import pack
from tests.processes import ROOT, Server, end, rows, until


class Site:
    """A primary and a replica of it, both with an HTTP port."""

    def __init__(self, folder: Path) -> None:
        self.servers: list[Server] = []
        self.primary = self.start(
            "primary", "--data", str(folder / "primary"), "--http-listen", "127.0.0.1:0"
        )
        self.primary_http = _http(self.primary)
        rows(self.primary.uri, "CREATE TABLE orders (id BIGINT PRIMARY KEY, price DOUBLE)")
        rows(self.primary.uri, "INSERT INTO orders SELECT i, i FROM range(1000) t(i)")
        self.replica = self.start("serve", "--primary", self.primary.uri, "--http-listen", "127.0.0.1:0")
        self.http = _http(self.replica)

    def start(self, *arguments: str) -> Server:
        self.servers.append(Server(*arguments))
        return self.servers[-1]


def _http(server: Server) -> str:
    line = server.line()
    assert line.startswith("http on http://127.0.0.1:"), line
    return line.removeprefix("http on ")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    found = Site(tmp_path_factory.mktemp("site"))
    yield found
    end(*found.servers)


def test_a_replica_is_ready_once_its_tables_are_proven_fresh(site: Site) -> None:
    until(lambda: httpx.get(f"{site.http}/readyz?max_lag_ms=10000").status_code == 200, "it is ready")
    assert httpx.get(f"{site.http}/livez").text == "alive\n"
    assert 'flight_replica_table_visible_seq{table="orders"}' in httpx.get(f"{site.http}/metrics").text
    assert httpx.get(f"{site.http}/", follow_redirects=True).headers["content-type"].startswith("text/html")


def test_a_primary_has_the_same_port(site: Site) -> None:
    assert httpx.get(f"{site.primary_http}/readyz?max_lag_ms=1000").text == "ready\n"
    assert 'product="primary"' in httpx.get(f"{site.primary_http}/metrics").text


def test_a_port_that_is_taken_ends_the_start_with_one_line(site: Site) -> None:
    done = _serve(site, "--http-listen", site.http.removeprefix("http://"))
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].endswith(
        f"{site.http.removeprefix('http://')}: Address already in use"
    )


def test_a_port_open_to_the_world_needs_logins(site: Site) -> None:
    done = _serve(site, "--http-listen", "0.0.0.0:0")
    assert done.returncode != 0
    assert "--http-listen 0.0.0.0: without --auth everybody there could read everything" in done.stderr


def _serve(site: Site, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "flight_replica", "serve", "--primary", site.primary.uri, *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)


def test_a_server_that_drains_is_alive_and_not_ready_until_its_last_stream_has_ended(site: Site) -> None:
    server = site.start("serve", "--primary", site.primary.uri, "--http-listen", "127.0.0.1:0")
    http = _http(server)
    until(lambda: httpx.get(f"{http}/readyz").status_code == 200, "it is ready")
    with flight.connect(server.uri) as client:
        command = pack(pb.CommandStatementQuery(query="SELECT a.id FROM orders a, orders b, orders c"))
        info = client.get_flight_info(flight.FlightDescriptor.for_command(command))
        reader = client.do_get(info.endpoints[0].ticket)
        reader.read_chunk()
        os.kill(server.pid, signal.SIGTERM)
        until(lambda: "draining" in httpx.get(f"{http}/readyz").text, "it isn't ready any more")
        assert httpx.get(f"{http}/livez").status_code == 200
        assert "flight_replica_draining 1.0" in httpx.get(f"{http}/metrics").text
        reader.cancel()
        assert server.wait() == 0
