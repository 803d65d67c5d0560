"""Ops that were flushed while nobody read the log: do the files agree with what the log had?"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from flight_replica.beside.engine_catalog import EngineCatalog
from flight_replica.beside.hand_over import contradiction
from flight_replica.beside.table_changes import TableChanges
from flight_replica.log.source import Op
from tests.bases import ID_V, op_batch
from tests.catalogs import CatalogWriter

Version = tuple[int, int, int | None]  # seq, key, value; None: a delete


def said(
    log: Sequence[Version], files: Sequence[Version], tmp_path: Path, lost_through: int = 0
) -> str | None:
    """What the files (all of them after seq 2) say against the log's ops."""
    writer = CatalogWriter(tmp_path / "catalog", ID_V)
    rows = pa.table({"id": [key for _, key, _ in files], "v": pa.array([v for *_, v in files], pa.int64())})
    is_put = np.array([value is not None for *_, value in files])
    writer.add_file(rows, [seq for seq, *_ in files], is_put=is_put)
    writer.commit()
    version = EngineCatalog(tmp_path / "catalog", "t", None).read()
    changes = TableChanges(version.files, ID_V, 2, version.file_seq, tmp_path / "spool")
    ops = [(s, Op.INSERT if v is not None else Op.DELETE, {"id": k, "v": v}) for s, k, v in log]
    through = min(log[-1][0], version.file_seq)
    return contradiction(iter([op_batch(ID_V, ops)]), changes, through, ID_V, lost_through)


LOG = [(3, 1, 10), (4, 2, 20), (5, 1, 11), (6, 2, None)]


@pytest.mark.parametrize(
    "files",
    [
        [(5, 1, 11), (6, 2, None)],
        [(3, 1, 10), (5, 1, 11), (6, 2, None)],  # an older version may be there too
        [(7, 1, 12), (8, 2, 21)],  # both changed again meanwhile
        [(5, 1, 11)],  # the tombstone was dropped
    ],
)
def test_the_same_ops_or_newer_ones_agree(files: list[Version], tmp_path: Path) -> None:
    assert said(LOG, files, tmp_path) is None


@pytest.mark.parametrize(
    ("files", "reason"),
    [
        ([(5, 1, 99), (6, 2, None)], "seq 5 in the files"),
        ([(5, 1, None), (6, 2, None)], "seq 5 in the files"),
        ([(5, 1, 11), (6, 3, 1)], "seq 6 in the files"),
        ([(7, 3, 1), (6, 2, None)], "seq 5, which the log had, is in no file"),
    ],
)
def test_other_ops_under_the_same_seqs_are_told(files: list[Version], reason: str, tmp_path: Path) -> None:
    found = said(LOG, files, tmp_path)
    assert found is not None and reason in found


def test_a_put_whose_tombstone_was_dropped_is_no_contradiction(tmp_path: Path) -> None:
    assert said(LOG, [(9, 3, 1)], tmp_path, lost_through=8) is None
    assert said(LOG, [(9, 3, 1)], tmp_path / "other", lost_through=4) is not None
