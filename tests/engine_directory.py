"""An engine's directories, standing still or as they change while it runs, and the feed beside them."""

from __future__ import annotations

import json
import os
import shutil
import struct
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa

from flight_replica.beside.engine_feed import EngineFeed
from flight_replica.beside.engine_table import EngineTable
from flight_replica.beside.history import EngineTableSettings
from flight_replica.errors import Unavailable
from flight_replica.log.feed import TableFeed
from flight_replica.log.reading import read_range
from flight_replica.schema import TableSchema
from tests import samples
from tests.log_writing import DELETE, PUT, LogOp, LogWriter, varint
from tests.log_writing import row as log_row
from tests.processes import until

HINT = "version-hint.text"


class EngineDirectory:
    """A catalog and a log directory."""

    def __init__(self, root: Path) -> None:
        self.catalog = root / "catalog"
        self.log = root / "wal"
        for name in ("metadata", "data"):
            (self.catalog / name).mkdir(parents=True)
        self.log.mkdir()

    def commit(self, checkpoint: Path) -> None:
        """Write the checkpoint's data files and manifest, then let the hint name it."""
        catalog = checkpoint / "catalog"
        sources = [path for path in catalog.rglob("*") if path.is_file() and path.name != HINT]
        for source in sorted(sources, key=lambda path: path.suffix == ".pb"):
            target = self.catalog / source.relative_to(catalog)
            if not target.exists():
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(source, target)
        if (catalog / HINT).exists():
            new = self.catalog / f"{HINT}.tmp"
            shutil.copy(catalog / HINT, new)
            os.replace(new, self.catalog / HINT)

    def remove_files(self, checkpoint: Path) -> None:
        """Unlink the data files that the checkpoint doesn't have, as the engine does after a while."""
        catalog = checkpoint / "catalog"
        for path in list((self.catalog / "data").rglob("*")):
            if path.is_file() and not (catalog / path.relative_to(self.catalog)).exists():
                path.unlink()


def engine_at(checkpoint: Path, root: Path) -> EngineDirectory:
    """The directories of one checkpoint as they lay there."""
    engine = EngineDirectory(root)
    engine.commit(checkpoint)
    for path in (checkpoint / "wal").glob("*.wal"):
        shutil.copy(path, engine.log)
    return engine


class SampleEngine(EngineDirectory):
    """An engine that writes a scenario's ops into a log of its own, and has the sample's files in time.

    Every step leaves what a reader may find: the log grows, is rotated, data files and manifest appear,
    flushed logs go, compacted files go.
    """

    def __init__(self, root: Path, scenario: Path) -> None:
        super().__init__(root)
        self.schema = samples.table_schema(scenario)
        self.writer = LogWriter(self.log)
        self._scenario = scenario
        self._events = iter(json.loads((scenario / "timeline.json").read_text()))
        self._rows = samples.float_bits(samples.ops(scenario)).to_pylist()
        self._closed: list[tuple[Path, int]] = []  # logs that aren't written any more, and where they end
        self._flushed = 0  # the last seq of the last flush
        self._is_open = False

    def run_to(self, checkpoint: Path) -> Iterator[None]:
        """Everything up to `checkpoint`, step by step."""
        for event in self._events:
            kind = event["event"]
            if kind in ("ops", "batch") and "from_seq" in event:  # an empty batch writes nothing
                yield from self._write(event["from_seq"], event["to_seq"], is_one=kind == "batch")
            elif kind in ("flush", "close"):
                self._rotate()
                self._flushed = self.writer.next_seq - 1
            elif (kind == "open" and self._is_open) or kind.startswith("flush failed"):
                self._rotate()
            self._is_open = self._is_open or kind == "open"
            if kind == "checkpoint" and event["name"] == checkpoint.name:
                break
            yield
        else:
            raise AssertionError(f"{checkpoint.name} was before, or is of another scenario")
        self.commit(checkpoint)
        yield
        while self._closed and self._closed[0][1] <= self._flushed:
            self._closed.pop(0)[0].unlink()
            yield
        self.remove_files(checkpoint)

    def become(self, checkpoint: Path) -> None:
        for _ in self.run_to(checkpoint):
            pass

    def _write(self, first: int, last: int, *, is_one: bool) -> Iterator[None]:
        ops = [self._log_op(row) for row in self._rows[first - 1 : last]]
        assert self._rows[first - 1]["seq"] == first == self.writer.next_seq
        for group in [ops] if is_one else [[op] for op in ops]:
            self.writer.write(group)
            yield

    def _log_op(self, row: dict[str, Any]) -> LogOp:
        """As ops.arrow has it; a delete without pre-image has no value."""
        columns = self.schema.columns[: row["n_fields"]]
        is_bare = row["op"] == "DELETE" and all(row[column.name] is None for column in columns)
        fields = b"".join(_field(row[column.name], column.type) for column in columns)
        value = b"" if is_bare else b"\x01" + varint(len(columns)) + fields
        return (PUT if row["op"] == "PUT" else DELETE), row["pk_bytes"], value

    def _rotate(self) -> None:
        self._closed.append((self.writer.rotate(), self.writer.next_seq - 1))


def _field(value: Any, kind: pa.DataType) -> bytes:
    """One field of a postcard row; floats come as the integers of their bits."""
    if value is not None and kind == pa.float32():
        return b"\x01\x03" + struct.pack("<i", value)
    if value is not None and kind == pa.float64():
        return b"\x01\x04" + struct.pack("<q", value)
    is_int32 = value is not None and kind == pa.int32()
    return log_row(("i32", value) if is_int32 else value)[2:]


def checkpoints_in_order(scenario: Path) -> list[Path]:
    """A scenario's checkpoints as they came about, of those that have the engine's own scan."""
    events = json.loads((scenario / "timeline.json").read_text())
    names = [event["name"] for event in events if event["event"] == "checkpoint"]
    found = [scenario / "checkpoints" / name for name in names]
    return [path for path in found if (path / "expected.arrow").exists()]


@contextmanager
def engine_table(
    engine: EngineDirectory, data: Path, schema: TableSchema | None = None, **stated: Any
) -> Iterator[EngineTable]:
    """The table `t` beside `engine`; `stated` are further `EngineTableSettings`."""
    settings = EngineTableSettings(engine.catalog, engine.log, schema, **stated)
    with closing(EngineTable("t", settings, data, lambda: time.time_ns() // 1000)) as table:
        yield table


def feed_of(table: EngineTable, high_water: int | None = None) -> EngineFeed:
    """The table's feed once it is served, and is at `high_water` if that is given."""

    def is_there() -> bool:
        try:
            return high_water in (None, table.feed.high_water)
        except Unavailable:
            return False

    until(is_there, f"the feed is at {high_water}; {table.trouble}")
    return table.feed


def changes(feed: TableFeed, since: int, byte_limit: int = 10_000) -> pa.Table:
    """Every op in `(since, high_water]`. Raises `LogGap`."""
    feed.check_since(since, None)
    through, version = feed.high_water, feed.schema_version
    batches = [batch.ops for batch in read_range(feed, since, through, byte_limit, version)]
    return pa.Table.from_batches(batches, feed.schema_at(version).feed_schema)
