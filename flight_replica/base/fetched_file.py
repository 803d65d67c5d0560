"""`FetchedFile`: one key range on its way into Parquet, in bounded memory, with its digest as it goes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from flight_replica.base.source import BaseFile
from flight_replica.conform import conform
from flight_replica.digest import digest
from flight_replica.schema import TableSchema

__all__ = ["FetchedFile", "Part"]

ROW_GROUP_ROWS = 122_880  # what DuckDB scans as one task
ROW_GROUP_BYTES = 32 << 20  # Arrow bytes held before a row group is written


@dataclass(frozen=True, slots=True)
class Part:
    """A finished range. `digest` is that of its rows, as `merutable_digest` counts."""

    file: BaseFile | None  # None: the range has no row
    row_count: int
    digest: int


class FetchedFile:
    """Writes `path`, which is removed again unless `finish` came to its end. One thread."""

    def __init__(self, path: Path, schema: TableSchema) -> None:
        self._path = path
        self._schema = schema
        self._held: list[pa.RecordBatch] = []
        self._held_rows = self._held_bytes = 0
        self._writer: pq.ParquetWriter | None = None
        self._row_count = self._digest = 0
        self._is_finished = False

    def add(self, batch: pa.RecordBatch) -> None:
        """Take rows of the table's columns, in order. Raises `SchemaMismatch` where a value doesn't fit."""
        named = pa.RecordBatch.from_arrays(batch.columns, names=list(self._schema.names))
        rows = conform(named, self._schema)
        found = digest([rows], self._schema)
        self._row_count += found.row_count
        self._digest = (self._digest + found.value) % 2**64
        self._held.append(rows)
        self._held_rows += rows.num_rows
        self._held_bytes += rows.nbytes
        if self._held_rows >= ROW_GROUP_ROWS or self._held_bytes >= ROW_GROUP_BYTES:
            self._write()

    def finish(self) -> Part:
        """Everything is on disk. Raises `OSError`."""
        if self._held_rows:
            self._write()
        self._held = []
        if self._writer is not None:
            self._writer.close()
        self._is_finished = True
        if not self._row_count:
            return Part(None, 0, 0)
        file = BaseFile(str(self._path), self._row_count, np.empty(0, np.int64), self._schema.names)
        return Part(file, self._row_count, self._digest)

    def _write(self) -> None:
        """What is held becomes a row group."""
        rows = pa.Table.from_batches(self._held)
        self._held, self._held_rows, self._held_bytes = [], 0, 0
        if self._writer is None:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            texts = _texts(self._schema)
            self._writer = pq.ParquetWriter(
                self._path, rows.schema, compression=dict.fromkeys(texts, "lz4"), use_dictionary=texts
            )
        self._writer.write_table(rows, row_group_size=len(rows))

    def __enter__(self) -> FetchedFile:
        return self

    def __exit__(
        self, _type: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        if self._is_finished:
            return
        self._held = []
        if self._writer is not None:
            self._writer.close()
            self._path.unlink(missing_ok=True)


def _texts(schema: TableSchema) -> list[str]:
    """Columns that are written small: numbers gain little by it, and it takes longer than all the rest."""
    return [
        column.name
        for column in schema.columns
        if pa.types.is_string(column.type) or pa.types.is_binary(column.type)
    ]
