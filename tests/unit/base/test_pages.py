"""Pages of base files that can't be decoded, or aren't what their statistics say."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from flight_replica.base.pages import PageCheck
from flight_replica.base.source import BaseFile
from flight_replica.errors import BaseError

ROWS = pa.table(
    {
        "id": range(1000),
        "x": [float("nan"), None, -0.0, 0.0] * 250,
        "s": [None, "a", "ä" * 100, ""] * 250,
        "b": [b"", b"\xff\x00", None, b"z" * 200] * 250,
        "l": [[1], [], None, [2, 3]] * 250,
        "n": pa.nulls(1000, pa.int32()),
    }
)


def written(path: Path, rows: pa.Table = ROWS) -> BaseFile:
    pq.write_table(rows, path, row_group_size=300)
    return BaseFile(str(path), len(rows), np.empty(0, np.int64), tuple(rows.column_names))


def test_sound_files_of_any_type_pass(tmp_path: Path) -> None:
    file = written(tmp_path / "a.parquet")
    PageCheck().check([file], [file], 1 << 20)


def test_a_page_that_cannot_be_decoded_is_named_by_its_file(tmp_path: Path) -> None:
    file = written(tmp_path / "a.parquet")
    offset = pq.ParquetFile(file.path).metadata.row_group(1).column(2).data_page_offset
    with open(file.path, "r+b") as opened:
        opened.seek(offset)
        opened.write(b"\xff" * 12)
    with pytest.raises(BaseError, match=r"base file a\.parquet: a page can't be decoded"):
        PageCheck().check([file], [file], 1 << 20)


def test_statistics_that_contradict_the_values_are_told(tmp_path: Path) -> None:
    rows = pa.table({"v": pa.array([5, 6_000_000_000_000_000_000], pa.int64())})
    path = tmp_path / "a.parquet"
    pq.write_table(rows, path, compression="none", use_dictionary=False)
    data = path.read_bytes()
    footer_at = len(data) - 8 - int.from_bytes(data[-8:-4], "little")
    largest = (6_000_000_000_000_000_000).to_bytes(8, "little")
    assert largest in data[footer_at:]
    path.write_bytes(data[:footer_at] + data[footer_at:].replace(largest, (7).to_bytes(8, "little")))
    file = BaseFile(str(path), 2, np.empty(0, np.int64), ("v",))
    with pytest.raises(BaseError, match=r"column 'v' has values from 5 to .*, its statistics say 5 to 7"):
        PageCheck().check([file], [file], 1 << 20)


def test_a_file_is_looked_at_once_and_more_than_the_limit_not_at_all(tmp_path: Path) -> None:
    file = written(tmp_path / "a.parquet")
    check = PageCheck()
    check.check([file], [file], 1 << 20)
    stamp = Path(file.path).stat()
    offset = pq.ParquetFile(file.path).metadata.row_group(0).column(0).data_page_offset
    with open(file.path, "r+b") as opened:
        opened.seek(offset)
        opened.write(b"\xff" * 12)
    PageCheck().check([file], [file], 10)
    os.utime(file.path, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    check.check([file], [file], 1 << 20)
