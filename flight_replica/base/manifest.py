"""A manifest of a merutable table: from the bytes of `vN.metadata.pb` and its kin to a checked value.

Only what a reader needs is kept. Which manifest is the current one, and the data files themselves,
belong to `merutable.py`; the older JSON form to `manifest_json.py`. Source: merutable format, sections
4.1 to 4.4.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from uuid import UUID

from google.protobuf.message import DecodeError

from flight_replica._pb import manifest_pb2
from flight_replica.errors import BaseError, BaseNotUsable

_MAGIC = b"MRUB"
_FORMAT_VERSION = 1
_HEADER = struct.Struct("<4sBI")  # magic, format version, payload length
_SCHEMA_PROPERTY = "merutable.schema.json"
_LEVEL_PROPERTY = "merutable.output_level"
_SEQ_MAX = 2**56 - 1
_EXISTING, _ADDED, _DELETED = 0, 1, 2
_COLUMNAR, _DUAL = 0, 1
_VECTOR_FIELDS = ("dv_path", "dv_offset", "dv_length")


@dataclass(frozen=True, slots=True)
class ByteRange:
    """Where a deletion vector's blob lies. `path` is relative to the catalog."""

    path: str
    offset: int
    length: int


@dataclass(frozen=True, slots=True)
class DataFile:
    """One live Parquet file. `path` is relative to the catalog; key bounds are user keys, inclusive."""

    path: str
    size_bytes: int
    row_count: int  # physical: tombstones and masked rows too
    level: int
    seq_min: int
    seq_max: int
    key_min: bytes
    key_max: bytes
    deletion_vector: ByteRange | None
    is_dual: bool = False  # the engine reads rows from the column of row blobs


@dataclass(frozen=True, slots=True)
class Manifest:
    """One snapshot of the table. `schema` is the engine's JSON as of the table's creation: it never grows."""

    snapshot_id: int
    table_uuid: UUID
    table_name: str
    schema: dict[str, object]
    files: tuple[DataFile, ...]  # live ones, in the manifest's order
    compacted_to: int | None = None  # the level that the last compaction wrote; None before the first one

    @property
    def base_seq(self) -> int:
        """The newest seq that the files hold; 0 without files. A dropped tombstone can have been newer."""
        return max((file.seq_max for file in self.files), default=0)


def decode_manifest(data: bytes, name: str) -> Manifest:
    """The manifest in `data`, in either form; `name` stands in messages.

    Raises `BaseNotUsable` for bytes that may be half written, `BaseError` for every other damage and
    for entries that contradict each other.
    """
    if data[:1] == b"{":  # JSON has no magic: the engine looks at the first byte as well
        from flight_replica.base.manifest_json import decode_json_manifest

        return decode_json_manifest(data, name)
    message, payload = manifest_pb2.Manifest(), _payload(data, name)
    try:
        message.ParseFromString(payload)
    except DecodeError as error:
        after = len(data) - _HEADER.size - len(payload)
        raise BaseError(
            f"manifest {name}: payload of {len(payload)} bytes, with {after} more after it, "
            f"is no manifest protobuf: {error}"
        ) from error
    if message.delete_files:
        raise BaseError(f"manifest {name}: {len(message.delete_files)} delete files, which aren't supported")
    schema = _schema_document(message.properties, name)
    return Manifest(
        snapshot_id=message.snapshot_id,
        table_uuid=table_uuid(message.table_uuid, name),
        table_name=str(schema.get("table_name")),
        schema=schema,
        files=distinct((_data_file(e, name) for e in message.data_files if e.status != _DELETED), name),
        compacted_to=compacted_to(message.properties, name),
    )


def _payload(data: bytes, name: str) -> bytes:
    if len(data) < _HEADER.size and _MAGIC.startswith(data[:4]):
        raise BaseNotUsable(f"manifest {name}: frame too short: {len(data)} bytes, need {_HEADER.size}")
    if data[:4] != _MAGIC:
        raise BaseError(f"manifest {name}: magic is {data[:4].hex(' ')}, expected {_MAGIC.hex(' ')} (MRUB)")
    _, version, length = _HEADER.unpack_from(data)
    if version != _FORMAT_VERSION:
        raise BaseError(f"manifest {name}: format version {version}, supported is {_FORMAT_VERSION}")
    available = len(data) - _HEADER.size
    if length > available:
        raise BaseNotUsable(f"manifest {name}: truncated: payload of {length} bytes, found {available}")
    return data[_HEADER.size : _HEADER.size + length]


