"""Where each key of a TOML text stands. tomllib reads the values and says nothing of lines.

The text has been read by tomllib before, so it is valid: this only has to follow it, not to check it.
"""

from __future__ import annotations

import re
import tomllib
from bisect import bisect_right
from collections.abc import Mapping

__all__ = ["KeyPath", "key_lines"]

KeyPath = tuple[str | int, ...]  # names of tables and keys, numbers of elements

_BLANK = re.compile(r"(?:[ \t\r\n]|#[^\n]*)*")
_SPACE = re.compile(r"[ \t]*")
_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")
# A text in quotes: the long forms first, since the short ones match their beginning. A long one may end with
# up to two quotes of its own in front of the three.
_QUOTED = re.compile(
    r'"""(?:[^\\]|\\.)*?"{3,5}(?!")|'
    r"'''.*?'{3,5}(?!')|"
    r'"(?:[^"\\]|\\.)*"|'
    r"'[^']*'",
    re.DOTALL,
)
_PLAIN = re.compile(r"[^,\]}#\n]*")  # a number, a truth value or a time


def key_lines(text: str) -> Mapping[KeyPath, int]:
    """The line, from 1, of each key, table and element of a valid TOML text; of the first mention."""
    return _Scanner(text).scan()


class _Scanner:
    """One pass over one text."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._line_ends = [match.start() for match in re.finditer("\n", text)]
        self._lines: dict[KeyPath, int] = {}
        self._last_element: dict[KeyPath, int] = {}  # array of tables -> number of its last one

    def scan(self) -> Mapping[KeyPath, int]:
        table: KeyPath = ()
        self._skip(_BLANK)
        while self._at < len(self._text):
            if self._text[self._at] == "[":
                table = self._header()
            else:
                self._pair(table)
            self._skip(_BLANK)
        return self._lines

    def _header(self) -> KeyPath:
        is_array = self._text.startswith("[[", self._at)
        self._at += 2 if is_array else 1
        names = self._key()
        line = self._line()
        path: KeyPath = ()
        for name in names[:-1]:
            path = self._within((*path, name), line)
        path = (*path, names[-1])
        if is_array:
            self._last_element[path] = self._last_element.get(path, -1) + 1
        path = self._within(path, line)
        self._at = self._text.index("]", self._at) + (2 if is_array else 1)
        return path

    def _within(self, path: KeyPath, line: int) -> KeyPath:
        """`path`, or the last element of the array of tables that it is."""
        self._lines.setdefault(path, line)
        if path in self._last_element:
            path = (*path, self._last_element[path])
            self._lines.setdefault(path, line)
        return path

    def _pair(self, table: KeyPath) -> None:
        line = self._line()
        path = table
        for name in self._key():
            path = (*path, name)
            self._lines.setdefault(path, line)
        self._at = self._text.index("=", self._at) + 1
        self._skip(_SPACE)
        self._value(path)

    def _key(self) -> list[str]:
        names = []
        while True:
            self._skip(_SPACE)
            quoted = _QUOTED.match(self._text, self._at)
            if quoted is not None:
                names.append(str(tomllib.loads(f"name = {quoted[0]}")["name"]))
                self._at = quoted.end()
            else:
                bare = _BARE_KEY.match(self._text, self._at)
                assert bare is not None, "the text is valid"
                names.append(bare[0])
                self._at = bare.end()
            self._skip(_SPACE)
            if self._text[self._at] != ".":
                return names
            self._at += 1

    def _value(self, path: KeyPath) -> None:
        match self._text[self._at]:
            case "[":
                self._elements(path)
            case "{":
                self._at += 1
                self._skip(_BLANK)
                while self._text[self._at] != "}":
                    self._pair(path)
                    self._skip_comma()
                self._at += 1
            case '"' | "'":
                self._skip(_QUOTED)
            case _:
                self._skip(_PLAIN)

    def _elements(self, path: KeyPath) -> None:
        self._at += 1
        self._skip(_BLANK)
        number = 0
        while self._text[self._at] != "]":
            self._lines[(*path, number)] = self._line()
            self._value((*path, number))
            self._skip_comma()
            number += 1
        self._at += 1

    def _skip_comma(self) -> None:
        self._skip(_BLANK)
        if self._text[self._at] == ",":
            self._at += 1
            self._skip(_BLANK)

    def _skip(self, pattern: re.Pattern[str]) -> None:
        found = pattern.match(self._text, self._at)
        assert found is not None, "the text is valid"
        self._at = found.end()

    def _line(self) -> int:
        return bisect_right(self._line_ends, self._at - 1) + 1 if self._at else 1
