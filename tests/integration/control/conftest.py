"""A primary and a replica of it, in this process."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.pair import Pair, served_pair


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[Pair]:
    with served_pair(tmp_path) as found:
        yield found


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    """The same for tests that leave tables and statements as they were."""
    with served_pair(tmp_path_factory.mktemp("shared")) as found:
        yield found
