"""Changes out of table files: every version newer than a seq, in order and once, in memory or spooled."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from flight_replica.base.data_files import CheckedFile
from flight_replica.beside.engine_catalog import CatalogVersion, EngineCatalog
from flight_replica.beside.table_changes import TableChanges
from flight_replica.beside.tombstones import LostTombstones
from flight_replica.errors import BaseNotUsable, Closed, ConfigError
from tests.bases import ID_V
from tests.catalogs import CatalogWriter
from tests.log_writing import int_key


def rows(keys: np.ndarray) -> pa.Table:
    return pa.table({"id": pa.array(keys, pa.int64()), "v": pa.array(keys * 2, pa.int64())})


def version(directory: Path) -> CatalogVersion:
    return EngineCatalog(directory, "t", None).read()


@pytest.fixture
def files(tmp_path: Path) -> tuple[CheckedFile, ...]:
    """20 000 seqs over two levels, interleaved; every 7th is a tombstone, the first 100 rows of L1 masked."""
    writer = CatalogWriter(tmp_path / "catalog", ID_V)
    seqs = np.random.default_rng(3).permutation(np.arange(1, 20_001))
    old = writer.add_file(
        rows(np.arange(12_000)), seqs[:12_000], level=1, is_put=seqs[:12_000] % 7 != 0, row_group_rows=3_000
    )
    writer.mask(old, range(100))
    writer.add_file(rows(np.arange(4_000, 12_000)), seqs[12_000:], is_put=seqs[12_000:] % 7 != 0)
    writer.commit()
    return version(tmp_path / "catalog").files


def read_all(changes: TableChanges, since: int, byte_limit: int) -> pa.Table:
    parts, position = [], since
    while position < changes.through:
        part, end = changes.read(position, changes.through, byte_limit)
        assert end > position
        parts.append(part)
        position = end
    return pa.Table.from_batches(parts, ID_V.feed_schema)


@pytest.mark.parametrize("chunk_bytes", [64 << 20, 100_000], ids=["in memory", "spooled"])
def test_every_visible_version_after_a_seq_comes_once_and_in_order(
    chunk_bytes: int, files: tuple[CheckedFile, ...], tmp_path: Path
) -> None:
    masked = {int(seq) for seq in np.random.default_rng(3).permutation(np.arange(1, 20_001))[:100]}
    changes = TableChanges(files, ID_V, 500, 20_000, tmp_path / "spool", chunk_bytes=chunk_bytes)
    for since in (500, 9_999, 19_999, 20_000):
        found = read_all(changes, since, 50_000)
        expected = [seq for seq in range(since + 1, 20_001) if seq not in masked]
        assert found["seq"].to_pylist() == expected
    found = read_all(changes, 500, 1 << 20)
    assert found["op"].to_pylist() == ["DELETE" if s % 7 == 0 else "INSERT" for s in found["seq"].to_pylist()]
    assert found["pk_bytes"].to_pylist() == [int_key(key) for key in found["id"].to_pylist()]
    assert found["v"].to_pylist() == [2 * key for key in found["id"].to_pylist()]
    assert list((tmp_path / "spool").iterdir()) == [] if chunk_bytes < 1 << 20 else True


def test_a_file_that_is_gone_is_told(files: tuple[CheckedFile, ...], tmp_path: Path) -> None:
    Path(files[1].location).unlink()
    with pytest.raises(BaseNotUsable, match="is gone"):
        TableChanges(files, ID_V, 0, 20_000, tmp_path / "spool")


def test_reading_ends_when_the_feed_does(files: tuple[CheckedFile, ...], tmp_path: Path) -> None:
    with pytest.raises(Closed):
        TableChanges(files, ID_V, 0, 20_000, tmp_path / "spool", is_over=lambda: True)


# --- how far back files tell --------------------------------------------------------------------------


def compacted(tmp_path: Path, seqs: list[int], deletes: list[int], level: int = 1) -> CatalogVersion:
    writer = CatalogWriter(tmp_path / "catalog", ID_V)
    writer.add_file(
        rows(np.arange(len(seqs))), seqs, level=level, is_put=np.array([seq not in deletes for seq in seqs])
    )
    writer.properties["merutable.output_level"] = str(level)
    writer.commit()
    return version(tmp_path / "catalog")


@pytest.mark.parametrize(
    ("seqs", "deletes", "level", "lost"),
    [
        ([1, 2, 3, 4], [], 1, 0),  # every op is there
        ([2, 3, 7], [], 1, 6),  # 1, 4, 5 and 6 may have been deletes
        ([2, 3, 7], [3], 1, 0),  # level 1 keeps tombstones
        ([2, 3, 7], [7], 1, 6),  # the newest op is kept anyway
        ([2, 3, 7], [3], 5, 0),
    ],
)
def test_what_may_be_lost_is_told_by_the_files(
    seqs: list[int], deletes: list[int], level: int, lost: int, tmp_path: Path
) -> None:
    found = compacted(tmp_path, seqs, deletes, level)
    assert LostTombstones("t", None).newest(found, found.file_seq) == lost


@pytest.mark.parametrize(("targets", "lost"), [(0, 6), (1, 0), (4, 0)])
def test_stated_level_targets_say_what_is_lost(targets: int, lost: int, tmp_path: Path) -> None:
    found = compacted(tmp_path, [2, 3, 7], [])
    assert LostTombstones("t", targets).newest(found, found.file_seq) == lost


def test_level_targets_that_the_files_contradict_are_refused(tmp_path: Path) -> None:
    found = compacted(tmp_path, [2, 3, 7], [], level=3)
    with pytest.raises(ConfigError, match="--level-targets says 1, but its files are compacted to level 3"):
        LostTombstones("t", 1).newest(found, found.file_seq)


def test_a_table_compacted_to_nothing_has_lost_what_it_had(tmp_path: Path) -> None:
    writer = CatalogWriter(tmp_path / "catalog", ID_V)
    writer.properties["merutable.output_level"] = "1"
    writer.commit()
    found = version(tmp_path / "catalog")
    assert LostTombstones("t", None).newest(found, 9) == 9
    assert found.reach(10) == 9


def test_ops_known_from_elsewhere_are_not_lost(tmp_path: Path) -> None:
    found = compacted(tmp_path, [2, 3, 7], [])
    assert LostTombstones("t", None).newest(found, 3) == 1
