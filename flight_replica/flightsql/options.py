"""What a client may ask of its reads: which position, how fresh, how long to wait, in which time zone.

Each option can come as a session option (`min_seq`) or as a call header (`merutable-min-seq`), which wins.
ADBC and JDBC connection properties arrive as one of the two. Keeping the session's: sessions.py. What a
demand does: waits.py.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, TypeAlias

from flight_replica.errors import InvalidStatement, SchemaMismatch
from flight_replica.log.wire import LINEAGE_HEADER, decode_name
from flight_replica.sql.statement import fold
from flight_replica.sql.time_zones import zone_name

HEADER_PREFIX = "merutable-"
DEFAULT_WAIT_MS = 10_000.0
MS_MAX = 86_400_000.0  # a day: nobody means more
SEQ_END = 2**64  # seqs are uint64
PIN_CHARACTERS_MAX = 200

OptionValue: TypeAlias = str | bool | int | float | tuple[str, ...]
Parse: TypeAlias = Callable[[OptionValue], object]  # raises ValueError
Strictest: TypeAlias = Callable[[Sequence[Any]], object]
Resolve: TypeAlias = Callable[[str], str]  # a table's name as the server spells it; raises TableNotFound


class Isolation(StrEnum):
    """What the statements of one transaction see."""

    READ_COMMITTED = "read-committed"  # each statement the newest view
    SNAPSHOT = "snapshot"  # all of them one view


@dataclass(frozen=True, slots=True)
class Seqs:
    """Seqs as a client gives them: `alone` for the one table that a statement reads, or by table."""

    alone: int | None
    by_table: Mapping[str, int] = field(default_factory=dict)  # table name as spelled -> seq

    def of(self, tables: Sequence[str], resolve: Resolve, what: str) -> dict[str, int]:
        """table -> seq for those of `tables`, as the server spells them, that a seq is given for.

        `what` is the option's name. Raises `InvalidStatement` for a bare number with several tables,
        `TableNotFound` for the name of a table that isn't served: a typing error must not pass.
        """
        if self.alone is None:
            given = {resolve(name): seq for name, seq in self.by_table.items()}
            return {table: given[table] for table in tables if table in given}
        if len(tables) > 1:
            raise InvalidStatement(
                f"{what} {self.alone}: the statement reads {len(tables)} tables "
                f"({', '.join(tables)}); give a seq for each, {tables[0]}={self.alone},…"
            )
        return dict.fromkeys(tables, self.alone)


@dataclass(frozen=True, slots=True)
class ReadOptions:
    """The options of one call, session and headers taken together."""

    min_seq: Seqs | None = None
    max_staleness_ms: float | None = None
    wait_timeout_ms: float = DEFAULT_WAIT_MS
    as_of_seq: Seqs | None = None
    isolation: Isolation = Isolation.READ_COMMITTED
    pin: str | None = None
    statement_timeout_ms: float | None = None
    time_zone: str | None = None


NO_OPTIONS = ReadOptions()


def read_options(session: Mapping[str, OptionValue], headers: Mapping[str, Sequence[str]]) -> ReadOptions:
    """The options of a call out of its session's values and its headers. Raises `InvalidStatement`.

    `headers` has every value of each call header. ADBC sends one for each level at which an option is set
    (connection, statement, database: in this order), without saying which: the strictest counts. A header
    that looks like ours and isn't known is refused: a typing error must not pass for a demand that is met.
    """
    ours = [header for header in headers if header.startswith(HEADER_PREFIX)]
    if not ours and not session:
        return NO_OPTIONS
    for header in ours:
        if header not in _HEADERS:
            raise InvalidStatement(
                f"call header {header[:80]!r} isn't known; there are {', '.join(_HEADERS)}"
            )
    given: dict[str, object] = {}
    for name, (parse, strictest) in _OPTIONS.items():
        header = _HEADER_OF[name]
        values = [_parsed(parse, text, f"call header {header}") for text in headers.get(header, ())]
        if values:
            given[name] = _merged(strictest, values, header)
        elif name in session:
            given[name] = _parsed(parse, session[name], f"session option {name}")
    return ReadOptions(**given) if given else NO_OPTIONS  # type: ignore[arg-type]


def _merged(strictest: Strictest | None, values: Sequence[object], header: str) -> object:
    if all(value == values[0] for value in values):
        return values[0]
    found = strictest(values) if strictest is not None else None
    if found is None:
        raise InvalidStatement(f"call header {header} has {len(values)} values that differ; give one")
    return found


def is_read_option(name: str) -> bool:
    """Whether this is the name of an option that changes what a read answers."""
    return name in _OPTIONS


def check_option(name: str, value: OptionValue) -> None:
    """Raise `InvalidStatement` for a value that the read option `name` can't have."""
    _parsed(_OPTIONS[name][0], value, f"session option {name}")


