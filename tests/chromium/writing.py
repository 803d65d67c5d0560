"""A primary that is written to while a test looks on."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from tests.processes import Server, rows

PAUSE_SECONDS = 0.05


@contextmanager
def written(primary: Server, table: str = "orders", first: int = 100_000) -> Iterator[None]:
    """Rows come in, a few times a second, as long as the block lasts."""
    stop = threading.Event()
    failures: list[Exception] = []

    def write() -> None:
        number = first
        while not stop.wait(PAUSE_SECONDS):
            count = 5 + number * 7 % 40
            values = ", ".join(f"({number + i}, 'item {i}', {i}.25, NULL)" for i in range(count))
            number += count
            try:
                rows(primary.uri, f"INSERT OR REPLACE INTO {table} VALUES {values}")
            except Exception as error:
                failures.append(error)
                return

    thread = threading.Thread(target=write, name="writer")
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
    assert not failures, failures
