"""`KnownTexts`: statements that were checked before, and what was found out about them.

To parse and check a text costs more than to run a small query. So what was found is kept by the text; a text
that differs from a known one only in numbers that choose rows (`row_filters.py`) is as good as known. What
the check asked the server, which served table a name stands for, is asked again each time: tables come and
go, and users differ in what they may read.
"""

from __future__ import annotations

import re
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Generic, TypeVar

import pyarrow as pa

from flight_replica.sql.plain_row import RowShape
from flight_replica.sql.sandbox import EXPLAIN, Checked
from flight_replica.sql.walk import Resolve

__all__ = ["Facts", "KnownText", "KnownTexts"]

TEXTS_MAX = 1000
CHARACTERS_MAX = 4096  # of a text that is kept
FACTS_MAX = 8  # of one kind about one text: for different tables, time zones, parameters
# Of a fact that is kept; a short text may have very many columns. Enough for about a hundred.
FACT_BYTES_MAX = 16 << 10

_NUMBER = re.compile(r"([0-9]+)")
_AROUND = " \t\n\r;"
_DIGITS_MAX = 18  # of a number that may be another one: all of these are integers to DuckDB
_PART_OF_A_WORD = re.compile(r"[A-Za-z0-9_.$]")

T = TypeVar("T")
Numbers = tuple[str, ...]


class Kept(Generic[T]):
    """A few facts by what they depend on; the oldest goes. Thread-safe."""

    def __init__(self, count_max: int = FACTS_MAX) -> None:
        self._lock = threading.Lock()
        self._facts: OrderedDict[Hashable, T] = OrderedDict()
        self._count_max = count_max

    def get(self, key: Hashable) -> T | None:
        with self._lock:
            found = self._facts.get(key)
            if found is not None:
                self._facts.move_to_end(key)
            return found

    def put(self, key: Hashable, fact: T) -> None:
        with self._lock:
            self._facts[key] = fact
            self._facts.move_to_end(key)
            while len(self._facts) > self._count_max:
                self._facts.popitem(last=False)


class Facts(Generic[T]):
    """What was found out of some objects, by their identity, where it is small. Thread-safe."""

    def __init__(self, byte_count: Callable[[T], int]) -> None:
        """`byte_count`: how large a fact is, about."""
        self._byte_count = byte_count
        # The objects are kept beside a fact, so that their ids aren't those of others meanwhile.
        self._kept: Kept[tuple[Sequence[object], T]] = Kept()

    def recall(self, made_of: Sequence[object] | None, key: Hashable, make: Callable[[], T]) -> T:
        """The fact that `make` makes of these objects and `key`; made anew for None."""
        if made_of is None:
            return make()
        found = self.known(made_of, key)
        if found is not None:
            return found
        fact = make()
        self.keep(made_of, key, fact)
        return fact

    def keep(self, made_of: Sequence[object], key: Hashable, fact: T) -> None:
        """Keep it, if it is small."""
        if self._byte_count(fact) <= FACT_BYTES_MAX:
            self._kept.put((*map(id, made_of), key), (made_of, fact))

    def known(self, made_of: Sequence[object], key: Hashable) -> T | None:
        """The fact, where it has been made and kept."""
        found = self._kept.get((*map(id, made_of), key))
        return None if found is None else found[1]


def _schema_bytes(schema: pa.Schema) -> int:
    return int(schema.serialize().size)


def _shape_bytes(shape: RowShape) -> int:
    return _schema_bytes(shape.columns)


def _text_bytes(texts: tuple[str | None, ...]) -> int:
    return sum(len(text or "") for text in texts)


