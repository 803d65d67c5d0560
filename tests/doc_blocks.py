"""The blocks of code in README and docs, and what their pages say about how a test runs them.

A page says it in comments, which readers don't see:

    <!-- test: skip REASON -->      the next block isn't run
    <!-- test: heavy -->            the next block is run with `-m docs` alone
    <!-- test: slow page -->        … and so is the whole page: it starts many servers
    <!-- test: fails -->            the next block's last command ends with an exit code above 0
    <!-- test: with orders -->      the page talks to a primary and a replica that are there already
    <!-- test: needs samples -->    the page reads sample tables of the engine, under $SAMPLES
    <!-- test: where A = B -->      in the blocks below, A stands for B
    <!-- test: setup
    commands                        what is run, and a reader has already
    -->
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").rglob("*.md")])
RUN = ("sh", "console", "python")  # languages whose blocks are run
_FENCE = re.compile(r"^( *)```(\S*)")
_SAID = re.compile(r"<!-- test: (\w+)\s*(.*?)\s*-->", re.DOTALL)


@dataclass(slots=True)
class Block:
    """One fenced block; `line` is that of its first line in the page, from 1."""

    page: Path
    line: int
    language: str
    text: str
    skip: str = ""  # the reason why it isn't run
    is_heavy: bool = False
    fails: bool = False
    where: dict[str, str] = field(default_factory=dict)

    @property
    def place(self) -> str:
        return f"{_shown(self.page)}:{self.line}"

    @property
    def commands(self) -> list[str]:
        """The command lines of a shell block, each whole, without prompts, output and comments."""
        lines = re.sub(r"\\\n\s*", " ", self.text).splitlines()
        if self.language == "console":
            lines = [line[2:] for line in lines if line.startswith("$ ")]
        return [line for line in lines if line.strip() and not line.lstrip().startswith("#")]


@dataclass(slots=True)
class Page:
    """The blocks of one page in order, hidden ones included."""

    path: Path
    blocks: list[Block] = field(default_factory=list)
    has_orders: bool = False
    needs_samples: bool = False
    is_slow: bool = False

    @property
    def name(self) -> str:
        return _shown(self.path)


def _shown(path: Path) -> str:
    return str(path.relative_to(ROOT) if path.is_relative_to(ROOT) else path)


def read_page(path: Path) -> Page:
    """What stands in a page. Fails the test for a comment that can't be understood."""
    page = Page(path)
    where: dict[str, str] = {}
    said: dict[str, str] = {}
    lines = path.read_text().splitlines()
    at = 0
    while at < len(lines):
        if lines[at].startswith("<!-- test:"):
            end = next(i for i in range(at, len(lines)) if "-->" in lines[i])
            found = _SAID.fullmatch("\n".join(lines[at : end + 1]))
            assert found, f"{page.name}:{at + 1}: a comment for tests that isn't understood"
            word, rest = found.groups()
            if word == "setup":
                page.blocks.append(Block(path, at + 2, "sh", rest + "\n", where=dict(where)))
            elif word == "where":
                name, _, meant = rest.partition(" = ")
                where[name] = meant
            elif word == "with":
                assert rest == "orders", f"{page.name}:{at + 1}: nothing else is there than orders"
                page.has_orders = True
            elif word == "needs":
                assert rest == "samples", f"{page.name}:{at + 1}: only samples can be needed"
                page.needs_samples = True
            elif word == "slow":
                page.is_slow = True
            else:
                assert word in ("skip", "heavy", "fails"), f"{page.name}:{at + 1}: {word}"
                assert word != "skip" or rest, f"{page.name}:{at + 1}: skipped without a reason"
                said[word] = rest
            at = end + 1
        elif opening := _FENCE.match(lines[at]):
            indent, language = opening.groups()
            end = next(i for i in range(at + 1, len(lines)) if lines[i] == f"{indent}```")
            text = "".join(line.removeprefix(indent) + "\n" for line in lines[at + 1 : end])
            page.blocks.append(
                Block(
                    path,
                    at + 2,
                    language,
                    text,
                    skip=said.get("skip", ""),
                    is_heavy="heavy" in said,
                    fails="fails" in said,
                    where=dict(where),
                )
            )
            said = {}
            at = end + 1
        else:
            at += 1
    return page
