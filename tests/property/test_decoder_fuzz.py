"""Damaged bytes for every decoder of base files: a precise error or a value, no crash, hang or much memory.

Inputs are sound ones with bytes flipped, cut out, doubled and put in. A checksum is made right again, so that
what lies behind it is reached too. A million by the marker `long`, thousands otherwise.
"""

from __future__ import annotations

import json
import random
import resource
import struct
import time
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from pyroaring import BitMap

from flight_replica.base.deletion_vectors import decode_blob
from flight_replica.base.folder import Folder
from flight_replica.base.heads import find_head
from flight_replica.base.manifest import decode_manifest
from flight_replica.base.row_blobs import field_counts
from flight_replica.errors import BaseError, FeedError
from flight_replica.keys import KeyCodec
from flight_replica.schema import Column, TableSchema
from tests.catalogs import CatalogWriter

SEED = 20260521
GROWTH_BYTES_MAX = 256 << 20
CPU_SECONDS_PER_INPUT_MAX = 2.0
ROWS = 10_000

Decode = Callable[[bytes], object]


def mutated(data: bytes, chance: random.Random) -> bytes:
    """One to four changes anywhere in `data`."""
    changed = bytearray(data)
    for _ in range(chance.randint(1, 4)):
        at = chance.randrange(len(changed) + 1)
        match chance.randrange(6):
            case 0 | 1 if at < len(changed):
                changed[at] ^= 1 << chance.randrange(8)
            case 2 if at < len(changed):
                changed[at] = chance.choice((0, 1, 0x7F, 0x80, 0xFF))
            case 3:
                del changed[at : at + chance.randint(1, 16)]
            case 4:
                changed[at:at] = chance.randbytes(chance.randint(1, 8))
            case _:
                changed[at:at] = changed[at : at + chance.randint(1, 64)]
    return bytes(changed)


def held(inputs: list[bytes], decode: Decode, errors: type[Exception], count: int) -> None:
    """`count` mutations of `inputs` in turn; nothing but `errors` may come out, each with a message."""
    chance = random.Random(SEED)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10
    refused = 0
    for number in range(count):
        data = mutated(inputs[number % len(inputs)], chance)
        began = time.process_time()
        try:
            decode(data)
        except errors as error:
            assert str(error)
            assert len(str(error)) < 2_000, data.hex()
            refused += 1
        except BaseException as error:
            raise AssertionError(f"{type(error).__name__} {error} for {data.hex()}") from error
        assert time.process_time() - began < CPU_SECONDS_PER_INPUT_MAX, data.hex()
    growth = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10) - before
    assert growth < GROWTH_BYTES_MAX, f"{growth} bytes more"
    assert refused, "nothing was ever refused"


SCHEMA = TableSchema(
    (
        Column("a", pa.binary(), False),
        Column("b", pa.float64(), False),
        Column("c", pa.int32(), False),
        Column("d", pa.binary(3), False),
        Column("e", pa.bool_(), False),
    ),
    ("a", "c", "b", "e", "d"),
)


def manifests(tmp_path: Path) -> list[bytes]:
    schema = TableSchema((Column("id", pa.int64(), False), Column("v", pa.binary())), ("id",))
    writer = CatalogWriter(tmp_path / "catalog", schema)
    for number in range(3):
        rows = pa.table({"id": [number, number + 5], "v": [b"x", b"y"]}, schema.arrow_schema)
        writer.mask(writer.add_file(rows, [2 * number + 1, 2 * number + 2]), [1])
    return [writer.manifest()]


def json_manifests() -> list[bytes]:
    meta = {"level": 0, "seq_min": 1, "seq_max": 9, "key_min": "00", "key_max": "ff", "num_rows": 9}
    entry = {"path": "data/L0/a.parquet", "meta": {**meta, "file_size": 900}, "status": "added"}
    document = {
        "table_uuid": "98eb5bc5-62bf-4199-aac7-48caf2c8fa6c",
        "snapshot_id": 7,
        "schema": {"table_name": "events", "columns": [], "primary_key": []},
        "entries": [entry],
    }
    return [json.dumps(document).encode(), json.dumps(document, indent=1).encode()]


