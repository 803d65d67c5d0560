"""Every class of error has its entry in docs/troubleshooting.md, with the code that clients get."""

from __future__ import annotations

import importlib
import pkgutil
import re

import adbc_driver_manager
import pytest

import flight_replica
from flight_replica.errors import ReplicaError
from flight_replica.flightsql.status import Code, code_of
from tests.doc_blocks import ROOT

PAGE = (ROOT / "docs" / "troubleshooting.md").read_text()
ENTRY = re.compile(
    r"^### [^\n]+\n`(\w+)`(?: \(`([\w/.]+)`\))? · ([A-Z_]+) · (not )?retryable$\n(.*?)(?=^##)",
    re.MULTILINE | re.DOTALL,
)
ENTRIES = {found[1]: found for found in ENTRY.finditer(PAGE)}


def classes() -> list[type[ReplicaError]]:
    """Every class of error of the package but those that never leave their module."""
    for module in pkgutil.walk_packages(flight_replica.__path__, "flight_replica."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    found, new = [], [ReplicaError]
    while new:
        found.append(new.pop())
        new += found[-1].__subclasses__()
    return sorted((kind for kind in found if _is_ours(kind)), key=lambda kind: kind.__name__)


def _is_ours(kind: type[ReplicaError]) -> bool:
    return kind.__module__.startswith("flight_replica.") and not kind.__name__.startswith("_")


@pytest.mark.parametrize("kind", classes(), ids=lambda kind: kind.__name__)
def test_every_class_of_error_has_an_entry_that_says_what_to_do(kind: type[ReplicaError]) -> None:
    entry = ENTRIES.get(kind.__name__)
    assert entry, f"docs/troubleshooting.md has no entry for {kind.__name__}"
    _, file, code, is_not, text = entry.groups()
    assert kind.__module__ == (file or "flight_replica/errors.py").removesuffix(".py").replace("/", ".")
    assert code == code_of(kind.__new__(kind)), kind.__name__
    assert (is_not is None) == kind.retryable
    assert kind is ReplicaError or re.search(r"^\*\*Do\*\*: \S", text, re.MULTILINE)


def test_no_entry_is_of_a_class_that_is_gone() -> None:
    assert ENTRIES.keys() <= {kind.__name__ for kind in classes()}


def test_every_code_stands_in_the_table_with_what_adbc_makes_of_it() -> None:
    table = PAGE[PAGE.index("## Codes") :]
    rows = re.findall(r"^\| ([A-Z_]+) \|[^|]*\| ([^|]*) \|", table, re.MULTILINE)
    assert {code for code, _ in rows} == {code.value for code in Code}
    for _, raised in rows:
        for name in re.findall(r"`(\w+)`", raised):
            assert issubclass(getattr(adbc_driver_manager, name), adbc_driver_manager.Error)
