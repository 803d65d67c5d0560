"""Where a language is missing: its tests are skipped, or fail where they are asked for."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.clients.programs import REQUIRED, go_command, jdbc_command


@pytest.fixture(params=[jdbc_command, go_command])
def command(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Callable[[], list[str]]:
    monkeypatch.setenv("PATH", "")
    found: Callable[[], list[str]] = request.param
    return found


def test_a_missing_language_skips_with_its_reason(
    command: Callable[[], list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(REQUIRED, raising=False)
    with pytest.raises(pytest.skip.Exception, match=r"there is no (java|go) here"):
        command()


def test_a_missing_language_fails_where_it_is_required(
    command: Callable[[], list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(REQUIRED, "1")
    with pytest.raises(pytest.fail.Exception, match=REQUIRED):
        command()
