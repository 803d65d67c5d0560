"""`IcebergBase`: the base of a table that an Iceberg snapshot holds, pinned to that snapshot.

Which op the snapshot stands at is said by its summary properties `merutable.*` (the primary's mirror
writes them) or by hand. Which rows are live: `iceberg_files.py`; types: `iceberg_schema.py`.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import unquote, urlparse
from uuid import UUID

import pyarrow as pa
from pyiceberg.exceptions import ValidationError
from pyiceberg.io import FileIO
from pyiceberg.io.pyarrow import PyArrowFileIO
from pyiceberg.schema import Schema
from pyiceberg.table import StaticTable, Table
from pyiceberg.table.snapshots import Snapshot
from pyiceberg.transforms import IdentityTransform

from flight_replica.base.engine_export import (
    ExportedFile,
    check_insert_only,
    has_versions,
    is_export,
    snapshot_of_versions,
)
from flight_replica.base.iceberg_files import (
    LiveFile,
    MovedIO,
    live_files,
    local_path,
    parquet_file,
    place_of,
)
from flight_replica.base.iceberg_schema import storage_schema, table_schema
from flight_replica.base.source import BaseFile, BaseSnapshot
from flight_replica.errors import BaseError, BaseNotUsable, ConfigError
from flight_replica.schema import TableSchema

__all__ = [
    "BASE_SEQ_PROPERTY",
    "COMMIT_TIME_PROPERTY",
    "LINEAGE_PROPERTY",
    "SCHEMA_PROPERTY",
    "IcebergBase",
]

LINEAGE_PROPERTY = "merutable.lineage"
BASE_SEQ_PROPERTY = "merutable.base-seq"
COMMIT_TIME_PROPERTY = "merutable.commit-time-us"
SCHEMA_PROPERTY = "merutable.schema"

_FORMAT_VERSION_MAX = 3
_FIELD_ID = b"PARQUET:field_id"


class IcebergBase:
    """A `BaseSource` over one Iceberg table: of a metadata file, or of a catalog. Stateless but for a cache.

    `load_table` is asked for the newest state at each call; without it the source stays at `metadata`, a
    file's location or an opened table. A table without `merutable.*` properties needs `base_seq` and
    `primary_key` (or `schema`) by hand; a seq is true of one snapshot, so it doesn't go with `load_table`.
    Data files can be in an object store where the table's metadata is there too. `schema` replaces
    the one that the table states; `lineage` must agree with it where it states one. `is_insert_only` is for
    the engine's own exports, see `engine_export.py`.
    """

    def __init__(
        self,
        metadata: str | Table,
        *,
        table: str,
        schema: TableSchema | None = None,
        primary_key: Sequence[str] | None = None,
        base_seq: int | None = None,
        lineage: UUID | None = None,
        load_table: Callable[[], Table] | None = None,
        is_insert_only: bool = False,
    ) -> None:
        if base_seq is not None and load_table is not None:
            raise ConfigError(
                f"table {table!r}: base_seq {base_seq} is true of one snapshot, name its metadata file"
            )
        self._metadata = metadata
        self._table = table
        self._stated = _Stated(schema, tuple(primary_key or ()), base_seq, lineage)
        self._load_table = load_table
        self._is_insert_only = is_insert_only
        self._opened: tuple[str, StaticTable] | None = None

    def poll(self) -> int | None:
        """The current snapshot's id; None without a snapshot, or while there is no readable metadata file."""
        try:
            snapshot = self._open().metadata.current_snapshot()
        except BaseNotUsable:
            return None
        return snapshot.snapshot_id if snapshot else None

    def load(self) -> BaseSnapshot:
        opened = self._open()
        snapshot = opened.metadata.current_snapshot()
        if snapshot is None:
            raise BaseNotUsable(f"table {self._table!r}: {opened.metadata_location} has no snapshot yet")
        if is_export(opened.metadata.properties):
            return self._load_export(opened, snapshot)
        return self._snapshot(opened, snapshot, self._stated, opened.io)

    def _load_export(self, opened: Table, snapshot: Snapshot) -> BaseSnapshot:
        """Of a table that the engine exported, wherever the export lies now."""
        stated, properties = self._stated, opened.metadata.properties
        io = MovedIO(opened.io, opened.metadata.location, opened.metadata_location)
        iceberg_schema = _schema_at(opened, snapshot)
        files = [
            ExportedFile(str(local_path(io.place(f.file_path))), f.file_size_in_bytes, f.record_count)
            for f in (live.data_file for live in live_files(snapshot, io).data)
        ]
        if files and has_versions(files[0]):
            found = snapshot_of_versions(
                self._table,
                files,
                properties,
                [field.name for field in iceberg_schema.fields],
                table_uuid=opened.metadata.table_uuid,
                snapshot_id=snapshot.snapshot_id,
            )
            return replace(found, lineage=stated.lineage or found.lineage)
        if not (stated.primary_key or stated.schema):
            key = [iceberg_schema.find_field(number).name for number in iceberg_schema.identifier_field_ids]
            stated = replace(stated, primary_key=tuple(key))
        schema = stated.schema or table_schema(iceberg_schema, stated.primary_key)
        check_insert_only(
            self._table,
            files,
            properties,
            schema,
            is_declared=self._is_insert_only,
            base_seq=stated.base_seq,
        )
        return self._snapshot(opened, snapshot, stated, io)

    def _snapshot(self, opened: Table, snapshot: Snapshot, stated: _Stated, io: FileIO) -> BaseSnapshot:
        iceberg_schema, store = _schema_at(opened, snapshot), _store(opened)
        pairing = stated.pairing(self._table, opened, snapshot, iceberg_schema)
        layout = _Layout(iceberg_schema, pairing.schema, _identity_partition_ids(opened), io, store)
        return BaseSnapshot(
            table=self._table,
            lineage=pairing.lineage,
            base_seq=pairing.base_seq,
            version=snapshot.snapshot_id,
            schema=pairing.schema,
            files=tuple(layout.base_file(file) for file in live_files(snapshot, io, store).data),
            commit_time_us=pairing.commit_time_us,
            is_key_stated=bool(stated.primary_key),
        )

    def _open(self) -> Table:
        if self._load_table is not None:
            return self._load_table()
        if isinstance(self._metadata, Table):
            return self._metadata
        location = _metadata_path(self._metadata)
        if self._opened is None or self._opened[0] != location:  # a metadata file never changes
            self._opened = (location, _read_metadata(location))
        return self._opened[1]