@dataclass(frozen=True, slots=True, eq=False)
class KnownText:
    """A checked statement, as a pattern for those that differ in numbers that choose rows."""

    checked: Checked
    names: tuple[tuple[str, str | None], ...]  # what the check asked: name as spelled -> served table
    free: tuple[int, ...] = ()  # which of the text's numbers may be others, by their order
    places: tuple[int, ...] = ()  # where each of these stands in the statement
    start: int = 0  # characters in front of the statement in its text
    end: int = 0  # … and behind it
    schemas: Facts[pa.Schema] = field(default_factory=partial(Facts, _schema_bytes))  # of its rows
    shapes: Facts[RowShape] = field(default_factory=partial(Facts, _shape_bytes))  # where it needs no view
    types: Facts[tuple[str | None, ...]] = field(default_factory=partial(Facts, _text_bytes))  # of parameters

    @property
    def has_lasting_columns(self) -> bool:
        """Whether the same tables always give the same columns, whatever is bound."""
        checked = self.checked
        if checked.functions or checked.positions or checked.sql.startswith(EXPLAIN):
            return False
        return not checked.parameter_count or checked.filters.has_all_parameters

    def of(self, text: str) -> Checked:
        """The checked statement of `text`, which is the pattern but for free numbers."""
        if not self.free:
            return self.checked
        key = self.checked.key
        if key is not None:
            numbers = _NUMBER.findall(text)
            key = key.at(
                {place: int(numbers[index]) for place, index in zip(self.places, self.free, strict=True)}
            )
        return self.checked.reading(text[self.start : len(text) - self.end], key)


class KnownTexts:
    """Of one server. Thread-safe."""

    def __init__(self) -> None:
        # (text without numbers, its fixed numbers) -> what is known
        self._texts: Kept[KnownText] = Kept(TEXTS_MAX)
        # text without numbers -> which of them are free
        self._free: Kept[tuple[int, ...]] = Kept(TEXTS_MAX)

    def find(self, text: str, resolve: Resolve) -> KnownText | None:
        """What is known of the text; None where it is new, or its names mean something else now."""
        if not _is_kept(text):
            return None
        between, numbers = _parts(text)
        free = self._free.get(between)
        if free is None or any(len(numbers[index]) > _DIGITS_MAX for index in free):
            return None
        known = self._texts.get((between, _fixed(numbers, free)))
        if known is None or known.free != free:
            return None
        return known if all(resolve(name) == served for name, served in known.names) else None

    def learn(self, text: str, resolve: Resolve, check: Callable[[Resolve], Checked]) -> KnownText:
        """What `check` says of the text, which is kept where it isn't too long. Raises what `check` does."""
        asked: dict[str, str | None] = {}

        def remembering(name: str) -> str | None:
            asked[name] = served = resolve(name)
            return served

        known = _pattern(text, check(remembering), tuple(asked.items()))
        if _is_kept(text):
            between, numbers = _parts(text)
            self._free.put(between, known.free)
            self._texts.put((between, _fixed(numbers, known.free)), known)
        return known


def _is_kept(text: str) -> bool:
    return len(text) <= CHARACTERS_MAX and "\0" not in text


def _parts(text: str) -> tuple[str, Numbers]:
    """What stands between the text's numbers, and these."""
    pieces = _NUMBER.split(text)
    return "\0".join(pieces[::2]), tuple(pieces[1::2])


def _fixed(numbers: Numbers, free: tuple[int, ...]) -> Numbers:
    if not free:
        return numbers
    others = frozenset(free)  # there may be hundreds
    return tuple(number for index, number in enumerate(numbers) if index not in others)


def _pattern(text: str, checked: Checked, names: tuple[tuple[str, str | None], ...]) -> KnownText:
    """What `checked` says of all texts that are `text` but for free numbers."""
    is_whole = text.strip(_AROUND) == checked.sql  # nothing was put in, nor a comment taken off
    # Where it calls the server's own relations their places in the text count, so it stays as it is.
    if not text.isascii() or not is_whole or checked.functions or not checked.filters.numbers:
        return KnownText(checked, names)
    start = text.index(checked.sql)
    places = {start + place for place in checked.filters.numbers}
    pieces = _NUMBER.split(text)
    free, at = {}, 0
    for index in range(0, len(pieces) - 1, 2):
        at += len(pieces[index])
        if at in places and _stands_alone(pieces, index):
            free[index // 2] = at - start
        at += len(pieces[index + 1])
    end = len(text) - start - len(checked.sql)
    return KnownText(checked, names, tuple(free), tuple(free.values()), start, end)


def _stands_alone(pieces: list[str], index: int) -> bool:
    """Whether the number behind a piece is all of its token, however many digits it has."""
    before, number, after = pieces[index : index + 3]
    beside = before[-1:] + after[:1]
    return len(number) <= _DIGITS_MAX and not _PART_OF_A_WORD.search(beside)
