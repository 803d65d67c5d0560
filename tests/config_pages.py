"""What is written out of the settings' own lines: config.example.toml, tables in docs/configuration.md.

`make config` writes both; tests/unit/config/test_example.py says when they are behind.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from flight_replica.config import CONFIGS
from flight_replica.config.example import default_of, example_of_all
from flight_replica.config.settings import Setting, settings_of

ROOT = Path(__file__).resolve().parents[1]
EXAMPLE = ROOT / "config.example.toml"
PAGE = ROOT / "docs" / "configuration.md"
_TABLES = re.compile(r"(?<=<!-- settings -->\n).*(?=<!-- end of settings -->)", re.DOTALL)


def page(text: str) -> str:
    """The page with its tables as they have to be."""
    return _TABLES.sub(lambda _: tables(), text)


def tables() -> str:
    """One table a section, of all commands together."""
    rows: dict[str, list[str]] = {}
    seen: dict[tuple[str, ...], str] = {}
    for config in CONFIGS:
        for setting in settings_of(config):
            commands = [other.command for other in CONFIGS if _has(setting, list(settings_of(other)))]
            if seen.setdefault(setting.path, setting.text) == setting.text and commands[0] != config.command:
                continue
            title = (
                f"[{'.'.join(setting.path[:-1])}]".replace("*", "NAME")
                if len(setting.path) > 1
                else "top level"
            )
            rows.setdefault(title, []).append(_row(setting, commands))
    head = "| setting | values | default | flag | of | what it does |\n|---|---|---|---|---|---|\n"
    return "".join(
        f"\n### {title.strip('[]')}\n{head}" + "\n".join(found) + "\n" for title, found in rows.items()
    )


def _has(setting: Setting, others: list[Setting]) -> bool:
    return any((other.path, other.text) == (setting.path, setting.text) for other in others)


def _row(setting: Setting, commands: list[str]) -> str:
    default = "not set" if setting.default is None else f"`{default_of(setting)}`"
    if setting.is_required:
        default = "needed"
    flag = f"`{setting.flag}`" if setting.flag else ""
    of = "all" if len(commands) == len(CONFIGS) else ", ".join(commands)
    text = setting.text.replace("|", "\\|").replace("*", "\\*").replace("<", "&lt;")
    mark = "; **reloaded**" if setting.is_reloaded else ""
    expected = setting.kind.expected.replace("|", "\\|").replace("*", "\\*")
    return f"| `{setting.path[-1]}` | {expected} | {default} | {flag} | {of} | {text.rstrip('.')}{mark} |"


def write() -> Iterator[Path]:
    EXAMPLE.write_text(example_of_all())
    yield EXAMPLE
    PAGE.write_text(page(PAGE.read_text()))
    yield PAGE


if __name__ == "__main__":
    for written in write():
        print(written.relative_to(ROOT))
