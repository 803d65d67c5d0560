"""Servers as processes of their own, for benchmarks that ask them over Flight."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
from pyiceberg.catalog.sql import SqlCatalog

from benchmarks.orders_table import SEED
from flight_replica.demo_orders import orders

BUILD_SECONDS_MAX = 900
LISTEN = ("--listen", "127.0.0.1:0")
_FILE_ROWS = 1_000_000


@dataclass(frozen=True, slots=True)
class Served:
    """A running server."""

    uri: str
    pid: int


def iceberg_orders(folder: Path, row_count: int) -> str:
    """The demo's orders as an Iceberg table of files of 1 M rows, sorted by id; its metadata file."""
    random = np.random.default_rng(SEED)
    with closing(SqlCatalog("c", uri=f"sqlite:///{folder}/catalog.db", warehouse=str(folder))) as catalog:
        catalog.create_namespace("n")
        table = None
        for first in range(0, row_count, _FILE_ROWS):
            ids = np.arange(first, min(first + _FILE_ROWS, row_count))
            rows = pa.Table.from_batches([orders(ids, random)])
            table = table or catalog.create_table("n.orders", rows.schema)
            table.append(rows)
        assert table is not None, "a table without rows"
        return str(table.metadata_location)


@contextmanager
def serving_orders(metadata: str, row_count: int) -> Iterator[Served]:
    """A replica of that table at seq `row_count`, once its native state is built."""
    stated = [f"--base=orders=iceberg:{metadata}", "--key=orders=id", f"--base-seq=orders={row_count}"]
    with running("serve", *LISTEN, *stated, until="native state built") as served:
        yield served


@contextmanager
def running(*arguments: str, until: str = "") -> Iterator[Served]:
    """A server of the project while the block runs; the block begins when its log has said `until`."""
    command = [sys.executable, "-m", "flight_replica", *arguments]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stderr is not None
    lines: list[str] = []
    has_said = threading.Event()

    def watch() -> None:
        for line in process.stderr or ():
            lines.append(line)
            if until and until in line:
                has_said.set()

    watcher = threading.Thread(target=watch, name="server-log", daemon=True)
    watcher.start()
    try:
        address = process.stdout.readline().strip().removeprefix("listening on ")
        if not address:
            watcher.join(5)
            raise RuntimeError(f"the server ended: {''.join(lines[-5:])}")
        if until and not has_said.wait(BUILD_SECONDS_MAX):
            raise RuntimeError(f"the server never said {until!r}: {''.join(lines[-5:])}")
        yield Served(address, process.pid)
    finally:
        process.terminate()
        process.wait(30)
        watcher.join()
        process.stdout.close()
        process.stderr.close()
