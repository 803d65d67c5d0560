"""What browsers run: nothing inline, nothing from elsewhere, no text read as markup."""

from __future__ import annotations

import re
from importlib.resources import files
from pathlib import Path

import pytest

STATIC = Path(str(files("flight_replica.http.page") / "static"))
OWN = sorted(path for path in STATIC.iterdir() if path.suffix in {".html", ".js", ".css"})
PAGES = [path for path in OWN if path.suffix == ".html"]


@pytest.mark.parametrize("path", OWN, ids=lambda path: path.name)
def test_nothing_is_asked_of_another_host(path: Path) -> None:
    addresses = re.findall(r"(?:https?:)?//[a-z0-9.-]+\.[a-z]+[^\s\"']*", path.read_text())
    assert [address for address in addresses if "www.w3.org" not in address] == []


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_no_script_style_or_handler_is_inline(path: Path) -> None:
    text = path.read_text()
    assert re.findall(r"<script(?![^>]*\bsrc=)", text) == []
    assert "<style" not in text
    assert re.findall(r"\s(?:style|on\w+)=", text) == []


@pytest.mark.parametrize("path", [path for path in OWN if path.suffix == ".js"], ids=lambda path: path.name)
def test_no_text_is_read_as_markup_or_program(path: Path) -> None:
    dangers = r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function|\.srcdoc"
    assert re.findall(dangers, path.read_text()) == []


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_every_file_and_heading_that_is_named_is_there(path: Path) -> None:
    text = path.read_text()
    ids = set(re.findall(r'id="([^"]+)"', text))
    for found in re.findall(r'(?:src|href)="([^"]+)"', text):
        if found.startswith("#"):
            assert found[1:] in ids, found
        elif not found.startswith(".."):
            assert (STATIC / found.removeprefix("page/")).is_file(), found


def test_every_element_that_a_script_asks_for_is_in_the_page() -> None:
    ids = set(re.findall(r'id="([^"]+)"', (STATIC / "index.html").read_text()))
    for path in OWN:
        if path.suffix == ".js":
            assert set(re.findall(r'\$\("([^"]+)"\)', path.read_text())) <= ids, path.name


def test_the_library_is_there_with_licence_and_version() -> None:
    vendor = STATIC / "vendor"
    script = (vendor / "uPlot.iife.min.js").read_text()
    (version,) = re.findall(r"uPlot \(v([\d.]+)\)", script[:200])
    assert f"| {version} |" in (vendor / "README.md").read_text()
    assert "MIT License" in (vendor / "uPlot.LICENSE").read_text()
