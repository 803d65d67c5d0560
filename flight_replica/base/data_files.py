"""One data file of a merutable table: does it fit its manifest entry, and what versions does it hold.

The manifest, the frame and the pages have no checksums, so every number that is stated twice is
compared. Source: merutable format, sections 4 and 5.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from flight_replica.base.folder import Folder
from flight_replica.base.manifest import DataFile, parse_object
from flight_replica.base.newest import Versions
from flight_replica.base.row_blobs import disagreeing, field_counts
from flight_replica.errors import BaseError, BaseNotUsable, SchemaMismatch
from flight_replica.keys import KeyCodec
from flight_replica.schema import TableSchema

_SCHEMA_KEY = b"merutable.schema"
_META_KEY = b"merutable.meta"
_IKEY, _SEQ, _OP, _VALUE = "_merutable_ikey", "_merutable_seq", "_merutable_op", "_merutable_value"
_PARQUET_MAGIC = b"PAR1"

BATCH_ROWS = 65_536  # of a file in memory at a time: a few MB of keys
BATCH_BYTES = 4 << 20  # … where whole rows are read; as compressed in the file


@dataclass(frozen=True, slots=True)
class CheckedFile:
    """A data file whose size and footer fit its manifest entry."""

    folder: Folder
    entry: DataFile
    schema: TableSchema  # as of the process that wrote the file
    has_blobs: bool  # the engine reads its rows from the column of row blobs

    @property
    def location(self) -> str:
        """Its local path, or where it lies in the folder's object store."""
        return self.folder.location(self.entry.path)


@dataclass(frozen=True, slots=True)
class VersionBatch:
    """Some neighbouring rows of one file, in file order."""

    versions: Versions
    short: dict[int, np.ndarray]  # number of fields -> rows (from 0 in this batch) stored with no more


def check_file(catalog: Folder | Path, entry: DataFile) -> CheckedFile:
    """The file of `entry`. Raises `BaseNotUsable` (gone, half written), `BaseError` (not what it says)."""
    folder = Folder.at(catalog)
    with folder.reading(f"file {entry.path}"), folder.open(entry.path) as file:
        size_bytes = file.size()
        if size_bytes != entry.size_bytes and not _has_end(file):
            if size_bytes < entry.size_bytes:  # files aren't written all at once
                raise BaseNotUsable(f"file {entry.path}: {size_bytes} bytes, expected {entry.size_bytes}")
            raise BaseError(f"file {entry.path}: {size_bytes} bytes, the manifest says {entry.size_bytes}")
    with folder.reading(f"file {entry.path}", "can't be read as Parquet"), folder.open(entry.path) as file:
        parquet = pq.ParquetFile(file)
        metadata, layout = parquet.metadata, parquet.schema_arrow
    footer: Mapping[bytes, bytes] = metadata.metadata or {}
    meta = _footer_object(footer, _META_KEY, entry.path)
    _check_meta(meta, entry)
    if meta.get("format") == "dual" and _VALUE not in layout.names:
        raise BaseError(f"file {entry.path}: column {_VALUE!r} is missing, though its footer says dual")
    if metadata.num_rows != entry.row_count:
        raise BaseError(f"file {entry.path}: {metadata.num_rows} rows, the manifest says {entry.row_count}")
    if size_bytes != entry.size_bytes:
        raise BaseError(
            f"file {entry.path}: whole with {size_bytes} bytes, the manifest says {entry.size_bytes}"
        )
    place = f"file {entry.path}: footer key {_SCHEMA_KEY.decode()}"
    schema = table_schema_of(_footer_object(footer, _SCHEMA_KEY, entry.path), place)
    _check_columns(layout, schema, entry.path)
    return CheckedFile(folder, entry, schema, entry.is_dual and _VALUE in layout.names)


def _has_end(file: pa.NativeFile) -> bool:
    file.seek(max(0, file.size() - len(_PARQUET_MAGIC)))
    return bool(file.read() == _PARQUET_MAGIC)


def _footer_object(footer: Mapping[bytes, bytes], key: bytes, path: str) -> dict[str, object]:
    place = f"file {path}: footer key {key.decode()}"
    if key not in footer:
        raise BaseError(f"{place} is missing")
    return parse_object(footer[key], place)


