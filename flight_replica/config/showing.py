"""Values as TOML writes them, and a configuration with the source of each value. Secrets are `***`."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from uuid import UUID

from pydantic import SecretStr

from flight_replica.config.loading import Loaded
from flight_replica.config.sections import ServerConfig
from flight_replica.config.settings import Setting, SettingPath, dotted, settings_of

__all__ = ["as_json", "as_toml", "plain", "shown", "values_of"]

_HIDDEN = "***"
_USER_OF_A_URI = re.compile(r"//[^/@\s]*@")


def values_of(config: ServerConfig) -> Iterator[tuple[SettingPath, Setting, object]]:
    """Every setting with its value; of tables those that there are."""
    for setting in settings_of(type(config)):
        if not setting.is_of_a_table:
            yield setting.path, setting, _at(config, setting.path)
    tables = getattr(config, "tables", {})
    for name in tables:
        for setting in settings_of(type(config)):
            if setting.is_of_a_table:
                yield (setting.path[0], name, *setting.path[2:]), setting, _at(tables[name], setting.path[2:])


def _at(section: object, path: SettingPath) -> object:
    for name in path:
        section = getattr(section, name)
    return section


def plain(value: object) -> object:
    """A setting's value as JSON and TOML know it; None for one that isn't set."""
    match value:
        case SecretStr():
            return _HIDDEN
        case (str(host), int(port)):
            return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        case tuple():
            return [plain(element) for element in value]
        case Path() | UUID():
            return str(value)
        case float() if value.is_integer():
            return int(value)
        case str():
            return _USER_OF_A_URI.sub(f"//{_HIDDEN}@", value)
    return value


def as_toml(value: object) -> str:
    """A value that is set."""
    return json.dumps(plain(value), ensure_ascii=False)


def shown(loaded: Loaded[ServerConfig]) -> Iterator[str]:
    """Lines of TOML, the source of each value behind it; what isn't set is a comment."""
    for path, _, value in values_of(loaded.config):
        source = loaded.source(path)
        if value is None:
            yield f"# {dotted(path)} is not set"
        else:
            yield f"{dotted(path)} = {as_toml(value)}  # {source.place or source.kind}"


def as_json(loaded: Loaded[ServerConfig]) -> dict[str, object]:
    """Name -> value and source."""
    found: dict[str, object] = {}
    for path, _, value in values_of(loaded.config):
        source = loaded.source(path)
        found[dotted(path)] = {"value": plain(value), "source": source.place or source.kind}
    return found