# --- values -------------------------------------------------------------------------------------------


def _parsed(parse: Parse, value: OptionValue, what: str) -> object:
    try:
        return parse(value)
    except (ValueError, SchemaMismatch) as error:
        raise InvalidStatement(f"{what}: {error}") from error


def _seqs(value: OptionValue) -> Seqs:
    text = _text(value, "a seq, or table=seq,…")
    if "=" not in text:
        return Seqs(_seq(text))
    by_table: dict[str, int] = {}
    for part in text.split(","):
        name, _, seq = part.partition("=")
        table = decode_name(name.strip())
        if not table or fold(table) in map(fold, by_table):
            raise ValueError(f"{text[:80]!r} names no table, or one twice")
        by_table[table] = _seq(seq)
    return Seqs(None, by_table)


def _seq(text: str) -> int:
    digits = text.strip()
    if not (digits.isascii() and digits.isdigit()) or len(digits) > 20 or int(digits) >= SEQ_END:
        raise ValueError(f"{text[:80]!r} is no seq, a whole number from 0 below 2^64")
    return int(digits)


def _millis(value: OptionValue) -> float:
    try:
        number = float(_text(value, "milliseconds"))
    except ValueError:
        number = math.nan
    if not 0 <= number <= MS_MAX:
        raise ValueError(f"{str(value)[:80]!r} is no number of milliseconds from 0 to {MS_MAX:.0f}")
    return number


def _some_millis(value: OptionValue) -> float:
    number = _millis(value)
    if number == 0:
        raise ValueError("0 milliseconds; leave the option out to have none")
    return number


def _isolation(value: OptionValue) -> Isolation:
    text = _text(value, "read-committed or snapshot")
    if text.lower() not in list(Isolation):
        raise ValueError(f"{text[:80]!r} is no isolation; there are {' and '.join(Isolation)}")
    return Isolation(text.lower())


def _pin(value: OptionValue) -> str:
    text = _text(value, "a name")
    if not text or len(text) > PIN_CHARACTERS_MAX:
        raise ValueError(f"a pin's name has 1 to {PIN_CHARACTERS_MAX} characters, this has {len(text)}")
    return text


def _time_zone(value: OptionValue) -> str:
    text = _text(value, "the name of a time zone")
    name = zone_name(text)
    if name is None:
        raise ValueError(f"{text[:80]!r} is no time zone known here, such as Europe/Berlin or UTC")
    return name


def _text(value: OptionValue, what: str) -> str:
    if isinstance(value, (bool, tuple)):
        raise ValueError(f"a {'list' if isinstance(value, tuple) else 'bool'} is given, expected {what}")
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return str(value).strip()


# --- several values of one header ---------------------------------------------------------------------


def _latest(values: Sequence[Seqs]) -> Seqs | None:
    """The newest seq of each table; None where some name tables and others don't."""
    bare = [seqs.alone for seqs in values if seqs.alone is not None]
    if bare:
        return Seqs(max(bare)) if len(bare) == len(values) else None
    by_table: dict[str, int] = {}
    for seqs in values:
        for table, seq in seqs.by_table.items():
            by_table[table] = max(seq, by_table.get(table, seq))
    return Seqs(None, by_table)


def _shortest(values: Sequence[float]) -> float:
    return min(values)


def _snapshot(values: Sequence[Isolation]) -> Isolation:
    return Isolation.SNAPSHOT


# name -> how a value is read, and which of several values counts; None: there must be one
_OPTIONS: dict[str, tuple[Parse, Strictest | None]] = {
    "min_seq": (_seqs, _latest),
    "max_staleness_ms": (_millis, _shortest),
    "wait_timeout_ms": (_millis, _shortest),
    "as_of_seq": (_seqs, None),
    "isolation": (_isolation, _snapshot),
    "pin": (_pin, None),
    "statement_timeout_ms": (_some_millis, _shortest),
    "time_zone": (_time_zone, None),
}

OPTION_NAMES = tuple(_OPTIONS)


def _header(name: str) -> str:
    return HEADER_PREFIX + name.replace("_", "-")


_HEADER_OF = {name: _header(name) for name in OPTION_NAMES}
_HEADERS = (*_HEADER_OF.values(), LINEAGE_HEADER)
