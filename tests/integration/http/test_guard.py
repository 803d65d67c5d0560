"""What an HTTP port refuses before anything else, and what every answer carries."""

from __future__ import annotations

import socket
import time

import httpx
import pytest
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from flight_replica.errors import ConfigError
from flight_replica.http.guard import SECURITY_HEADERS
from flight_replica.http.limits import HttpLimits
from flight_replica.http.server import HttpServer
from tests.integration.http.conftest import ServeHttp
from tests.integration.http.http_service import StatedService
from tests.processes import until

SECONDS = 30.0  # longer than any limit of these tests


async def _echo(request: Request) -> Response:
    return PlainTextResponse(str(len(await request.body())))


async def _broken(request: Request) -> Response:
    raise ZeroDivisionError("the secret of this test")


ROUTES = [Route("/echo", _echo, methods=["POST"]), Route("/broken", _broken)]


@pytest.mark.parametrize("path", ["/livez", "/readyz", "/login", "/nothing", "/api/session"])
def test_every_answer_carries_the_security_headers(open_http: httpx.Client, path: str) -> None:
    answer = open_http.get(path)
    assert {name: answer.headers.get(name) for name in SECURITY_HEADERS} == SECURITY_HEADERS
    assert "server" not in answer.headers


def test_every_answer_has_a_request_id_which_may_be_the_client_s_own(open_http: httpx.Client) -> None:
    own = open_http.get("/livez", headers={"x-request-id": "mine-7"})
    made = [open_http.get("/nothing", headers=headers) for headers in ({}, {"x-request-id": "two words"})]
    assert own.headers["x-request-id"] == "mine-7"
    ids = [answer.headers["x-request-id"] for answer in made]
    assert len(set(ids)) == 2 and all(len(found) == 16 and int(found, 16) >= 0 for found in ids)


def test_a_name_that_is_not_this_server_s_is_refused(serve_http: ServeHttp) -> None:
    url = serve_http(hosts=["replica.example"]).url
    own = ["127.0.0.1", "127.0.0.1:4713", "[::1]:4713", "localhost:1", "LOCALHOST", socket.gethostname()]
    others = ["rebound.example", "localhost.rebound.example", "127.0.0.1.rebound.example:80", ""]
    for host in [*own, "replica.example:8080"]:
        assert httpx.get(f"{url}/livez", headers={"host": host}).status_code == 200, host
    for host in others:
        assert httpx.get(f"{url}/livez", headers={"host": host}).status_code == 421, host


