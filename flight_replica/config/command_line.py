"""The configuration of a server that is started by its command line."""

from __future__ import annotations

import argparse
import logging
import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import TypeVar

from flight_replica.config.loading import Loaded, load
from flight_replica.config.problems import ConfigProblems
from flight_replica.config.sections import ServerConfig
from flight_replica.config.settings import settings_of
from flight_replica.logs.setup import LogFormat, set_format, set_level

__all__ = ["configured", "file_of"]

C = TypeVar("C", bound=ServerConfig)

logger = logging.getLogger(__name__)

_READ_BY_OTHERS = stat.S_IROTH
CONFIG_VARIABLE = "FLIGHT_REPLICA_CONFIG"


def file_of(options: Mapping[str, object]) -> Path | None:
    """The file of --config, or of the variable."""
    named = options.get("config") or os.environ.get(CONFIG_VARIABLE)
    return Path(str(named)) if named else None


def configured(options: argparse.Namespace, config: type[C]) -> Loaded[C]:
    """What the options, this process's environment and the file of --config say. Raises `ConfigError`.

    A flag that is missing is wrong usage, as argparse tells it. The log is from now on as configured.
    """
    file = file_of(vars(options))
    try:
        loaded = load(config, vars(options), os.environ, file)
    except ConfigProblems as problems:
        missing = [problem.text for problem in problems.problems if problem.is_missing]
        if file is None and missing:
            options.parser.error("; ".join(missing))
        raise
    set_level(loaded.config.log.level)
    set_format(LogFormat(loaded.config.log.format))
    _warn_of_open_secrets(loaded)
    return loaded


def _warn_of_open_secrets(loaded: Loaded[ServerConfig]) -> None:
    """A secret in a file that others may read is none."""
    if loaded.file is None or not stat.S_IMODE(loaded.file.stat().st_mode) & _READ_BY_OTHERS:
        return
    for setting in settings_of(type(loaded.config)):
        if setting.is_secret and loaded.source(setting.path).kind == "file":
            logger.warning(
                "secret in a file that others may read setting=%s file=%s", setting.name, loaded.file
            )