def _schema_document(properties: Mapping[str, str], name: str) -> dict[str, object]:
    if _SCHEMA_PROPERTY not in properties:
        raise BaseError(f"manifest {name}: property {_SCHEMA_PROPERTY} is missing")
    return parse_object(properties[_SCHEMA_PROPERTY], f"manifest {name}: property {_SCHEMA_PROPERTY}")


def _data_file(entry: manifest_pb2.DataFileRef, name: str) -> DataFile:
    place = f"manifest {name}: file {entry.path}"
    if entry.status not in (_EXISTING, _ADDED):
        raise BaseError(f"{place}: unknown status {entry.status}")
    if entry.HasField("format") and entry.format not in (_COLUMNAR, _DUAL):
        raise BaseError(f"{place}: unknown format {entry.format}")
    vector = {field: getattr(entry, field) for field in _VECTOR_FIELDS if entry.HasField(field)}
    file = DataFile(
        path=entry.path,
        size_bytes=entry.file_size,
        row_count=entry.num_rows,
        level=entry.level,
        seq_min=entry.seq_min,
        seq_max=entry.seq_max,
        key_min=entry.key_min,
        key_max=entry.key_max,
        deletion_vector=byte_range(vector, place),
        is_dual=entry.format == _DUAL if entry.HasField("format") else entry.level == 0,
    )
    return checked(file, name)


# --- what both forms are held to ----------------------------------------------------------------------


def parse_object(text: str | bytes, place: str) -> dict[str, object]:
    """A JSON object, such as the engine's schema; `place` begins the message of `BaseError` if it is none."""
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise BaseError(f"{place} is not JSON: {error}") from error
    if not isinstance(document, dict):
        raise BaseError(f"{place} is a JSON {type(document).__name__}, expected an object")
    return document


def relative_path(path: str, name: str) -> str:
    """`path`, which stays below the catalog. Raises `BaseError` for one that could leave it."""
    parts = PurePosixPath(path).parts
    if not parts or "\\" in path or "\0" in path or parts[0] == "/" or ".." in parts:
        raise BaseError(f"manifest {name}: path {path!r} leaves the catalog directory")
    return path


def table_uuid(text: str, name: str) -> UUID:
    try:
        return UUID(text)
    except ValueError as error:
        raise BaseError(f"manifest {name}: table_uuid {text!r} is no UUID") from error


def compacted_to(properties: Mapping[str, object], name: str) -> int | None:
    """The level in the properties, which accumulate from snapshot to snapshot."""
    level = properties.get(_LEVEL_PROPERTY)
    if level is None:
        return None
    if not str(level).isdecimal():
        raise BaseError(f"manifest {name}: property {_LEVEL_PROPERTY} is {str(level)[:100]!r}")
    return int(str(level))


def byte_range(vector: Mapping[str, object], place: str) -> ByteRange | None:
    """The deletion vector of the fields that are given: all three or none."""
    if not vector:
        return None
    if len(vector) < len(_VECTOR_FIELDS):
        raise BaseError(f"{place}: of the deletion vector only {list(vector)} given")
    path, offset, length = (vector[field] for field in _VECTOR_FIELDS)
    if not (isinstance(path, str) and isinstance(offset, int) and isinstance(length, int)):
        raise BaseError(f"{place}: deletion vector at {path!r}, {offset!r}, {length!r}")
    if offset < 0 or length < 0:
        raise BaseError(f"{place}: vector of {length} bytes at {offset}")
    return ByteRange(path, offset, length)


def checked(file: DataFile, name: str) -> DataFile:
    """`file`, whose numbers and paths are possible. Raises `BaseError`."""
    place = f"manifest {name}: file {file.path}"
    if file.level < 0 or file.size_bytes < 0 or file.row_count < 0:
        raise BaseError(
            f"{place}: negative level {file.level}, size {file.size_bytes} or rows {file.row_count}"
        )
    if not 0 <= file.seq_min <= file.seq_max <= _SEQ_MAX:
        raise BaseError(f"{place}: impossible seq range {file.seq_min} to {file.seq_max}")
    relative_path(file.path, name)
    if file.deletion_vector is not None:
        relative_path(file.deletion_vector.path, name)
    return file


def distinct(files: Iterable[DataFile], name: str) -> tuple[DataFile, ...]:
    """`files`, each of which is there once. Raises `BaseError`."""
    file_by_path: dict[str, DataFile] = {}
    for file in files:
        if file.path in file_by_path:
            raise BaseError(f"manifest {name}: file {file.path} is listed twice")
        file_by_path[file.path] = file
    return tuple(file_by_path.values())
