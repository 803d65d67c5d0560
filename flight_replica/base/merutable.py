"""`MerutableBase`: the engine's own catalog directory as a source of base snapshots.

It reads the version hint, that version's manifest, the footers, the internal keys and the deletion
vectors, and gives the table as plain Parquet files minus deleted rows. It never writes there, reads
no log, and doesn't know mirrors, which have another layout. Source: merutable format, sections 4 to
6 and 9.
"""

from __future__ import annotations

import re
from pathlib import Path
from uuid import UUID

import numpy as np

from flight_replica.base.data_files import CheckedFile, check_file, read_versions, table_schema_of
from flight_replica.base.deletion_vectors import Positions, read_deletion_vector
from flight_replica.base.manifest import DataFile, Manifest, decode_manifest
from flight_replica.base.newest import dead_rows, overlapping
from flight_replica.base.source import BaseFile, BaseSnapshot
from flight_replica.errors import BaseError, BaseNotUsable, SchemaMismatch
from flight_replica.schema import TableSchema

_HINT = "version-hint.text"
_VERSION = re.compile("[0-9]{1,19}")


class MerutableBase:
    """Base snapshots of one table from the catalog directory of its engine. Stateless but for a memo.

    `table` is the name that is served here; `catalog_name` and `table_uuid`, where they are stated, must
    be the catalog's own. `schema` is what the table looks like while nothing is flushed yet, or columns
    that no file holds yet. `lineage` is the one of the feed that the base is to join; without it the
    table's own UUID counts.
    """

    def __init__(
        self,
        catalog: Path | str,
        *,
        table: str,
        schema: TableSchema | None = None,
        lineage: UUID | None = None,
        catalog_name: str | None = None,
        table_uuid: UUID | None = None,
    ) -> None:
        self._catalog = Path(catalog)
        self._table = table
        self._schema = schema
        self._lineage = lineage
        self._catalog_name = catalog_name
        self._table_uuid = table_uuid  # stated, or of the first snapshot loaded; a lineage has one
        self._polled: tuple[int, int] | None = None  # version in the hint, snapshot id in that manifest

    def poll(self) -> int | None:
        """The snapshot id that `load` would give, None before the first flush (0 with a stated schema).

        Costs one small file, and the manifest when the hint has moved. Raises what `load` raises
        for hint and manifest.
        """
        number = self._hint()
        if number is None:
            return None if self._schema is None else 0
        if self._polled is None or self._polled[0] != number:
            self._polled = (number, self._manifest(number).snapshot_id)
        return self._polled[1]

    def load(self) -> BaseSnapshot:
        """The newest snapshot, checked against its files.

        Raises `BaseNotUsable` while there is none, and when a file is gone or half written: the
        engine may have compacted it away, so try again. Raises `BaseError` for damage and
        contradictions, `SchemaMismatch` when the stated schema is of another table.
        """
        number = self._hint()
        if number is None:
            return self._nothing_flushed()
        manifest = self._manifest(number)
        self._polled = (number, manifest.snapshot_id)
        self._check_identity(manifest)
        files = [check_file(self._catalog, file) for file in manifest.files]
        schema = self._effective_schema(manifest, files)
        return BaseSnapshot(
            table=self._table,
            lineage=self._lineage or manifest.table_uuid,
            base_seq=manifest.base_seq,
            version=manifest.snapshot_id,
            schema=schema,
            files=_base_files(self._catalog, files, schema),
            is_lower_bound=True,  # only a publisher knows of tombstones that compaction dropped
        )

    def _hint(self) -> int | None:
        """The current version's number, None for a catalog without any commit."""
        try:
            text = (self._catalog / _HINT).read_text("ascii", "replace").strip()
        except FileNotFoundError as error:
            left = sorted((self._catalog / "metadata").glob("v*.metadata.*"))
            if left:  # also for a moment during the very first commit
                raise BaseNotUsable(
                    f"catalog {self._catalog}: {_HINT} is missing, but {left[-1].name} exists"
                ) from error
            return None
        except OSError as error:
            raise BaseError(f"catalog {self._catalog}: {_HINT} can't be read: {error}") from error
        if not _VERSION.fullmatch(text):
            raise BaseError(f"catalog {self._catalog}: {_HINT} is {text!r}, expected a version number")
        return int(text)

    def _manifest(self, number: int) -> Manifest:
        path = self._catalog / "metadata" / f"v{number}.metadata.pb"
        try:
            data = path.read_bytes()
        except FileNotFoundError as error:
            if path.with_suffix(".json").exists():
                raise BaseError(
                    f"manifest v{number}.metadata.json is a legacy JSON manifest, which isn't supported"
                ) from error
            raise BaseNotUsable(
                f"catalog {self._catalog}: {_HINT} names version {number}, but {path.name} is gone"
            ) from error
        except OSError as error:
            raise BaseError(f"manifest {path.name} can't be read: {error}") from error
        return decode_manifest(data, path.name)

    def _nothing_flushed(self) -> BaseSnapshot:
        state = "has no commit yet" if self._catalog.is_dir() else "does not exist"
        if self._schema is None:
            raise BaseNotUsable(
                f"table {self._table!r}: catalog {self._catalog} {state}, waiting for a flush"
            )
        if self._lineage is None:
            raise BaseNotUsable(
                f"table {self._table!r}: catalog {self._catalog} {state}, so it has no table UUID: "
                "state the lineage"
            )
        return BaseSnapshot(self._table, self._lineage, 0, 0, self._schema, (), is_lower_bound=True)

    def _check_identity(self, manifest: Manifest) -> None:
        if self._catalog_name not in (None, manifest.table_name):
            raise BaseError(
                f"catalog {self._catalog} is of table {manifest.table_name!r}, "
                f"asked for {self._catalog_name!r}"
            )
        if self._lineage is not None and self._table_uuid not in (None, manifest.table_uuid):
            raise BaseError(
                f"table {self._table!r}: catalog {self._catalog} now has table UUID {manifest.table_uuid}, "
                f"had {self._table_uuid}: it was created anew and isn't of lineage {self._lineage}"
            )
        self._table_uuid = manifest.table_uuid

    def _effective_schema(self, manifest: Manifest, files: list[CheckedFile]) -> TableSchema:
        """The widest schema known. Manifests keep the table's first one; newer columns are in footers."""
        creation = table_schema_of(manifest.schema, f"manifest of table {self._table!r}")
        widest = creation
        for file in files:
            if not _is_prefix(creation, file.schema):
                raise BaseError(
                    f"file {file.entry.path}: schema {file.schema.names} doesn't extend {creation.names}"
                )
            widest = _wider(widest, file.schema, f"file {file.entry.path}")
        return widest if self._schema is None else _wider(self._schema, widest, f"table {self._table!r}")


