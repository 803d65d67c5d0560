"""A running server takes a changed configuration at SIGHUP, and no call notices."""

from __future__ import annotations

import os
import signal
import socket
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from pyarrow import flight

from flight_replica._pb import admin_pb2 as pb
from flight_replica.admin.client import AdminClient
from flight_replica.client import query
from flight_replica.errors import ReplicaError
from flight_replica.log.credentials import basic
from flight_replica.log.feed_client import Endpoint
from tests.accounts import write_users
from tests.certificates import Authority, Pair
from tests.processes import Server, running, until

FILE = """\
data = "data"
[access]
auth = "basic"
users = "users.json"
tls_cert = "{certificate}"
tls_key = "{key}"
[limits]
{limits}
[log]
level = "{level}"
slow_query_ms = {slow_query_ms}
[http]
listen = "127.0.0.1:0"
[admin]
listen = "127.0.0.1:0"
[base]
publish_seconds = {publish_seconds}
"""
PASSWORD = "ann's pass phrase"


class Reloaded:
    """A primary with a file, its certificates and users."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.authority = Authority(folder)
        self.first, self.second = self.authority.signed("server"), self.authority.signed("other")
        self.write_users("ann")
        self.write()
        self.server = Server("primary", "--config", str(folder / "primary.toml"), "--limit", "pins_max=7")
        self.http = self.server.line().removeprefix("http on https://")
        self.admin = self.server.line().removeprefix("admin on ")

    def write_users(self, *names: str) -> None:
        write_users(
            self.folder / "users.json",
            **{name: {"password": PASSWORD, "write": ["*"], "ddl": True} for name in names},
        )

    def write(
        self,
        pair: Pair | None = None,
        limits: str = "",
        level: str = "info",
        publish_seconds: str = "10",
        slow_query_ms: int = 1000,
    ) -> None:
        pair = pair or self.first
        text = FILE.format(
            certificate=pair.certificate.name,
            key=pair.key.name,
            limits=limits,
            level=level,
            publish_seconds=publish_seconds,
            slow_query_ms=slow_query_ms,
        )
        (self.folder / "primary.toml").write_text(text)

    def reload(self, *expected: str) -> list[str]:
        """What the server says then, once each of `expected` stands in one of its lines."""
        before = len(self.server.errors)
        os.kill(self.server.pid, signal.SIGHUP)

        def is_said() -> bool:
            lines = self.server.errors[before:]
            return all(any(text in line for line in lines) for text in expected)

        until(is_said, f"{expected} in {self.server.errors[before:]}")
        return self.server.errors[before:]

    def options(self, user: str = "ann") -> dict[str, str]:
        return {
            "adbc.flight.sql.client_option.tls_root_certs": self.authority.ca.read_text(),
            "username": user,
            "password": PASSWORD,
        }

    def ask(self, sql: str, user: str = "ann") -> list[dict[str, object]]:
        return query(self.server.uri, sql, self.options(user)).to_pylist()

    def slow_seconds(self) -> float:
        """From when on a statement is in the list of slow ones."""
        ca = self.authority.ca.read_bytes()
        at = Endpoint(self.admin, tls_root_certs=ca, authorization=basic("ann", lambda: PASSWORD))
        with AdminClient(at) as admin:
            found = admin.call("ListSlowQueries", pb.ListSlowQueriesRequest())
        return found.slow_seconds

    def shows(self, pair: Pair) -> bool:
        """Whether new connections get this certificate, on the Flight port and the HTTP port."""
        return all(
            _shown(address, self.authority.ca) in pair.texts[0]
            for address in (self.server.address, self.http)
        )


def _shown(address: str, ca: Path) -> bytes:
    """The certificate of a new connection, PEM."""
    context = ssl.create_default_context(cafile=str(ca))
    context.check_hostname = False
    context.set_alpn_protocols(["h2", "http/1.1"])
    host, _, port = address.rpartition(":")
    with (
        socket.create_connection((host, int(port)), 10) as connection,
        context.wrap_socket(connection) as secured,
    ):
        found = secured.getpeercert(binary_form=True)
    assert found is not None
    return ssl.DER_cert_to_PEM_cert(found).encode()


@pytest.fixture(scope="module")
def reloaded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Reloaded]:
    found = Reloaded(tmp_path_factory.mktemp("reload"))
    with running(found.server):
        yield found


def test_limits_and_the_level_change_and_each_change_is_told_with_old_new_and_source(
    reloaded: Reloaded,
) -> None:
    reloaded.write(limits="result_bytes_max = 1000\nqueries_max = 9\npins_max = 3", level="debug")
    told = reloaded.reload("log.level", "result_bytes_max", "queries_max")
    file = reloaded.folder / "primary.toml"
    changed = [line.partition("setting changed ")[2] for line in told if "setting changed" in line]
    assert changed == [
        f"setting=limits.result_bytes_max old=1099511627776 new=1000 source={file}:8",
        f"setting=limits.queries_max old=64 new=9 source={file}:9",
        f'setting=log.level old="info" new="debug" source={file}:12',
    ]
    with pytest.raises(ReplicaError, match="result_bytes_max is 1000 bytes"):
        reloaded.ask("SELECT range FROM range(1000)")
    reloaded.write()
    reloaded.reload("old=1000 new=1099511627776 source=default", 'old="debug" new="info"')
    assert len(reloaded.ask("SELECT range FROM range(1000)")) == 1000
    assert reloaded.reload("configuration read again, nothing changed")


def test_the_list_of_slow_statements_follows_the_log_s_threshold(reloaded: Reloaded) -> None:
    reloaded.write(slow_query_ms=250)
    reloaded.reload("setting=log.slow_query_ms old=1000 new=250")
    assert reloaded.slow_seconds() == 0.25
    reloaded.write()
    reloaded.reload("setting=log.slow_query_ms old=250 new=1000")
    assert reloaded.slow_seconds() == 1


def test_what_needs_a_restart_is_named_until_it_is_undone(reloaded: Reloaded) -> None:
    reloaded.write(publish_seconds='"1m"')
    needed = "setting needs a restart setting=base.publish_seconds running=10 new=60"
    reloaded.reload(needed)
    reloaded.reload(needed)
    reloaded.write()
    reloaded.reload("nothing changed")


def test_a_wrong_file_changes_nothing_and_all_of_it_is_told(reloaded: Reloaded) -> None:
    reloaded.write(limits='result_bytes_max = 1000\nqueries_max = "many"\nnonsense = 1')
    told = reloaded.reload("queries_max", "nonsense")
    assert all("configuration not taken, what is running stays" in line for line in told)
    assert 'primary.toml:9: limits.queries_max: expected a number from 0, found "many"' in told[0]
    assert len(reloaded.ask("SELECT range FROM range(1000)")) == 1000
    reloaded.write()
    (reloaded.folder / "users.json").rename(reloaded.folder / "away.json")
    reloaded.reload("configuration not taken, what is running stays", "users.json can't be read")
    assert reloaded.ask("SELECT 1 AS one") == [{"one": 1}]
    (reloaded.folder / "away.json").rename(reloaded.folder / "users.json")
    reloaded.write(pair=Pair(reloaded.first.certificate, reloaded.second.key))
    reloaded.reload("doesn't work with key")
    assert reloaded.shows(reloaded.first)
    reloaded.write()
    reloaded.reload("nothing changed")


def test_users_are_read_again_and_named(reloaded: Reloaded) -> None:
    with pytest.raises(ReplicaError, match="wrong user or password"):
        reloaded.ask("SELECT 1", user="bob")
    reloaded.write_users("ann", "bob")
    told = reloaded.reload("user added user=bob")
    assert PASSWORD not in "".join(told) and "scrypt$" not in "".join(told)
    assert reloaded.ask("SELECT 1 AS one", user="bob") == [{"one": 1}]
    reloaded.write_users("ann")
    reloaded.reload("user removed user=bob")
    with pytest.raises(ReplicaError, match="wrong user or password"):
        reloaded.ask("SELECT 1", user="bob")


def test_new_connections_get_the_new_certificate_and_streams_on_old_ones_go_on(reloaded: Reloaded) -> None:
    assert reloaded.shows(reloaded.first)
    client = flight.connect(reloaded.server.uri, tls_root_certs=reloaded.authority.ca.read_text())
    try:
        bearer = client.authenticate_basic_token("ann", PASSWORD)
        call = flight.FlightCallOptions(headers=[bearer])
        stream = _started(client, call, "SELECT range AS n FROM range(10000000)")
        rows = stream.read_chunk().data.num_rows
        planned = client.get_flight_info(_statement("SELECT 7 AS seven"), call)

        reloaded.write(pair=reloaded.second)
        reloaded.reload("certificate changed old=")
        assert reloaded.shows(reloaded.second)
        assert reloaded.ask("SELECT 1 AS one") == [{"one": 1}]

        # The old stream comes to its end; the same client plans and fetches on, also what it planned before.
        assert client.do_get(planned.endpoints[0].ticket, call).read_all().to_pylist() == [{"seven": 7}]
        assert _started(client, call, "SELECT 8 AS n").read_all().to_pylist() == [{"n": 8}]
        for chunk in stream:
            rows += chunk.data.num_rows
        assert rows == 10_000_000
    finally:
        client.close()
    reloaded.write()
    reloaded.reload("certificate changed old=")
    assert reloaded.shows(reloaded.first)


def test_many_clients_connect_while_certificates_change_and_none_is_cut(reloaded: Reloaded) -> None:
    """Each has one connection, and calls on and on."""
    failed: list[str] = []
    counts = [0] * 4
    is_over = threading.Event()

    def call_on(number: int) -> None:
        client = flight.connect(reloaded.server.uri, tls_root_certs=reloaded.authority.ca.read_text())
        try:
            call = flight.FlightCallOptions(headers=[client.authenticate_basic_token("ann", PASSWORD)])
            while not is_over.is_set():
                assert _started(client, call, "SELECT 8 AS n").read_all().num_rows == 1
                counts[number] += 1
        except (flight.FlightError, AssertionError) as error:
            failed.append(repr(error)[:300])
        finally:
            client.close()

    threads = [threading.Thread(target=call_on, args=(number,)) for number in range(len(counts))]
    for thread in threads:
        thread.start()
    try:
        for number in range(6):
            reached = [count + 2 for count in counts]
            until(
                lambda reached=reached: failed or all(map(int.__ge__, counts, reached)), "calls are answered"
            )
            reloaded.write(pair=(reloaded.second, reloaded.first)[number % 2])
            reloaded.reload("certificate changed old=")
    finally:
        is_over.set()
        for thread in threads:
            thread.join(60)
    assert failed == []


def _statement(sql: str) -> flight.FlightDescriptor:
    from flight_replica._pb import flight_sql_pb2
    from flight_replica.flightsql.commands import pack

    return flight.FlightDescriptor.for_command(pack(flight_sql_pb2.CommandStatementQuery(query=sql)))


def _started(
    client: flight.FlightClient, call: flight.FlightCallOptions, sql: str
) -> flight.FlightStreamReader:
    info = client.get_flight_info(_statement(sql), call)
    return client.do_get(info.endpoints[0].ticket, call)
