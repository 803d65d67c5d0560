"""Values as people read them, and messages as JSON."""

from __future__ import annotations

from collections.abc import Mapping

from google.protobuf.message import Message

_UNITS = ((1 << 40, "TiB"), (1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB"))


def printable(text: str) -> str:
    """The text on one line, with nothing in it that moves a terminal's cursor."""
    return "".join(sign if sign.isprintable() else "�" for sign in text.replace("\n", " ").replace("\t", " "))


def age(us: int) -> str:
    """A time in µs; −1 isn't known."""
    if us < 0:
        return "unknown"
    return f"{us / 1000:.0f} ms" if us < 10_000_000 else duration(us / 1_000_000)


def duration(seconds: float) -> str:
    """At most two units."""
    whole = int(seconds)
    if seconds < 10:
        return f"{seconds:.1f} s"
    for unit, size, below, part in (("d", 86_400, "h", 3_600), ("h", 3_600, "min", 60), ("min", 60, "s", 1)):
        if whole >= size:
            return f"{whole // size} {unit} {whole % size // part} {below}"
    return f"{whole} s"


def count(number: int) -> str:
    """With thin groups of three."""
    return f"{number:,}".replace(",", " ")


def size(number: int) -> str:
    for unit, name in _UNITS:
        if number >= unit:
            return f"{number / unit:.1f} {name}"
    return f"{number} B"


def as_json(message: Message) -> dict[str, object]:
    """Every field by its name, those that are empty too; numbers as numbers. `null`: not set."""
    found: dict[str, object] = {}
    for field in message.DESCRIPTOR.fields:
        if field.has_presence and not message.HasField(field.name):
            found[field.name] = None
        else:
            found[field.name] = _plain(getattr(message, field.name))
    return found


def _plain(value: object) -> object:
    match value:
        case Message():
            return as_json(value)
        case str() | int() | float():
            return value
        case Mapping():
            return {str(key): _plain(value[key]) for key in sorted(value)}
    return [_plain(part) for part in value]  # type: ignore[attr-defined]
