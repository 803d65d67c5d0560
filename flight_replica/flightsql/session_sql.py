"""The few statements that change a session: `USE main`, `SET option = value`, `RESET option`.

They never reach DuckDB, whose settings are locked: what can be set are our own options (options.py), and
`TimeZone` as another name of one. They are done when the statement is planned, as writes are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from flight_replica.errors import InvalidStatement, NotAllowed
from flight_replica.flightsql.options import OPTION_NAMES, OptionValue, check_option
from flight_replica.flightsql.parameter_types import Types
from flight_replica.sql.names import CATALOG, DB_SCHEMA
from flight_replica.sql.statement import Token, fold, tokens, unquoted

__all__ = ["SessionChange", "session_change"]

_NAMES = {name: name for name in OPTION_NAMES} | {"timezone": "time_zone"}
_SCHEMAS = [[DB_SCHEMA], [CATALOG], [CATALOG, DB_SCHEMA]]


@dataclass(frozen=True, slots=True)
class SessionChange:
    """What a statement does to its session. It takes no parameters."""

    values: Mapping[str, OptionValue | None]  # option -> its value from now on; None: unset
    parameter_count: int = 0
    parameter_keys: tuple[str, ...] = ()
    parameter_types: Types = ()


def session_change(sql: str) -> SessionChange | None:
    """The change that a statement makes, None for one of another kind.

    Raises `InvalidStatement` for a wrong value or form, `NotAllowed` for what can't be set here.
    """
    words = tokens(sql)
    while words and words[-1].says(";"):
        words.pop()
    if not words or not words[0].says(*_FORMS):
        return None
    return _FORMS[words[0].text.upper()](words[1:])


def _use(words: Sequence[Token]) -> SessionChange:
    path = [unquoted(word.text) for word in words if word.text != "."]
    if not path or len(words) != 2 * len(path) - 1:
        raise InvalidStatement("USE takes the name of a schema")
    if [fold(name) for name in path] not in _SCHEMAS:
        raise NotAllowed(f"USE {'.'.join(path)}: there is one schema here, main")
    return SessionChange({})


def _set(words: Sequence[Token]) -> SessionChange:
    words = words[1:] if words and words[0].says("SESSION") else words
    if [word.text.upper() for word in words[:2]] == ["TIME", "ZONE"]:
        name, rest = "time_zone", words[2:]
    elif len(words) > 2 and words[1].says("=", "TO"):
        name, rest = _name(words[0]), words[2:]
    else:
        raise NotAllowed(f"SET takes the form SET option = value, with one of {', '.join(OPTION_NAMES)}")
    if len(rest) != 1:
        raise InvalidStatement(f"SET {name} takes one value; texts stand in quotes")
    if rest[0].says("DEFAULT"):
        return SessionChange({name: None})
    value = unquoted(rest[0].text)
    check_option(name, value)
    return SessionChange({name: value})


def _reset(words: Sequence[Token]) -> SessionChange:
    words = words[1:] if words and words[0].says("SESSION") else words
    if len(words) != 1:
        raise InvalidStatement("RESET takes one option, or ALL")
    if words[0].says("ALL"):
        return SessionChange(dict.fromkeys(OPTION_NAMES))
    return SessionChange({_name(words[0]): None})


_FORMS = {"USE": _use, "SET": _set, "RESET": _reset}


def _name(word: Token) -> str:
    name = fold(unquoted(word.text))
    if name not in _NAMES:
        raise NotAllowed(f"'{name}' can't be set here; what can: {', '.join(OPTION_NAMES)}")
    return _NAMES[name]
