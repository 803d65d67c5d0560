"""What several commands' options have in common."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING

from flight_replica.errors import ConfigError, SchemaMismatch

if TYPE_CHECKING:
    from flight_replica.schema import TableSchema

__all__ = ["above_zero", "schema_file"]


def schema_file(place: str, path: Path) -> TableSchema:
    """The schema in a file of merutable's JSON, which is named at `place`. Raises `ConfigError`."""
    from flight_replica.schema import TableSchema

    place = f"{place}: schema file {path}"
    try:
        document = json.loads(path.read_text())
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
