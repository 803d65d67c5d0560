"""docs/operations/metrics.md lists every metric as it is."""

from __future__ import annotations

import re
from pathlib import Path

from tests.metric_families import every_family

PAGE = Path(__file__).resolve().parents[3] / "docs/operations/metrics.md"
_ROW = re.compile(r"^\| `(\w+)`(?: \(([\w, ]+)\))? \| (\w+) \| (.+) \|$", re.MULTILINE)


def test_the_page_lists_every_metric_with_its_labels_type_and_meaning(tmp_path: Path) -> None:
    found = set()
    for family in every_family(tmp_path):
        if family.name.startswith("process_"):
            continue
        name = f"{family.name}_total" if family.type == "counter" else family.name
        labels = sorted({label for sample in family.samples for label in sample.labels if label != "le"})
        found.add((name, ", ".join(labels), family.type, family.documentation.removesuffix(".")))
    assert {
        (name, labels, kind, text) for name, labels, kind, text in _ROW.findall(PAGE.read_text())
    } == found