def test_a_change_that_another_site_asks_for_is_refused(serve_http: ServeHttp) -> None:
    url = serve_http(routes=ROUTES).url
    own: list[dict[str, str]] = [{}, {"origin": url}, {"origin": url, "sec-fetch-site": "same-origin"}]
    others = [
        {"origin": "http://evil.example"},
        {"origin": "null"},
        {"origin": "http://127.0.0.1:1"},
        {"origin": f"{url}.evil.example"},
        {"origin": "http://[::1"},
        {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate"},
        {"sec-fetch-site": "same-site"},
    ]
    for headers in own:
        assert httpx.post(f"{url}/echo", headers=headers, content=b"four").text == "4", headers
    for headers in others:
        assert httpx.post(f"{url}/echo", headers=headers, content=b"four").status_code == 403, headers


def test_every_answer_names_its_request(open_http: httpx.Client) -> None:
    given = open_http.get("/livez", headers={"x-request-id": "mine-7"})
    made = [open_http.get("/nothing").headers["x-request-id"] for _ in range(2)]
    unfit = open_http.get("/livez", headers={"x-request-id": "two words"}).headers["x-request-id"]
    assert given.headers["x-request-id"] == "mine-7"
    assert len({*made, unfit, "two words"}) == 4


def test_another_site_may_lead_here_and_embed_nothing(open_http: httpx.Client) -> None:
    link = {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate"}
    script = {"sec-fetch-site": "cross-site", "sec-fetch-mode": "no-cors"}
    assert open_http.get("/readyz", headers=link).status_code == 200
    assert open_http.get("/readyz", headers=script).status_code == 403


def test_a_body_over_its_limit_is_refused_whether_its_length_is_told_or_not(serve_http: ServeHttp) -> None:
    url = serve_http(routes=ROUTES, limits=HttpLimits(body_bytes_max=100)).url
    assert httpx.post(f"{url}/echo", content=b"x" * 100).text == "100"
    assert httpx.post(f"{url}/echo", content=b"x" * 101).status_code == 413
    assert httpx.post(f"{url}/echo", content=iter([b"x" * 60] * 2)).status_code == 413


def test_a_failure_says_nothing_to_its_client_and_all_to_the_log(
    serve_http: ServeHttp, caplog: pytest.LogCaptureFixture
) -> None:
    server = serve_http(routes=ROUTES)
    answer = httpx.get(f"{server.url}/broken", headers={"x-request-id": "mine-7"})
    assert answer.status_code == 500
    assert answer.text == "internal error mine-7: the server's log says more\n"
    until(lambda: _failures(caplog) == ["request failed method=GET path=/broken"], "it is logged once")
    assert httpx.get(f"{server.url}/livez").status_code == 200


def _failures(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.exc_info is not None]


# --- connections --------------------------------------------------------------------------------------


def _connected(server: HttpServer) -> socket.socket:
    return socket.create_connection(("127.0.0.1", server.port), timeout=SECONDS)


def _is_closed(connection: socket.socket) -> bool:
    """Whether the server ends the connection, waiting for that."""
    try:
        while connection.recv(4096):
            pass
    except ConnectionResetError:
        return True
    return True


@pytest.mark.parametrize(
    "said",
    [b"", b"GET /livez HTTP/1.1\r\nhost: 127.0.0.1\r\n", b"POST /echo HTTP/1.1\r\nhost: 127.0.0.1\r\n"
     b"content-length: 10\r\n\r\nhalf"],
    ids=["nothing", "half a header", "half a body"],
)  # fmt: skip
def test_a_client_that_does_not_go_on_is_let_go(serve_http: ServeHttp, said: bytes) -> None:
    limits = HttpLimits(header_seconds=0.2, body_seconds=0.2, idle_seconds=1)
    with _connected(serve_http(routes=ROUTES, limits=limits)) as connection:
        connection.sendall(said)
        assert _is_closed(connection)


def test_a_client_that_sends_its_header_bit_by_bit_is_let_go(serve_http: ServeHttp) -> None:
    with _connected(serve_http(limits=HttpLimits(header_seconds=0.3))) as connection:
        deadline = time.monotonic() + SECONDS
        connection.settimeout(0.02)
        with pytest.raises((ConnectionResetError, BrokenPipeError)):
            while time.monotonic() < deadline:
                connection.sendall(b"x")
                try:
                    if not connection.recv(1):
                        raise ConnectionResetError
                except TimeoutError:
                    continue


def test_a_header_over_its_limit_is_refused(serve_http: ServeHttp) -> None:
    url = serve_http(limits=HttpLimits(header_bytes_max=4096)).url
    assert httpx.get(f"{url}/livez", headers={"x-long": "x" * 3000}).status_code == 200
    assert httpx.get(f"{url}/livez", headers={"x-long": "x" * 9000}).status_code == 431


def test_a_connection_beyond_the_limit_is_closed_and_the_others_go_on(serve_http: ServeHttp) -> None:
    server = serve_http(limits=HttpLimits(connections_max=2))
    with _connected(server), _connected(server), pytest.raises(httpx.TransportError):
        httpx.get(f"{server.url}/livez")
    with httpx.Client(base_url=server.url) as first, httpx.Client(base_url=server.url) as second:
        for client in (first, second, first):
            while True:  # until the server has noticed that the other two are gone
                try:
                    assert client.get("/livez").status_code == 200
                    break
                except httpx.TransportError:
                    continue


# --- the server ---------------------------------------------------------------------------------------


def test_a_port_that_is_taken_is_one_line(service: StatedService, serve_http: ServeHttp) -> None:
    port = serve_http().port
    with pytest.raises(ConfigError, match=f"--http-listen 127.0.0.1:{port}: Address already in use$"):
        HttpServer(service, service.check, "127.0.0.1", port)


def test_a_closed_server_gives_its_port_back_and_ends_open_connections(
    service: StatedService, serve_http: ServeHttp
) -> None:
    server = serve_http()
    with httpx.Client(base_url=server.url) as client, _connected(server) as silent:
        assert client.get("/livez").status_code == 200
        server.close()
        assert _is_closed(silent)
        with pytest.raises(httpx.TransportError):
            client.get("/livez")
    again = HttpServer(service, service.check, "127.0.0.1", server.port)
    again.close()
    again.close()
