"""The documentation names only what is there."""

from __future__ import annotations

import io
import json
import math
import re
from contextlib import redirect_stdout
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from flight_replica.cli import main
from tests import doc_blocks

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
TESTS = {
    name
    for file in (ROOT / "tests").rglob("*.py")
    for name in re.findall(r"^\s*(?:async )?def (test_\w+)", file.read_text(), re.MULTILINE)
}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_test_that_a_page_names_is_there(page: Path) -> None:
    named = set(re.findall(r"`(test_\w+)`", page.read_text()))
    modules = {file.stem for file in (ROOT / "tests").rglob("test_*.py")}
    assert named <= TESTS | modules


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_file_that_a_page_links_to_is_there(page: Path) -> None:
    links = re.findall(r"\]\((?!https?:)([^)#]+)\)", page.read_text())
    assert not [link for link in links if not (page.parent / link).exists()]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_path_that_a_page_names_is_there(page: Path) -> None:
    named = re.findall(r"`((?:tests|docs|benchmarks|proto|flight_replica)/[\w./-]+\.\w+)`", page.read_text())
    assert not [path for path in named if not (ROOT / path).exists()]


def test_every_number_of_the_sizing_page_is_the_one_that_was_measured() -> None:
    """Its tables: a first column that a series' name begins with, or in which it stands, then medians."""
    checked = 0
    for line in (ROOT / "docs" / "operations" / "sizing.md").read_text().splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if not (file := re.fullmatch(r"`(\w+\.json)`", cells[-1])):
            continue
        record = json.loads((ROOT / "benchmarks" / "results" / file[1]).read_text())
        medians = [numbers["median"] for numbers in _series(record["summary"], cells[0])]
        for cell in cells[1:-1]:
            number, unit = re.fullmatch(r"([\d .]+) (ms|ops/s)", cell).groups()  # type: ignore[union-attr]
            stated = float(number.replace(" ", "")) / (1000 if unit == "ms" else 1)
            assert any(math.isclose(stated, median, rel_tol=0.03) for median in medians), (line, cell)
            checked += 1
    assert checked


def _series(summary: dict[str, Any], name: str) -> list[dict[str, float]]:
    begins = (f"{name}, 1000000 ops:", f"{name}:")
    return [
        numbers
        for series, numbers in summary.items()
        if series.startswith(begins) or f"batches of {name} after 0 ops" in series
    ]


def test_the_list_of_decisions_has_every_one() -> None:
    folder = ROOT / "docs" / "decisions"
    listed = re.findall(r"^\d+\. \[.+\]\((\S+)\)$", (folder / "index.md").read_text(), re.MULTILINE)
    assert listed == sorted(path.name for path in folder.glob("0*.md"))


# --- commands -----------------------------------------------------------------------------------------

LANGUAGES = {"sh", "console", "python", "text", "json", "toml", "yaml", "ini", "java", "go", "sql", "xml"}


@pytest.mark.parametrize("page", doc_blocks.PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_block_says_its_language_and_commands_stand_in_blocks_that_are_run(page: Path) -> None:
    found = doc_blocks.read_page(page).blocks
    assert {block.language for block in found} <= LANGUAGES
    others = "".join(block.text for block in found if block.language not in doc_blocks.RUN)
    assert not re.search(r"^\s*(\$ |flight-replica |make |pip )", others, re.MULTILINE)
    text = re.sub(r"^( *)```.*?^\1```$", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    assert not re.search(r"^(    |\t)\s*(\$ |flight-replica |make |pip )", text, re.MULTILINE)


# Options of other programs that pages name.
OTHERS = {"--add-opens"}


@pytest.mark.parametrize("page", doc_blocks.PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_command_that_a_page_names_has_its_options(page: Path) -> None:
    blocks = [block for block in doc_blocks.read_page(page).blocks if block.language in doc_blocks.RUN]
    text = page.read_text()
    named = [command for block in blocks for command in block.commands] + re.findall(r"`([^`]+)`", text)
    for command, rest in re.findall(r"flight-replica +([a-z][a-z-]*)(.*)", "\n".join(named)):
        assert command in commands(), f"there is no flight-replica {command}"
        absent = options_in(rest) - options_of(command) - {"--help"}
        assert not absent, f"flight-replica {command} has no {', '.join(sorted(absent))}"
    every = {option for command in commands() for option in options_of(command)} | options_of("")
    absent = set(re.findall(r"`(--[a-z][a-z-]*)", text)) - every - OTHERS
    assert not absent, f"no command has {', '.join(sorted(absent))}"


@cache
def commands() -> frozenset[str]:
    return frozenset(re.findall(r"^    ([a-z][a-z-]*)\b", help_of(""), re.MULTILINE))


@cache
def options_of(command: str) -> frozenset[str]:
    """The options of a command, those of its own commands included; of the program itself for ``."""
    text = help_of(command)
    inner = re.search(r"^  \{([a-z,-]+)\}", text, re.MULTILINE)
    found = options_in(text)
    for word in inner[1].split(",") if inner else []:
        found |= options_in(help_of(f"{command} {word}"))
    return frozenset(found)


def options_in(text: str) -> set[str]:
    return set(re.findall(r"(?<![\w-])--[a-z][a-z-]*", text))


@cache
def help_of(command: str) -> str:
    said = io.StringIO()
    with redirect_stdout(said), pytest.raises(SystemExit):
        main([*command.split(), "--help"])
    return said.getvalue()
