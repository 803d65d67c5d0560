"""Deletion vectors as merutable writes them: which physical rows of a Parquet file are masked.

The container is close to Iceberg's puffin and deletion-vector-v1, but not the same: the length
field of the blob counts the checksum too, and the file has no magic before its footer. So the
manifest's byte range is what is read, never the footer. Source: merutable format, section 6.
"""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
import numpy.typing as npt
from pyroaring import BitMap

from flight_replica.base.manifest import ByteRange
from flight_replica.errors import BaseError, BaseNotUsable

_FILE_MAGIC = b"PFA1"
_BLOB_MAGIC = bytes.fromhex("d1d33964")
_LENGTH = struct.Struct(">I")  # of everything after this field
_CRC = struct.Struct(">I")
_COUNT = struct.Struct("<Q")  # how many 32-bit bitmaps follow
_KEY = struct.Struct("<I")  # high 32 bits of a bitmap's positions
_BLOB_SIZE_MIN = _LENGTH.size + len(_BLOB_MAGIC) + _COUNT.size + _CRC.size

Positions = npt.NDArray[np.int64]


def read_deletion_vector(catalog: Path, where: ByteRange) -> Positions:
    """Sorted 0-based positions from one blob on disk.

    Raises `BaseNotUsable` when the file is gone or too short, `BaseError` when it is damaged.
    """
    try:
        with (catalog / where.path).open("rb") as file:
            magic = file.read(len(_FILE_MAGIC))
            file.seek(where.offset)
            blob = file.read(where.length)
    except FileNotFoundError as error:
        raise BaseNotUsable(f"deletion vector file {where.path} is gone") from error
    except OSError as error:
        raise BaseError(f"deletion vector file {where.path} can't be read: {error}") from error
    if len(blob) < where.length:
        raise BaseNotUsable(
            f"deletion vector file {where.path} is too short: "
            f"{where.length} bytes wanted at {where.offset}, {len(blob)} found"
        )
    if magic != _FILE_MAGIC:
        raise BaseError(f"deletion vector file {where.path}: magic is {magic!r}, expected {_FILE_MAGIC!r}")
    return decode_blob(blob, where.path)


def decode_blob(blob: bytes, name: str) -> Positions:
    """Sorted 0-based positions in `blob`; `name` stands in messages. Raises `BaseError` for any damage."""
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
    return _positions(summed[len(_BLOB_MAGIC) :], name)


def _positions(bitmaps: bytes, name: str) -> Positions:
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
        bitmap = BitMap.deserialize(bitmaps[_COUNT.size + _KEY.size :])
    except ValueError as error:
        raise BaseError(f"deletion vector {name}: bitmap can't be decoded: {error}") from error
    return np.asarray(bitmap.to_array()).astype(np.int64)
