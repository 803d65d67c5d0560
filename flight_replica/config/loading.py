"""`load`: one configuration out of a file, variables and flags; every value remembers where it is from."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar

from pydantic import ValidationError

from flight_replica.config.contradictions import Contradiction, contradictions
from flight_replica.config.flags import in_flags
from flight_replica.config.given import FileText, Value, in_environment, in_file
from flight_replica.config.kinds import found
from flight_replica.config.problems import DEFAULT, ConfigProblems, Problem, Source
from flight_replica.config.sections import ServerConfig
from flight_replica.config.settings import EACH, Setting, SettingPath, dotted, settings_of

__all__ = ["Loaded", "load"]

C = TypeVar("C", bound=ServerConfig)
C_co = TypeVar("C_co", bound=ServerConfig, covariant=True)


@dataclass(frozen=True, slots=True)
class Loaded(Generic[C_co]):
    """A configuration with the source of each value. `again` reads it anew."""

    config: C_co
    file: Path | None
    _sources: Mapping[SettingPath, Source]
    _options: Mapping[str, object] = field(repr=False)
    _environment: Mapping[str, str] = field(repr=False)  # holds secrets

    def source(self, path: SettingPath) -> Source:
        return self._sources.get(path, DEFAULT)

    def place(self, path: SettingPath) -> str:
        """Where a setting is said, for an error about what it names: `replica.toml:7: access.users`."""
        source = self.source(path)
        if source.kind == "file":
            return f"{source.place}: {dotted(path)}"
        is_of_a_table = source.kind == "flag" and path[0] == "tables"
        return f"{source.place} {path[1]}=…" if is_of_a_table else source.place or dotted(path)

    def again(self) -> Loaded[C_co]:
        """The same with the file as it is now. Raises as `load`."""
        return load(type(self.config), self._options, self._environment, self.file)


def load(
    config: type[C],
    options: Mapping[str, object],
    environment: Mapping[str, str],
    file: Path | None = None,
) -> Loaded[C]:
    """Defaults, then the file, then variables, then flags; the last one that says something counts.

    `options` are those of the command line, as argparse has them. Raises `ConfigProblems` with all that is
    wrong, `ConfigError` for a file that can't be read at all.
    """
    return _Loading(config, options, environment, file).result()


class _Loading(Generic[C]):
    def __init__(
        self,
        config: type[C],
        options: Mapping[str, object],
        environment: Mapping[str, str],
        file: Path | None,
    ) -> None:
        self._type = config
        self._options = options
        self._environment = environment
        self._file = file
        self._text = FileText.read(file) if file is not None else None
        self._settings = {setting.path: setting for setting in settings_of(config)}
        self._problems: list[Problem] = []
        self._values: dict[SettingPath, Value] = {}
        self._wrong: set[SettingPath] = set()  # settings whose value isn't known, for one reason or another

    def result(self) -> Loaded[C]:
        for value in self._given():
            if isinstance(value, Problem):
                self._problems.append(value)
                self._wrong.add(value.path)
            else:
                self._values[value.path] = value
        config = self._checked()
        for contradiction in contradictions(config, self._names):
            if not self._wrong.intersection(contradiction.paths):
                self._problems.append(self._contradiction(contradiction))
        if self._problems:
            raise ConfigProblems(self._problems)
        sources = {path: value.source for path, value in self._values.items()}
        return Loaded(config, self._file, sources, self._options, self._environment)

    def _given(self) -> Iterator[Value | Problem]:
        settings = list(self._settings.values())
        if self._text is not None:
            yield from in_file(self._text, self._type)
        yield from in_environment(self._environment, settings)
        yield from in_flags(self._options, settings)

    # --- single values ----------------------------------------------------------------------------

    def _checked(self) -> C:
        """The configuration; what is wrong in it is told, and left out."""
        try:
            return self._type.model_validate(self._nested())
        except ValidationError as error:
            for wrong in error.errors(include_url=False):
                path = tuple(str(part) for part in wrong["loc"])
                self._leave_out(path, None if wrong["type"] == "missing" else wrong["ctx"]["expected"])
        return self._type.model_validate(self._nested())

    def _leave_out(self, path: SettingPath, expected: str | None) -> None:
        """Tell what was `expected` instead of its value; None: it has none and needs one."""
        setting = self._setting(path)
        self._wrong.add(path)
        if expected is not None:
            self._problems.append(self._wrong_value(setting, self._values.pop(path), expected))
            if not setting.is_required:
                return
        else:
            self._problems.append(self._missing(setting, path))
        stand_in = tomllib.loads(f"value = {setting.example}")["value"]
        self._values[path] = Value(path, stand_in, DEFAULT)

    def _wrong_value(self, setting: Setting, value: Value, expected: str) -> Problem:
        source = value.source
        if source.kind == "flag" and setting.is_of_a_table:
            text = source.shown.partition("=")[2]
            return Problem(source, f"{source.shown}: {text!r} isn't {expected}")
        if source.kind == "flag":
            return Problem(source, f"{source.shown}: expected {expected}")
        shown = "" if setting.is_secret else f", found {found(value.value)}"
        key = f"{dotted(value.path)}: " if source.kind == "file" else ""
        return Problem(source, f"{source.place}: {key}expected {expected}{shown}")

    def _missing(self, setting: Setting, path: SettingPath) -> Problem:
        if self._text is None:
            return Problem(Source("flag"), f"{self._names(path)} is needed", path, is_missing=True)
        source = self._text.source(path)
        return Problem(source, f"{source.place}: {dotted(path)} is missing: {setting.text}")

    def _nested(self) -> dict[str, Any]:
        nested: dict[str, Any] = {}
        for path, value in self._values.items():
            table = nested
            for part in path[:-1]:
                table = table.setdefault(part, {})
            table[path[-1]] = value.value
        return nested

    def _setting(self, path: SettingPath) -> Setting:
        if path in self._settings:
            return self._settings[path]
        return self._settings[path[0], EACH, *path[2:]]

    # --- what doesn't go together -----------------------------------------------------------------

    def _contradiction(self, found: Contradiction) -> Problem:
        sources = [self._values[path].source for path in found.paths if path in self._values]
        source = sources[0] if sources else self._default_source()
        text = f"{source.shown}: {found.text}" if found.is_of_one and source.kind == "flag" else found.text
        if source.kind == "file":
            key = f"{dotted(found.paths[0])}: " if found.is_of_one else ""
            text = f"{source.place}: {key}{found.text}"
        elif source.kind == "variable" and found.is_of_one:
            text = f"{source.place}: {found.text}"
        return Problem(source, text, found.paths[0], found.is_missing)

    def _default_source(self) -> Source:
        return self._text.source(()) if self._text is not None else Source("flag")

    def _names(self, path: SettingPath) -> str:
        """A setting by the name that its reader knows: the flag, the variable, the key of the file."""
        source = self._values[path].source if path in self._values else self._default_source()
        setting = self._setting(path) if EACH not in path else self._settings[path]
        if source.kind == "variable":
            return source.place
        if source.kind == "flag" and setting.flag is not None:
            is_of_one_table = setting.is_of_a_table and EACH not in path
            return f"{setting.flag} {path[1]}=…" if is_of_one_table else setting.flag
        return dotted(path) if EACH not in path else setting.name
