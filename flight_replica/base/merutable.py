"""`MerutableBase`: the engine's own files as a source of base snapshots, from its catalog or a mirror of it.

It finds the current manifest, checks the files that it names and gives the table as plain Parquet files
minus dead rows. It never writes there and reads no log. Source: merutable format, sections 4 to 6, 8 and 9.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from uuid import UUID

import numpy as np

from flight_replica.base.data_files import (
    CheckedFile,
    check_file,
    read_versions,
    table_schema_of,
)
from flight_replica.base.deletion_vectors import Positions, read_deletion_vector
from flight_replica.base.evolution import effective_schema
from flight_replica.base.folder import Folder
from flight_replica.base.heads import Head, find_head
from flight_replica.base.manifest import Manifest, decode_manifest
from flight_replica.base.merge import SweptFile, sweep
from flight_replica.base.source import BaseFile, BaseSnapshot
from flight_replica.base.text_base import in_text
from flight_replica.errors import BaseError, BaseNotUsable, LineageChanged
from flight_replica.schema import TableSchema
from flight_replica.text_columns import TextColumns

_LEVELS = 6  # that the engine makes by default


class MerutableBase:
    """Base snapshots of one table from the directory of its catalog or mirror. Stateless but for a memo.

    `catalog` is a path or a URI (`Folder.at`). `table` is the name that is served here; `catalog_name`
    and `table_uuid`, where they are stated, must be the catalog's own. `schema` is what the table looks
    like while nothing is flushed yet, or columns that no file holds yet; its strings are stored as bytes, and
    checked to be text. `lineage` is the one of the feed that the base is to join; without it the table's own
    UUID counts.
    """

    def __init__(
        self,
        catalog: Folder | Path | str,
        *,
        table: str,
        schema: TableSchema | None = None,
        lineage: UUID | None = None,
        catalog_name: str | None = None,
        table_uuid: UUID | None = None,
    ) -> None:
        self._folder = Folder.at(catalog)
        self._table = table
        self._schema = schema
        self._lineage = lineage
        self._catalog_name = catalog_name
        self._table_uuid = table_uuid  # stated, or of the first snapshot loaded; a lineage has one
        self._polled: tuple[Head, int] | None = None  # the current manifest, the snapshot id in it
        self._newest_id = 0  # the largest snapshot id that was read

    def poll(self) -> int | None:
        """The snapshot id that `load` would give, None before the first flush (0 with a stated schema).

        Costs one small file, and the manifest when another one is current. Raises what `load` raises
        for these.
        """
        head = find_head(self._folder)
        if head is None:
            return None if self._schema is None else 0
        if self._polled is None or self._polled[0] != head:
            self._polled = (head, self._manifest(head).snapshot_id)
        return self._polled[1]

    def load(self) -> BaseSnapshot:
        """The newest snapshot, checked against its files.

        Raises `BaseNotUsable` while there is none, and when a file is gone or half written: the
        engine may have compacted it away, so try again. Raises `BaseError` for damage and
        contradictions, `LineageChanged` when the table was created anew, `SchemaMismatch` when the
        stated schema is of another table.
        """
        head = find_head(self._folder)
        if head is None:
            return self._nothing_flushed()
        manifest = self._manifest(head)
        self._polled = (head, manifest.snapshot_id)
        self._check_identity(manifest)
        files = [check_file(self._folder, file) for file in manifest.files]
        first = table_schema_of(manifest.schema, f"manifest of table {self._table!r}")
        written = [(file.entry.path, file.schema) for file in files]
        stored = TextColumns.stored(self._schema) if self._schema is not None else None
        schema = effective_schema(first, written, stored, self._table)
        snapshot = BaseSnapshot(
            table=self._table,
            lineage=self._lineage or manifest.table_uuid,
            base_seq=manifest.base_seq,
            version=manifest.snapshot_id,
            schema=schema,
            files=base_files(files, schema),
            is_lower_bound=True,  # only a publisher knows of tombstones that compaction dropped
        )
        texts = TextColumns.strings_of(self._schema) if self._schema is not None else TextColumns()
        return in_text(snapshot, texts) if texts else snapshot

    def _manifest(self, head: Head) -> Manifest:
        name, data = head.read(self._folder)
        return decode_manifest(data, name)

    def _nothing_flushed(self) -> BaseSnapshot:
        place = f"table {self._table!r}: catalog {self._folder.shown}"
        with self._folder.reading(place):
            state = "has no commit yet" if self._folder.exists() else "does not exist"
            if any(self._folder.names(f"data/L{level}") for level in range(_LEVELS)):
                state += ", though there are data files (a first flush under way, or lost metadata)"
        if self._schema is None:
            raise BaseNotUsable(f"{place} {state}, waiting for a flush")
        if self._lineage is None:
            raise BaseNotUsable(f"{place} {state}, so it has no table UUID: state the lineage")
        return BaseSnapshot(self._table, self._lineage, 0, 0, self._schema, (), is_lower_bound=True)

    def _check_identity(self, manifest: Manifest) -> None:
        if self._catalog_name not in (None, manifest.table_name):
            raise BaseError(
                f"catalog {self._folder.shown} is of table {manifest.table_name!r}, "
                f"asked for {self._catalog_name!r}"
            )
        if self._lineage is not None and self._table_uuid not in (None, manifest.table_uuid):
            raise LineageChanged(
                f"table {self._table!r}: catalog {self._folder.shown} now has table UUID "
                f"{manifest.table_uuid}, had {self._table_uuid}: it was created anew and isn't of "
                f"lineage {self._lineage}"
            )
        if manifest.table_uuid == self._table_uuid and manifest.snapshot_id < self._newest_id:
            raise BaseError(
                f"table {self._table!r}: catalog {self._folder.shown} is at snapshot {manifest.snapshot_id} "
                f"now, after {self._newest_id}: it was put back to an older state, or made anew over an old "
                "mirror"
            )
        self._table_uuid, self._newest_id = manifest.table_uuid, manifest.snapshot_id


def base_files(files: Sequence[CheckedFile], schema: TableSchema) -> tuple[BaseFile, ...]:
    """The rows that are alive in checked files that make one table."""
    swept = sweep(files, read_versions, _masked)
    return tuple(
        part for file, found in zip(files, swept, strict=True) for part in _parts(file, found, schema)
    )


def _parts(file: CheckedFile, found: SweptFile, schema: TableSchema) -> list[BaseFile]:
    """The file's rows with all its columns; and again the live ones that are short, with fewer: what
    their typed columns hold there are zeros, which nobody wrote."""
    whole = BaseFile(
        path=file.location,
        row_count=file.entry.row_count,
        deleted=found.dead,
        columns=_held(file, schema, len(file.schema.columns)),
        store=None if file.folder.is_local else file.folder.filesystem,
    )
    parts = []
    deleted = found.dead
    for field_count, rows in found.short_by_count.items():
        live = np.setdiff1d(rows, found.dead, assume_unique=True)
        if not len(live):
            continue
        deleted = np.union1d(deleted, live)
        if missing := set(schema.primary_key) - set(file.schema.names[:field_count]):
            raise BaseError(
                f"file {file.entry.path}: row {live[0]} has {field_count} fields, without key {missing}"
            )
        others = np.delete(np.arange(file.entry.row_count), live)
        parts.append(replace(whole, deleted=others, columns=_held(file, schema, field_count)))
    return [replace(whole, deleted=deleted), *parts]


def _held(file: CheckedFile, schema: TableSchema, field_count: int) -> tuple[str, ...]:
    written = file.schema.names[:field_count]
    return tuple(name for name in schema.names if name in written)


def _masked(file: CheckedFile) -> Positions:
    vector = file.entry.deletion_vector
    if vector is None:
        return np.empty(0, np.int64)
    return read_deletion_vector(file.folder, vector, file.entry.row_count, file.entry.path)
