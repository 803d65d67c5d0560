"""What tests of a replica start from."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from flight_replica.state.workspace import Workspace
from tests.bases import SmallTable, put


@pytest.fixture
def workspace(tmp_path: Path) -> Iterator[Workspace]:
    """A workspace that must be free of states and threads once the test's replicas are closed."""
    threads = set(threading.enumerate())
    workspace = Workspace(tmp_path / "data")
    yield workspace
    for thread in set(threading.enumerate()) - threads:
        thread.join(10)
        assert not thread.is_alive(), f"{thread.name} is still there"
    tables = workspace.database.execute("SELECT table_name FROM duckdb_tables()").fetchall()
    workspace.close()
    assert tables == []


@pytest.fixture
def primary(tmp_path: Path) -> SmallTable:
    """A table with keys 1 to 3, flushed at seq 3."""
    table = SmallTable(tmp_path / "base")
    for key in (1, 2, 3):
        table.commit(put(key, 10 * key))
    table.flush()
    return table