def _metadata_path(location: str) -> str:
    """A local path. Writers differ on whether a URI's path is percent-encoded: the one that exists counts."""
    path = str(local_path(location))
    decoded = unquote(urlparse(location).path) if location.startswith("file:") else path
    return path if os.path.exists(path) else decoded


def _read_metadata(location: str) -> StaticTable:
    if not location.endswith(".metadata.json"):  # Iceberg spec, "File System Operations"
        raise ConfigError(f"{location}: not an Iceberg metadata file, whose names end in .metadata.json")
    try:
        return StaticTable.from_metadata(location)
    except (OSError, ValidationError, ValueError) as error:
        _check_version(location)
        reason = str(error).splitlines()[0]
        raise BaseNotUsable(f"Iceberg metadata {location} is gone or half written: {reason}") from error


def _check_version(location: str) -> None:
    """Raise `BaseError` for metadata of a format version that is newer than what is read."""
    try:
        version = json.loads(Path(location).read_text())["format-version"]
    except (OSError, ValueError, KeyError, TypeError):
        return  # something else is wrong with it
    if isinstance(version, int) and version > _FORMAT_VERSION_MAX:
        raise BaseError(f"{location}: Iceberg format version {version}; up to {_FORMAT_VERSION_MAX} is read")


def _store(opened: Table) -> PyArrowFileIO | None:
    """What reaches the table's object store, where its metadata lies in one."""
    is_local = urlparse(opened.metadata_location).scheme in ("", "file")
    return opened.io if not is_local and isinstance(opened.io, PyArrowFileIO) else None


def _identity_partition_ids(opened: Table) -> set[int]:
    """Columns whose values data files may leave to the partition (Iceberg spec, "Column Projection")."""
    fields = (field for spec in opened.specs().values() for field in spec.fields)
    return {field.source_id for field in fields if isinstance(field.transform, IdentityTransform)}


def _schema_at(opened: Table, snapshot: Snapshot) -> Schema:
    return (
        opened.schemas().get(snapshot.schema_id, opened.schema())
        if snapshot.schema_id is not None
        else opened.schema()
    )


@dataclass(frozen=True, slots=True)
class _Pairing:
    """Which table, at which op, a snapshot is."""

    lineage: UUID
    base_seq: int
    commit_time_us: int
    schema: TableSchema


@dataclass(frozen=True, slots=True)
class _Stated:
    """What was given by hand."""

    schema: TableSchema | None
    primary_key: tuple[str, ...]
    base_seq: int | None
    lineage: UUID | None

    def pairing(self, table: str, opened: Table, snapshot: Snapshot, iceberg_schema: Schema) -> _Pairing:
        """The summary's properties, or what was given by hand where they are missing. Raises `BaseError`."""
        summary = dict(snapshot.summary.additional_properties) if snapshot.summary else {}
        missing = [
            name for name in (LINEAGE_PROPERTY, BASE_SEQ_PROPERTY, SCHEMA_PROPERTY) if name not in summary
        ]
        if not missing:
            return self._agreed(table, _from_summary(table, summary))
        if self.base_seq is None or not (self.primary_key or self.schema):
            raise BaseError(
                f"table {table!r}: Iceberg snapshot {snapshot.snapshot_id} lacks the summary properties "
                f"{', '.join(missing)}; state base_seq and primary_key by hand to read it all the same"
            )
        return _Pairing(
            lineage=self.lineage or opened.metadata.table_uuid,
            base_seq=self.base_seq,
            commit_time_us=int(summary.get(COMMIT_TIME_PROPERTY, 0)),
            schema=self.schema or table_schema(iceberg_schema, self.primary_key),
        )

    def _agreed(self, table: str, found: _Pairing) -> _Pairing:
        """`found` with the schema by hand; raises `BaseError` where the table contradicts what was given."""
        schema = self.schema or found.schema
        stated = (self.lineage, self.base_seq, self.primary_key or None)
        has = (found.lineage, found.base_seq, found.schema.primary_key)
        for what, hand, own in zip(("lineage", "base_seq", "primary key"), stated, has, strict=True):
            if hand is not None and hand != own:
                raise BaseError(f"table {table!r}: {what} by hand is {hand}, the Iceberg snapshot says {own}")
        return _Pairing(found.lineage, found.base_seq, found.commit_time_us, schema)


