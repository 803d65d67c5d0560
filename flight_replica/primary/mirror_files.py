"""Data files of a mirror: written sorted by key, with the key range of each row group in the footer, so
that the rows of given keys are found by reading the key columns of few row groups.

The footer's `merutable.key-ranges` is JSON: `[[lowest, highest], …]`, one pair of hex `pk_bytes` a row
group. A file without it can't be one of the mirror's.
"""

from __future__ import annotations

import json
import os
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from uuid import uuid4

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pyiceberg.io.pyarrow import (
    DataFileStatistics,
    MetricModeTypes,
    MetricsMode,
    compute_statistics_plan,
    data_file_statistics_from_parquet_metadata,
    parquet_path_to_id_mapping,
)
from pyiceberg.manifest import DataFile, DataFileContent
from pyiceberg.schema import Schema
from pyiceberg.types import DateType, TimestampType, TimestamptzType

from flight_replica.base.iceberg_files import LiveFile, parquet_file
from flight_replica.base.iceberg_schema import storage_schema, to_storage
from flight_replica.conform import conform
from flight_replica.errors import BaseError, ConstraintViolation
from flight_replica.keys import KeyCodec
from flight_replica.primary.position_deletes import described_file
from flight_replica.schema import TableSchema

__all__ = ["KeyedFile", "KeyedFileWriter", "SortedKeys", "chunks", "matching_rows"]

_KEY_RANGES = b"merutable.key-ranges"
_DATES = (DateType, TimestampType, TimestamptzType)

Positions = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class SortedKeys:
    """Distinct keys in ascending order, with searches by range."""

    values: pa.BinaryArray

    @classmethod
    def of(cls, keys: pa.BinaryArray | pa.ChunkedArray) -> SortedKeys:
        distinct = pc.unique(keys)
        return cls(distinct.take(pc.sort_indices(distinct)))

    def between(self, lowest: bytes, highest: bytes) -> pa.BinaryArray:
        """The keys in `[lowest, highest]`, as a slice."""
        start = bisect_left(self.values, lowest, key=pa.BinaryScalar.as_py)
        end = bisect_right(self.values, highest, lo=start, key=pa.BinaryScalar.as_py)
        return self.values.slice(start, end - start)


@dataclass(frozen=True, slots=True)
class KeyedFile:
    """A live data file. `deleted`: sorted 0-based rows; `ranges`: lowest, highest key of each row group."""

    data_file: DataFile
    deleted: Positions
    ranges: tuple[tuple[bytes, bytes], ...]

    @classmethod
    def open(cls, live: LiveFile) -> KeyedFile:
        """Raises `BaseError` for a file that wasn't written by a mirror."""
        with parquet_file(live.data_file.file_path) as reader:
            footer = reader.metadata.metadata or {}
        if _KEY_RANGES not in footer:
            raise BaseError(
                f"{live.data_file.file_path}: not a mirror's data file, {_KEY_RANGES.decode()} is missing"
            )
        ranges = tuple(
            (bytes.fromhex(low), bytes.fromhex(high)) for low, high in json.loads(footer[_KEY_RANGES])
        )
        return cls(live.data_file, live.deleted, ranges)

    @property
    def path(self) -> str:
        return self.data_file.file_path

    @property
    def row_count(self) -> int:
        """Rows that are in the table."""
        return self.data_file.record_count - len(self.deleted)

    def without(self, positions: Positions) -> KeyedFile:
        return replace(self, deleted=np.union1d(self.deleted, positions))

    def read(self, schema: TableSchema) -> pa.Table:
        """The rows that are in the table, with the columns and types of `schema`."""
        with parquet_file(self.path) as reader:
            table = reader.read()
        keep = np.ones(table.num_rows, np.bool_)
        keep[self.deleted] = False
        return pa.Table.from_batches([_batch(table.filter(pa.array(keep)), schema)])


def matching_rows(file: KeyedFile, keys: SortedKeys, schema: TableSchema) -> Positions:
    """The rows of `file`, sorted and not yet deleted, whose key is among `keys`."""
    wanted = [keys.between(low, high) for low, high in file.ranges]
    if not any(map(len, wanted)):
        return np.empty(0, np.int64)
    found: list[Positions] = []
    with parquet_file(file.path) as reader:
        start = 0
        for group, some in enumerate(wanted):
            if len(some):
                found.append(start + _matches(_row_group_keys(reader, group, schema), some))
            start += reader.metadata.row_group(group).num_rows
    return np.setdiff1d(np.concatenate(found), file.deleted, assume_unique=True)


def _row_group_keys(reader: pq.ParquetFile, group: int, schema: TableSchema) -> pa.BinaryArray:
    key_schema = TableSchema(schema.key_columns, schema.primary_key)
    table = reader.read_row_group(group, columns=list(schema.primary_key))
    return KeyCodec(schema).encode_batch(_batch(table, key_schema))


