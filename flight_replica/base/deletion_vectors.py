"""Deletion vectors as merutable writes them: which physical rows of a Parquet file are masked.

The container is close to Iceberg's puffin and deletion-vector-v1, but not the same: the length
field of the blob counts the checksum too, and the file has no magic before its footer. So the
manifest's byte range is what is read; the footer is asked only whether it says the same. Source: merutable
format, section 6.
"""

from __future__ import annotations

import json
import struct
import zlib
from pathlib import Path

import numpy as np

from flight_replica.base.folder import Folder
from flight_replica.base.manifest import ByteRange
from flight_replica.base.roaring import BadBitmap, Positions, decode_roaring
from flight_replica.errors import BaseError, BaseNotUsable

__all__ = ["Positions", "decode_blob", "read_deletion_vector"]

_FILE_MAGIC = b"PFA1"
_BLOB_MAGIC = bytes.fromhex("d1d33964")
_LENGTH = struct.Struct(">I")  # of everything after this field
_CRC = struct.Struct(">I")
_COUNT = struct.Struct("<Q")  # how many 32-bit bitmaps follow
_KEY = struct.Struct("<I")  # high 32 bits of a bitmap's positions
_BLOB_SIZE_MIN = _LENGTH.size + len(_BLOB_MAGIC) + _COUNT.size + _CRC.size

_FOOTER_LENGTH = struct.Struct("<i")  # before the magic at the file's end
_FOOTER_BYTES_MAX = 1 << 20
_ROWS_MAX = 2**32  # what one bitmap can address


def read_deletion_vector(
    catalog: Folder | Path, where: ByteRange, row_count: int = _ROWS_MAX, data_file: str | None = None
) -> Positions:
    """Sorted 0-based positions below `row_count` from one blob; later ones are tolerated and left out.

    `data_file` is the one that it is to be of, as the catalog names it. Raises `BaseNotUsable` when the file
    is gone or too short, `BaseError` when it is damaged or of another data file.
    """
    folder = Folder.at(catalog)
    with folder.reading(f"deletion vector file {where.path}"), folder.open(where.path) as file:
        magic = file.read(len(_FILE_MAGIC))
        size_bytes = file.size()
        blob = file.read_at(where.length, where.offset) if where.offset + where.length <= size_bytes else b""
        end = where.offset + where.length
        footer = file.read_at(min(size_bytes - end, _FOOTER_BYTES_MAX), end) if blob else b""
    if len(blob) < where.length:
        raise BaseNotUsable(
            f"deletion vector file {where.path} is too short: "
            f"{where.length} bytes wanted at {where.offset}, {max(0, size_bytes - where.offset)} found"
        )
    if magic != _FILE_MAGIC:
        raise BaseError(f"deletion vector file {where.path}: magic is {magic!r}, expected {_FILE_MAGIC!r}")
    positions = decode_blob(blob, where.path, row_count)
    if data_file is not None:
        _check_owner(footer, where, data_file)
    return positions


def _check_owner(footer: bytes, where: ByteRange, data_file: str) -> None:
    """Raise `BaseError` where the footer says that the blob is another data file's. A footer that can't be
    read says nothing: the engine doesn't look at it either."""
    try:
        blobs = json.loads(footer[: -len(_FILE_MAGIC) - _FOOTER_LENGTH.size])["blobs"]
        owners = [
            str(blob["fields"]["referenced-data-file"])
            for blob in blobs
            if (blob["offset"], blob["length"]) == (where.offset, where.length)
        ]
    except (ValueError, KeyError, TypeError):
        return
    if owners and not any(f"/{data_file}".endswith(f"/{owner}") for owner in owners):
        raise BaseError(
            f"deletion vector file {where.path}: its footer says that it is of {owners[0]}, "
            f"the manifest that it is of {data_file}"
        )


def decode_blob(blob: bytes, name: str, row_count: int = _ROWS_MAX) -> Positions:
    """Sorted 0-based positions below `row_count` in `blob`; `name` stands in messages.

    Raises `BaseError` for any damage.
    """
    if len(blob) < _BLOB_SIZE_MIN:
        raise BaseError(f"deletion vector {name}: {len(blob)} bytes, need at least {_BLOB_SIZE_MIN}")
    (length,) = _LENGTH.unpack_from(blob)
    if length != len(blob) - _LENGTH.size:
        raise BaseError(
            f"deletion vector {name}: length {length}, but {len(blob) - _LENGTH.size} bytes follow"
        )
    summed = blob[_LENGTH.size : -_CRC.size]
    if not summed.startswith(_BLOB_MAGIC):
        raise BaseError(f"deletion vector {name}: magic is {summed[:4].hex()}, expected {_BLOB_MAGIC.hex()}")
    (stored,) = _CRC.unpack(blob[-_CRC.size :])
    if stored != (computed := zlib.crc32(summed)):
        raise BaseError(f"deletion vector {name}: checksum {stored:08x} stored, {computed:08x} computed")
    return _positions(summed[len(_BLOB_MAGIC) :], name, row_count)


def _positions(bitmaps: bytes, name: str, row_count: int) -> Positions:
    """Of the 64-bit portable form, which holds one bitmap under key 0 (rows below 2^32) or none."""
    (count,) = _COUNT.unpack_from(bitmaps)
    if count == 0:
        return np.empty(0, np.int64)
    if count > 1:
        raise BaseError(f"deletion vector {name}: {count} bitmaps, expected 0 or 1")
    if len(bitmaps) <= _COUNT.size + _KEY.size:
        raise BaseError(f"deletion vector {name}: ends before its bitmap")
    (key,) = _KEY.unpack_from(bitmaps, _COUNT.size)
    if key != 0:
        raise BaseError(f"deletion vector {name}: bitmap key {key}, expected 0")
    try:
        positions, _ = decode_roaring(bitmaps[_COUNT.size + _KEY.size :], row_count)
    except BadBitmap as error:
        raise BaseError(f"deletion vector {name}: bitmap can't be decoded: {error}") from error
    return positions
