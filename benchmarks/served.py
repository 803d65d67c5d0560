"""Servers as processes of their own, for benchmarks that ask them over Flight."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
from pyiceberg.catalog.sql import SqlCatalog

from benchmarks.orders_table import LINEAGE, SEED, orders_schema
from flight_replica.base.iceberg import BASE_SEQ_PROPERTY, LINEAGE_PROPERTY, SCHEMA_PROPERTY
from flight_replica.demo_orders import orders
from flight_replica.errors import Unavailable

BUILD_SECONDS_MAX = 300
WAIT_SECONDS_MAX = 120
LISTEN = ("--listen", "127.0.0.1:0")
ADMIN_LISTEN = ("--admin-listen", "127.0.0.1:0")
_FILE_ROWS = 1_000_000


@dataclass(frozen=True, slots=True)
class Served:
    """A running server."""

    uri: str
    pid: int
    log: list[str] = field(default_factory=list)  # its lines so far
    admin: str = ""  # where its admin port is, if it has one

    @property
    def processor_seconds(self) -> float:
        """What it has used of all cores so far (Linux): it says more than the clock on a busy machine."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    @property
    def memory_bytes(self) -> dict[str, int]:
        """What it holds of the machine's memory (Linux): `RssAnon` of its own, `RssFile` of mapped files."""
        lines = Path(f"/proc/{self.pid}/status").read_text().splitlines()
        found = (line.split() for line in lines if line.startswith("Rss"))
        return {name.rstrip(":"): int(kib) * 1024 for name, kib, *_ in found}

    def native_states_built(self, table: str) -> int:
        """How many native states of the table it has made so far."""
        return sum(f"native state built table={table} " in line for line in self.log)


def iceberg_orders(folder: Path, row_count: int) -> str:
    """The demo's orders as an Iceberg table of files of 1 M rows, sorted by id; its metadata file.

    It says that it is the base at seq `row_count` of the lineage `LINEAGE`.
    """
    random = np.random.default_rng(SEED)
    firsts = range(0, row_count, _FILE_ROWS)
    parts = (np.arange(first, min(first + _FILE_ROWS, row_count)) for first in firsts)
    return iceberg_base(folder, (pa.Table.from_batches([orders(ids, random)]) for ids in parts), row_count)


def iceberg_base(folder: Path, parts: Iterable[pa.Table], seq: int) -> str:
    """An Iceberg table of orders, a file each of `parts`, that says it is the base at `seq`."""
    said = {
        LINEAGE_PROPERTY: str(LINEAGE),
        SCHEMA_PROPERTY: orders_schema().to_json(),
        BASE_SEQ_PROPERTY: str(seq),
    }
    with closing(SqlCatalog("c", uri=f"sqlite:///{folder}/catalog.db", warehouse=str(folder))) as catalog:
        catalog.create_namespace("n")
        table = None
        for rows in parts:
            table = table or catalog.create_table("n.orders", rows.schema)
            table.append(rows, snapshot_properties=said)
        assert table is not None, "a table without rows"
        return str(table.metadata_location)


@contextmanager
def serving_orders(metadata: str, row_count: int) -> Iterator[Served]:
    """A replica of that table at seq `row_count`, once its native state is built."""
    stated = [f"--base=orders=iceberg:{metadata}", "--key=orders=id", f"--base-seq=orders={row_count}"]
    with running("serve", *LISTEN, *stated, until="native state built") as served:
        yield served


@contextmanager
def running(*arguments: str, until: str = "", module: str = "flight_replica") -> Iterator[Served]:
    """A server of the project while the block runs; the block begins when its log has said `until`."""
    command = [sys.executable, "-m", module, *arguments]
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
        admin = ""
        while ADMIN_LISTEN[0] in arguments and not admin:
            line = process.stdout.readline().strip()
            admin = line.removeprefix("admin on ") if line.startswith("admin on ") else ""
        if until and not has_said.wait(BUILD_SECONDS_MAX):
            raise RuntimeError(f"the server never said {until!r}: {''.join(lines[-5:])}")
        yield Served(address, process.pid, lines, admin)
    finally:
        process.terminate()
        process.wait(30)
        watcher.join()
        process.stdout.close()
        process.stderr.close()


def until(holds: Callable[[], bool], what: str, seconds: float = WAIT_SECONDS_MAX) -> None:
    """Wait until it holds; a server that doesn't serve yet is asked again. Raises `TimeoutError`."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            if holds():
                return
        except Unavailable:
            pass
        time.sleep(0.005)
    raise TimeoutError(f"not within {seconds:.0f} s: {what}")