def _base_files(catalog: Path, files: list[CheckedFile], schema: TableSchema) -> tuple[BaseFile, ...]:
    deleted: dict[int, Positions] = {}  # index into files -> rows that aren't in the table
    for group in overlapping([file.entry for file in files]):
        versions = [read_versions(files[index]) for index in group]
        masked = [_masked(catalog, files[index].entry) for index in group]
        deleted.update(zip(group, dead_rows(versions, masked), strict=True))
    return tuple(
        BaseFile(
            path=str(file.path),
            row_count=file.entry.row_count,
            deleted=deleted[index],
            columns=tuple(name for name in schema.names if name in file.schema.names),
        )
        for index, file in enumerate(files)
    )


def _masked(catalog: Path, entry: DataFile) -> Positions:
    if entry.deletion_vector is None:
        return np.empty(0, np.int64)
    return read_deletion_vector(catalog, entry.deletion_vector)


def _is_prefix(shorter: TableSchema, longer: TableSchema) -> bool:
    """Whether `longer` only appends columns. Defaults may differ: the engine doesn't compare them either."""
    pairs = zip(shorter.columns, longer.columns, strict=False)
    return (
        len(shorter.columns) <= len(longer.columns)
        and shorter.primary_key == longer.primary_key
        and all((a.name, a.type, a.nullable) == (b.name, b.type, b.nullable) for a, b in pairs)
    )


def _wider(one: TableSchema, other: TableSchema, place: str) -> TableSchema:
    if _is_prefix(one, other):
        return other
    if _is_prefix(other, one):
        return one
    raise SchemaMismatch(f"{place}: schemas {one.names} and {other.names} don't extend each other")
