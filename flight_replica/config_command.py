"""The command `config`: what is wrong in a file, what is in effect and from where, an example."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from flight_replica.config import CONFIGS, ConfigProblems, Loaded, ServerConfig, add_flags, load
from flight_replica.config.command_line import file_of
from flight_replica.errors import ConfigError

_BY_COMMAND = {config.command: config for config in CONFIGS}
_EPILOG = """examples:
  flight-replica config check replica.toml
  flight-replica config show replica.toml --for serve -- --listen 0.0.0.0:4712
  flight-replica config example --for primary > primary.toml
"""


def add_config_command(parser: argparse.ArgumentParser) -> None:
    parser.epilog = _EPILOG
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    commands = parser.add_subparsers(
        title="what to do", required=True, parser_class=_behind_dashes(type(parser))
    )
    check = commands.add_parser("check", help="say all that is wrong with a file, a line each; exit code 1")
    check.add_argument("file", type=Path, metavar="FILE")
    _add_for(check)
    check.set_defaults(run=_check)
    show = commands.add_parser("show", help="what is in effect, and where each value is from")
    _add_for(show)
    show.add_argument("--json", action="store_true", help="as one JSON object")
    show.usage = "%(prog)s [FILE] [--for COMMAND] [--json] [-- FLAG ...]"
    show.epilog = "Behind -- stand flags of that command, which count too."
    show.add_argument(
        "file", type=Path, nargs="?", metavar="FILE", help="(default: FLIGHT_REPLICA_CONFIG, or none)"
    )
    show.set_defaults(run=_show, flags=[])
    example = commands.add_parser("example", help="a file with every setting, its default and what it does")
    example.add_argument("--for", dest="command", choices=list(_BY_COMMAND), default="serve")
    example.set_defaults(run=_example)


def _behind_dashes(kind: type[argparse.ArgumentParser]) -> type[argparse.ArgumentParser]:
    """A parser that leaves what stands behind -- to a command that has a default for `flags`."""

    class Parser(kind):  # type: ignore[valid-type,misc]
        def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
            given = list(sys.argv[1:] if args is None else args)
            end = given.index("--") if "--" in given and self.get_default("flags") is not None else len(given)
            options, rest = super().parse_known_args(given[:end], namespace)
            if given[end + 1 :]:
                options.flags = given[end + 1 :]
            return options, rest

    return Parser


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
    if options.flags:
        if options.command is None:
            raise ConfigError("flags are of one command: say which with --for")
        parser = argparse.ArgumentParser(f"flight-replica {options.command}", add_help=False)
        add_flags(parser, _BY_COMMAND[options.command])
        given = vars(parser.parse_args(options.flags))
    loaded = _loaded(options.command, given, options.file or file_of(given))
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