def bitmaps() -> list[bytes]:
    """The part of deletion vectors that their checksum covers, with every kind of container."""
    positions = [[], [7, 42], range(0, 9_000, 2), range(6_000), [*range(70_000, 71_000), 2**32 - 1]]
    found = []
    for values in positions:
        for has_runs in (False, True):
            bitmap = BitMap(values)
            if has_runs:
                bitmap.run_optimize()
            found.append(bytes.fromhex("d1d33964") + struct.pack("<QI", 1, 0) + bitmap.serialize())
    return found


def decode_vector(summed: bytes) -> None:
    blob = struct.pack(">I", len(summed) + 4) + summed + struct.pack(">I", zlib.crc32(summed))
    positions = decode_blob(blob, "x", ROWS)
    assert len(positions) <= ROWS
    assert (np.diff(positions) > 0).all()


def decode_keys(data: bytes) -> None:
    """Keys that are decoded are keys that are made."""
    codec = KeyCodec(SCHEMA)
    keys = pa.array([data], pa.binary())
    assert codec.encode(codec.decode(keys)) == keys


def keys() -> list[bytes]:
    rows: list[list[object]] = [
        [b"", 0, 0.0, True, b"abc"],
        [b"a\0b", -5, -1.5, False, b"\0\0\0"],
        [b"\xff" * 20, 2**31 - 1, float("inf"), True, b"xyz"],
    ]
    return [KeyCodec(SCHEMA).encode_row(row) for row in rows]


def count_fields(data: bytes) -> None:
    """Several blobs in one array, cut at places that the bytes say."""
    cuts = sorted(byte % (len(data) + 1) for byte in data[:3])
    parts = [data[a:b] for a, b in zip([0, *cuts], [*cuts, len(data)], strict=True)]
    counts = field_counts(pa.array([b"", *parts], pa.binary())[1:], "x")
    assert len(counts) == len(parts)


COUNTS = [
    pytest.param(2_000, id="thousands"),
    pytest.param(200_000, id="a-million-in-all", marks=pytest.mark.long),
]


@pytest.mark.parametrize("count", COUNTS)
def test_damaged_manifests(count: int, tmp_path: Path) -> None:
    held(manifests(tmp_path), lambda data: decode_manifest(data, "v1"), BaseError, count)


@pytest.mark.parametrize("count", COUNTS)
def test_damaged_json_manifests(count: int) -> None:
    held(json_manifests(), lambda data: decode_manifest(data, "v1"), BaseError, count)


@pytest.mark.parametrize("count", COUNTS)
def test_damaged_deletion_vectors(count: int) -> None:
    held(bitmaps(), decode_vector, BaseError, count)


@pytest.mark.parametrize("count", COUNTS)
def test_damaged_keys(count: int) -> None:
    held(keys(), decode_keys, FeedError, count)


@pytest.mark.parametrize("count", COUNTS)
def test_damaged_row_blobs(count: int) -> None:
    blobs = [bytes.fromhex("03010254000105 0568656c6c6f"), bytes.fromhex("808001") + b"x" * 9, b"\xff\x01"]
    held(blobs, count_fields, BaseError, count)


@pytest.mark.parametrize("text", [b"", b"4", b" 4\n", b"-1", b"\xff", b"4 5", b"9" * 30, b"\0" * 10_000])
def test_odd_hints(text: bytes, tmp_path: Path) -> None:
    (tmp_path / "version-hint.text").write_bytes(text)
    try:
        head = find_head(Folder.at(tmp_path))
    except BaseError as error:
        assert len(str(error)) < 500
    else:
        assert head is not None and head.number == 4
