"""Which files of a base may hold keys that ops have changed since; all others are read as they lie.

By the files' own statistics of an integer key's first column. Where there are none, or the key begins with
something else, every file may hold every key.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from flight_replica.base.source import BaseFile
from flight_replica.schema import TableSchema


class TouchedFiles:
    """Grows with what `note` is told. One thread notes; others may look at any time.

    A file never ceases to be touched, and is so before its ops can be seen: whoever looks after having read
    a position sees all that the position stands for, and perhaps more.
    """

    def __init__(self, files: Sequence[BaseFile], schema: TableSchema) -> None:
        self._files = files
        self._schema = schema
        self._ranges: tuple[npt.NDArray[np.generic], npt.NDArray[np.generic]] | None = None
        self._touched = np.zeros(len(files), np.bool_)

    @property
    def numbers(self) -> frozenset[int]:
        """Of the touched files, as they stand in the snapshot."""
        return frozenset(np.flatnonzero(self._touched).tolist())

    def note(self, rows: pa.RecordBatch) -> None:
        """Ops on these keys come; `rows` has the table's columns under their internal names."""
        if not len(rows) or self._touched.all():
            return
        name = self._schema.primary_key[0]
        kind = self._schema.key_columns[0].type
        if not pa.types.is_integer(kind):
            self._touched = np.ones(len(self._files), np.bool_)
            return
        if self._ranges is None:
            self._ranges = _ranges(self._files, name, kind)
        lows, highs = self._ranges
        keys = np.sort(rows.column(f"c{self._schema.names.index(name)}").to_numpy(zero_copy_only=False))
        first, behind = np.searchsorted(keys, lows, "left"), np.searchsorted(keys, highs, "right")
        self._touched = self._touched | (first < behind)


def _ranges(
    files: Sequence[BaseFile], name: str, kind: pa.DataType
) -> tuple[npt.NDArray[np.generic], npt.NDArray[np.generic]]:
    """Each file's smallest and largest key, or what the type can hold where the file doesn't tell."""
    limits = np.iinfo(kind.to_pandas_dtype())
    found = [_range(file, name) or (limits.min, limits.max) for file in files]
    lows, highs = zip(*found, strict=True)
    dtype = kind.to_pandas_dtype()
    return np.array(lows, dtype), np.array(highs, dtype)


def _range(file: BaseFile, name: str) -> tuple[int, int] | None:
    metadata = pq.read_metadata(file.path)
    smallest: list[int] = []
    largest: list[int] = []
    for number in range(metadata.num_row_groups):
        group = metadata.row_group(number)
        columns = [group.column(index) for index in range(group.num_columns)]
        of_name = [column.statistics for column in columns if column.path_in_schema == name]
        if len(of_name) != 1:  # `a.b` may also be field `b` of the column `a`
            return None
        (statistics,) = of_name
        if statistics is None or not statistics.has_min_max or not isinstance(statistics.min, int):
            return None
        smallest.append(statistics.min)
        largest.append(statistics.max)
    return (min(smallest), max(largest)) if smallest else None
