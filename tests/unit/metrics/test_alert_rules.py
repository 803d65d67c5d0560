"""Alert rules and board: every expression parses, and asks for metrics and labels that are there."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import promql_parser
import pytest
import yaml

from tests.metric_families import every_family, every_name

ROOT = Path(__file__).resolve().parents[3]
RULES = ROOT / "deploy/alerts/flight-replica.rules.yml"
BOARD = ROOT / "deploy/grafana/flight-replica.json"
PAGE = ROOT / "docs/operations/alerts.md"
# What Prometheus itself puts on everything, and what Grafana puts into an expression.
SCRAPED = {"job", "instance"}
VARIABLES = {"$__rate_interval": "5m", "$job": ".*", "$instance": ".*", "$table": ".*"}

needs_promtool = pytest.mark.skipif(
    shutil.which("promtool") is None, reason="promtool isn't installed (Debian's package prometheus has it)"
)


@pytest.fixture(scope="module")
def labels_by_name(tmp_path_factory: pytest.TempPathFactory) -> dict[str, set[str]]:
    names = every_name(every_family(tmp_path_factory.mktemp("metrics")))
    return {name: labels | SCRAPED for name, labels in {**names, "up": set()}.items()}


def _rules() -> list[dict[str, Any]]:
    (group,) = yaml.safe_load(RULES.read_text())["groups"]
    return list(group["rules"])


def _panels() -> list[dict[str, Any]]:
    return list(json.loads(BOARD.read_text())["panels"])


def _expressions() -> Iterator[tuple[str, str]]:
    """Where each stands, and its text with the variables filled in."""
    for rule in _rules():
        yield rule["alert"], rule["expr"]
    for panel in _panels():
        for target in panel.get("targets", ()):
            text = target["expr"]
            for name, value in VARIABLES.items():
                text = text.replace(name, value)
            yield f"{panel['title']} {target['refId']}", text


@pytest.mark.parametrize(("place", "text"), list(_expressions()), ids=lambda value: value[:40])
def test_an_expression_parses_and_asks_for_what_is_there(
    place: str, text: str, labels_by_name: dict[str, set[str]]
) -> None:
    assert "$" not in text
    found = list(_selectors(promql_parser.parse(text)))
    assert found
    for name, labels in found:
        assert name in labels_by_name, name
        assert labels <= labels_by_name[name], name


def _selectors(expression: Any) -> Iterator[tuple[str, set[str]]]:
    """The metrics that are asked for, with the labels that are matched."""
    match expression:
        case promql_parser.VectorSelector():
            yield expression.name, {matcher.name for matcher in expression.matchers.matchers}
        case promql_parser.MatrixSelector():
            yield from _selectors(expression.vector_selector)
        case promql_parser.BinaryExpr():
            yield from _selectors(expression.lhs)
            yield from _selectors(expression.rhs)
        case promql_parser.Call():
            for argument in expression.args:
                yield from _selectors(argument)
        case promql_parser.AggregateExpr() | promql_parser.ParenExpr() | promql_parser.UnaryExpr():
            yield from _selectors(expression.expr)
        case promql_parser.NumberLiteral() | promql_parser.StringLiteral():
            return
        case other:
            raise AssertionError(f"an expression of kind {type(other)}")


def test_every_rule_says_how_bad_it_is_what_it_means_and_what_to_do() -> None:
    page = PAGE.read_text()
    headings = {heading.lower() for heading in re.findall(r"^## (\w+)$", page, re.MULTILINE)}
    listed = re.findall(r"^\| \[(\w+)\]\(#(\w+)\) \| (\w+) \|", page, re.MULTILINE)
    rules = _rules()
    assert listed == [(rule["alert"], rule["alert"].lower(), rule["labels"]["severity"]) for rule in rules]
    for rule in rules:
        assert rule["labels"]["severity"] in ("critical", "warning", "info")
        assert set(rule["annotations"]) == {"summary", "description", "action", "runbook"}
        page_name, _, anchor = rule["annotations"]["runbook"].partition("#")
        assert ROOT / page_name == PAGE
        assert anchor == rule["alert"].lower()
        assert anchor in headings


def test_the_board_opens_its_panels_side_by_side() -> None:
    board = json.loads(BOARD.read_text())
    assert (board["uid"], board["schemaVersion"]) == ("flight-replica", 39)
    assert len({panel["id"] for panel in board["panels"]}) == len(board["panels"])
    taken: set[tuple[int, int]] = set()
    for panel in board["panels"]:
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert at["x"] + at["w"] <= 24, panel["title"]
        assert not cells & taken, panel["title"]
        taken |= cells
        if panel["type"] != "row":
            assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
            assert panel["type"] in ("timeseries", "stat", "table")
            assert panel["targets"]
    names = [variable["name"] for variable in board["templating"]["list"]]
    assert names == ["datasource", "job", "instance", "table"]


def test_every_metric_is_used_or_left_out_on_purpose(labels_by_name: dict[str, set[str]]) -> None:
    """What a metric is for should show: on the board, or in a rule."""
    used = {name for _, text in _expressions() for name, _ in _selectors(promql_parser.parse(text))}
    families = {re.sub("_(bucket|count|sum)$", "", name) for name in used}
    ours = {
        re.sub("_(bucket|count|sum)$", "", name)
        for name in labels_by_name
        if name.startswith("flight_replica_")
    }
    assert ours - families == {
        "flight_replica_build_info",  # the board's variables come from it
        "flight_replica_draining",
        "flight_replica_database_up",  # a process whose database is lost ends itself
        "flight_replica_query_oldest_seconds",
        "flight_replica_query_places",
        "flight_replica_transactions_holding",
        "flight_replica_table_commit_timestamp_seconds",
        "flight_replica_table_high_water_seq",
        "flight_replica_table_low_water_seq",
    }


@needs_promtool
def test_promtool_takes_the_rules() -> None:
    _promtool("check", "rules", str(RULES))


@needs_promtool
def test_each_rule_fires_when_it_should_and_not_before() -> None:
    tests = RULES.with_name("flight-replica.test.yml")
    _promtool("test", "rules", str(tests))
    named = set(re.findall(r'alertname(?:="|: )(\w+)', tests.read_text()))
    assert named == {rule["alert"] for rule in _rules()}


def _promtool(*arguments: str) -> None:
    done = subprocess.run(["promtool", *arguments], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