def _from_summary(table: str, summary: dict[str, str]) -> _Pairing:
    try:
        return _Pairing(
            lineage=UUID(summary[LINEAGE_PROPERTY]),
            base_seq=int(summary[BASE_SEQ_PROPERTY]),
            commit_time_us=int(summary.get(COMMIT_TIME_PROPERTY, 0)),
            schema=TableSchema.from_json(summary[SCHEMA_PROPERTY]),
        )
    except ValueError as error:
        raise BaseError(f"table {table!r}: summary properties merutable.* can't be read: {error}") from error


class _Layout:
    """Which columns of the table a data file holds. Data files are matched by field id, the table by name,
    so a file in which the two disagree (a renamed or re-created column) is refused."""

    def __init__(
        self,
        iceberg_schema: Schema,
        schema: TableSchema,
        partition_ids: set[int],
        io: FileIO,
        store: PyArrowFileIO | None,
    ) -> None:
        self._partition_ids = partition_ids
        self._io = io
        self._store = store
        self._expected = {field.name: field for field in storage_schema(iceberg_schema)}
        self._names = schema.names
        missing = [name for name in schema.primary_key if name not in self._expected]
        if missing:
            raise BaseError(f"key columns {missing} are not in the Iceberg schema {list(self._expected)}")

    def base_file(self, file: LiveFile) -> BaseFile:
        location = file.data_file.file_path
        if isinstance(self._io, MovedIO):
            location = self._io.place(location)
        with parquet_file(location, self._store) as reader:
            row_count, held = reader.metadata.num_rows, reader.schema_arrow
        if row_count != file.data_file.record_count:
            raise BaseError(
                f"{location}: holds {row_count} rows, the manifest says {file.data_file.record_count}"
            )
        if len(file.deleted) and not 0 <= file.deleted[0] <= file.deleted[-1] < row_count:
            raise BaseError(
                f"{location}: rows {file.deleted[0]} to {file.deleted[-1]} are deleted, it has {row_count}"
            )
        path, store = place_of(location, self._store)
        return BaseFile(path, row_count, file.deleted, self._held_columns(location, held), store)

    def _held_columns(self, location: str, held: pa.Schema) -> tuple[str, ...]:
        by_id = {_field_id(field): field for field in held}
        if None in by_id:
            raise BaseError(f"{location}: column {by_id[None].name!r} has no Iceberg field id")
        return tuple(
            name
            for name in self._names
            if name in self._expected and self._holds(location, name, by_id, held)
        )

    def _holds(self, location: str, name: str, by_id: dict[int | None, pa.Field], held: pa.Schema) -> bool:
        """Whether the file holds the column `name`."""
        expected = self._expected[name]
        field = by_id.get(_field_id(expected))
        if field is None and name not in held.names:
            if _field_id(expected) in self._partition_ids:
                raise BaseError(
                    f"{location}: column {name!r} is held by the partition only, which isn't read"
                )
            return False
        if field is None or field.name != name:
            raise BaseError(
                f"{location}: column {name!r} (field id {_field_id(expected)}) is stored under another name "
                f"or id (names {held.names}); renamed and re-created columns aren't read, rewrite the files"
            )
        if _shape(field.type) != _shape(expected.type):
            raise BaseError(f"{location}: column {name!r} is {field.type}, the table says {expected.type}")
        return True


def _field_id(field: pa.Field) -> int | None:
    value = (field.metadata or {}).get(_FIELD_ID)
    return int(value) if value is not None else None


def _shape(data_type: pa.DataType) -> object:
    """A nested type's structure with field names and ids; None for a type without parts."""
    if data_type.num_fields == 0 or isinstance(data_type, pa.BaseExtensionType):
        return None
    children = [data_type.field(position) for position in range(data_type.num_fields)]
    names = [child.name for child in children] if pa.types.is_struct(data_type) else [""] * len(children)
    return [(name, _field_id(child), _shape(child.type)) for name, child in zip(names, children, strict=True)]
