"""Command-line options that say something of one table, `--option NAME=VALUE`, as several commands have."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

from flight_replica.errors import ConfigError
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


def schema_file(path: str) -> TableSchema:
    """The schema in a file of merutable's JSON. Raises `ConfigError`, `SchemaMismatch`."""
    try:
        document = json.loads(Path(path).read_text())
    except (OSError, ValueError) as error:
        raise ConfigError(f"schema file {path} can't be read: {error}") from error
    return TableSchema.from_engine_json(document)


def above_zero(text: str) -> int:
    """The type of an option, for argparse."""
    if not text.isdigit() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"{text!r} isn't a number above 0")
    return int(text)
