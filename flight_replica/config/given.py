"""Values of settings as they are given: in a file and in variables. Those of flags: flags.py.

A value is taken as TOML would have it; whether it is one of its setting is loading.py's to find out.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

from flight_replica.config.commands import CONFIGS
from flight_replica.config.kinds import found
from flight_replica.config.problems import Problem, Source
from flight_replica.config.settings import (
    EACH,
    VARIABLE,
    Section,
    Setting,
    SettingPath,
    dotted,
    is_by_name,
    section_in,
    settings_of,
)
from flight_replica.config.toml_lines import KeyPath, key_lines
from flight_replica.errors import ConfigError

__all__ = ["FileText", "Value", "in_environment", "in_file"]

# What a Kubernetes service of this name puts into the environment of every pod beside it.
_OF_A_SERVICE = re.compile(r".*_(SERVICE_HOST|SERVICE_PORT(_.*)?|PORT|PORT_[0-9]+_(TCP|UDP|SCTP)(_.*)?)")
_NEAR = 0.8  # how alike a misspelt name and the right one are, from 0 to 1
_PLACE_OF_AN_ERROR = re.compile(r" \(at (?:line (\d+), column (\d+)|end of document)\)$")


@dataclass(frozen=True, slots=True)
class Value:
    """One value, not checked yet."""

    path: SettingPath
    value: object
    source: Source


@dataclass(frozen=True, slots=True)
class FileText:
    """A configuration file as it was read."""

    path: Path
    document: Mapping[str, object]
    lines: Mapping[KeyPath, int]

    @classmethod
    def read(cls, path: Path) -> FileText:
        """Raises `ConfigError` for what is no TOML file."""
        try:
            text = path.read_bytes().decode()
        except OSError as error:
            raise ConfigError(f"configuration {path} can't be read: {error.strerror}") from error
        except UnicodeDecodeError as error:
            raise ConfigError(f"configuration {path} isn't UTF-8, byte {error.start}") from error
        try:
            document = tomllib.loads(text)
            lines = key_lines(text.replace("\r\n", "\n"))
        except tomllib.TOMLDecodeError as error:
            raise ConfigError(_no_toml(path, text, error)) from error
        except ValueError as error:  # Python's, which reads no number of more than 4300 digits
            raise ConfigError(f"{path}: a number in it has too many digits") from error
        except RecursionError as error:
            raise ConfigError(f"{path}: tables or lists in it are nested too deeply") from error
        return cls(path, document, lines)

    def source(self, path: KeyPath) -> Source:
        """The line of the key; of the nearest table above for one that isn't there."""
        while path and path not in self.lines:
            path = path[:-1]
        line = self.lines.get(path, 0)
        return Source("file", f"{self.path}:{line}" if line else str(self.path), line)


def _no_toml(path: Path, text: str, error: tomllib.TOMLDecodeError) -> str:
    told = str(error)
    place = _PLACE_OF_AN_ERROR.search(told)
    line, column = text.count("\n") + 1, ""
    if place is not None:
        told = told[: place.start()]
        if place[1] is not None:
            line, column = int(place[1]), f", column {place[2]}"
    return f"{path}:{line}: this is no TOML{column}: {told}"


# --- the file -------------------------------------------------------------------------------------------


def in_file(text: FileText, config: type[Section]) -> Iterator[Value | Problem]:
    """The settings that stand in the file; a problem for each key that is none."""
    yield from _in_table(text, text.document, config, (), config)


def _in_table(
    text: FileText,
    table: Mapping[str, object],
    section: type[Section],
    above: SettingPath,
    whole: type[Section],
) -> Iterator[Value | Problem]:
    for key, value in table.items():
        path = (*above, key)
        source = text.source(path)
        info = section.model_fields.get(key)
        if info is None:
            yield Problem(source, f"{source.place}: {dotted(path)}: {_unknown(path, section, whole)}")
            continue
        inner = section_in(info)
        if inner is None:
            yield Value(path, _below(text, value, section, key), source)
        elif not isinstance(value, dict):
            yield _no_table(source, path, value)
        elif not is_by_name(info):
            yield from _in_table(text, value, inner, path, whole)
        else:
            for name, entry in value.items():
                if isinstance(entry, dict):
                    yield from _in_table(text, entry, inner, (*path, name), whole)
                else:
                    yield _no_table(text.source((*path, name)), (*path, name), entry)


def _no_table(source: Source, path: SettingPath, value: object) -> Problem:
    return Problem(
        source, f"{source.place}: {dotted(path)}: expected a table, [{dotted(path)}], found {found(value)}"
    )


def _below(text: FileText, value: object, section: type[Section], key: str) -> object:
    """The value; paths are relative to the folder of the file."""
    (setting,) = (setting for setting in settings_of(section) if setting.path == (key,))
    below = setting.kind.below
    return below(text.path.absolute().parent, value) if below and isinstance(value, str) and value else value


def _unknown(path: SettingPath, section: type[Section], whole: type[Section]) -> str:
    """Why there is no such key here, and what may be meant."""
    here = {dotted((*path[:-1], near)): near for near in get_close_matches(path[-1], section.model_fields, 1)}
    elsewhere = [setting.name for setting in settings_of(whole) if setting.path[-1] == path[-1]]
    is_near = any(get_close_matches(path[-1], [near], 1, _NEAR) for near in here.values())
    for meant in here if is_near or not elsewhere else elsewhere:
        return f"there is no such setting; did you mean {meant}?"
    for other in CONFIGS:
        if any(_begins(setting.path, path) for setting in settings_of(other)):
            return f"there is no such setting of {whole.command}; {other.command} has one"  # type: ignore[attr-defined]
    known = ", ".join(section.model_fields)
    return f"there is no such setting, only {known}"


def _begins(setting: SettingPath, path: SettingPath) -> bool:
    """Whether `path` leads to the setting, or to a table that it is in."""
    return len(path) <= len(setting) and all(
        part in (key, EACH) for part, key in zip(setting, path, strict=False)
    )


# --- variables ------------------------------------------------------------------------------------------


def in_environment(environment: Mapping[str, str], settings: Sequence[Setting]) -> Iterator[Value | Problem]:
    """The settings that are given by variables; a problem for one that looks like one, but isn't."""
    by_variable = {setting.variable: setting for setting in settings if setting.variable is not None}
    others = {str(setting.variable) for config in CONFIGS for setting in settings_of(config)}
    for name, text in sorted(environment.items()):
        setting = by_variable.get(name)
        if setting is not None:
            yield Value(setting.path, setting.kind.of_text(text), Source("variable", name))
        elif name.startswith(VARIABLE) and name not in others and not _OF_A_SERVICE.fullmatch(name):
            yield from _unknown_variable(name, by_variable)


def _unknown_variable(name: str, known: Mapping[str, Setting]) -> Iterator[Problem]:
    """A problem, unless the variable may well be somebody else's."""
    mine = name.removeprefix(VARIABLE)
    by_rest = {variable.removeprefix(VARIABLE): variable for variable in known}
    near = get_close_matches(mine, by_rest, 1, _NEAR)
    sections = {setting.path[0].upper() for setting in known.values() if len(setting.path) > 1}
    if near or mine.partition("_")[0] in sections:
        hint = f"; did you mean {by_rest[near[0]]}?" if near else ""
        yield Problem(Source("variable", name), f"{name}: there is no such setting{hint}")
