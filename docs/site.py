"""What turns README, CHANGELOG and docs into one site, by mkdocs' hooks.

In the repository links lead from file to file, wherever they lie. In the site README is the first page, and
what lies outside of docs isn't there: such links become plain text. Patterns in `nav` stand for files.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
OF_ROOT = {"index.md": ROOT / "README.md", "changelog.md": ROOT / "CHANGELOG.md"}  # page -> its file
EXTERNAL = "external-links.txt"
_LINK = re.compile(r"(!?)\[([^\]]*)\]\(([^)\s]+)\)")
_FENCE = re.compile(r"^( *)```.*?^\1```$", re.MULTILINE | re.DOTALL)
_COMMENT = re.compile(r"^ *<!--.*?-->\n?", re.MULTILINE | re.DOTALL)

_external: set[str] = set()


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    named = set(_names(config.nav))
    config.nav = [_expanded(item, named) for item in config.nav or []]
    return config


def _names(item: object) -> Iterator[str]:
    """The files that `nav` names, and its patterns."""
    if isinstance(item, str):
        yield item
    elif item is not None:
        for inner in item.values() if isinstance(item, dict) else item:  # type: ignore[attr-defined]
            yield from _names(inner)


def _expanded(item: object, named: set[str]) -> object:
    if isinstance(item, dict):
        return {title: _expanded(inner, named) for title, inner in item.items()}
    if isinstance(item, list):
        return [path for inner in item for path in _matching(inner, named)]
    return item


def _matching(item: object, named: set[str]) -> list[object]:
    if not isinstance(item, str) or "*" not in item:
        return [_expanded(item, named)]
    found = sorted({path.relative_to(DOCS).as_posix() for path in DOCS.glob(item)} - named)
    named.update(found)
    return list(found)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    _external.clear()
    for name, source in OF_ROOT.items():
        files.append(File.generated(config, name, content=source.read_text()))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """The page with links as they are in the site, and without its comments for tests."""
    here = page.file.src_uri
    source = OF_ROOT.get(here, DOCS / here)
    parts, at = [], 0
    for fence in _FENCE.finditer(markdown):
        parts += [_told(markdown[at : fence.start()], source, here), fence[0]]
        at = fence.end()
    return "".join([*parts, _told(markdown[at:], source, here)])


def _told(text: str, source: Path, here: str) -> str:
    return _LINK.sub(lambda found: _link(found, source, here), _COMMENT.sub("", text))


def _link(found: re.Match[str], source: Path, here: str) -> str:
    image, text, target = found.groups()
    if target.startswith(("http:", "https:", "mailto:")):
        _external.add(target)
        return found[0]
    path, sign, anchor = target.partition("#")
    if not path:
        return found[0]
    full = Path(os.path.normpath(source.parent / path))
    page = next((name for name, file in OF_ROOT.items() if file == full), None)
    if page is None and full.is_relative_to(DOCS):
        page = full.relative_to(DOCS).as_posix()
    if page is None:
        return text
    relative = os.path.relpath(page, PurePosixPath(here).parent)
    return f"{image}[{text}]({relative}{sign}{anchor})"


def on_post_build(config: MkDocsConfig) -> None:
    """Links to elsewhere are listed, not fetched: a build needs no network."""
    (Path(config.site_dir) / EXTERNAL).write_text("".join(f"{link}\n" for link in sorted(_external)))
