"""Whether the pages of a base's Parquet files can be decoded, and are what their statistics say.

A reader of footers and keys doesn't touch the other columns, where a page may still be damaged; and a query
leaves out what can't be in a row group by its statistics. Each file is looked at once, however many snapshots
it stands in.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from flight_replica.base.source import BaseFile
from flight_replica.errors import BaseError

__all__ = ["FIRST_BYTES_MAX", "NEWER_BYTES_MAX", "PageCheck"]

FIRST_BYTES_MAX = (
    128 << 20
)  # of a first base: it is to answer soon, and a query of a damaged page is an error
NEWER_BYTES_MAX = 4 << 30  # of what is new in a newer base, which may not displace a sound one: half a minute
_BATCH_ROWS = 65_536

_Id = tuple[int, int, int]  # inode, bytes, time of the last change in ns


class PageCheck:
    """Remembers which files were looked at. Used by one thread at a time."""

    def __init__(self) -> None:
        self._seen: set[_Id] = set()

    def check(self, named: Sequence[BaseFile], own: Sequence[BaseFile], bytes_max: int) -> None:
        """Decode every page of the files in `own` that wasn't looked at yet, as long as they have at most
        `bytes_max` bytes in all. `named`: the same files where they came from.

        Raises `BaseError` with the file's name for a page that can't be decoded.
        """
        ids = [_id(file.path) for file in own]
        new = {file_id: index for index, file_id in enumerate(ids) if file_id not in self._seen}
        if sum(size for _, size, _ in new) > bytes_max:
            return
        for index in new.values():
            _check(own[index].path, Path(named[index].path).name)
        self._seen = set(ids)


def _id(path: str) -> _Id:
    found = os.stat(path)
    return found.st_ino, found.st_size, found.st_mtime_ns


def _check(path: str, name: str) -> None:
    try:
        file = pq.ParquetFile(path)
        counts = [_check_group(file, group, name) for group in range(file.num_row_groups)]
    except (pa.ArrowException, OSError) as error:
        raise BaseError(f"base file {name}: a page can't be decoded: {error}") from error
    if sum(counts) != file.metadata.num_rows:
        raise BaseError(
            f"base file {name} gives {sum(counts)} rows, its footer says {file.metadata.num_rows}"
        )


def _check_group(file: pq.ParquetFile, group: int, name: str) -> int:
    """Decode a row group, and compare its values with the statistics that queries leave it out by."""
    metadata = file.metadata.row_group(group)
    known = {}
    for index in range(metadata.num_columns):
        column = metadata.column(index)
        if column.is_stats_set and column.statistics.has_min_max:
            known[column.path_in_schema] = column.statistics
    count = 0
    for batch in file.iter_batches(_BATCH_ROWS, row_groups=[group]):
        count += batch.num_rows
        for column, values in zip(batch.schema, batch.columns, strict=True):
            if column.name in known and _is_compared(column.type):
                found, stated = pc.min_max(values).as_py(), known[column.name]
                if found["min"] is not None and (found["min"] < stated.min or found["max"] > stated.max):
                    raise BaseError(
                        f"base file {name}: column {column.name!r} has values from {found['min']!r} to "
                        f"{found['max']!r}, its statistics say {stated.min!r} to {stated.max!r}"
                    )
    return count


def _is_compared(kind: pa.DataType) -> bool:
    types = pa.types
    kinds = (types.is_integer, types.is_floating, types.is_string, types.is_binary)
    return any(is_kind(kind) for is_kind in kinds)
