"""One data file of a merutable catalog: does it fit its manifest entry, and what versions does it hold.

The manifest, the frame and the pages have no checksums, so every number that is stated twice is
compared. Source: merutable format, sections 4 and 5.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from flight_replica.base.manifest import DataFile, parse_schema
from flight_replica.base.newest import Versions
from flight_replica.errors import BaseError, BaseNotUsable, SchemaMismatch
from flight_replica.schema import TableSchema

_SCHEMA_KEY = b"merutable.schema"
_IKEY = "_merutable_ikey"


@dataclass(frozen=True, slots=True)
class CheckedFile:
    """A data file whose size and footer fit its manifest entry."""

    entry: DataFile
    path: Path
    schema: TableSchema  # as of the process that wrote the file


def check_file(catalog: Path, entry: DataFile) -> CheckedFile:
    path = catalog / entry.path
    with _reading(entry.path):
        size_bytes = path.stat().st_size
        if size_bytes < entry.size_bytes:
            raise BaseNotUsable(f"file {entry.path}: {size_bytes} bytes, expected {entry.size_bytes}")
        if size_bytes > entry.size_bytes:
            raise BaseError(f"file {entry.path}: {size_bytes} bytes, the manifest says {entry.size_bytes}")
        metadata = pq.read_metadata(path)
    if metadata.num_rows != entry.row_count:
        raise BaseError(f"file {entry.path}: {metadata.num_rows} rows, the manifest says {entry.row_count}")
    place = f"file {entry.path}: footer key {_SCHEMA_KEY.decode()}"
    if _SCHEMA_KEY not in (metadata.metadata or {}):
        raise BaseError(f"{place} is missing")
    schema = table_schema_of(parse_schema(metadata.metadata[_SCHEMA_KEY], place), place)
    _check_columns(metadata.schema.to_arrow_schema(), schema, entry.path)
    return CheckedFile(entry, path, schema)


def _check_columns(found: pa.Schema, schema: TableSchema, path: str) -> None:
    """The file holds the internal key and every column of its own schema, in the right type."""
    wanted = {_IKEY: pa.binary()} | {column.name: column.type for column in schema.columns}
    for name, arrow_type in wanted.items():
        index = found.get_field_index(name)
        if index < 0:
            raise BaseError(f"file {path}: column {name!r} is missing or there twice")
        if found.field(index).type != arrow_type:
            raise BaseError(
                f"file {path}: column {name!r} is {found.field(index).type}, expected {arrow_type}"
            )


def read_versions(file: CheckedFile) -> Versions:
    """Keys, seqs and ops of every row; they must reach exactly as far as the manifest says."""
    entry = file.entry
    with _reading(entry.path), pq.ParquetFile(file.path) as parquet:
        column = parquet.read(columns=[_IKEY]).column(0)
    versions = Versions.from_internal_keys(column, entry.path)
    if not len(versions):
        return versions
    seqs = int(versions.seqs.min()), int(versions.seqs.max())
    if seqs != (entry.seq_min, entry.seq_max):
        raise BaseError(
            f"file {entry.path}: holds seqs {seqs[0]} to {seqs[1]}, "
            f"the manifest says {entry.seq_min} to {entry.seq_max}"
        )
    keys = versions.keys[0].as_py(), versions.keys[-1].as_py()  # rows ascend by key
    if keys != (entry.key_min, entry.key_max):
        raise BaseError(
            f"file {entry.path}: holds keys {keys[0].hex()} to {keys[1].hex()}, "
            f"the manifest says {entry.key_min.hex()} to {entry.key_max.hex()}"
        )
    return versions


def table_schema_of(document: dict[str, object], place: str) -> TableSchema:
    try:
        return TableSchema.from_engine_json(document)
    except SchemaMismatch as error:
        raise BaseError(f"{place}: {error}") from error


@contextmanager
def _reading(path: str) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError as error:
        raise BaseNotUsable(f"file {path} is gone") from error
    except (OSError, pa.ArrowException) as error:
        raise BaseError(f"file {path} can't be read as Parquet: {error}") from error
