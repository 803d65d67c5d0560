"""`LostTombstones`: from which `since` on the table's files still tell every change.

A file of any level has each row's seq and op, so a change is lost only when a compaction drops a tombstone.
It does so when it writes a level deeper than the number of level targets of the engine that compacts (4 by
default, then never above level 5). No file says that number, but files show it: whoever compacts to level
M has at least M - 1 targets; and a tombstone that was kept in level M, though newer ops existed, says
that level M keeps them. Where nothing is shown, a seq that no row has may be one that was lost.

This holds as long as a table's engines are all opened with the same level targets; for a table that was once
opened with fewer, that smallest number has to be stated. Source: merutable format, sections 1.6 and 1.7.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pyroaring import BitMap64

from flight_replica.base.data_files import CheckedFile
from flight_replica.beside.engine_catalog import CatalogVersion
from flight_replica.errors import ConfigError

_SEQ, _OP = "_merutable_seq", "_merutable_op"
_DELETE = 0
BATCH_ROWS = 1 << 17


class LostTombstones:
    """What one table's files show, each looked at once. Used by one thread at a time."""

    def __init__(self, table: str, level_targets: int | None) -> None:
        """`level_targets`: the smallest number of them the table's engine was ever opened with, if known."""
        self._table = table
        self._level_targets = level_targets
        self._keeps_by_path: dict[str, bool] = {}  # whether a file shows that its level keeps tombstones
        self._seqs_by_path: dict[str, BitMap64] = {}

    def check(self, version: CatalogVersion) -> None:
        """Raise `ConfigError` when the files contradict the stated level targets."""
        deepest = version.level_max
        if self._level_targets is not None and deepest > self._level_targets + 1:
            raise ConfigError(
                f"table {self._table!r}: --level-targets says {self._level_targets}, but its files are "
                f"compacted to level {deepest}, which takes {deepest - 1}"
            )

    def newest(self, version: CatalogVersion, known_from: int) -> int:
        """The newest seq that may have been a tombstone which is gone; 0 when none can be.

        Every op after `known_from` is known from elsewhere. Raises as `check`, and what reading files raises.
        """
        self.check(version)
        deepest = version.level_max
        self._forget_others(version.files)
        if deepest == 0 or self._are_kept(version, deepest):
            return 0
        return _newest_missing((self._seqs(file) for file in version.files), known_from)

    def _are_kept(self, version: CatalogVersion, level: int) -> bool:
        if self._level_targets is not None:
            return level <= self._level_targets
        return any(self._keeps(file) for file in version.files if file.entry.level == level)

    def _keeps(self, file: CheckedFile) -> bool:
        path = file.entry.path
        if path not in self._keeps_by_path:
            self._keeps_by_path[path] = _keeps_tombstones(file)
        return self._keeps_by_path[path]

    def _seqs(self, file: CheckedFile) -> BitMap64:
        path = file.entry.path
        if path not in self._seqs_by_path:
            self._seqs_by_path[path] = _seqs_of(file)
        return self._seqs_by_path[path]

    def _forget_others(self, files: Iterable[CheckedFile]) -> None:
        paths = {file.entry.path for file in files}
        self._keeps_by_path = {p: keeps for p, keeps in self._keeps_by_path.items() if p in paths}
        self._seqs_by_path = {p: seqs for p, seqs in self._seqs_by_path.items() if p in paths}


def _keeps_tombstones(file: CheckedFile) -> bool:
    """Whether the file has a tombstone that a compaction to the bottom level would have dropped.

    The table's very last op is never dropped, so the file's last one shows nothing.
    """
    problem = "can't be read as Parquet"
    with file.folder.reading(f"file {file.entry.path}", problem), file.folder.open(file.entry.path) as opened:
        parquet = pq.ParquetFile(opened)
        op_column = parquet.schema_arrow.get_field_index(_OP)
        groups = [
            number
            for number in range(parquet.num_row_groups)
            if _may_have_deletes(parquet.metadata.row_group(number).column(op_column))
        ]
        for batch in parquet.iter_batches(BATCH_ROWS, row_groups=groups, columns=[_SEQ, _OP]):
            older = pc.less(batch.column(_SEQ), file.entry.seq_max)
            if pc.any(pc.and_(older, pc.equal(batch.column(_OP), _DELETE))).as_py():
                return True
    return False


def _may_have_deletes(column: pq.ColumnChunkMetaData) -> bool:
    statistics = column.statistics
    return statistics is None or not statistics.has_min_max or statistics.min == _DELETE


def _seqs_of(file: CheckedFile) -> BitMap64:
    seqs = BitMap64()
    problem = "can't be read as Parquet"
    with file.folder.reading(f"file {file.entry.path}", problem), file.folder.open(file.entry.path) as opened:
        for part in _seq_parts(pq.ParquetFile(opened)):
            seqs.update(np.sort(part))
    seqs.run_optimize()
    return seqs


def _seq_parts(parquet: pq.ParquetFile) -> Iterator[np.ndarray]:
    for batch in parquet.iter_batches(BATCH_ROWS, columns=[_SEQ]):
        yield batch.column(0).to_numpy().astype(np.uint64)


def _newest_missing(files: Iterable[BitMap64], bound: int) -> int:
    """The newest seq in [1, bound] that is in none of `files`; 0 when all are there."""
    found = BitMap64()
    for seqs in files:
        found |= seqs
    missing = BitMap64()
    missing.add_range(1, bound + 1)
    missing -= found
    return int(missing.max()) if missing else 0
