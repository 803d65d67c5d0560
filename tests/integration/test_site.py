"""The site of README and docs: every page is in it, every link and anchor leads somewhere."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.doc_blocks import PAGES, ROOT

BUILD_SECONDS = 120.0


def build(root: Path, site: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(site)],
        cwd=root,
        capture_output=True,
        text=True,
        timeout=BUILD_SECONDS,
        check=False,
    )


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    done = build(ROOT, folder)
    assert done.returncode == 0, done.stderr
    return folder


def test_every_page_is_in_the_site_and_in_its_list(site: Path) -> None:
    first = (site / "index.html").read_text()
    for page in PAGES:
        name = page.relative_to(ROOT / "docs").with_suffix(".html") if page.parent != ROOT else "index.html"
        assert (site / name).is_file()
        assert f'href="{name}"' in first or name == "index.html", name


def test_no_page_loads_anything_from_elsewhere(site: Path) -> None:
    for page in site.rglob("*.html"):
        loaded = re.findall(r"<(?:script|img|link)[^>]+(?:src|href)=\"(https?:[^\"]*)", page.read_text())
        assert not loaded, f"{page.name}: {loaded}"


def test_links_to_elsewhere_are_listed(site: Path) -> None:
    listed = (site / "external-links.txt").read_text().splitlines()
    assert "https://crates.io/crates/merutable" in listed
    assert listed == sorted(listed)


def test_what_a_page_says_to_tests_is_not_shown(site: Path) -> None:
    for page in site.rglob("*.html"):
        assert "&lt;!-- test" not in page.read_text()
        assert "<!-- test" not in page.read_text()


@pytest.mark.parametrize("link", ["[x](troubleshooting.md#nowhere)", "[x](nowhere.md)"])
def test_a_link_or_an_anchor_that_leads_nowhere_fails_the_build(link: str, tmp_path: Path) -> None:
    for name in ("mkdocs.yml", "README.md", "CHANGELOG.md"):
        shutil.copy(ROOT / name, tmp_path)
    shutil.copytree(ROOT / "docs", tmp_path / "docs")
    with (tmp_path / "docs" / "glossary.md").open("a") as page:
        page.write(f"\n{link}\n")
    done = build(tmp_path, tmp_path / "site")
    assert done.returncode != 0
    assert "nowhere" in done.stderr
