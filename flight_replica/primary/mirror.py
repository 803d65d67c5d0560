"""`IcebergMirror`: one table's Iceberg mirror, a plain valid Iceberg table that others read as their base.

It stores; it doesn't decide when. Each commit writes the changed rows into new data files and hides the
rows they supersede by position deletes, in one snapshot. Files: `mirror_files.py`; what a snapshot holds:
`mirror_state.py`; writing it: `position_deletes.py`; clearing up: `mirror_expiry.py`; reading a mirror:
`base/iceberg.py`.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

import pyarrow as pa
from pyiceberg.catalog.sql import SqlCatalog
from pyiceberg.exceptions import NoSuchTableError, ValidationError
from pyiceberg.schema import Schema
from pyiceberg.table import Table, Transaction
from pyiceberg.table.snapshots import Operation
from sqlalchemy import URL

from flight_replica.base.iceberg import (
    BASE_SEQ_PROPERTY,
    COMMIT_TIME_PROPERTY,
    LINEAGE_PROPERTY,
    SCHEMA_PROPERTY,
)
from flight_replica.base.iceberg_schema import column_type, iceberg_schema
from flight_replica.conform import conform
from flight_replica.errors import BaseError, ConfigError, ConstraintViolation, SchemaMismatch
from flight_replica.keys import KeyCodec
from flight_replica.primary.mirror_expiry import expire
from flight_replica.primary.mirror_files import KeyedFile, KeyedFileWriter, SortedKeys, chunks
from flight_replica.primary.mirror_state import Change, MirrorLimits, MirrorState, key_groups, stage
from flight_replica.schema import Column, TableSchema

__all__ = ["CommitInfo", "IcebergMirror", "MirrorLimits"]

_IDENTIFIER = ("merutable", "mirror")  # the catalog is the mirror's own, so the names are always the same


@dataclass(frozen=True, slots=True)
class CommitInfo:
    """What one snapshot did. `deleted_rows`: rows that it hid by position deletes."""

    snapshot_id: int
    base_seq: int
    added_rows: int
    deleted_rows: int
    added_files: int
    removed_files: int


class IcebergMirror:
    """The mirror in `directory`, opened where it stands, or created. One owner, one caller at a time;
    `metadata_location` and `snapshot_id` may be read by any thread.

    After an error of a changing call the last snapshot still holds; what was written for the new one
    is removed by `expire`. `close()` lets go of the catalog.
    Raises `ConfigError` where `directory` holds the mirror of another lineage, key or columns, `BaseError`
    where its files are damaged: then a new mirror belongs into another directory.
    """

    def __init__(
        self,
        directory: Path,
        *,
        name: str,
        schema: TableSchema,
        lineage: UUID,
        limits: MirrorLimits | None = None,
    ) -> None:
        self._directory = directory.resolve()
        self._data = self._directory / "data"
        self._where = f"mirror of {name!r} in {self._directory}"
        self._limits = limits or MirrorLimits()
        self._data.mkdir(parents=True, exist_ok=True)
        database = URL.create("sqlite", database=str(self._directory / "catalog.db"))
        self._catalog = SqlCatalog("mirror", uri=database.render_as_string(), warehouse=str(self._directory))
        try:
            self._table = self._open(name, schema, lineage)
            self._check_owner(schema, lineage)
            self._state = MirrorState.of(self._table)
        except BaseException:
            self.close()
            raise

    def _open(self, name: str, schema: TableSchema, lineage: UUID) -> Table:
        try:
            return self._catalog.load_table(_IDENTIFIER)
        except NoSuchTableError:
            return self._create(name, schema, lineage)
        except (OSError, ValidationError) as error:
            raise BaseError(f"{self._where}: metadata can't be read: {error}") from error

    def _create(self, name: str, schema: TableSchema, lineage: UUID) -> Table:
        self._catalog.create_namespace_if_not_exists(_IDENTIFIER[0])
        return self._catalog.create_table(
            _IDENTIFIER,
            iceberg_schema(schema),
            location=str(self._directory),
            properties={
                "format-version": "2",
                "commit.retry.num-retries": "0",  # there is no other writer to lose against
                "write.metadata.previous-versions-max": "10",
                "merutable.table": name,
                LINEAGE_PROPERTY: str(lineage),
                SCHEMA_PROPERTY: schema.to_json(),
            },
        )

    def _check_owner(self, schema: TableSchema, lineage: UUID) -> None:
        found, own = self._table.properties.get(LINEAGE_PROPERTY), self.schema
        if found != str(lineage):
            raise ConfigError(f"{self._where}: belongs to lineage {found}, expected {lineage}")
        if self._table.location() != str(self._directory):
            raise ConfigError(f"{self._where}: was made in {self._table.location()} and can't be moved")
        if own.primary_key != schema.primary_key:
            raise ConfigError(f"{self._where}: has the key {own.primary_key}, expected {schema.primary_key}")
        if own.columns != schema.columns[: len(own.columns)]:
            raise ConfigError(f"{self._where}: has columns {own.to_json()}, expected {schema.to_json()}")

    def close(self) -> None:
        self._catalog.close()

    @property
    def schema(self) -> TableSchema:
        """The mirror's columns, which may lack the table's last ones until `add_column`."""
        return TableSchema.from_json(self._table.properties[SCHEMA_PROPERTY])

    @property
    def metadata_location(self) -> str:
        """Path of the current metadata file."""
        return self._table.metadata_location

    @property
    def snapshot_id(self) -> int | None:
        """None until the first commit."""
        snapshot = self._table.current_snapshot()
        return snapshot.snapshot_id if snapshot else None

    @property
    def base_seq(self) -> int:
        """0 until the first commit."""
        return int(self._summary().get(BASE_SEQ_PROPERTY, 0))

    @property
    def row_count(self) -> int:
        return self._state.row_count

    def _summary(self) -> Mapping[str, str]:
        snapshot = self._table.current_snapshot()
        return snapshot.summary.additional_properties if snapshot and snapshot.summary else {}

    def commit(
        self,
        puts: pa.RecordBatchReader | pa.Table,
        changed_keys: pa.BinaryArray | pa.ChunkedArray,
        base_seq: int,
        commit_time_us: int,
    ) -> CommitInfo:
        """Move the mirror to `base_seq`, in one snapshot.

        `puts`: the newest row of every key changed since that still exists, in any order, one a key, with
        the columns of `schema`. `changed_keys`: `pk_bytes` of all keys changed since, deleted ones too.
        Raises `SchemaMismatch` for other columns, `ConstraintViolation` for more rows than changed keys or
        two of one key.
        """
        assert base_seq >= self.base_seq, (
            f"{self._where}: at seq {self.base_seq}, asked to go back to {base_seq}"
        )
        schema, keys = self.schema, SortedKeys.of(changed_keys)
        if puts.schema.names != list(schema.names):
            raise SchemaMismatch(f"{self._where}: has columns {schema.names}, the rows {puts.schema.names}")
        deletes = self._state.rows_of(keys, schema)
        batches = puts.to_batches() if isinstance(puts, pa.Table) else puts
        added = self._write(batches, schema, self._table.schema())
        added_rows = sum(file.row_count for file in added)
        if added_rows > len(keys.values):
            raise ConstraintViolation(f"{self._where}: {added_rows} rows for {len(keys.values)} changed keys")
        change = Change(_operation(added, deletes), added, deletes=deletes)
        with self._table.transaction() as transaction:
            state = self._stage(transaction, change, base_seq, commit_time_us)
        return self._adopt(state, change)

    def _write(
        self, batches: Iterable[pa.RecordBatch], schema: TableSchema, stored: Schema
    ) -> tuple[KeyedFile, ...]:
        writer = KeyedFileWriter(
            self._data, schema, KeyCodec(schema), stored, self._table.properties, self._limits.row_group_rows
        )
        conformed = (conform(batch, schema) for batch in batches)
        return tuple(
            writer.write(rows) for rows in chunks(conformed, self._limits.file_rows, self._limits.file_bytes)
        )

    def _stage(
        self,
        transaction: Transaction,
        change: Change,
        base_seq: int | None = None,
        commit_time_us: int | None = None,
    ) -> MirrorState:
        """Stage a snapshot, at the current seq and time where they aren't given."""
        before = self._summary()
        properties = {
            LINEAGE_PROPERTY: self._table.properties[LINEAGE_PROPERTY],
            BASE_SEQ_PROPERTY: before.get(BASE_SEQ_PROPERTY, "0") if base_seq is None else str(base_seq),
            COMMIT_TIME_PROPERTY: (
                before.get(COMMIT_TIME_PROPERTY, "0") if commit_time_us is None else str(commit_time_us)
            ),
            SCHEMA_PROPERTY: transaction.table_metadata.properties[SCHEMA_PROPERTY],
        }
        return stage(transaction, self._state, change, properties, self._data)

    def _adopt(self, state: MirrorState, change: Change) -> CommitInfo:
        """Follow a snapshot that has been committed."""
        self._state = state
        snapshot_id = self.snapshot_id
        assert snapshot_id is not None, "a commit leaves a snapshot"
        return CommitInfo(
            snapshot_id=snapshot_id,
            base_seq=self.base_seq,
            added_rows=sum(file.row_count for file in change.added),
            deleted_rows=0 if change.renews_deletes else sum(map(len, change.deletes.values())),
            added_files=len(change.added),
            removed_files=len(change.removed),
        )

    def add_column(self, column: Column) -> None:
        """Add a column at the end, in a snapshot at the same seq.

        Existing rows have its default; Iceberg v2 has no defaults but null, so another one rewrites the
        data files. Raises `SchemaMismatch` for a column that can't be added.
        """
        old = self.schema
        new = TableSchema((*old.columns, column), old.primary_key)
        if not column.nullable and column.default is None and self.row_count:
            raise SchemaMismatch(
                f"{self._where}: {column.name!r} is NOT NULL without default, there are rows"
            )
        with self._table.transaction() as transaction:
            with transaction.update_schema(allow_incompatible_changes=True) as update:
                update.add_column((column.name,), column_type(column), required=not column.nullable)
            transaction.set_properties({SCHEMA_PROPERTY: new.to_json()})
            has_null_default = column.nullable and column.default is None
            rewritten = () if has_null_default else tuple(self._state.files.values())
            change = self._rewrite(rewritten, new, transaction.table_metadata.schema(), Operation.OVERWRITE)
            state = self._stage(transaction, change)
        self._adopt(state, change)

    def compact_if_needed(self) -> CommitInfo | None:
        """Rewrite what `MirrorLimits` says is due, in one snapshot at the same seq; None when nothing is.

        That is small data files when there are many, data files worn by deletes when too many rows of
        the whole are deleted, and the delete files into one.
        """
        due = self._state.rewrite_due(self._limits)
        if due is None:
            return None
        change = self._rewrite(due, self.schema, self._table.schema(), Operation.REPLACE)
        with self._table.transaction() as transaction:
            state = self._stage(transaction, change)
        return self._adopt(state, change)

    def _rewrite(
        self, files: tuple[KeyedFile, ...], schema: TableSchema, stored: Schema, operation: Operation
    ) -> Change:
        """The change that puts the rows of `files` into new files, and every delete that is left into one."""
        added: list[KeyedFile] = []
        for group in key_groups(files, self._limits):
            batches = (batch for file in group for batch in file.read(schema).to_batches())
            added += self._write(batches, schema, stored)
        left = self._state.deletes_without(files)
        return Change(operation, tuple(added), files, left, renews_deletes=True)

    def expire(self, grace_seconds: float, now: float | None = None) -> int:
        """Remove snapshots superseded `grace_seconds` before `now` (Unix seconds) and files that nobody
        has referred to for as long, also those of crashed commits; return how many files.

        It may write a new metadata file: ask for `metadata_location` again, the old one has the grace left.
        """
        return expire(self._table, self._directory, (time.time() if now is None else now) - grace_seconds)


def _operation(added: tuple[KeyedFile, ...], deletes: Mapping[str, object]) -> Operation:
    if not deletes:
        return Operation.APPEND
    return Operation.OVERWRITE if added else Operation.DELETE
