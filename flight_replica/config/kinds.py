"""Kinds of values that a setting can have: what is accepted, and what is expected where it isn't.

Sizes and times may carry a unit (`"4GB"`, `"500MiB"`; `"250ms"`, `"30s"`, `"5m"`). A number alone is in the
unit that the setting's name ends with: bytes, seconds, milliseconds.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import date, time
from pathlib import Path
from typing import Any
from uuid import UUID

from pydantic import GetCoreSchemaHandler, SecretStr
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

__all__ = [
    "ABOVE_ZERO",
    "ADDRESS",
    "BASE",
    "COLUMNS",
    "COUNT",
    "MEMORY",
    "MILLISECONDS",
    "PATH",
    "PLACE",
    "SECONDS",
    "SECONDS_ABOVE_ZERO",
    "SECRET",
    "SEQ",
    "SIZE",
    "SIZE_ABOVE_ZERO",
    "SWITCH",
    "TEXT",
    "TEXTS",
    "TEXT_COLUMNS",
    "UUID_TEXT",
    "WHOLE_MILLISECONDS",
    "Address",
    "Kind",
    "memory_text",
    "one_of",
    "size_text",
]

Address = tuple[str, int]  # host and port

_BYTES_BY_UNIT = {
    "b": 1,
    "kb": 10**3,
    "mb": 10**6,
    "gb": 10**9,
    "tb": 10**12,
    "kib": 1 << 10,
    "mib": 1 << 20,
    "gib": 1 << 30,
    "tib": 1 << 40,
}
_SECONDS_BY_UNIT = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}
_WITH_UNIT = re.compile(r"([0-9]+(?:\.[0-9]+)?) ?([A-Za-z]+)", re.ASCII)
_NUMBER = re.compile(r"[0-9]+(?:\.[0-9]+)?", re.ASCII)
_FOUND_CHARACTERS_MAX = 60  # of a wrong value in an error
_AMOUNT_MAX = (1 << 63) - 1  # of bytes, ops, things; DuckDB and Arrow count in int64
_SEQ_MAX = (1 << 64) - 1
_SECONDS_MAX = 100 * 365 * 86_400.0  # Python waits for 292 years at most, and with OverflowError beyond


class _TooMuch(ValueError):
    """Right, but beyond what can be counted or waited for."""

    def __init__(self, at_most: str) -> None:
        super().__init__(at_most)
        self.at_most = at_most


@dataclass(frozen=True, slots=True)
class Kind:
    """Stands in a setting's annotation: `Annotated[int, COUNT]`."""

    expected: str
    """Behind "expected "."""

    read: Callable[[object], object]
    """A value as TOML has it to the value of the setting. Raises `ValueError`."""

    of_text: Callable[[str], object] = str
    """The text of a flag or variable to a value as TOML has it; text that is none of the kind stays text."""

    choices: tuple[str, ...] = ()

    below: Callable[[Path, str], str] | None = None
    """The same value where it stands in a file of this folder; None: it means the same everywhere."""

    def __get_pydantic_core_schema__(self, source: object, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(self._validated)

    def _validated(self, value: object) -> object:
        try:
            return self.read(value)
        except ValueError as error:
            # The value isn't repeated: the setting may be a secret, which this doesn't know.
            raise PydanticCustomError(
                "kind", "expected {expected}", {"expected": self.instead(error)}
            ) from None

    def instead(self, error: ValueError) -> str:
        """What was expected, where reading a value raised this."""
        return f"at most {error.at_most}" if isinstance(error, _TooMuch) else self.expected

    def of_flag(self, text: str) -> object:
        """The value of a flag's text. Raises `ValueError`."""
        return self.read(self.of_text(text))


def found(value: object) -> str:
    """A wrong value in an error's text: as TOML would write it, cut."""
    match value:
        case dict():
            return "a table"
        case date() | time():
            text = value.isoformat()
        case _:
            text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= _FOUND_CHARACTERS_MAX else text[:_FOUND_CHARACTERS_MAX] + "…"


def size_text(size_bytes: int) -> str:
    """With the largest unit that leaves it whole, such as 64MiB."""
    for unit in ("TiB", "GiB", "MiB", "KiB"):
        amount, rest = divmod(size_bytes, int(_BYTES_BY_UNIT[unit.lower()]))
        if amount and not rest:
            return f"{amount}{unit}"
    return f"{size_bytes}B"


def memory_text(size_bytes: int | None) -> str | None:
    """A memory limit as DuckDB takes it."""
    return f"{size_bytes}B" if size_bytes is not None else None


# --- reading --------------------------------------------------------------------------------------------


def _whole(value: object, most: int = _AMOUNT_MAX) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise ValueError
    if value > most:
        raise _TooMuch(str(most))
    return value


def _seq(value: object) -> int:
    return _whole(value, _SEQ_MAX)


def _number(text: str) -> float:
    """What digits, with or without a point, say; exact where it can be counted."""
    return int(text) if "." not in text and len(text) <= len(str(_SEQ_MAX)) else float(text)


def _with_unit(text: str, units: Mapping[str, float]) -> float:
    matched = _WITH_UNIT.fullmatch(text.strip())
    if matched is None or matched[2].lower() not in units:
        raise ValueError
    return _number(matched[1]) * units[matched[2].lower()]


def _size(value: object) -> int:
    if isinstance(value, str):
        amount = _with_unit(value, _BYTES_BY_UNIT)
        return _whole(int(amount) if amount < math.inf else _AMOUNT_MAX + 1)
    return _whole(value)


def _duration(value: object, unit: float) -> float:
    """In `unit`, which is in seconds."""
    if isinstance(value, str):
        amount = round(
            _with_unit(value, _SECONDS_BY_UNIT) / unit, 9
        )  # 250 ms are 250.0, not 249.99999999999997
    elif isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < math.inf:
        amount = value
    else:
        raise ValueError
    if amount > _SECONDS_MAX / unit:
        raise _TooMuch("100 years")
    return float(amount)


def _text(value: object) -> str:
    if not isinstance(value, str) or not value:
        raise ValueError
    return value


def _texts(value: object) -> tuple[str, ...]:
    if not isinstance(value, list | tuple):
        raise ValueError
    return tuple(_text(element) for element in value)


def _columns(value: object) -> tuple[str, ...]:
    return _texts(value.split(",") if isinstance(value, str) else value)


def _text_columns(value: object) -> str:
    return _text(",".join(_texts(value)) if isinstance(value, list) else value)


def _secret(value: object) -> SecretStr:
    return SecretStr(_text(value))


def _switch(value: object) -> bool:
    if not isinstance(value, bool):
        raise ValueError
    return value


def _path(value: object) -> Path:
    return Path(_text(value))


def _below(folder: Path, path: str) -> str:
    return str(folder / path)


def _base_below(folder: Path, base: str) -> str:
    kind, _, place = base.partition(":")
    is_local = kind in ("merutable", "iceberg") and place and "://" not in place
    return f"{kind}:{folder / place}" if is_local and not place.startswith("catalog:") else base


def _address(value: object) -> Address:
    host, _, port = _text(value).rpartition(":")
    if not host or not (port.isascii() and port.isdecimal()) or int(port) > 65_535:
        raise ValueError
    return host.strip("[]"), int(port)


def _uuid(value: object) -> UUID:
    return UUID(_text(value))


def _above_zero(read: Callable[[object], Any]) -> Callable[[object], object]:
    def checked(value: object) -> object:
        amount = read(value)
        if amount <= 0:
            raise ValueError
        return amount

    return checked


def _number_of(text: str) -> object:
    """The number that the text is, or else the text."""
    if not _NUMBER.fullmatch(text):
        return text
    return _number(text)


def _switch_of(text: str) -> object:
    return {"true": True, "false": False}.get(text.lower(), text)


def _texts_of(text: str) -> object:
    return text.split(",")


# --- kinds ----------------------------------------------------------------------------------------------

COUNT = Kind("a number from 0", _whole, _number_of)
ABOVE_ZERO = replace(COUNT, expected="a number above 0", read=_above_zero(_whole))
SIZE = Kind('bytes, or a size such as "4GB" or "500MiB"', _size, _number_of)
SIZE_ABOVE_ZERO = Kind(
    'a number above 0 of bytes, or a size such as "500MiB"', _above_zero(_size), _number_of
)
MEMORY = Kind('a size such as "4GB" or "500MiB"', _above_zero(_size), _number_of)
SECONDS = Kind(
    'seconds from 0, or a time such as "30s" or "5m"', lambda value: _duration(value, 1.0), _number_of
)
SECONDS_ABOVE_ZERO = Kind(
    'a number above 0 of seconds, or a time such as "30s" or "5m"',
    _above_zero(lambda value: _duration(value, 1.0)),
    _number_of,
)
MILLISECONDS = Kind(
    'milliseconds from 0, or a time such as "250ms" or "1s"', lambda value: _duration(value, 1e-3), _number_of
)
WHOLE_MILLISECONDS = Kind(
    'a number above 0 of milliseconds, or a time such as "250ms" or "1s"',
    _above_zero(lambda value: round(_duration(value, 1e-3))),
    _number_of,
)
SWITCH = Kind("true or false", _switch, _switch_of)
TEXT = Kind("a text", _text)
TEXTS = Kind("a list of texts", _texts, _texts_of)
COLUMNS = Kind('columns, such as "a,b" or ["a", "b"]', _columns)
TEXT_COLUMNS = Kind('columns, such as "*" or ["a", "b?"]', _text_columns)
SEQ = Kind("a seq", _seq, _number_of)
SECRET = Kind("a text", _secret)
PATH = Kind("the path of a file", _path, below=_below)
PLACE = Kind("the path of a directory", _path, below=_below)
BASE = Kind("KIND:PLACE", _text, below=_base_below)
ADDRESS = Kind("HOST:PORT", _address)
UUID_TEXT = Kind("a UUID", _uuid)


def one_of(*choices: str) -> Kind:
    """One of these texts."""

    def read(value: object) -> str:
        if value not in choices:
            raise ValueError
        return str(value)

    return Kind(" or ".join(f'"{choice}"' for choice in choices), read, choices=choices)
