"""An engine in miniature for tests of the feed beside it: it writes a log and table files as the engine does.

One table `(id int64 key, v int64)`, as `tests.bases.ID_V`. `EngineDirectory` is for tables that the engine
itself wrote; this one is for histories that no sample has.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from flight_replica._pb import manifest_pb2
from flight_replica.log.source import Op
from tests.bases import ID_V, Change
from tests.catalogs import CatalogWriter
from tests.log_writing import DELETE, PUT, LogWriter, int_key, row


@dataclass(frozen=True)
class _Version:
    """One op of a key; `v` of a delete is its pre-image's."""

    seq: int
    is_put: bool
    key: int
    v: object


_NONE = _Version(0, False, 0, None)


@dataclass
class _File:
    entry: manifest_pb2.DataFileRef
    versions: list[_Version]  # in key order, as in the file
    masked: set[int]  # their places


class ScriptedEngine:
    """Writes into `catalog` and `log` when it is told to. Used by one thread."""

    def __init__(self, root: Path) -> None:
        self.catalog, self.log = root / "catalog", root / "wal"
        self._writer = CatalogWriter(self.catalog, ID_V)
        self._wal = LogWriter(self.log)
        self._row_by_key: dict[int, object] = {}  # key -> v, of live rows
        self._memtable: dict[int, _Version] = {}  # key -> its newest op since the last flush
        self._files: list[_File] = []

    @property
    def seq(self) -> int:
        return self._wal.next_seq - 1

    def write(self, *changes: Change) -> int:
        """One batch; the seq of its last op. Pre-images are from before the batch."""
        before = dict(self._row_by_key)
        records = []
        for seq, (op, values) in enumerate(changes, self.seq + 1):
            key, is_put = values["id"], op is not Op.DELETE
            assert isinstance(key, int)
            v = values["v"] if is_put else before.get(key)
            is_bare = not is_put and key not in before
            records.append((PUT if is_put else DELETE, int_key(key), b"" if is_bare else row(key, v)))
            self._memtable[key] = _Version(seq, is_put, key, v)
            if is_put:
                self._row_by_key[key] = v
            else:
                self._row_by_key.pop(key, None)
        self._wal.write(records)
        return self.seq

    def flush(self) -> None:
        """The newest op of each key goes to a file of level 0 and masks the older ones; then the log goes."""
        flushed = self._wal.rotate()
        for file in self._files:
            masked = {place for place, version in enumerate(file.versions) if version.key in self._memtable}
            if not masked <= file.masked:
                file.masked |= masked
                self._writer.mask(file.entry, sorted(file.masked))
        self._add_file(list(self._memtable.values()), level=0)
        self._writer.commit()
        self._memtable = {}
        for path in self.log.iterdir():
            if path <= flushed:
                path.unlink()

    def restart(self, *, lost: Sequence[int] = ()) -> None:
        """Killed and opened again: a new log. `lost` are keys of which the recovered logs have no op."""
        self._wal.rotate()
        for key in lost:
            del self._memtable[key], self._row_by_key[key]

    def compact(self) -> None:
        """All files become one of level 1; tombstones stay, and so do the old files for a while."""
        newest: dict[int, _Version] = {}
        for file in self._files:
            for place, version in enumerate(file.versions):
                if place not in file.masked and version.seq > newest.get(version.key, _NONE).seq:
                    newest[version.key] = version
        self._files = []
        self._writer.files.clear()
        self._add_file(list(newest.values()), level=1)
        self._writer.commit()

    def close(self) -> None:
        self._wal.close()

    def _add_file(self, versions: Sequence[_Version], level: int) -> None:
        ordered = sorted(versions, key=lambda version: version.key)
        columns = [
            pa.array([version.key for version in ordered], pa.int64()),
            pa.array([version.v for version in ordered], pa.int64()),
        ]
        entry = self._writer.add_file(
            pa.table(columns, names=list(ID_V.names)),
            [version.seq for version in ordered],
            level=level,
            is_put=np.array([version.is_put for version in ordered]),
        )
        self._files.append(_File(entry, ordered, set()))
