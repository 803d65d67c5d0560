"""The engine in miniature: a log, a memtable, flushes and compactions, and every op it ever took.

It writes logs and catalogs as the real one does (merutable format, 1.5, 1.6 and 13), so that a feed beside it
can be held against the truth.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa

from flight_replica._pb import manifest_pb2
from flight_replica.schema import TableSchema
from tests.bases import ID_V
from tests.catalogs import CatalogWriter
from tests.log_writing import DELETE, PUT, LogWriter, int_key, row


@dataclass(frozen=True, slots=True)
class Version:
    """One op: a put of `value`, or a delete."""

    seq: int
    key: int
    value: int | None  # None: a delete


@dataclass(slots=True)
class _File:
    entry: manifest_pb2.DataFileRef
    versions: list[Version]  # newest of each key

    @property
    def level(self) -> int:
        return self.entry.level


@dataclass
class ModelEngine:
    """A table `(id, v)` in `root`. `level_targets` is how many it was opened with."""

    root: Path
    level_targets: int = 4
    schema: TableSchema = ID_V
    truth: list[Version] = field(default_factory=list)  # every op, in order

    def __post_init__(self) -> None:
        self.catalog_directory, self.log_directory = self.root / "catalog", self.root / "wal"
        self._catalog = CatalogWriter(self.catalog_directory, self.schema)
        self._writer = LogWriter(self.log_directory)
        self._memtable: dict[int, Version] = {}
        self._files: list[_File] = []
        self._closed_logs: list[tuple[Path, int]] = []  # and where each ends
        self._obsolete: list[Path] = []

    @property
    def read_seq(self) -> int:
        return self.truth[-1].seq if self.truth else 0

    def write(self, changes: Sequence[tuple[int, int | None]]) -> None:
        """One batch of (key, value); None deletes."""
        ops = [
            (PUT, int_key(key), row(key, value)) if value is not None else (DELETE, int_key(key), b"")
            for key, value in changes
        ]
        first = self._writer.write(ops)
        for number, (key, value) in enumerate(changes):
            version = Version(first + number, key, value)
            self.truth.append(version)
            self._memtable[key] = version

    def flush(self, *, removes_logs: bool = True) -> None:
        """The memtable to level 0: the newest version of each key."""
        self._rotate()
        if not self._memtable:
            return
        self._add(list(self._memtable.values()), level=0)
        flushed = max(version.seq for version in self._memtable.values())
        self._memtable = {}
        self._catalog.properties["merutable.job"] = "flush"
        self._catalog.commit()
        if removes_logs:
            self.remove_logs(flushed)

    def remove_logs(self, flushed: int) -> None:
        while self._closed_logs and self._closed_logs[0][1] <= flushed:
            self._closed_logs.pop(0)[0].unlink()

    def compact(self, level: int) -> None:
        """All of `level` and the next one into the next one; the bottom level has no tombstones."""
        inputs = [file for file in self._files if file.level in (level, level + 1)]
        if level > self.level_targets or not any(file.level == level for file in inputs):
            return
        newest: dict[int, Version] = {}
        for version in sorted((v for file in inputs for v in file.versions), key=lambda v: v.seq):
            newest[version.key] = version
        is_bottom = level + 1 > self.level_targets
        kept = [
            version
            for version in newest.values()
            if not (is_bottom and version.value is None and version.seq < self.read_seq)
        ]
        self._obsolete += [self.catalog_directory / file.entry.path for file in inputs]
        self._files = [file for file in self._files if file not in inputs]
        self._catalog.files = [file.entry for file in self._files]
        for part in (kept[: len(kept) // 2], kept[len(kept) // 2 :]):
            if part:
                self._add(sorted(part, key=lambda v: v.key), level=level + 1)
        self._catalog.properties |= {"merutable.job": "compaction", "merutable.output_level": str(level + 1)}
        self._catalog.commit()

    def remove_files(self) -> None:
        """What the grace period lets the engine do."""
        for path in self._obsolete:
            path.unlink()
        self._obsolete = []

    def restart(self) -> None:
        """A kill and an open: the logs are replayed, a new one is begun."""
        self._rotate()

    def state_at(self, seq: int) -> dict[int, Version]:
        """Key -> its newest version up to `seq`, deletes left out."""
        rows: dict[int, Version] = {}
        for version in self.truth:
            if version.seq <= seq:
                rows[version.key] = version
        return {key: version for key, version in rows.items() if version.value is not None}

    def close(self) -> None:
        self._writer.close()

    def _rotate(self) -> None:
        self._closed_logs.append((self._writer.rotate(), self._writer.next_seq - 1))

    def _add(self, versions: list[Version], level: int) -> None:
        rows = pa.table(
            {
                "id": pa.array([version.key for version in versions], pa.int64()),
                "v": pa.array([version.value for version in versions], pa.int64()),
            }
        )
        is_put = np.array([version.value is not None for version in versions])
        seqs = [version.seq for version in versions]
        entry = self._catalog.add_file(rows, seqs, level=level, is_put=is_put)
        self._files.append(_File(entry, versions))
