"""Command-line options that say something of one table, `--option NAME=VALUE`, as several commands have."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

from flight_replica.errors import ConfigError, SchemaMismatch
from flight_replica.schema import TableSchema

__all__ = ["above_zero", "pairs", "schema_file"]


def pairs(options: Sequence[str], option: str) -> dict[str, str]:
    """`NAME=VALUE` options by name. Raises `ConfigError`."""
    found: dict[str, str] = {}
    for text in options:
        name, separator, value = text.partition("=")
        if not (name and separator and value):
            raise ConfigError(f"{option} {text}: expected NAME=…")
        if name in found:
            raise ConfigError(f"{option} {text}: {name} is given twice")
        found[name] = value
    return found


def schema_file(name: str, path: str) -> TableSchema:
    """The schema of `--schema NAME=PATH`, a file of merutable's JSON. Raises `ConfigError`."""
    place = f"--schema {name}=…: schema file {path}"
    try:
        document = json.loads(Path(path).read_text())
    except OSError as error:
        raise ConfigError(f"{place} can't be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{place} can't be read: it isn't JSON ({error})") from error
    try:
        return TableSchema.from_engine_json(document)
    except SchemaMismatch as error:
        raise ConfigError(f"{place}: {error}") from error


def above_zero(text: str) -> int:
    """The type of an option, for argparse."""
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"{text!r} isn't a number above 0")
    return int(text)
