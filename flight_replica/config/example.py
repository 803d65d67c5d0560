"""A file with every setting, its default and what it does: config.example.toml, `config example`."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator

from flight_replica.config.commands import FeedConfig, PrimaryConfig, ServeConfig
from flight_replica.config.kinds import SIZE, SIZE_ABOVE_ZERO, size_text
from flight_replica.config.sections import ServerConfig
from flight_replica.config.settings import Section, Setting, section_in, settings_of
from flight_replica.config.showing import as_toml

__all__ = ["default_of", "example_of", "example_of_all", "explanation"]

_COLUMNS = 100
_HEAD = """\
# Every setting of `flight-replica {command}`, with its default. `flight-replica config check FILE`
# says what is wrong in a file, `flight-replica config show FILE` where each value comes from. A
# variable counts more than the file, a flag more than both.
#
# Sizes are a number of bytes, or have a unit: "500MiB", "4GB" (B, kB, MB, GB, TB; KiB, MiB, GiB,
# TiB). Times are a number in the unit of the name, seconds or ms, or have one: "250ms", "30s", "5m",
# "2h", "1d". Paths are relative to the folder of this file. "Reloaded": SIGHUP takes a change into
# the running server.
#
# What isn't set by default is shown with an example behind a #.
"""
_BESIDES = "# ==== `flight-replica {command}` has these besides, and not all of the above ===="
_TABLE = "events"  # of the examples


def example_of_all() -> str:
    """The file for `serve`, and behind it what `primary` and `feed` have besides, behind #."""
    text = example_of(ServeConfig)
    known = {setting.path for setting in settings_of(ServeConfig)}
    for config in (PrimaryConfig, FeedConfig):
        lines = [
            "",
            f"# ==== `flight-replica {config.command}` has these besides, and not all of the above ====",
            "",
        ]
        others = [setting for setting in settings_of(config) if setting.path not in known]
        for line in _lines(config, others):
            lines.append(f"#{line}" if line and not line.startswith("#") else line)
        text += "\n".join(lines).rstrip() + "\n"
    return text


def example_of(config: type[ServerConfig]) -> str:
    """A file for one command. It is right as it stands; a setting with a # in front isn't in effect."""
    head = _HEAD.format(command=config.command)
    return "\n".join([head, *_lines(config, list(settings_of(config)))]).rstrip() + "\n"


def _lines(config: type[ServerConfig], settings: list[Setting]) -> Iterator[str]:
    for setting in settings:
        if len(setting.path) == 1:
            yield from _setting(setting)
    for name, info in config.model_fields.items():
        section = section_in(info)
        here = [setting for setting in settings if setting.path[0] == name]
        if section is not None and here:
            yield from _section(name, section, here)


def _section(name: str, section: type[Section], settings: list[Setting]) -> Iterator[str]:
    is_of_tables = settings[0].is_of_a_table
    if section.section_title:
        title = section.section_title
        yield f"# ---- {title} ".ljust(_COLUMNS, "-")
        yield from _comment(section.section_text)
        yield ""
    elif section.__doc__:
        yield f"# ---- {section.__doc__.strip()} ".ljust(_COLUMNS, "-")
        yield ""
    yield f"#[{name}.{_TABLE}]" if is_of_tables else f"[{name}]"
    yield ""
    for setting in settings:
        yield from _setting(setting)


def _setting(setting: Setting) -> Iterator[str]:
    yield from _comment(explanation(setting))
    key = setting.path[-1]
    if setting.is_of_a_table:
        yield f"#{key} = {setting.example or default_of(setting)}"
    elif setting.is_required or setting.path == ("primary", "uri"):
        yield f"{key} = {setting.example}"  # nothing can be started without it
    elif setting.default is None:
        yield f"#{key} = {setting.example}"
    else:
        yield f"{key} = {default_of(setting)}"
    yield ""


def default_of(setting: Setting) -> str:
    """As TOML writes it, sizes with their unit."""
    if setting.kind in (SIZE, SIZE_ABOVE_ZERO) and isinstance(setting.default, int):
        return f'"{size_text(setting.default)}"'
    return as_toml(setting.default)


def explanation(setting: Setting) -> str:
    """What it does, and how else it is set."""
    text = setting.text.rstrip(".") + "."
    if not setting.kind.choices:
        text = text[0].upper() + text[1:]
    others = [setting.flag, setting.variable]
    text += f" ({', '.join(other for other in others if other)})" if any(others) else ""
    return f"{text} Reloaded." if setting.is_reloaded else text


def _comment(text: str) -> Iterator[str]:
    for line in textwrap.wrap(text, _COLUMNS - 2, break_long_words=False, break_on_hyphens=False):
        yield f"# {line}"
