"""Logins over HTTP: those of the Flight port, by header or by a browser's form and cookie."""

from __future__ import annotations

import json
import re
import time
from http.cookies import SimpleCookie
from pathlib import Path

import httpx
import jwt
import pytest
from starlette.requests import HTTPConnection, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from flight_replica.flightsql.auth import BasicLogins, JwtLogins
from flight_replica.flightsql.jwt_logins import JwtSettings, JwtVerifier
from flight_replica.flightsql.tokens import Tokens
from flight_replica.flightsql.users import UsersFile
from flight_replica.http.limits import HttpLimits
from flight_replica.http.site import site_of
from flight_replica.http.visitors import Visitors
from tests.accounts import write_users
from tests.integration.http.conftest import PASSWORDS, ServeHttp

SECRET = b"a secret of more than thirty-two bytes"


async def _change(request: Request) -> Response:
    site = site_of(request)
    visitor = await site.visitor(request)
    site.visitors.check_change(request, visitor)
    return JSONResponse(visitor.user.name)


CHANGE = [Route("/change", _change, methods=["POST"])]


def _log_in(client: httpx.Client, name: str, **fields: str) -> httpx.Response:
    return client.post("/login", data=fields or {"user": name, "password": PASSWORDS[name]})


def test_nothing_is_shown_without_login(closed_http: httpx.Client) -> None:
    answer = closed_http.get("/api/session")
    assert (answer.status_code, answer.text) == (401, "log in first\n")
    assert answer.headers["www-authenticate"].startswith("Bearer")  # Basic would make browsers ask


def test_a_browser_logs_in_by_the_form_and_out_again(closed_http: httpx.Client) -> None:
    form = closed_http.get("/login")
    assert re.findall(r'name="(\w+)"', form.text.partition("<form")[2]) == ["user", "password"]
    answer = _log_in(closed_http, "ann")
    assert (answer.status_code, answer.headers["location"]) == (303, "/")
    cookie = next(iter(SimpleCookie(answer.headers["set-cookie"]).values()))
    assert (cookie["httponly"], cookie["samesite"], cookie["path"]) == (True, "strict", "/")
    assert not cookie["secure"]
    session = closed_http.get("/api/session").json()
    assert (session["user"], session["login"]) == ("ann", True)
    assert closed_http.post("/logout").status_code == 403
    cookies = dict(closed_http.cookies)
    assert closed_http.post("/logout", data={"csrf": session["csrf"]}).headers["location"] == "/login"
    assert not closed_http.cookies
    assert closed_http.get("/api/session", headers={"cookie": _header(cookies)}).status_code == 401


def _header(cookies: dict[str, str]) -> str:
    return "; ".join(f"{name}={value}" for name, value in cookies.items())


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"user": "ann", "password": "wrong"}, "wrong user or password"),
        ({"user": "<script>alert(1)</script>", "password": "x"}, "wrong user or password"),
        ({"user": "", "password": "x"}, "names no user"),
        ({"token": "<b>"}, "one of this server"),
    ],
)
def test_a_login_that_fails_shows_the_form_again(
    closed_http: httpx.Client, fields: dict[str, str], says: str
) -> None:
    answer = _log_in(closed_http, "", **fields)
    assert answer.status_code == 401
    assert says in answer.text
    assert "<script" not in answer.text
    assert "<b>" not in answer.text
    assert "set-cookie" not in answer.headers


def test_a_body_that_is_no_form_is_told_so(closed_http: httpx.Client) -> None:
    for body in (b"\xff=1", b"user", b"&".join([b"a=1"] * 50)):
        assert closed_http.post("/login", content=body).status_code == 400


def test_a_change_needs_the_token_of_its_login(serve_http: ServeHttp, users: Path) -> None:
    server = serve_http(logins=BasicLogins(UsersFile(users), Tokens()), routes=CHANGE)
    with httpx.Client(base_url=server.url) as ann, httpx.Client(base_url=server.url) as bob:
        tokens = {}
        for client, name in ((ann, "ann"), (bob, "bob")):
            _log_in(client, name)
            tokens[name] = client.get("/api/session").json()["csrf"]
        assert ann.post("/change").status_code == 403
        assert ann.post("/change", headers={"x-csrf-token": tokens["bob"]}).status_code == 403
        assert ann.post("/change", headers={"x-csrf-token": tokens["ann"]}).json() == "ann"
    # A client that says on each request who it is can't be made to do so by another site.
    assert httpx.post(f"{server.url}/change", auth=("bob", PASSWORDS["bob"])).json() == "bob"


