"""What of an error's text a client is told: one line, short, without directories of the server's disk."""

from __future__ import annotations

import re

TEXT_BYTES_MAX = 900  # status texts travel up to three times in headers, which end at 8 KiB

# Directories of an absolute path, in quotes (where names may have spaces), as a URI, or bare.
_QUOTED = re.compile(r"""(?<=['"`])(?:file://)?/(?:[^/'"`\n]+/)+(?=[^/'"`\n]+['"`])""")
_URI = re.compile(r"file:/{1,3}(?:[^/\s'\"]+/)*")
_BARE = re.compile(r"(?<![\w.:/…~-])/(?:[^/\s'\"]+/)+(?=[^/\s'\"])")
_LOOKED_AT = 4 * TEXT_BYTES_MAX  # characters; the patterns take the square of what they look at


def told(text: str, ending: str = "") -> str:
    """`text` as a client is told it, cut to `TEXT_BYTES_MAX` before `ending`."""
    text = _beginning(text.strip())
    for pattern in (_QUOTED, _URI, _BARE):
        text = pattern.sub("…/", text)
    line = " ".join(part for line in text.split("\n") if (part := line.strip()))
    return _cut(line, TEXT_BYTES_MAX - len(ending.encode())) + ending


def _beginning(text: str) -> str:
    """The part that is looked at. A path that would be cut there is left out: half of one isn't known."""
    if len(text) <= _LOOKED_AT:
        return text
    at = text.find("/", _LOOKED_AT - TEXT_BYTES_MAX, _LOOKED_AT)
    return text[: at if at >= 0 else _LOOKED_AT] + "…"


def _cut(text: str, bytes_max: int) -> str:
    data = text.encode("utf-8", "replace")
    if len(data) <= bytes_max:
        return data.decode()
    return data[: bytes_max - 3].decode("utf-8", "ignore") + "…"
