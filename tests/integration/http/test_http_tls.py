"""HTTPS with the Flight port's certificates."""

from __future__ import annotations

import socket
import ssl
from contextlib import suppress
from pathlib import Path

import httpx
import pytest

from flight_replica.flightsql.auth import BasicLogins
from flight_replica.flightsql.tls import read_server_tls
from flight_replica.flightsql.tokens import Tokens
from flight_replica.flightsql.users import UsersFile
from flight_replica.http.limits import HttpLimits
from tests.certificates import Authority
from tests.integration.http.conftest import PASSWORDS, ServeHttp


def _context(authority: Authority, *own: Path) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=authority.ca)
    if own:
        context.load_cert_chain(*own)
    return context


def test_https_has_the_flight_port_s_certificate_and_a_cookie_for_it_alone(
    serve_http: ServeHttp, users: Path, tmp_path: Path
) -> None:
    authority = Authority(tmp_path)
    pair = authority.signed("server")
    tls = read_server_tls(pair.certificate, pair.key)
    server = serve_http(tls=tls, logins=BasicLogins(UsersFile(users), Tokens()))
    assert server.url.startswith("https://")
    with httpx.Client(base_url=server.url, verify=_context(authority)) as client:
        assert client.get("/livez").status_code == 200
        answer = client.post("/login", data={"user": "ann", "password": PASSWORDS["ann"]})
        assert answer.headers["set-cookie"].startswith("__Host-")
        assert "Secure" in answer.headers["set-cookie"]
        assert client.get("/api/session").json()["user"] == "ann"
    with pytest.raises(httpx.TransportError):
        httpx.get(server.url.replace("https", "http") + "/livez")


def test_with_a_clients_ca_nobody_gets_in_without_its_certificate(
    serve_http: ServeHttp, tmp_path: Path
) -> None:
    authority = Authority(tmp_path)
    pair, own = authority.signed("server"), authority.signed("client")
    url = serve_http(tls=read_server_tls(pair.certificate, pair.key, authority.ca)).url
    with pytest.raises(httpx.TransportError):
        httpx.get(f"{url}/livez", verify=_context(authority))
    answer = httpx.get(f"{url}/livez", verify=_context(authority, own.certificate, own.key))
    assert answer.status_code == 200


def test_a_renewed_certificate_is_shown_to_those_who_come_and_drops_nobody(
    serve_http: ServeHttp, tmp_path: Path
) -> None:
    old, new = Authority(tmp_path, "old"), Authority(tmp_path, "new")
    first, second = old.signed("first"), new.signed("second")
    server = serve_http(tls=read_server_tls(first.certificate, first.key))
    with httpx.Client(base_url=server.url, verify=_context(old)) as client:
        assert client.get("/livez").status_code == 200
        server.renew(read_server_tls(second.certificate, second.key))
        assert client.get("/livez").status_code == 200
    assert httpx.get(f"{server.url}/livez", verify=_context(new)).status_code == 200
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{server.url}/livez", verify=_context(old))


def test_who_begins_no_handshake_takes_no_more_than_his_connections_and_is_let_go(
    serve_http: ServeHttp, tmp_path: Path
) -> None:
    authority = Authority(tmp_path)
    pair = authority.signed("server")
    limits = HttpLimits(connections_max=3, header_seconds=0.5)
    server = serve_http(tls=read_server_tls(pair.certificate, pair.key), limits=limits)
    silent = [socket.create_connection(("127.0.0.1", server.port), 60.0) for _ in range(10)]
    for connection in silent:
        with connection, suppress(ConnectionResetError):
            assert connection.recv(1) == b""
    assert httpx.get(f"{server.url}/livez", verify=_context(authority)).status_code == 200


def test_what_is_no_tls_is_closed(serve_http: ServeHttp, tmp_path: Path) -> None:
    pair = Authority(tmp_path).signed("server")
    server = serve_http(tls=read_server_tls(pair.certificate, pair.key))
    with socket.create_connection(("127.0.0.1", server.port), 60.0) as connection:
        connection.sendall(b"GET /livez HTTP/1.1\r\nhost: localhost\r\n\r\n")
        with suppress(ConnectionResetError):
            assert b"alive" not in connection.recv(1000)
            assert connection.recv(1000) == b""
    assert server.connections == 0
