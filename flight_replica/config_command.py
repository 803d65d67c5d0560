"""The command `config`: what is wrong in a file, what is in effect and from where, an example."""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from flight_replica.config import CONFIGS, ConfigProblems, Loaded, ServerConfig, add_flags, load
from flight_replica.config.command_line import file_of
from flight_replica.errors import ConfigError

if TYPE_CHECKING:
    Commands = argparse._SubParsersAction[argparse.ArgumentParser]

_BY_COMMAND = {config.command: config for config in CONFIGS}
_EPILOG = """examples:
  flight-replica config check replica.toml
  flight-replica config show replica.toml --for serve -- --listen 0.0.0.0:4712
  flight-replica config example --for primary > primary.toml
"""


def add_config_command(parser: argparse.ArgumentParser) -> None:
    parser.epilog = _EPILOG
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    commands = parser.add_subparsers(title="what to do", required=True)
    check = commands.add_parser("check", help="say all that is wrong with a file, a line each; exit code 1")
    check.add_argument("file", type=Path, metavar="FILE")
    _add_for(check)
    check.set_defaults(run=_check)
    show = commands.add_parser("show", help="what is in effect, and where each value is from")
    _add_for(show)
    show.add_argument("--json", action="store_true", help="as one JSON object")
    show.add_argument(
        "words",
        nargs="*",
        metavar="FILE -- FLAG",
        help="the file (default: FLIGHT_REPLICA_CONFIG, or none); behind -- flags of that command",
    )
    show.set_defaults(run=_show)
    example = commands.add_parser("example", help="a file with every setting, its default and what it does")
    example.add_argument("--for", dest="command", choices=list(_BY_COMMAND), default="serve")
    example.set_defaults(run=_example)


def _add_for(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--for",
        dest="command",
        choices=list(_BY_COMMAND),
        help="the command that it is for (default: the one that it fits best)",
    )


def _check(options: argparse.Namespace) -> int:
    loaded = _loaded(options.command, {}, options.file)
    print(f"{options.file}: right for {loaded.config.command}")
    return 0


def _show(options: argparse.Namespace) -> int:
    from flight_replica.config.showing import as_json, shown

    given: dict[str, object] = {}
    file, flags = None, options.words
    if flags and not flags[0].startswith("-"):
        file, flags = Path(flags[0]), flags[1:]
    if flags:
        if options.command is None:
            raise ConfigError("flags are of one command: say which with --for")
        parser = argparse.ArgumentParser(f"flight-replica {options.command}", add_help=False)
        add_flags(parser, _BY_COMMAND[options.command])
        given = vars(parser.parse_args(flags))
    loaded = _loaded(options.command, given, file or file_of(given))
    if options.json:
        document = {"command": loaded.config.command, "settings": as_json(loaded)}
        print(json.dumps(document, indent=2, ensure_ascii=False))
    else:
        for line in shown(loaded):
            print(line)
    return 0


def _example(options: argparse.Namespace) -> int:
    from flight_replica.config.example import example_of

    print(example_of(_BY_COMMAND[options.command]), end="")
    return 0


def _loaded(command: str | None, given: Mapping[str, object], file: Path | None) -> Loaded[ServerConfig]:
    """For the command; for the one with fewest problems where none is named. Raises `ConfigError`."""
    if command is not None:
        return load(_BY_COMMAND[command], given, os.environ, file)
    failed: list[ConfigProblems] = []
    for config in CONFIGS:
        try:
            return load(config, given, os.environ, file)
        except ConfigProblems as problems:
            failed.append(problems)
    raise min(failed, key=lambda problems: len(problems.lines))
