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
