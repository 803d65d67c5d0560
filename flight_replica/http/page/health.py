"""Whether a table is well, and what to do where it isn't, with the heading of help.html that says more."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from flight_replica.control.status import TableStatus

BEHIND_SECONDS = 5.0  # a lag that people should see; a feed proves its freshness twice a second


class Health(StrEnum):
    """What people see at a glance, from well to worst."""

    OK = "ok"
    BEHIND = "behind"  # the rows are right, and older than they should be
    WARNING = "warning"
    BAD = "bad"


@dataclass(frozen=True, slots=True)
class Advice:
    """What to do about tables that have the same trouble. `help` names a heading of help.html."""

    tables: tuple[str, ...]
    health: Health
    help: str
    text: str

    def as_json(self) -> dict[str, object]:
        level = "bad" if self.health is Health.BAD else "warning"
        return {"tables": self.tables, "level": level, "help": self.help, "text": self.text}


@dataclass(frozen=True, slots=True)
class _Rule:
    """What to do where the reason has `pattern` in it."""

    pattern: re.Pattern[str]
    health: Health
    help: str
    text: str


_LOADING = _Rule(
    re.compile("^(not opened yet|reading its base|catching up from|its history here|starting afresh)"),
    Health.WARNING,
    "loading",
    "It is being loaded; until then queries are told to try again.",
)
_PAUSED = _Rule(
    re.compile(""),
    Health.WARNING,
    "paused",
    "Following is paused: queries answer with the rows of that moment, and the lag grows. Resume it when you "
    "are done.",
)
_WAITING = _Rule(
    re.compile(""),
    Health.WARNING,
    "waiting",
    "There is no base of it yet. It is looked for again and again.",
)
_OTHER = _Rule(
    re.compile(""),
    Health.BAD,
    "other",
    "Something is wrong; the reason says what.",
)

# The first one counts whose pattern is found.
_RULES = (
    _Rule(
        re.compile("log gap"),
        Health.BAD,
        "log-gap",
        "The feed no longer reaches back to what is served here, and there is no newer base yet. Let a base "
        "be published, and keep the log for longer if it happens again.",
    ),
    _Rule(
        re.compile("newest base can't be taken"),
        Health.WARNING,
        "base-not-usable",
        "A newer base is damaged or half written. The old one is served on and the feed goes on; publish the "
        "base again.",
    ),
    _Rule(
        re.compile("^log |damage"),
        Health.BAD,
        "damaged-log",
        "The log is damaged or was changed. Bring the file back, or accept the loss, which begins a new "
        "lineage.",
    ),
    _Rule(
        re.compile(r"limit \d|_max\b"),
        Health.BAD,
        "limit",
        "A limit is reached. Raise it, or let a newer base be published.",
    ),
    _Rule(
        re.compile("refused|reached|connect|Connection|UNAVAILABLE|nothing came"),
        Health.BAD,
        "primary-lost",
        "The server that is followed doesn't answer. See whether it runs and whether this host reaches it; "
        "following goes on by itself.",
    ),
)
_BEHIND = "behind"


def health_of(table: TableStatus) -> Health:
    """Whether the table is well."""
    if table.state == "serving":
        return Health.OK if _is_fresh(table) else Health.BEHIND
    return _rule_of(table).health


def advice_for(tables: Iterable[TableStatus]) -> list[Advice]:
    """What to do about the tables that aren't well, the worst first."""
    behind: list[TableStatus] = []
    names_by_rule: dict[_Rule, list[str]] = {}
    for table in tables:
        health = health_of(table)
        if health is Health.BEHIND:
            behind.append(table)
        elif health is not Health.OK:
            names_by_rule.setdefault(_rule_of(table), []).append(table.name)
    found = [Advice(tuple(names), rule.health, rule.help, rule.text) for rule, names in names_by_rule.items()]
    if behind:
        names = tuple(table.name for table in behind)
        found.append(Advice(names, Health.BEHIND, _BEHIND, _behind([table.lag_us for table in behind])))
    return sorted(found, key=lambda advice: advice.health is not Health.BAD)


def helps() -> set[str]:
    """Every heading of help.html that an advice can name."""
    return {rule.help for rule in (*_RULES, _LOADING, _PAUSED, _WAITING, _OTHER)} | {_BEHIND}


def _is_fresh(table: TableStatus) -> bool:
    """Whether it is as new as it can be: one without a feed always is."""
    if table.details is not None and not table.details.is_followed:
        return True
    return 0 <= table.lag_us <= BEHIND_SECONDS * 1e6


def _rule_of(table: TableStatus) -> _Rule:
    """What holds for a table that isn't simply serving."""
    if table.state == "paused":
        return _PAUSED
    if table.state in ("loading", "waiting") and _LOADING.pattern.match(table.reason):
        return _LOADING
    for rule in _RULES:
        if rule.pattern.search(table.reason):
            return rule
    return _WAITING if table.state == "waiting" else _OTHER


def _behind(lags_us: Sequence[int]) -> str:
    see = "See whether the server that is followed runs and answers, and whether this host is busy."
    if min(lags_us) < 0:
        return f"Nothing has proven yet how fresh the rows are. {see}"
    seconds = max(lags_us) / 1e6
    age = f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"
    return f"Rows may be {age} old. {see}"
