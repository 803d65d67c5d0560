"""The example file and the page about the settings say what the settings are."""

from __future__ import annotations

import re
import tomllib

import pytest

from flight_replica.config import CONFIGS, ServeConfig, ServerConfig, load
from flight_replica.config.example import example_of, example_of_all
from flight_replica.config.problems import ConfigProblems
from flight_replica.config.settings import EACH, settings_of
from tests.config_pages import EXAMPLE, PAGE, page

REWRITE = "`make config` writes it anew"


def test_the_example_file_is_as_the_settings_are() -> None:
    assert EXAMPLE.read_text() == example_of_all(), REWRITE


def test_the_page_about_settings_is_as_they_are() -> None:
    text = PAGE.read_text()
    assert page(text) == text, REWRITE


def test_the_example_file_is_right_for_a_replica_and_changes_no_default() -> None:
    loaded = load(ServeConfig, {}, {}, EXAMPLE)
    defaults = load(ServeConfig, {"primary": "grpc://127.0.0.1:4711"}, {})
    assert loaded.config == defaults.config


@pytest.mark.parametrize("config", CONFIGS, ids=[config.command for config in CONFIGS])
def test_an_example_of_each_command_says_every_setting_once_and_nothing_more(
    config: type[ServerConfig],
) -> None:
    text = re.sub(r"^#(?=[a-z\[])", "", example_of(config), flags=re.MULTILINE)
    document = tomllib.loads(text)
    said = {tuple(EACH if part == "events" else part for part in path) for path in _leaves(document, config)}
    assert said == {setting.path for setting in settings_of(config)}


def _leaves(document: dict[str, object], config: type[ServerConfig]) -> set[tuple[str, ...]]:
    found: set[tuple[str, ...]] = set()
    for key, value in document.items():
        if isinstance(value, dict):
            found |= {(key, *path) for path in _leaves(value, config)}
        else:
            found.add((key,))
    return found


@pytest.mark.parametrize("config", CONFIGS, ids=[config.command for config in CONFIGS])
def test_every_value_of_an_example_is_one_of_its_setting(
    config: type[ServerConfig], tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("example") / "example.toml"
    path.write_text(re.sub(r"^#(?=[a-z\[])", "", example_of(config), flags=re.MULTILINE))
    try:
        load(config, {}, {}, path)
    except ConfigProblems as problems:  # not all of them go together
        assert not [line for line in problems.lines if "expected" in line or "no such" in line]


def test_a_setting_of_several_commands_has_the_same_flag_at_each() -> None:
    """The page names one."""
    flags: dict[tuple[str, ...], set[str | None]] = {}
    for config in CONFIGS:
        for setting in settings_of(config):
            if not setting.is_of_a_table:
                flags.setdefault(setting.path, set()).add(setting.flag)
    assert [path for path, found in flags.items() if len(found) > 1] == []