def _check_meta(meta: Mapping[str, object], entry: DataFile) -> None:
    """The file says of itself what the manifest says of it."""
    stated = {
        "level": entry.level,
        "seq_min": entry.seq_min,
        "seq_max": entry.seq_max,
        "num_rows": entry.row_count,
        "key_min": entry.key_min.hex(),
        "key_max": entry.key_max.hex(),
    }
    for name, expected in stated.items():
        if meta.get(name) != expected:
            raise BaseError(
                f"file {entry.path}: its footer says {name} {str(meta.get(name))[:100]}, "
                f"the manifest says {expected}"
            )


def _check_columns(found: pa.Schema, schema: TableSchema, path: str) -> None:
    """The file holds the internal columns and every column of its own schema, in the right type."""
    internal = {_IKEY: pa.binary(), _SEQ: pa.int64(), _OP: pa.int32()}
    wanted = internal | {column.name: column.type for column in schema.columns}
    for name, arrow_type in wanted.items():
        index = found.get_field_index(name)
        if index < 0:
            raise BaseError(f"file {path}: column {name!r} is missing or there twice")
        if found.field(index).type != arrow_type:
            raise BaseError(
                f"file {path}: column {name!r} is {found.field(index).type}, expected {arrow_type}"
            )


def table_schema_of(document: dict[str, object], place: str) -> TableSchema:
    """The table that an engine's schema describes. Raises `BaseError`, which begins with `place`."""
    try:
        return TableSchema.from_engine_json(document)
    except SchemaMismatch as error:
        raise BaseError(f"{place}: {error}") from error


def read_versions(file: CheckedFile, *, batch_rows: int | None = None) -> Iterator[VersionBatch]:
    """Keys, seqs and ops of every row, by batches; what a row says twice must agree.

    In files that have row blobs it also finds rows that were written before the file's newest columns were
    added. Keys and seqs must ascend and reach exactly as far as the manifest says. Raises `BaseError`, also
    at the end.
    """
    entry = file.entry
    check = _RowChecks(file)
    columns = [_IKEY, _SEQ, _OP, *file.schema.primary_key]
    if file.has_blobs:
        columns = list(dict.fromkeys([*columns, *file.schema.names, _VALUE]))
    problem = "can't be read as Parquet"
    with file.folder.reading(f"file {entry.path}", problem), file.folder.open(entry.path) as opened:
        parquet = pq.ParquetFile(opened)
        for batch in parquet.iter_batches(batch_rows or _batch_rows(file), columns=columns):
            versions = check.versions(batch)
            yield VersionBatch(versions, check.short_rows(batch, versions) if file.has_blobs else {})
    check.end()


