"""The sweep through overlapping files: the same dead rows as the obvious loop, and few rows in memory."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import cast

import numpy as np
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from flight_replica.base.data_files import CheckedFile, VersionBatch, check_file, read_versions
from flight_replica.base.folder import Folder
from flight_replica.base.manifest import DataFile, decode_manifest
from flight_replica.base.merge import sweep
from flight_replica.base.merutable import MerutableBase
from flight_replica.base.newest import Versions
from flight_replica.schema import Column, TableSchema
from tests.catalogs import CatalogWriter

Row = tuple[bytes, int, bool]  # key, seq, is put
SCHEMA = TableSchema((Column("id", pa.int64(), False), Column("v", pa.int64())), ("id",))


class Watched:
    """Files of rows, read `batch_rows` at a time; counts what is open."""

    def __init__(self, files: list[list[Row]], batch_rows: int) -> None:
        self.files = [sorted(file, key=lambda row: (row[0], -row[1])) for file in files]
        self.batch_rows = batch_rows
        self.open_count = self.open_count_max = 0

    def checked(self) -> list[CheckedFile]:
        return [
            cast(CheckedFile, _Entry(DataFile(str(n), 0, len(f), 0, 0, 0, *_bounds(f), None)))
            for n, f in enumerate(self.files)
        ]

    def read(self, file: CheckedFile) -> Iterator[VersionBatch]:
        rows = self.files[int(file.entry.path)]
        self.open_count += 1
        self.open_count_max = max(self.open_count, self.open_count_max)
        for start in range(0, len(rows), self.batch_rows):
            part = rows[start : start + self.batch_rows]
            keys, seqs, puts = zip(*part, strict=True)
            versions = Versions(pa.array(keys, pa.large_binary()), np.array(seqs, np.uint64), np.array(puts))
            short = np.flatnonzero(versions.seqs % 3 == 0)
            yield VersionBatch(versions, {2: short} if len(short) else {})
        self.open_count -= 1


class _Entry:
    def __init__(self, entry: DataFile) -> None:
        self.entry = entry


def _bounds(rows: list[Row]) -> tuple[bytes, bytes]:
    return (rows[0][0], rows[-1][0]) if rows else (b"", b"")


rows = st.tuples(
    st.sampled_from([b"", b"a", b"aa", b"b", b"c", b"d"]), st.integers(1, 20), st.integers(0, 2).map(bool)
)
masks = st.sets(st.tuples(st.integers(0, 4), st.integers(0, 9)))


@given(st.lists(st.lists(rows, max_size=10), max_size=5), masks, st.integers(1, 4))
def test_survivors_are_those_of_the_obvious_loop(
    files: list[list[Row]], masked: set[tuple[int, int]], batch_rows: int
) -> None:
    op_of = {(key, seq): is_put for file in files for key, seq, is_put in file}  # one op a key and seq
    watched = Watched([[(k, s, op_of[k, s]) for k, s, _ in file] for file in files], batch_rows)
    newest: dict[bytes, tuple[int, bool]] = {}
    for number, file in enumerate(watched.files):
        for position, (key, seq, is_put) in enumerate(file):
            if (number, position) not in masked and seq > newest.get(key, (0, False))[0]:
                newest[key] = (seq, is_put)

    def mask(file: CheckedFile) -> np.ndarray:
        number = int(file.entry.path)
        return np.array(sorted(p for n, p in masked if n == number and p < len(watched.files[number])), int)

    found = sweep(watched.checked(), watched.read, mask)

    survivors = []
    for file, swept in zip(watched.files, found, strict=True):
        assert (np.diff(swept.dead) > 0).all()
        survivors += [row for position, row in enumerate(file) if position not in swept.dead]
        short = swept.short_by_count.get(2, np.empty(0, int)).tolist()
        assert short == [position for position, row in enumerate(file) if row[1] % 3 == 0]
    assert sorted(survivors) == sorted((key, seq, True) for key, (seq, is_put) in newest.items() if is_put)


def test_a_file_is_open_only_while_the_sweep_is_in_its_range() -> None:
    level_1 = [[(bytes([key]), 1, True) for key in range(n * 10, n * 10 + 10)] for n in range(20)]
    level_0 = [[(bytes([key]), seq, True) for key in range(0, 200, 7)] for seq in (2, 3)]
    watched = Watched([*level_1, *level_0], batch_rows=4)
    found = sweep(watched.checked(), watched.read, lambda file: np.empty(0, np.int64))
    assert watched.open_count_max <= len(level_0) + 2
    assert watched.open_count == 0
    assert sum(len(swept.dead) for swept in found) == 2 * len(level_0[0])


def test_the_keys_in_memory_go_with_the_files_in_flight_and_not_with_the_table(tmp_path: Path) -> None:
    """What Arrow holds at most, for a table four times as large, in batches that both have several of."""
    peaks = [_peak_bytes(_catalog(tmp_path / str(rows), rows)) for rows in (400_000, 1_600_000)]
    assert peaks[1] < 2 * peaks[0], peaks
    assert peaks[1] < 32 << 20, peaks


def _catalog(directory: Path, row_count: int) -> CatalogWriter:
    writer = CatalogWriter(directory, SCHEMA)
    for low in range(0, row_count, 200_000):
        ids = np.arange(low, low + 200_000)
        writer.add_file(pa.table({"id": ids, "v": ids}, SCHEMA.arrow_schema), ids + 1, level=1)
    for number in range(2):
        ids = np.arange(0, row_count, 10)
        seqs = row_count * (number + 1) + ids + 1
        writer.add_file(pa.table({"id": ids, "v": -ids}, SCHEMA.arrow_schema), seqs)
    writer.commit()
    return writer


def _peak_bytes(writer: CatalogWriter) -> int:
    folder = Folder.at(writer.directory)
    manifest_files = [check_file(folder, file) for file in _entries(writer)]
    peak = 0

    def read(file: CheckedFile) -> Iterator[VersionBatch]:
        nonlocal peak
        for batch in read_versions(file, batch_rows=8_192):
            peak = max(peak, pa.total_allocated_bytes())
            yield batch

    before = pa.total_allocated_bytes()
    sweep(manifest_files, read, lambda file: np.empty(0, np.int64))
    return peak - before


def _entries(writer: CatalogWriter) -> list[DataFile]:
    return list(decode_manifest(writer.manifest(), "v1").files)


def test_a_catalog_of_our_own_reads_right(tmp_path: Path) -> None:
    """The writer that other tests lean on, once through the whole reader."""
    writer = CatalogWriter(tmp_path, SCHEMA)
    ids = np.arange(10)
    first = writer.add_file(pa.table({"id": ids, "v": ids}, SCHEMA.arrow_schema), ids + 1, level=1)
    writer.mask(first, [3])
    writer.add_file(
        pa.table({"id": [3, 5], "v": [33, 5]}, SCHEMA.arrow_schema), [11, 12], is_put=np.array([True, False])
    )
    writer.commit()
    snapshot = MerutableBase(tmp_path, table="t").load()
    assert [file.deleted.tolist() for file in snapshot.files] == [[3, 5], [1]]
    assert (snapshot.base_seq, snapshot.version, snapshot.row_count) == (12, 1, 9)
