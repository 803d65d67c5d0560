"""Lines of the log: one an event, whatever is in it, and every message of ours is an event and its fields."""

from __future__ import annotations

import ast
import json
import logging
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from flight_replica.logs.events import FIELDS, is_event
from flight_replica.logs.formats import HumanFormat, JsonFormat
from flight_replica.logs.request import in_request
from flight_replica.logs.setup import report_fault

PACKAGE = Path(__file__).resolve().parents[3] / "flight_replica"
LEVELS = {"debug", "info", "warning", "error", "exception", "critical"}
RESERVED = {"ts", "level", "logger", "event", "request_id", "exception"}
NASTY = 'a=1 "b"\nERROR forged\r\x1b[31m\u2028\u202e\x85 ä 💥'


def record(message: str, *args: object, exc_info: object = None, **fields: object) -> logging.LogRecord:
    made = logging.LogRecord(
        "flight_replica.x",
        logging.INFO,
        __file__,
        1,
        message,
        args,
        exc_info or None,  # type: ignore[arg-type]
    )
    if fields:
        setattr(made, FIELDS, fields)
    return made


def parsed(made: logging.LogRecord) -> dict[str, object]:
    line = JsonFormat().format(made)
    assert len(line.splitlines()) == 1
    found = json.loads(line)
    assert isinstance(found, dict)
    return found


def test_an_event_and_its_fields_come_apart_again_by_the_template() -> None:
    found = parsed(record("base copied table=%s files=%d seconds=%.3f", "a=b c", 3, 0.81649))
    assert found == {
        "ts": found["ts"],
        "level": "INFO",
        "logger": "flight_replica.x",
        "event": "base copied",
        "table": "a=b c",
        "files": 3,
        "seconds": 0.816,
    }


def test_the_time_is_rfc_3339_in_utc() -> None:
    made = record("started")
    made.created = datetime(2026, 1, 2, 3, 4, 5, 60, UTC).timestamp()
    assert parsed(made)["ts"] == "2026-01-02T03:04:05.000060Z"


def test_values_that_json_has_no_kind_for_are_text() -> None:
    found = parsed(
        record("e a=%s b=%s c=%s d=%s", float("nan"), None, ValueError("bad"), [1, {"k": Path("/x")}])
    )
    assert [found[name] for name in "abcd"] == ["nan", None, "bad", [1, {"k": "/x"}]]


def test_fields_that_vary_stand_beside_the_event() -> None:
    made = record("slow query", seconds=2.5, sql="SELECT 1")
    found = parsed(made)
    assert (found["event"], found["seconds"], found["sql"]) == ("slow query", 2.5, "SELECT 1")
    assert HumanFormat().format(made).endswith("slow query seconds=2.5 sql=SELECT 1")


def test_a_library_s_message_is_all_text() -> None:
    found = parsed(record("gave %d%% of %s: done", 50, "x"))
    assert found["event"] == "gave 50% of x: done"


@pytest.mark.parametrize("form", [HumanFormat(), JsonFormat()])
def test_one_event_is_one_line_whatever_is_in_it(form: logging.Formatter) -> None:
    try:
        raise ValueError(NASTY)
    except ValueError:
        made = record(f"{NASTY} table=%s", NASTY, exc_info=sys.exc_info(), sql=NASTY)
    with in_request("r1"):
        line = form.format(made)
    assert len(line.splitlines()) == 1
    assert "\x1b" not in line and "\u202e" not in line
    assert "Traceback" in line and "r1" in line


def test_a_traceback_is_whole_whatever_the_process_shows_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "tracebacklimit", 0, raising=False)
    try:
        raise ValueError("broken")
    except ValueError:
        made = record("failed", exc_info=sys.exc_info())
    exception = parsed(made)["exception"]
    assert isinstance(exception, str)
    assert "test_formats.py" in exception and exception.endswith("ValueError: broken")


@pytest.mark.parametrize("form", [HumanFormat(), JsonFormat()])
def test_an_error_that_nobody_foresaw_is_one_line_an_event_with_its_traceback(
    form: logging.Formatter, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    try:
        raise ValueError("broken\nin two")
    except ValueError as error:
        report_fault(error)
    (made,) = caplog.records
    line = form.format(made)
    assert len(line.splitlines()) == 1 and "test_formats.py" in line
    assert capsys.readouterr().err.splitlines()[-1] == "flight-replica: broken\\nin two"


# --- the messages of this package -------------------------------------------------------------------


def messages() -> Iterator[tuple[str, ast.Call]]:
    """Place and call, of every log call in the package."""
    for path in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)):
                continue
            owner = node.func.value
            if node.func.attr in LEVELS and isinstance(owner, ast.Name) and owner.id in ("logger", "_log"):
                yield f"{path.relative_to(PACKAGE)}:{node.lineno}", node


def test_every_message_is_an_event_and_then_its_fields() -> None:
    found = list(messages())
    assert len(found) > 40
    for place, call in found:
        message = call.args[0]
        assert isinstance(message, ast.Constant) and isinstance(message.value, str), f"{place}: no plain text"
        assert is_event(message.value), f"{place}: {message.value!r} isn't `event field=%s …`"
        names = {part.partition("=")[0] for part in message.value.split() if "=%" in part}
        assert not names & RESERVED, f"{place}: a field of this name is in every line"
