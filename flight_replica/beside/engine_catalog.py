"""`EngineCatalog`: the committed versions of a running engine's table, one look after another.

It reads the version hint, the manifest and the footers of files that it hasn't seen before, never a row. What
the rows say is for `table_changes.py` and `tombstones.py`. Source: merutable format, sections 1.3, 4 and 13.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from uuid import UUID

from flight_replica.base.data_files import CheckedFile, check_file, table_schema_of
from flight_replica.base.evolution import effective_schema
from flight_replica.base.folder import Folder
from flight_replica.base.heads import Head, find_head
from flight_replica.base.manifest import decode_manifest
from flight_replica.errors import BaseError, BaseNotUsable
from flight_replica.schema import TableSchema
from flight_replica.text_columns import TextColumns

BYTES = TextColumns()  # what the engine stores


@dataclass(frozen=True, slots=True)
class CatalogVersion:
    """One commit of the engine. Every op with seq <= `file_seq` is in the files, or was dropped from them."""

    snapshot_id: int  # 0: nothing is committed yet
    table_uuid: UUID | None  # None: nothing is committed yet
    schema: TableSchema  # the widest one known
    files: tuple[CheckedFile, ...]  # live ones, in the manifest's order
    compacted_to: int | None  # the level that the last compaction wrote, None before the first one
    reading: int  # of this catalog, counted from 1
    head: Head | None  # the manifest that says so, None while nothing is committed yet

    @property
    def file_seq(self) -> int:
        """The newest seq in the files; 0 without files."""
        return max((file.entry.seq_max for file in self.files), default=0)

    @property
    def level_max(self) -> int:
        """The deepest level that anything was ever compacted to, as far as this version tells."""
        return max([self.compacted_to or 0, *(file.entry.level for file in self.files)])

    def reach(self, oldest_unflushed: int | None) -> int:
        """The seq whose state the files hold, at least: the newest one in them, or more.

        A compaction that drops the newest tombstone takes its seq out of the files. Nothing is in level 0
        then, and the oldest op above the files that the log has (None: none) comes next.
        """
        has_level_0 = any(file.entry.level == 0 for file in self.files)
        if self.compacted_to is None or has_level_0 or oldest_unflushed is None:
            return self.file_seq
        return max(self.file_seq, oldest_unflushed - 1)


class EngineCatalog:
    """One table's catalog directory. `read` is for one thread at a time; holds nothing open."""

    def __init__(
        self, directory: Path, table: str, stated: TableSchema | None, texts: TextColumns = BYTES
    ) -> None:
        """`stated`: what the table looks like before its first flush, or columns that no file holds yet.
        `texts`: the byte columns that are strings."""
        self._folder = Folder.at(directory)
        self._table = table
        self._stated = stated
        self._texts = texts
        self._readings = 0
        self._checked_by_path: dict[str, CheckedFile] = {}  # files of the newest version that was read

    def has_moved(self, since: CatalogVersion) -> bool:
        """Whether there is a newer version than `since`. Costs one small file."""
        return find_head(self._folder) != since.head

    def read(self) -> CatalogVersion:
        """The newest version. Raises `BaseNotUsable` while there is none to be had, `BaseError`."""
        self._readings += 1
        head = find_head(self._folder)
        if head is None:
            return self._nothing_committed()
        if head.is_mirror:
            raise BaseError(
                f"table {self._table!r}: {self._folder.shown} is a mirror, the engine's catalog is asked for"
            )
        return self._committed(head)

    def _nothing_committed(self) -> CatalogVersion:
        if self._stated is None:
            raise BaseNotUsable(
                f"table {self._table!r}: catalog {self._folder.shown} has no commit yet: waiting for "
                "a flush, unless --schema says what its columns are"
            )
        return CatalogVersion(0, None, self._texts.apply(self._stated), (), None, self._readings, head=None)

    def _committed(self, head: Head) -> CatalogVersion:
        name, data = head.read(self._folder)
        manifest = decode_manifest(data, name)
        known = self._checked_by_path
        files = tuple(
            replace(known[entry.path], entry=entry)
            if entry.path in known
            else check_file(self._folder, entry)
            for entry in manifest.files
        )
        self._checked_by_path = {file.entry.path: file for file in files}
        first = table_schema_of(manifest.schema, f"manifest {name} of table {self._table!r}")
        written = [(file.entry.path, file.schema) for file in files]
        return CatalogVersion(
            snapshot_id=manifest.snapshot_id,
            table_uuid=manifest.table_uuid,
            schema=self._texts.apply(effective_schema(first, written, self._stated, self._table)),
            files=files,
            compacted_to=manifest.compacted_to,
            reading=self._readings,
            head=head,
        )
