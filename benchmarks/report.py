"""Makes benchmarks/README.md and its chart out of the results files.

Run: python -m benchmarks.report
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.sax.saxutils import escape

from benchmarks.record import RESULTS
from benchmarks.targets import TARGETS, Document, Target, p99

HERE = Path(__file__).resolve().parent
CHART = "targets.svg"
P99_SAMPLES_MIN = 50
_HEAD = """# Benchmarks

Made by `python -m benchmarks.report` from `benchmarks/results/*.json`; don't edit it. Each file there has
every sample, the versions, and the machine with its load. These machines are noisy: read the ratios, whose
two sides took turns in one run.

`make bench` measures everything anew (under 40 minutes) and makes this page; `make bench-quick` prints a
small edition and keeps nothing. Two have commands of their own: `make bench-long` (`memory`: ten minutes
under load; what `make bench` keeps of it is `memory_short`, one minute) and `make bench-peers`.

Freshness is the time of the answer minus the commit's stamp by the primary. All processes ran on one
machine, so their clocks are one, and the offset is zero. The stamp is given before the commit is synced,
which takes a disk its time before anybody could see it; "acknowledged" is when the writer had its answer. So
the primary's data lie once on the disk and once in memory.
"""


@dataclass(frozen=True, slots=True)
class Measured:
    """A target with what was measured; None where no results file tells."""

    target: Target
    value: float | None

    @property
    def text(self) -> str:
        return "not measured" if self.value is None else f"{_number(self.value)} {self.target.unit}"

    @property
    def bound(self) -> str:
        sign = "≥" if self.target.is_floor else "≤"
        return f"{sign} {_number(self.target.bound)} {self.target.unit}"

    @property
    def verdict(self) -> str:
        if self.value is None:
            return ""
        return "yes" if self.target.is_reached(self.value) else "**no**"

    @property
    def headroom(self) -> float | None:
        """How many times better than the target it is; below 1 it isn't reached."""
        if not self.value or not self.target.bound:
            return None
        share = self.value / self.target.bound
        return share if self.target.is_floor else 1 / share


def main() -> None:
    documents = {path.stem: json.loads(path.read_text()) for path in sorted(RESULTS.glob("*.json"))}
    found = [Measured(target, _value(documents, target)) for target in TARGETS]
    (HERE / CHART).write_text(chart([one for one in found if one.headroom is not None]))
    (HERE / "README.md").write_text("\n".join(_page(found, documents)) + "\n")
    reached = sum(one.verdict == "yes" for one in found)
    print(f"{reached} of {len(found)} targets are reached; see benchmarks/README.md")


def _value(documents: dict[str, Document], target: Target) -> float | None:
    """None where there is no such file, or it lacks the series, as after a run with other sizes."""
    try:
        return target.measure(documents[target.file])
    except KeyError:
        return None


def _page(found: Sequence[Measured], documents: dict[str, Document]) -> Iterator[str]:
    yield _HEAD
    yield f"![How far each target is reached]({CHART})\n"
    yield "| what | target | measured | reached | file |"
    yield "|---|---|---|---|---|"
    for one in found:
        yield f"| {one.target.what} | {one.bound} | {one.text} | {one.verdict} | {one.target.file} |"
    yield "\n## Every series\n"
    for name, document in documents.items():
        yield from _section(name, document)


def _section(name: str, document: Document) -> Iterator[str]:
    machine, data = document["machine"], document["data"]
    yield f"### {name}\n"
    yield f"{document['question']}\n"
    yield f"Measured {document['measured_at']} on {machine['cores']} cores ({machine['cpu']}), load "
    yield f"{machine['load_average'][0]:.1f}; DuckDB {document['versions'].get('duckdb', '?')}. "
    yield (
        "; ".join(f"{key}: {value}" for key, value in data.items() if not isinstance(value, list | dict))
        + "\n"
    )
    yield "| series | median | p99 | from | to |"
    yield "|---|---|---|---|---|"
    for series, numbers in document["summary"].items():
        unit = document["unit"]
        unit = unit if isinstance(unit, str) else unit.get(series, "")
        median, lowest, highest = (_number(numbers[key]) for key in ("median", "min", "max"))
        yield f"| {series} | {median} {unit} | {_p99(document, series)} | {lowest} | {highest} |"
    yield ""


def _p99(document: Document, series: str) -> str:
    """Empty where there are too few samples to speak of one."""
    if len(document["samples"][series]) < P99_SAMPLES_MIN:
        return ""
    return _number(p99(series)(document))


def _number(value: float) -> str:
    """Three digits, without an exponent."""
    if value == 0 or not math.isfinite(value):
        return f"{value:g}"
    digits = max(0, 2 - math.floor(math.log10(abs(value))))
    return f"{value:,.{digits}f}"


_ROW, _LEFT, _WIDTH, _SPAN = 22, 430, 940, 10.0  # pixels; the scale ends at ten times better or worse


def chart(found: Sequence[Measured]) -> str:
    """An SVG: a bar per target, to the right of the line where it is better than the target."""
    height = _ROW * len(found) + 60
    middle = (_LEFT + _WIDTH) / 2
    half = (_WIDTH - _LEFT) / 2 - 50
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" font-family="sans-serif" '
        'font-size="12" role="img" aria-label="How far each target is reached">',
        f'<rect width="{_WIDTH}" height="{height}" fill="#ffffff"/>',
        f'<text x="{middle:.0f}" y="18" text-anchor="middle" fill="#444444">worse ← target → better '
        "(times, log scale)</text>",
    ]
    for number, one in enumerate(found):
        assert one.headroom is not None, "only what was measured is drawn"
        top = 30 + number * _ROW
        clipped = min(max(one.headroom, 1 / _SPAN), _SPAN)
        length = abs(math.log(clipped)) / math.log(_SPAN) * half
        is_better = one.headroom >= 1
        left = middle if is_better else middle - length
        colour = "#2b8a3e" if is_better else "#c92a2a"
        text_at = middle + length + 4 if is_better else middle - length - 4
        anchor = "start" if is_better else "end"
        lines += [
            f'<text x="{_LEFT - 8}" y="{top + 14}" text-anchor="end" fill="#222222">'
            f"{escape(one.target.what)}</text>",
            f'<rect x="{left:.1f}" y="{top + 3}" width="{max(length, 1):.1f}" height="{_ROW - 8}" '
            f'fill="{colour}"/>',
            f'<text x="{text_at:.1f}" y="{top + 14}" text-anchor="{anchor}" fill="#222222">'
            f"{escape(one.text)}</text>",
        ]
    bottom = 30 + len(found) * _ROW
    lines.append(f'<line x1="{middle}" y1="26" x2="{middle}" y2="{bottom}" stroke="#444444"/>')
    return "\n".join([*lines, "</svg>"]) + "\n"


if __name__ == "__main__":
    main()