def _batch_rows(file: CheckedFile) -> int:
    """Fewer where whole rows are read and these are long."""
    if not file.has_blobs:
        return BATCH_ROWS
    row_bytes = file.entry.size_bytes // max(file.entry.row_count, 1)
    return int(min(BATCH_ROWS, max(1, BATCH_BYTES // max(row_bytes, 1))))


class _RowChecks:
    """What one file's rows must hold up to, batch by batch."""

    def __init__(self, file: CheckedFile) -> None:
        self._entry = file.entry
        self._codec = KeyCodec(file.schema)
        self._key_names = file.schema.primary_key
        self._names = file.schema.names
        self._row_count = 0
        self._last_ikey = b""
        self._first_key = b""
        self._seqs = (2**64, -1)  # least and greatest so far

    def versions(self, batch: pa.RecordBatch) -> Versions:
        versions = Versions.from_internal_keys(pa.chunked_array([batch.column(_IKEY)]), self._entry.path)
        if not len(versions):
            return versions
        self._check_order(batch.column(_IKEY))
        self._check_columns(batch, versions)
        if self._row_count == 0:
            self._first_key = versions.keys[0].as_py()
            if self._first_key != self._entry.key_min:
                raise BaseError(self._key_message(versions.keys[-1].as_py()))
        least, greatest = int(versions.seqs.min()), int(versions.seqs.max())
        self._seqs = min(self._seqs[0], least), max(self._seqs[1], greatest)
        self._row_count += len(versions)
        self._last_ikey = batch.column(_IKEY)[-1].as_py()
        return versions

    def short_rows(self, batch: pa.RecordBatch, versions: Versions) -> dict[int, np.ndarray]:
        """Number of fields -> rows of the batch whose blob has no more of them than that, and too few.

        Called after `versions`. Blobs of puts must say what their typed columns say; those of tombstones
        needn't, since the columns are filled with zeros where there was no row to keep.
        """
        blobs, names = batch.column(_VALUE), self._names
        counts = field_counts(blobs, self._entry.path)
        if (counts > len(names)).any():
            raise BaseError(
                f"file {self._entry.path}: a row of {counts.max()} fields, the file has {len(names)} columns"
            )
        puts = np.flatnonzero(versions.is_put)
        rows = batch if len(puts) == len(versions) else batch.take(pa.array(puts))
        wrong = disagreeing(rows.column(_VALUE), [rows.column(name) for name in names], counts[puts])
        if len(wrong):
            row = self._row_count - len(versions) + int(puts[wrong[0]])
            raise BaseError(f"file {self._entry.path}: row {row}: its columns disagree with its row blob")
        return {int(n): np.flatnonzero(counts == n) for n in np.unique(counts[counts < len(names)])}

    def _check_order(self, ikeys: pa.BinaryArray) -> None:
        is_ascending = pc.less(ikeys[:-1], ikeys[1:])
        if not pc.all(is_ascending, min_count=0).as_py():
            row = self._row_count + is_ascending.index(pa.scalar(False)).as_py() + 1
        elif self._row_count and ikeys[0].as_py() <= self._last_ikey:
            row = self._row_count
        else:
            return
        raise BaseError(f"file {self._entry.path}: row {row} isn't in the order of internal keys")

    def _check_columns(self, batch: pa.RecordBatch, versions: Versions) -> None:
        """The internal key says again what other columns say.

        But for the key columns of tombstones: where the engine had no row to keep, it makes them of the
        key, and gets floats wrong (negative ones in sample s05 c5; 0.0.1 makes a NaN of zero).
        """
        self._check_same(batch.column(_OP).to_numpy() == versions.is_put, _OP)
        self._check_same(batch.column(_SEQ).to_numpy() == versions.seqs.astype(np.int64), _SEQ)
        puts = np.flatnonzero(versions.is_put)
        rows, expected = batch.select(self._key_names), versions.keys
        if len(puts) < len(versions):
            rows, expected = rows.take(pa.array(puts)), expected.take(pa.array(puts))
        try:
            keys = self._codec.encode(rows.columns)
        except SchemaMismatch as error:
            raise BaseError(f"file {self._entry.path}: {error}") from error
        is_key_same = np.ones(len(versions), np.bool_)
        is_key_same[puts] = pc.equal(keys.cast(pa.large_binary()), expected).to_numpy(zero_copy_only=False)
        self._check_same(is_key_same, f"key {', '.join(self._key_names)}")

    def _check_same(self, is_same: np.ndarray, what: str) -> None:
        if not is_same.all():
            row = self._row_count + int(np.argmin(is_same))
            raise BaseError(f"file {self._entry.path}: row {row}: {what} disagrees with the internal key")

    def _key_message(self, last: bytes) -> str:
        return (
            f"file {self._entry.path}: holds keys {self._first_key.hex()} to {last.hex()}, "
            f"the manifest says {self._entry.key_min.hex()} to {self._entry.key_max.hex()}"
        )

    def end(self) -> None:
        entry = self._entry
        if self._row_count != entry.row_count:
            raise BaseError(
                f"file {entry.path}: {self._row_count} rows came, the manifest says {entry.row_count}"
            )
        if not self._row_count:
            return
        if self._seqs != (entry.seq_min, entry.seq_max):
            raise BaseError(
                f"file {entry.path}: holds seqs {self._seqs[0]} to {self._seqs[1]}, "
                f"the manifest says {entry.seq_min} to {entry.seq_max}"
            )
        if self._last_ikey[:-8] != entry.key_max:
            raise BaseError(self._key_message(self._last_ikey[:-8]))
