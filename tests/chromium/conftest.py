"""Chromium, servers whose page it shows, and a place for pictures (`make test-page`).

Chromium is Debian's; it is installed where that can be done, else these tests are skipped and say why.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.processes import ROOT, Server, rows, running

CHROMIUM = "/usr/bin/chromium"
INSTALL_SECONDS = 900.0
# Chromium as it can run anywhere, and without calls of its own to other hosts.
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
# Where pictures go; a folder that git ignores, unless the one for the README is wanted anew.
PICTURES = ROOT / "build" / "page"
IMAGE = ROOT / "docs" / "images" / "page.png"
IMAGE_WANTED = "FLIGHT_REPLICA_PAGE_IMAGE"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Everything in this folder needs Chromium."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.chromium)


@pytest.fixture(scope="session")
def browser() -> Iterator[object]:
    from tests.chromium.browsing import sync_api

    if not Path(CHROMIUM).exists():
        _install()
    with sync_api.sync_playwright() as started:
        found = started.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield found
        found.close()


def _install() -> None:
    """Install Debian's Chromium, or skip the test with the reason why that can't be done."""
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        pytest.skip(f"there is no {CHROMIUM}, and only root can install it, by apt-get")
    for command in (
        ["update"],
        ["install", "-y", "--no-install-recommends", "chromium", "fonts-dejavu-core"],
    ):
        done = subprocess.run(
            ["apt-get", "-qq", *command], capture_output=True, text=True, timeout=INSTALL_SECONDS
        )
        if done.returncode != 0:
            pytest.skip(f"chromium can't be installed: {done.stderr.strip()[-300:]}")


class Shown:
    """A page in its window, with what went wrong in it."""

    def __init__(self, page: object, url: str) -> None:
        self.page = page
        self.url = url
        self.errors: list[str] = []  # of the console, and exceptions
        self.elsewhere: list[str] = []  # requests to other hosts
        self.dialogs: list[str] = []
        page.on("console", lambda said: self.errors.append(said.text) if said.type == "error" else None)
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.on("dialog", self._dismiss)
        page.on("request", self._asked)

    def _dismiss(self, dialog: object) -> None:
        self.dialogs.append(dialog.message)
        dialog.dismiss()

    def _asked(self, request: object) -> None:
        if not request.url.startswith((self.url, "data:", "blob:")):
            self.elsewhere.append(request.url)

    def open(self) -> Shown:
        self.page.goto(self.url)
        return self

    def text(self, selector: str) -> str:
        return self.page.locator(selector).inner_text()

    def is_wider_than_its_window(self) -> bool:
        return bool(self.page.evaluate("document.documentElement.scrollWidth > innerWidth"))

    def picture(self, name: str) -> Path:
        PICTURES.mkdir(parents=True, exist_ok=True)
        path = PICTURES / f"{name}.png"
        self.page.evaluate("scrollTo(0, 0)")
        self.page.screenshot(path=path, full_page=True)
        return path


Show = Callable[..., Shown]


@pytest.fixture
def show(browser: object) -> Iterator[Show]:
    """Opens windows of the test's own, each of somebody else."""
    contexts = []

    def open_window(url: str, *, width: int = 1280, height: int = 900, is_dark: bool = False) -> Shown:
        context = browser.new_context(
            viewport={"width": width, "height": height}, color_scheme="dark" if is_dark else "light"
        )
        contexts.append(context)
        return Shown(context.new_page(), url)

    yield open_window
    for context in contexts:
        context.close()


# --- servers ------------------------------------------------------------------------------------------


class Paged(Server):
    """A server with a page, at `page`."""

    def __init__(self, *arguments: str, http: str = "127.0.0.1:0", listen: str = "127.0.0.1:0") -> None:
        super().__init__(*arguments, "--http-listen", http, listen=listen)
        self.page = self.line().removeprefix("http on ")


@contextmanager
def followed(data: Path, *tables: str) -> Iterator[tuple[Server, Paged]]:
    """A primary with these tables (what stands behind CREATE TABLE), and a replica of it with a page."""
    primary = Server("primary", "--data", str(data))
    with running(primary):
        for table in tables:
            rows(primary.uri, f"CREATE TABLE {table}")
        replica = Paged("serve", "--primary", primary.uri)
        with running(replica):
            yield primary, replica


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Server, Paged]]:
    """Tables of a shop; `orders` has some rows."""
    columns = "(id BIGINT PRIMARY KEY, item VARCHAR, price DECIMAL(10, 2), sold TIMESTAMP)"
    names = ("customers", "orders", "stock_items")
    with followed(tmp_path_factory.mktemp("primary"), *(f"{name} {columns}" for name in names)) as found:
        rows(found[0].uri, _INSERT)
        yield found


_INSERT = "INSERT INTO orders VALUES " + ", ".join(
    f"({n}, 'item {n % 97}', {n % 1000 / 4}, TIMESTAMP '2026-01-02 03:04:05')" for n in range(2000)
)