def _matches(keys: pa.BinaryArray, wanted: pa.BinaryArray) -> Positions:
    return np.flatnonzero(pc.is_in(keys, value_set=wanted).to_numpy(zero_copy_only=False)).astype(np.int64)


def _batch(table: pa.Table, schema: TableSchema) -> pa.RecordBatch:
    """`table`, which is no larger than a data file, in one batch of the table's types."""
    return conform(_one_batch(table), schema)


def _one_batch(table: pa.Table) -> pa.RecordBatch:
    columns = [column.combine_chunks() for column in table.columns]
    return pa.RecordBatch.from_arrays(columns, schema=table.schema)


def chunks(batches: Iterable[pa.RecordBatch], rows_max: int, bytes_max: int) -> Iterator[pa.Table]:
    """The rows of `batches` in their order, in tables of `rows_max` rows and about `bytes_max` bytes."""
    pending: list[pa.RecordBatch] = []
    rows = size = 0
    for piece in chain.from_iterable(_pieces(batch, rows_max, bytes_max) for batch in batches):
        if pending and (rows + piece.num_rows > rows_max or size + piece.nbytes > bytes_max):
            yield pa.Table.from_batches(pending)
            pending, rows, size = [], 0, 0
        pending.append(piece)
        rows, size = rows + piece.num_rows, size + piece.nbytes
    if rows:
        yield pa.Table.from_batches(pending)


def _pieces(batch: pa.RecordBatch, rows_max: int, bytes_max: int) -> Iterator[pa.RecordBatch]:
    length = max(1, min(rows_max, batch.num_rows * bytes_max // max(1, batch.nbytes)))
    return (batch.slice(start, length) for start in range(0, batch.num_rows, length))


@dataclass(frozen=True, slots=True)
class KeyedFileWriter:
    """Writes rows of one table, in one version of its schema, into new files in `directory`."""

    directory: Path
    schema: TableSchema
    codec: KeyCodec
    iceberg_schema: Schema
    properties: Mapping[str, str]
    row_group_rows: int

    def write(self, rows: pa.Table) -> KeyedFile:
        """Write `rows` (the table's types, at least one) into one file, sorted by key and on disk for good.

        Raises `ConstraintViolation` when two rows have the same key.
        """
        batch = _one_batch(rows)
        keys = self.codec.encode_batch(batch)
        order = pc.sort_indices(keys)
        keys = keys.take(order)
        if len(keys) > 1 and pc.any(pc.equal(keys[1:], keys[:-1])).as_py():
            raise ConstraintViolation(
                f"mirror in {self.directory.parent}: two rows of one commit have the same key"
            )
        ranges = tuple(self._ranges(keys))
        path = self.directory / f"{uuid4()}.parquet"
        stored = to_storage(pa.Table.from_batches([batch]).take(order), storage_schema(self.iceberg_schema))
        metadata = self._write(path, stored, ranges)
        file = described_file(DataFileContent.DATA, path, **self._statistics(metadata).to_serialized_dict())
        return KeyedFile(file, np.empty(0, np.int64), ranges)

    def _statistics(self, metadata: pq.FileMetaData) -> DataFileStatistics:
        """Those of the manifest; without bounds of times where one is beyond the years 1 to 9999.

        pyiceberg makes Python's dates of the bounds, which end there.
        """
        plan = compute_statistics_plan(self.iceberg_schema, dict(self.properties))
        places = parquet_path_to_id_mapping(self.iceberg_schema)
        try:
            return data_file_statistics_from_parquet_metadata(metadata, plan, places)
        except OverflowError:
            counts = MetricsMode(MetricModeTypes.COUNTS)
            plan = {
                number: replace(column, mode=counts) if isinstance(column.iceberg_type, _DATES) else column
                for number, column in plan.items()
            }
            return data_file_statistics_from_parquet_metadata(metadata, plan, places)

    def _ranges(self, keys: pa.BinaryArray) -> Iterator[tuple[bytes, bytes]]:
        for start in range(0, len(keys), self.row_group_rows):
            group = keys[start : start + self.row_group_rows]
            yield group[0].as_py(), group[-1].as_py()

    def _write(
        self, path: Path, stored: pa.Table, ranges: tuple[tuple[bytes, bytes], ...]
    ) -> pq.FileMetaData:
        with path.open("xb") as file:
            # Without Arrow's own schema in the footer: the file is what Iceberg says it is.
            with pq.ParquetWriter(
                file, stored.schema, compression="zstd", store_schema=False, store_decimal_as_integer=True
            ) as writer:
                writer.write_table(stored, row_group_size=self.row_group_rows)
                pairs = [[low.hex(), high.hex()] for low, high in ranges]
                writer.add_key_value_metadata({_KEY_RANGES.decode(): json.dumps(pairs)})
            file.flush()
            os.fsync(file.fileno())
        return pq.read_metadata(path)
