"""The settings of a server as options of the command line, and their values there."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from urllib.parse import unquote

from flight_replica.config.given import Value
from flight_replica.config.kinds import MEMORY, SWITCH, TEXTS
from flight_replica.config.problems import Problem, Source
from flight_replica.config.sections import ServerConfig
from flight_replica.config.settings import EACH, Section, Setting, section_in, settings_of

__all__ = ["add_flags", "in_flags"]

_LIMIT = "limit"
_BEFORE_THE_COMMAND = ("log_level", "log_format")


def add_flags(parser: argparse.ArgumentParser, config: type[ServerConfig]) -> None:
    """`--config FILE`, and a flag for each setting that has one. What isn't given isn't in the namespace."""
    parser.add_argument(
        "--config",
        type=Path,
        metavar="FILE",
        help="settings in TOML; FLIGHT_REPLICA_… variables count more, and flags most (see `config`)",
    )
    own = [name for name, info in config.model_fields.items() if section_in(info) is None]
    settings = list(settings_of(config))
    for name in own:
        _add(parser, [setting for setting in settings if setting.path == (name,)])
    for name, info in config.model_fields.items():
        section = section_in(info)
        if section is not None:
            _add_section(parser, section, [setting for setting in settings if setting.path[0] == name])
    parser.set_defaults(parser=parser)


def _add_section(
    parser: argparse.ArgumentParser, section: type[Section], settings: Sequence[Setting]
) -> None:
    has_flags = any(setting.flag is not None for setting in settings)
    is_limits = settings[0].path[0] == "limits"
    if not has_flags and not is_limits:
        return
    group: argparse.ArgumentParser | argparse._ArgumentGroup = parser
    if section.section_title:
        group = parser.add_argument_group(section.section_title, section.section_text or None)
    if is_limits:
        group.add_argument(
            "--limit",
            action="append",
            default=argparse.SUPPRESS,
            metavar="NAME=VALUE",
            help="set a limit of the server, such as statement_seconds=60 or result_bytes_max=1GB "
            "(repeatable; names and defaults: docs/flight-sql/limits.md)",
        )
    _add(group, settings)


def _add(group: argparse.ArgumentParser | argparse._ArgumentGroup, settings: Sequence[Setting]) -> None:
    for setting in settings:
        if setting.flag is None:
            continue
        help_text = _help(setting)
        if setting.kind is SWITCH and not setting.is_of_a_table:
            group.add_argument(
                setting.flag,
                dest=_dest(setting),
                action="store_true",
                default=argparse.SUPPRESS,
                help=help_text,
            )
            continue
        group.add_argument(
            setting.flag,
            dest=_dest(setting),
            action="append" if _is_repeated(setting) else "store",
            default=argparse.SUPPRESS,
            type=str if _is_repeated(setting) else _type(setting),
            metavar=setting.metavar or "{" + ",".join(setting.kind.choices) + "}",
            help=help_text,
        )


def _help(setting: Setting) -> str:
    text = setting.text.replace("%", "%%")
    default = setting.default
    if setting.is_of_a_table or default in (None, (), False) or "(default" in text:
        return text
    if isinstance(default, tuple):
        default = f"{default[0]}:{default[1]}"
    return f"{text} (default: {default:g})" if isinstance(default, float) else f"{text} (default: {default})"


def _type(setting: Setting) -> Callable[[str], str]:
    """Checks a text, and leaves it as it is: what is wrong at the command line is wrong usage."""
    kind = setting.kind
    if kind is MEMORY:
        return str

    def checked(text: str) -> str:
        try:
            kind.of_flag(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(f"{text!r} isn't {kind.instead(error)}") from None
        return text

    return checked


def _is_repeated(setting: Setting) -> bool:
    return setting.is_of_a_table or setting.kind is TEXTS


def _dest(setting: Setting) -> str:
    assert setting.flag is not None
    return setting.flag.removeprefix("--").replace("-", "_")


# --- values ---------------------------------------------------------------------------------------------


def in_flags(options: Mapping[str, object], settings: Sequence[Setting]) -> Iterator[Value | Problem]:
    """The settings that are given by flags, and what is wrong with those that name a table or a limit."""
    for name in _BEFORE_THE_COMMAND:
        if options.get(name) is not None:
            flag = "--" + name.replace("_", "-")
            yield Value(tuple(name.split("_")), options[name], Source("flag", flag, shown=flag))
    yield from _limits(_texts(options, _LIMIT), settings)
    for setting in settings:
        if setting.flag is None or _dest(setting) not in options:
            continue
        given = options[_dest(setting)]
        if setting.is_of_a_table:
            yield from _of_tables(setting, _texts(options, _dest(setting)))
        elif isinstance(given, str):
            shown = f"{setting.flag} {given}"
            yield Value(setting.path, setting.kind.of_text(given), Source("flag", setting.flag, shown=shown))
        else:
            yield Value(setting.path, given, Source("flag", setting.flag, shown=setting.flag))


def _texts(options: Mapping[str, object], name: str) -> Sequence[str]:
    found = options.get(name, ())
    assert isinstance(found, list | tuple)
    return found


def _limits(texts: Sequence[str], settings: Sequence[Setting]) -> Iterator[Value | Problem]:
    by_name = {setting.path[1]: setting for setting in settings if setting.path[0] == "limits"}
    for name, text, source, problem in _pairs("--limit", texts):
        if problem is not None:
            yield problem
        elif name not in by_name:
            only = ", ".join(by_name)
            yield Problem(source, f"{source.shown}: there is no such limit, only {only}")
        else:
            yield Value(("limits", name), by_name[name].kind.of_text(text), source)


def _of_tables(setting: Setting, texts: Sequence[str]) -> Iterator[Value | Problem]:
    """Values of one setting of several tables."""
    assert setting.flag is not None
    if setting.kind is SWITCH:
        for name in texts:
            path = _path(setting, name)
            yield Value(path, True, Source("flag", setting.flag, shown=f"{setting.flag} {name}"))
        return
    for name, text, source, problem in _pairs(setting.flag, texts):
        if problem is not None:
            yield dataclasses.replace(problem, path=setting.path)
        elif setting.flag == "--table":
            yield from _directories(name, text, source)
        else:
            yield Value(_path(setting, name), setting.kind.of_text(text), source)


def _directories(name: str, text: str, source: Source) -> Iterator[Value | Problem]:
    """`feed --table NAME=CATALOG_DIR,WAL_DIR`, two settings in one flag."""
    parts = text.split(",")
    if len(parts) != 2 or not all(parts):
        yield Problem(
            source,
            f"{source.shown}: expected NAME=CATALOG_DIR,WAL_DIR (%2C is a comma in a path)",
            ("tables", EACH, "catalog"),
        )
        return
    for key, part in zip(("catalog", "wal"), parts, strict=True):
        yield Value(("tables", name, key), unquote(part), source)


def _path(setting: Setting, name: str) -> tuple[str, ...]:
    return tuple(name if part == EACH else part for part in setting.path)


def _pairs(flag: str, texts: Sequence[str]) -> Iterator[tuple[str, str, Source, Problem | None]]:
    """Name and value of each `NAME=VALUE`."""
    seen: set[str] = set()
    for text in texts:
        name, separator, value = text.partition("=")
        source = Source("flag", flag, shown=f"{flag} {text}")
        problem = None
        if not (name and separator and value):
            problem = Problem(source, f"{flag} {text}: expected NAME=…")
        elif name in seen:
            problem = Problem(source, f"{flag} {text}: {name} is given twice")
        seen.add(name)
        yield name, value, source, problem
