"""Logins, hostile names and other sites, as a real browser sees them."""

from __future__ import annotations

import http.server
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.accounts import write_users
from tests.chromium.browsing import expect
from tests.chromium.conftest import Paged, Show, followed
from tests.chromium.test_page_works import OUTER_MS, Pair, loaded, run
from tests.processes import rows, running

HOSTILE = "<script>alert(1)</script>"
TABLE = "<script>alert(3)<!--"  # a table's name has no slash
IMAGE = "<img src=x onerror=alert(2)>"


def quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def test_hostile_names_values_and_statements_are_just_text(tmp_path: Path, show: Show) -> None:
    columns = f"({quoted(IMAGE)} BIGINT PRIMARY KEY, {quoted(TABLE)} VARCHAR)"
    with followed(tmp_path / "data", f"{quoted(TABLE)} {columns}") as (primary, replica):
        rows(primary.uri, f"INSERT INTO {quoted(TABLE)} VALUES (1, '{IMAGE}')")
        shown = show(replica.page).open()
        expect(shown.page.locator("#verdict-text")).to_have_text("All well: 1 table", timeout=OUTER_MS)
        expect(shown.page.locator("#detail-name")).to_have_text(TABLE)
        run(shown, f"SELECT *, '{HOSTILE}' AS \"<b>c</b>\" FROM {quoted(TABLE)} WHERE '{IMAGE}' <> ''")
        cells = shown.page.locator("#sql-result tbody td")
        expect(cells).to_have_text(["1", IMAGE, HOSTILE], timeout=OUTER_MS)
        expect(shown.page.locator("#sql-result th span")).to_have_text([IMAGE, TABLE, "<b>c</b>"])
        run(shown, f"SELECT '{HOSTILE}' FROM {quoted(IMAGE)}")
        expect(shown.page.get_by_role("alert")).to_contain_text(IMAGE)
        expect(shown.page.locator("#events")).to_contain_text(TABLE)
        expect(shown.page.locator("#snippet-code")).to_contain_text(TABLE)
        shown.picture("hostile")
        with primary.stopped():
            expect(shown.page.locator("#advice b").first).to_have_text(TABLE, timeout=OUTER_MS)
        assert shown.page.locator("main img, main b b, main script").count() == 0
        assert (shown.dialogs, shown.errors, shown.elsewhere) == ([], [], [])


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Paged]:
    """A primary with logins: ann may read everything, and a user of a hostile name `orders` alone."""
    folder = tmp_path_factory.mktemp("guarded")
    users = write_users(
        folder / "users.json",
        **{
            "ann": {"password": "ann's", "ddl": True, "write": ["*"]},
            HOSTILE: {"password": "his", "read": ["orders"]},
        },
    )
    server = Paged("primary", "--data", str(folder / "data"), "--auth", "basic", "--users", str(users))
    with running(server):
        yield server


def log_in(shown: object, user: str, password: str) -> None:
    shown.page.get_by_label("User").fill(user)
    shown.page.get_by_label("Password").fill(password)
    shown.page.get_by_role("button", name="Log in").click()


def test_nothing_shows_before_the_login_and_after_the_logout(guarded: Paged, show: Show) -> None:
    shown = show(guarded.page).open()
    assert shown.page.url.endswith("/login")
    log_in(shown, "ann", "wrong")
    expect(shown.page.get_by_role("alert")).to_be_visible()
    shown.picture("login")
    log_in(shown, "ann", "ann's")
    expect(shown.page.locator("#live")).to_have_text("live", timeout=OUTER_MS)
    expect(shown.page.locator("#user")).to_have_text("ann")
    run(shown, "SELECT 41 + 1 AS answer")
    expect(shown.page.locator("#sql-result tbody td")).to_have_text(["42"])
    shown.page.get_by_role("button", name="Log out").click()
    expect(shown.page.get_by_label("Password")).to_be_visible()
    shown.page.goto(guarded.page)
    assert shown.page.url.endswith("/login")


def test_a_login_that_ends_elsewhere_leads_back_to_the_form(guarded: Paged, show: Show) -> None:
    shown = show(guarded.page).open()
    log_in(shown, "ann", "ann's")
    expect(shown.page.locator("#live")).to_have_text("live", timeout=OUTER_MS)
    other = shown.page.context.new_page()
    other.goto(guarded.page)
    other.get_by_role("button", name="Log out").click()
    expect(shown.page.get_by_label("Password")).to_be_visible(timeout=OUTER_MS)


def test_a_user_of_a_hostile_name_is_just_text(guarded: Paged, show: Show) -> None:
    shown = show(guarded.page).open()
    log_in(shown, HOSTILE, "his")
    expect(shown.page.locator("#user")).to_have_text(HOSTILE, timeout=OUTER_MS)
    assert shown.dialogs == []


# --- other sites --------------------------------------------------------------------------------------

_ATTACK = """<!doctype html><meta charset=utf-8><title>other</title>
<form id=form method=post action="{target}/api/cancel" enctype="text/plain">
<input name='{{"id":"' value='x"}}'></form>
<iframe id=frame src="{target}/"></iframe>
<script>
    const tell = (name) => (value) => document.body.append(name + ":" + value + ";");
    const body = '{{"sql":"SELECT 1"}}';
    fetch("{target}/api/sql", {{ method: "POST", mode: "no-cors", credentials: "include", body }});
    fetch("{target}/api/history").then((answer) => answer.text())
        .then(tell("read"), () => tell("read")("failed"));
    const stream = new EventSource("{target}/api/live");
    stream.addEventListener("now", () => tell("live")("open"));
    stream.addEventListener("error", () => {{ stream.close(); tell("live")("failed"); }});
</script>"""


@contextmanager
def another_site(target: str) -> Iterator[str]:
    """A page of another origin that tries everything; its address."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = _ATTACK.format(target=target).encode()
            self.send_response(200)
            self.send_header("content-type", "text/html")
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://localhost:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_a_page_of_another_site_can_neither_read_nor_do_anything(pair: Pair, show: Show) -> None:
    replica = pair[1]
    with another_site(replica.page) as site:
        shown = show(site)
        statuses: dict[str, int] = {}
        shown.page.on("response", lambda answer: statuses.update({answer.url: answer.status}))
        shown.open()
        for result in ("read:failed", "live:failed"):
            expect(shown.page.locator("body")).to_contain_text(result, timeout=OUTER_MS)
        shown.page.evaluate("document.getElementById('form').submit()")
        expect(shown.page.locator("body")).to_contain_text("another site", timeout=OUTER_MS)
    for path in ("/api/sql", "/api/cancel"):
        assert statuses.get(replica.page + path, 403) == 403, statuses
    assert statuses[replica.page + "/api/cancel"] == 403
    assert loaded(show(replica.page)).errors == []
