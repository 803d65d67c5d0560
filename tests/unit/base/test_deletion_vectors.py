"""The blob of a merutable deletion vector, byte by byte."""

from __future__ import annotations

import json
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from pyroaring import BitMap

from flight_replica.base.deletion_vectors import decode_blob, read_deletion_vector
from flight_replica.base.manifest import ByteRange
from flight_replica.errors import BaseError, BaseNotUsable

# Positions 7 and 42, as in section 6 of the format.
EXAMPLE = bytes.fromhex(
    "00000028 d1d33964 0100000000000000 00000000 3a300000 01000000 0000 0100 10000000 0700 2a00 0919579e"
)


def blob(bitmaps: bytes, *, magic: bytes = bytes.fromhex("d1d33964")) -> bytes:
    summed = magic + bitmaps
    return struct.pack(">I", len(summed) + 4) + summed + struct.pack(">I", zlib.crc32(summed))


def bitmaps(positions: BitMap, *, count: int = 1, key: int = 0) -> bytes:
    return struct.pack("<QI", count, key) + positions.serialize()


def test_worked_example_decodes_to_its_positions() -> None:
    positions = decode_blob(EXAMPLE, "example")
    assert positions.tolist() == [7, 42]
    assert positions.dtype == np.int64


def test_worked_example_is_what_the_other_tests_build() -> None:
    assert blob(bitmaps(BitMap([7, 42]))) == EXAMPLE


@pytest.mark.parametrize("positions", [[], [0], [3, 1, 2**32 - 1], range(0, 200_000, 2), range(70_000)])
def test_every_container_kind_decodes_sorted(positions: list[int]) -> None:
    bitmap = BitMap(positions)
    bitmap.run_optimize()
    assert decode_blob(blob(bitmaps(bitmap)), "x").tolist() == sorted(positions)


def test_no_bitmap_means_no_position() -> None:
    assert decode_blob(blob(struct.pack("<Q", 0)), "x").tolist() == []


@pytest.mark.parametrize(
    ("damaged", "message"),
    [
        (b"", "x: 0 bytes, need at least 20"),
        (EXAMPLE[:19], "x: 19 bytes, need at least 20"),
        (EXAMPLE[:-1], "length 40, but 39 bytes follow"),
        (EXAMPLE + b"\0", "length 40, but 41 bytes follow"),
        (bytes.fromhex("00000024") + EXAMPLE[4:], "length 36, but 40 bytes follow"),
        (EXAMPLE[:4] + b"\xff" + EXAMPLE[5:], "magic is ffd33964, expected d1d33964"),
        (EXAMPLE[:-1] + b"\x9f", "checksum 0919579f stored, 0919579e computed"),
        (EXAMPLE[:36] + b"\x08" + EXAMPLE[37:], "checksum 0919579e stored"),
        (blob(bitmaps(BitMap([1]), count=2)), "2 bitmaps, expected 0 or 1"),
        (blob(bitmaps(BitMap([1]), key=1)), "bitmap key 1, expected 0"),
        (blob(struct.pack("<Q", 1)), "ends before its bitmap"),
        (blob(struct.pack("<QI", 1, 0)), "ends before its bitmap"),
        (blob(struct.pack("<QI", 1, 0) + b"nonsense"), "can't be decoded"),
    ],
)
def test_damaged_blob_is_refused_with_its_reason(damaged: bytes, message: str) -> None:
    with pytest.raises(BaseError, match=message):
        decode_blob(damaged, "x")


def test_only_the_stated_range_of_the_file_is_read(tmp_path: Path) -> None:
    (tmp_path / "x.puffin").write_bytes(b"PFA1" + EXAMPLE + b"no footer that anything could parse")
    assert read_deletion_vector(tmp_path, ByteRange("x.puffin", 4, 44)).tolist() == [7, 42]


def test_a_vector_whose_footer_says_that_it_is_another_files_is_refused(tmp_path: Path) -> None:
    fields = {"referenced-data-file": "data/L0/a.parquet", "cardinality": 2}
    footer = json.dumps({"blobs": [{"fields": fields, "offset": 4, "length": 44}]}).encode()
    tail = footer + struct.pack("<i", len(footer)) + b"PFA1"
    (tmp_path / "x.puffin").write_bytes(b"PFA1" + EXAMPLE + tail)
    where = ByteRange("x.puffin", 4, 44)
    for own in ("data/L0/a.parquet", "srv/t/data/L0/a.parquet"):
        assert read_deletion_vector(tmp_path, where, data_file=own).tolist() == [7, 42]
    with pytest.raises(BaseError, match=r"it is of data/L0/a\.parquet, the manifest that it is of data/L0/b"):
        read_deletion_vector(tmp_path, where, data_file="data/L0/b.parquet")


def test_file_that_is_gone_or_short_may_be_tried_again(tmp_path: Path) -> None:
    with pytest.raises(BaseNotUsable, match=r"x\.puffin is gone"):
        read_deletion_vector(tmp_path, ByteRange("x.puffin", 4, 44))
    (tmp_path / "x.puffin").write_bytes(b"PFA1" + EXAMPLE[:40])
    with pytest.raises(BaseNotUsable, match="44 bytes wanted at 4, 40 found"):
        read_deletion_vector(tmp_path, ByteRange("x.puffin", 4, 44))


def test_file_of_another_kind_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.puffin").write_bytes(b"PAR1" + EXAMPLE)
    with pytest.raises(BaseError, match="magic is b'PAR1'"):
        read_deletion_vector(tmp_path, ByteRange("x.puffin", 4, 44))
