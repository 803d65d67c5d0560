"""What is wrong with a configuration, and how it is told: all at once, a line each, with its place."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from flight_replica.errors import ConfigError

__all__ = ["ConfigProblems", "Problem", "Source"]


@dataclass(frozen=True, slots=True)
class Source:
    """Where a value is from."""

    kind: str  # "default", "file", "variable" or "flag"
    place: str = ""  # `replica.toml:12`, `FLIGHT_REPLICA_LISTEN`, `--listen`
    line: int = 0  # in the file
    shown: str = ""  # a flag as it was given, `--listen nowhere`


DEFAULT = Source("default")


@dataclass(frozen=True, slots=True)
class Problem:
    """One line."""

    source: Source  # where it is, for the order
    text: str
    path: tuple[str, ...] = ()  # of the setting whose value isn't known for it, with `*` for some table
    is_missing: bool = False  # nothing was said


class ConfigProblems(ConfigError):
    """All that is wrong with a configuration; correct it and start again.

    Each line names file and line, variable or flag.
    """

    def __init__(self, problems: Sequence[Problem]) -> None:
        order = {"file": 0, "variable": 1, "flag": 2, "default": 3}
        inorder = sorted(problems, key=lambda problem: (order[problem.source.kind], problem.source.line))
        self.problems = inorder
        super().__init__("; ".join(self.lines))

    @property
    def lines(self) -> list[str]:
        return list(dict.fromkeys(problem.text for problem in self.problems))
