"""Deletion vectors of Iceberg's format version 3, as any writer makes them.

A vector is one blob of a Puffin file, found by offset and size in its manifest entry. merutable's own vectors
look much alike and are another thing: `deletion_vectors.py`. Source: Iceberg spec, "Deletion Vectors", and
Puffin spec, "deletion-vector-v1 blob type".
"""

from __future__ import annotations

import struct
import zlib
from typing import cast

import numpy as np
from pyarrow import fs
from pyiceberg.manifest import DATA_FILE_TYPE, DataFile

from flight_replica.base.roaring import BadBitmap, Positions, decode_roaring
from flight_replica.errors import BaseError, BaseNotUsable

_FILE_MAGIC = b"PFA1"
_BLOB_MAGIC = bytes.fromhex("d1d33964")
_LENGTH = struct.Struct(">I")  # of magic and bitmaps
_CRC = struct.Struct(">I")  # over magic and bitmaps
_COUNT = struct.Struct("<Q")  # how many 32-bit bitmaps follow
_KEY = struct.Struct("<I")  # high 32 bits of a bitmap's positions
_FIELDS = [field.name for field in DATA_FILE_TYPE[3].fields]


def referenced_file(vector: DataFile) -> str:
    """The data file that the vector is of. Raises `BaseError` for an entry without."""
    path = _field(vector, "referenced_data_file")
    if not isinstance(path, str):
        raise BaseError(f"{vector.file_path}: a deletion vector without the data file that it is of")
    return path


def read_vector(vector: DataFile, row_count: int, path: str, filesystem: fs.FileSystem | None) -> Positions:
    """Sorted 0-based rows of the vector, whose number its entry states. Its file lies at `path`.

    Raises `BaseNotUsable` when the file is gone or too short, `BaseError` for damage, and for rows that the
    data file, of `row_count`, doesn't have.
    """
    offset, size = _field(vector, "content_offset"), _field(vector, "content_size_in_bytes")
    if not isinstance(offset, int) or not isinstance(size, int) or offset < 0 or size < 0:
        raise BaseError(f"{vector.file_path}: a deletion vector at {offset!r} of {size!r} bytes")
    place = f"{vector.file_path} at {offset}"
    blob = _read(path, filesystem or fs.LocalFileSystem(), offset, size, place)
    positions = _decode(blob, place, row_count)
    if len(positions) != vector.record_count:
        raise BaseError(
            f"{place}: {len(positions)} rows below {row_count}, the manifest says {vector.record_count}"
        )
    return positions


def _field(file: DataFile, name: str) -> object:
    """A field of version 3, for which pyiceberg has no attribute."""
    return cast(object, file[_FIELDS.index(name)])


def _read(path: str, filesystem: fs.FileSystem, offset: int, size: int, place: str) -> bytes:
    try:
        with filesystem.open_input_file(path) as file:
            magic = file.read(len(_FILE_MAGIC))
            file.seek(min(offset, file.size()))
            blob: bytes = file.read(size)
    except OSError as error:
        raise BaseNotUsable(f"{place}: can't be read: {error}") from error
    if len(blob) < size:
        raise BaseNotUsable(f"{place}: {len(blob)} bytes, expected {size}")
    if magic != _FILE_MAGIC:
        raise BaseError(f"{place}: magic is {magic.hex()}, expected {_FILE_MAGIC.hex()}")
    return blob


def _decode(blob: bytes, place: str, row_count: int) -> Positions:
    summed = blob[_LENGTH.size : -_CRC.size]
    if len(summed) < len(_BLOB_MAGIC) + _COUNT.size:
        raise BaseError(f"{place}: a deletion vector of {len(blob)} bytes")
    (length,) = _LENGTH.unpack_from(blob)
    if length != len(summed):
        raise BaseError(f"{place}: length {length}, but magic and bitmaps have {len(summed)} bytes")
    if not summed.startswith(_BLOB_MAGIC):
        raise BaseError(f"{place}: blob magic is {summed[:4].hex()}, expected {_BLOB_MAGIC.hex()}")
    (stored,) = _CRC.unpack(blob[-_CRC.size :])
    if stored != (computed := zlib.crc32(summed)):
        raise BaseError(f"{place}: checksum {stored:08x} stored, {computed:08x} computed")
    return _positions(summed[len(_BLOB_MAGIC) :], place, row_count)


def _positions(bitmaps: bytes, place: str, row_count: int) -> Positions:
    (count,) = _COUNT.unpack_from(bitmaps)
    at, parts, last_key = _COUNT.size, [np.empty(0, np.int64)], -1
    for _ in range(count):
        header = bitmaps[at : at + _KEY.size]
        if len(header) < _KEY.size:
            raise BaseError(f"{place}: {count} bitmaps, but their bytes end at {at}")
        (key,) = _KEY.unpack(header)
        if key <= last_key:
            raise BaseError(f"{place}: bitmap keys don't ascend")
        at, last_key = at + _KEY.size, key
        try:
            values, size = decode_roaring(bitmaps[at:], row_count - (key << 32))
        except BadBitmap as error:
            raise BaseError(f"{place}: bitmap can't be decoded: {error}") from error
        at += size
        parts.append(values + (key << 32))
    return np.concatenate(parts)
