"""A log record as an event and its fields."""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

# An event, then fields: `base loaded table=%s seconds=%.3f`.
_TEMPLATE = re.compile(r"(?P<event>[^%=]*[^%= ])(?P<fields>(?: \w+=%[-+0-9.]*[a-z])*)")
_FIELD = re.compile(r" (\w+)=%([-+0-9.]*[a-z])")
_DECIMALS = re.compile(r"\.(\d+)f")

FIELDS = "fields"  # the attribute of a record that holds more fields, for events whose fields vary


@dataclass(frozen=True, slots=True)
class Event:
    """`fields`: name -> what JSON has for its value."""

    text: str
    fields: Mapping[str, object]


def event_of(record: logging.LogRecord) -> Event:
    """The event of a record. One whose message is no template of ours is all text, without fields."""
    more: Mapping[str, object] = getattr(record, FIELDS, {})
    template = _template(str(record.msg))
    if template is None:
        return Event(record.getMessage(), _plain(more))
    event, names = template
    args = record.args if isinstance(record.args, tuple) else (record.args,) if record.args else ()
    if len(args) != len(names):
        return Event(record.getMessage(), _plain(more))
    found = {name: _rounded(value, kind) for (name, kind), value in zip(names, args, strict=True)}
    return Event(event, _plain({**found, **more}))


@lru_cache(maxsize=1024)
def _template(message: str) -> tuple[str, tuple[tuple[str, str], ...]] | None:
    """The event, and (name, format) of each field; None for what isn't written that way."""
    found = _TEMPLATE.fullmatch(message)
    if found is None:
        return None
    return found["event"], tuple((name, kind) for name, kind in _FIELD.findall(found["fields"]))


def is_event(message: str) -> bool:
    """Whether a log call's message is written as an event and its fields."""
    return _template(message) is not None


def _rounded(value: object, kind: str) -> object:
    decimals = _DECIMALS.fullmatch(kind)
    if decimals is not None and isinstance(value, float):
        return round(value, int(decimals[1]))
    return value


def _plain(fields: Mapping[str, object]) -> dict[str, object]:
    return {name: _json_value(value) for name, value in fields.items()}


def _json_value(value: object) -> object:
    """`value` where JSON has its kind, else its text."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int | str):  # also enums of these, as what they are
        return str(value) if isinstance(value, str) else int(value)
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else str(value)
    if isinstance(value, Mapping):
        return {str(name): _json_value(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [_json_value(part) for part in value]
    return str(value)
