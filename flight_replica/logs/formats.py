"""Lines of a log: `HumanFormat` and `JsonFormat`. Either gives one line a record, whatever is in it."""

from __future__ import annotations

import json
import logging
import re
import traceback
from datetime import UTC, datetime
from typing import Any

from flight_replica.logs.events import FIELDS, event_of
from flight_replica.logs.request import current_request

TRACEBACK_FRAMES = 50

# What a terminal or a reader of lines takes for more than a sign: control characters, ends of lines of any
# kind, and marks that turn the direction of text.
_SPECIAL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
_SHORT = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}


class HumanFormat(logging.Formatter):
    """`2026-11-25 21:04:11,123 INFO flight_replica.base.source base copied table=orders files=3 …`"""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s %(message)s")

    def format(self, record: logging.LogRecord) -> str:
        record.message = record.getMessage()
        record.asctime = self.formatTime(record)
        parts = [self.formatMessage(record)]
        parts += [f"{name}={value}" for name, value in getattr(record, FIELDS, {}).items()]
        if (request_id := current_request()) is not None:
            parts.append(f"request_id={request_id}")
        if (exception := _exception(record)) is not None:
            parts.append(f"exception={exception}")
        return one_line(" ".join(parts))


class JsonFormat(logging.Formatter):
    """One object a line: `ts` (RFC 3339, UTC), `level`, `logger`, `event`, then the event's fields, and
    `request_id` and `exception` where there are any.
    """

    def format(self, record: logging.LogRecord) -> str:
        event = event_of(record)
        found: dict[str, object] = {
            "ts": _timestamp(record.created),
            "level": record.levelname,
            "logger": record.name,
            "event": event.text,
        }
        if (request_id := current_request()) is not None:
            found["request_id"] = request_id
        for name, value in event.fields.items():
            found.setdefault(name, value)
        if (exception := _exception(record)) is not None:
            found["exception"] = exception
        return json.dumps(found)  # ASCII: no sign in it ends a line


def one_line(text: str) -> str:
    """`text` with escapes in the place of what would end its line or play with a terminal."""
    return _SPECIAL.sub(_escape, text)


def _escape(found: re.Match[str]) -> str:
    sign = found[0]
    if sign in _SHORT:
        return _SHORT[sign]
    return f"\\x{ord(sign):02x}" if ord(sign) < 256 else f"\\u{ord(sign):04x}"


def _timestamp(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def _exception(record: logging.LogRecord) -> str | None:
    """The traceback in full, whatever `sys.tracebacklimit` is; None where the record has none."""
    if not record.exc_info or record.exc_info[0] is None:
        return None
    exc_info: Any = record.exc_info
    return "".join(traceback.format_exception(*exc_info, limit=TRACEBACK_FRAMES)).rstrip()
