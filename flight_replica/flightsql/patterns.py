"""SQL patterns of names, as the metadata commands have them: `%` any run, `_` one character, `\\` escapes.

Matched in time proportional to pattern times name at most, whatever the pattern: clients write them.
"""

from __future__ import annotations

from enum import Enum

from flight_replica.errors import LimitExceeded
from flight_replica.sql.statement import fold

__all__ = ["NamePattern"]

_CHARACTERS_MAX = 10_000


class _Wild(Enum):
    RUN = "%"
    ONE = "_"


class NamePattern:
    """One pattern; ignores the case of ASCII letters, as names do here."""

    def __init__(self, text: str) -> None:
        """Raises `LimitExceeded` for a text that no name is like."""
        if len(text) > _CHARACTERS_MAX:
            raise LimitExceeded(f"a name pattern of more than {_CHARACTERS_MAX} characters")
        self._parts: list[str | _Wild] = []
        signs = iter(fold(text))
        for sign in signs:
            if sign == _Wild.RUN.value:
                if self._parts[-1:] != [_Wild.RUN]:
                    self._parts.append(_Wild.RUN)
            elif sign == _Wild.ONE.value:
                self._parts.append(_Wild.ONE)
            else:
                self._parts.append(next(signs, sign) if sign == "\\" else sign)

    def matches(self, name: str) -> bool:
        """Whether the whole of `name` is like the pattern."""
        parts, text = self._parts, fold(name)
        at = part = 0
        run_part, run_at = -1, 0  # the last run seen, and where the text behind it is taken to begin
        while at < len(text):
            wanted = parts[part] if part < len(parts) else None
            if wanted is _Wild.RUN:
                run_part, run_at = part, at
                part += 1
            elif wanted is _Wild.ONE or wanted == text[at]:
                part, at = part + 1, at + 1
            elif run_part >= 0:  # the run takes one character more
                run_at += 1
                part, at = run_part + 1, run_at
            else:
                return False
        return all(rest is _Wild.RUN for rest in parts[part : part + 2])
