"""Where parameters stand in a statement's text, and other texts in their place."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from flight_replica.sql.statement import fold, tokens, unquoted

__all__ = ["Place", "numbered", "places_of", "replaced"]


@dataclass(frozen=True, slots=True)
class Place:
    """One parameter in the text: its key (a number, or its name), and its bytes."""

    key: str
    start: int
    end: int


def places_of(sql: str, keys: Sequence[str]) -> list[Place]:
    """Every parameter in text order: `?` has the next number, `?1` and `$1` are one's own, `$name` a name."""
    spelled = {fold(key): key for key in keys}
    words, places, count = tokens(sql), [], 0
    for index, word in enumerate(words):
        following = next((other for other in words[index + 1 : index + 2] if other.start == word.end), None)
        if word.says("?") and following is not None and following.text.isdecimal():
            places.append(Place(following.text, word.start, following.end))
        elif word.says("?"):
            count += 1
            places.append(Place(str(count), word.start, word.end))
        elif word.says("$") and following is not None:
            key = fold(unquoted(following.text))
            places.append(Place(spelled.get(key, key), word.start, following.end))
    return places


def replaced(sql: str, places: Sequence[Place], texts: Mapping[str, str]) -> str:
    data = sql.encode()
    for place in reversed(places):
        data = data[: place.start] + texts.get(place.key, "NULL").encode() + data[place.end :]
    return data.decode()


def numbered(text: str, before: int) -> str:
    """The text with `$n` for each `?`, of which `before` stand in front of it."""
    marks = [word for word in tokens(text) if word.says("?")]
    places = [Place(str(before + number), mark.start, mark.end) for number, mark in enumerate(marks, 1)]
    return replaced(text, places, {place.key: f"${place.key}" for place in places})