def test_a_login_from_another_site_is_refused(closed_http: httpx.Client) -> None:
    fields = {"user": "ann", "password": PASSWORDS["ann"]}
    answer = closed_http.post("/login", data=fields, headers={"origin": "http://evil.example"})
    assert answer.status_code == 403
    assert not closed_http.cookies


def test_a_new_login_takes_another_cookie_and_ends_the_old_one(serve_http: ServeHttp, users: Path) -> None:
    server = serve_http(logins=BasicLogins(UsersFile(users), Tokens()))
    with httpx.Client(base_url=server.url) as client:
        _log_in(client, "ann")
        old = dict(client.cookies)
        _log_in(client, "bob")
        assert client.get("/api/session").json()["user"] == "bob"
        assert dict(client.cookies) != old
        assert server.site.visitors.count == 1
        client.cookies.clear()
        assert client.get("/api/session", headers={"cookie": _header(old)}).status_code == 401


def test_two_servers_of_one_host_do_not_share_a_cookie(serve_http: ServeHttp, users: Path) -> None:
    names = set()
    for server in (serve_http(logins=BasicLogins(UsersFile(users), Tokens())) for _ in range(2)):
        with httpx.Client(base_url=server.url) as client:
            _log_in(client, "ann")
            names |= set(client.cookies)
    assert len(names) == 2


def test_a_user_with_another_password_is_out_at_once(serve_http: ServeHttp, users: Path) -> None:
    server = serve_http(logins=BasicLogins(UsersFile(users), Tokens()))
    with httpx.Client(base_url=server.url) as client:
        _log_in(client, "ann")
        assert client.get("/api/session").status_code == 200
        write_users(users, ann={"password": "another"})
        assert client.get("/api/session").status_code == 401


def test_what_a_browser_began_ends_when_its_user_s_rights_change(users: Path) -> None:
    visitors = Visitors(BasicLogins(UsersFile(users), Tokens()), HttpLimits())
    cookie = f"flight-replica-80={visitors.log_in('ann', PASSWORDS['ann'])}".encode()
    scope = {"type": "http", "scheme": "http", "server": ("localhost", 80), "path": "/", "query_string": b""}
    request = HTTPConnection({**scope, "headers": [(b"host", b"localhost"), (b"cookie", cookie)]})
    before = visitors.visitor(request)
    assert before.is_still_good()
    # The same password, and less to read.
    accounts = json.loads(users.read_text())
    accounts["users"]["ann"]["read"] = ["items"]
    newer = users.with_suffix(".new")
    newer.write_text(json.dumps(accounts))
    newer.replace(users)
    assert not before.is_still_good()
    after = visitors.visitor(request)
    assert after.is_still_good()
    assert "orders" not in after.user.read


def test_a_login_nobody_uses_ends_and_so_does_one_too_many(serve_http: ServeHttp, users: Path) -> None:
    logins = BasicLogins(UsersFile(users), Tokens())
    idle = serve_http(logins=logins, limits=HttpLimits(login_idle_seconds=0.0))
    few = serve_http(logins=logins, limits=HttpLimits(logins_max=1))
    with httpx.Client(base_url=idle.url) as client:
        _log_in(client, "ann")
        assert client.get("/api/session").status_code == 401
    with httpx.Client(base_url=few.url) as first, httpx.Client(base_url=few.url) as second:
        _log_in(first, "ann")
        _log_in(second, "bob")
        assert first.get("/api/session").status_code == 401
        assert second.get("/api/session").json()["user"] == "bob"


def test_jwts_are_taken_by_header_and_by_form_until_they_are_over(serve_http: ServeHttp) -> None:
    server = serve_http(
        logins=JwtLogins(JwtVerifier(JwtSettings("replicas", secret=SECRET, leeway_seconds=0)))
    )
    claims = {"sub": "eve", "aud": "replicas"}
    good = jwt.encode({**claims, "exp": time.time() + 3600}, SECRET, "HS256")
    bearer = {"authorization": f"Bearer {good}"}
    assert httpx.get(f"{server.url}/api/session", headers=bearer).json()["user"] == "eve"
    with httpx.Client(base_url=server.url) as client:
        assert re.findall(r'name="(\w+)"', client.get("/login").text.partition("<form")[2]) == ["token"]
        over = jwt.encode({**claims, "exp": time.time() - 1}, SECRET, "HS256")
        assert _log_in(client, "", token=over).status_code == 401
        assert _log_in(client, "", token=good).status_code == 303
        assert client.get("/api/session").json()["user"] == "eve"


def test_without_logins_the_form_leads_to_the_page(open_http: httpx.Client) -> None:
    assert open_http.get("/login").headers["location"] == "/"
    session = open_http.get("/api/session").json()
    assert (session["user"], session["csrf"], session["login"]) == ("", "", False)
