"""Removing what a mirror no longer needs: old snapshots and the files that only they, or nobody, refer to.

A snapshot is kept until it has been superseded for the grace period, so a reader that has found a
metadata file has that long to read what it refers to.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

from pyiceberg.table import Table
from pyiceberg.table.snapshots import Snapshot

__all__ = ["expire"]

logger = logging.getLogger(__name__)


def expire(table: Table, directory: Path, expire_before: float) -> int:
    """Drop the snapshots of `table` superseded before `expire_before` (Unix seconds) and delete the files
    below `directory` that nobody refers to and that are older; return how many files were deleted.

    Also what a crash left behind: data files and manifests that were never committed.
    """
    expired = [snapshot.snapshot_id for snapshot in _superseded(table, expire_before)]
    if expired:
        table.maintenance.expire_snapshots().by_ids(expired).commit()
    needed = set(_referenced(table)) | _kept_metadata(table, directory, expire_before)
    removed = [
        path
        for path in (*(directory / "data").glob("*"), *(directory / "metadata").glob("*"))
        if str(path) not in needed and path.stat().st_mtime < expire_before
    ]
    for path in removed:
        path.unlink()
    logger.debug("mirror expired directory=%s snapshots=%d files=%d", directory, len(expired), len(removed))
    return len(removed)


def _superseded(table: Table, expire_before: float) -> Iterator[Snapshot]:
    """History is a line, so a snapshot is superseded when the next one is committed."""
    history = sorted(table.metadata.snapshots, key=lambda snapshot: snapshot.sequence_number or 0)
    for snapshot, successor in pairwise(history):
        if successor.timestamp_ms < expire_before * 1000:
            yield snapshot


def _referenced(table: Table) -> Iterator[str]:
    seen: set[str] = set()
    for snapshot in table.metadata.snapshots:
        yield snapshot.manifest_list
        for manifest in snapshot.manifests(table.io):
            if manifest.manifest_path not in seen:
                seen.add(manifest.manifest_path)
                yield manifest.manifest_path
                yield from (entry.data_file.file_path for entry in manifest.fetch_manifest_entry(table.io))


def _kept_metadata(table: Table, directory: Path, expire_before: float) -> set[str]:
    """The current metadata file and those that were replaced within the grace period.

    Names begin with a growing number; a file is replaced when the next one is written. The table's own
    metadata log isn't asked, since it forgets the oldest files before the period is over.
    """
    files = sorted((directory / "metadata").glob("*.metadata.json"))
    kept = {str(old) for old, new in pairwise(files) if new.stat().st_mtime >= expire_before}
    return kept | {table.metadata_location}
