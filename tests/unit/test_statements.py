"""Merutable format, section 10: `docs/merutable-statements.md` and the tests of its statements agree.

A test says by `@pytest.mark.statement(16, 17)` which statements it holds.
"""

from __future__ import annotations

import ast
import re
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "merutable-statements.md"
NUMBERS = [*map(str, range(1, 126)), "72a"]
MARK = "pytest.mark.statement"


def rows() -> list[tuple[str, set[str], str]]:
    """Number, names of tests, remark of each row of the page's tables."""
    found = []
    for line in PAGE.read_text().splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if line.startswith("|") and re.fullmatch(r"\d+a?", cells[0]):
            number, _, tests, remark = cells
            found.append((number, set(re.findall(r"`(test_\w+)`", tests)), remark))
    return found


def marked() -> dict[str, set[str]]:
    """Name of a test -> numbers of the statements that it says it holds; the tests without any too."""
    numbers_by_test: dict[str, set[str]] = defaultdict(set)
    for file in (ROOT / "tests").rglob("test_*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
                numbers_by_test[node.name].update(marks(node))
    return numbers_by_test


def marks(test: ast.FunctionDef) -> Iterator[str]:
    for mark in test.decorator_list:
        if isinstance(mark, ast.Call) and ast.unparse(mark.func) == MARK:
            for argument in mark.args:
                numbers = argument.value if isinstance(argument, ast.Starred) else ast.Tuple([argument])
                yield from map(str, ast.literal_eval(numbers))


def test_each_statement_has_one_row() -> None:
    assert [number for number, count in Counter(number for number, _, _ in rows()).items() if count > 1] == []
    assert {number for number, _, _ in rows()} == set(NUMBERS)


def test_tests_and_rows_name_each_other() -> None:
    by_page = {(number, test) for number, tests, _ in rows() for test in tests}
    by_tests = {(number, test) for test, numbers in marked().items() for number in numbers}
    assert sorted(by_page - by_tests) == [], "named on the page, without the mark"
    assert sorted(by_tests - by_page) == [], "marked, but not named on the page"


def test_a_row_without_a_test_gives_its_reason() -> None:
    assert [number for number, tests, remark in rows() if not tests and not remark] == []
