"""`Happenings`: what has happened lately, for people: events of the log about tables, and what is worse.

It listens to the log of this package, so that what the page tells is what the log tells; see logs/.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace

from flight_replica.logs.events import Event, event_of

KEPT = 200
TEXT_CHARACTERS_MAX = 500

_LEVELS = ((logging.ERROR, "bad"), (logging.WARNING, "warning"))


@dataclass(frozen=True, slots=True)
class Happening:
    """One line of the list. `table` is empty where it isn't about one table."""

    id: int  # ascending, from 1 with each start
    time_ms: int  # since 1970, on this host's clock
    level: str  # good, info, warning, bad
    table: str
    text: str
    event: str = ""  # what kind of thing it is, where it is out of the log
    times: int = 1  # how often it happened, one right after the other
    replaces: int = 0  # the id of the one before, which this one tells too; 0: none

    def as_json(self) -> dict[str, object]:
        return {
            "id": self.id,
            "time_ms": self.time_ms,
            "level": self.level,
            "table": self.table,
            "text": self.text if self.times == 1 else f"{self.text} ({self.times} times in a row)",
            "replaces": self.replaces,
        }


class Happenings(logging.Handler):
    """The newest `KEPT` ones. Thread-safe. Listens from `listen` to `close`."""

    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self._guard = threading.Lock()
        self._kept: deque[Happening] = deque(maxlen=KEPT)
        self._last_id = 0
        self._logger: logging.Logger | None = None

    def listen(self, logger: logging.Logger) -> None:
        """Keep what this logger and those below it tell, where its level lets it through."""
        self._logger = logger
        logger.addHandler(self)

    def close(self) -> None:
        """Stop listening. Idempotent."""
        if self._logger is not None:
            self._logger.removeHandler(self)
            self._logger = None
        super().close()

    def emit(self, record: logging.LogRecord) -> None:
        event = event_of(record)
        table = event.fields.get("table")
        if table is None and record.levelno < logging.WARNING:
            return  # about no table, and nothing wrong
        if event.text == _SAID_TWICE:
            return
        level = next((name for least, name in _LEVELS if record.levelno >= least), "")
        level = level or _tone(event)
        self._keep(int(record.created * 1000), level, str(table or ""), _text(event), event.text)

    def add(self, time_ms: int, level: str, table: str, text: str) -> None:
        """Tell something that isn't in the log."""
        self._keep(time_ms, level, table, text, "")

    def _keep(self, time_ms: int, level: str, table: str, text: str, event: str) -> None:
        text = text if len(text) <= TEXT_CHARACTERS_MAX else text[: TEXT_CHARACTERS_MAX - 1] + "…"
        with self._guard:
            self._last_id += 1
            found = Happening(self._last_id, time_ms, level, table, text, event)
            before = next((one for one in reversed(self._kept) if one.table == table), None)
            if event in _ROUTINE and before is not None and before.event == event:
                self._kept.remove(before)
                found = replace(found, times=before.times + 1, replaces=before.id)
            self._kept.append(found)

    def after(self, last_id: int, may_see: Callable[[Happening], bool]) -> list[Happening]:
        """Those after the one of this id that may be seen, ascending."""
        with self._guard:
            return [found for found in self._kept if found.id > last_id and may_see(found)]


_SAID_TWICE = "table serving"  # the table's new state was told just before
_ROUTINE = ("rebased", "base loaded", "base copied")  # told once for many, or they would push all else out
_GOOD = ("native state built", "recovered from a log gap", "feed flows again")


def _tone(event: Event) -> str:
    if event.text == "table state":
        return {"serving": "good", "degraded": "warning"}.get(str(event.fields.get("state")), "info")
    return "good" if event.text in _GOOD else "info"


def _text(event: Event) -> str:
    """The event and its fields but the table, which has a column of its own."""
    if event.text == "table state":
        reason = event.fields.get("reason")
        return f"{event.fields.get('state')}: {reason}" if reason else str(event.fields.get("state"))
    fields = [f"{name.replace('_', ' ')} {value}" for name, value in event.fields.items() if name != "table"]
    return f"{event.text}: {', '.join(fields)}" if fields else event.text
