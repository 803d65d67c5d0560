"""The manifest of a merutable catalog: from the bytes of `vN.metadata.pb` to a checked value.

Only what a reader needs is kept. Which manifest is the current one, and the data files themselves,
belong to `merutable.py`. Source: merutable format, sections 4.1 to 4.3. The older JSON manifest
(section 4.4) is refused by name.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Sequence
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
_SEQ_MAX = 2**56 - 1
_EXISTING, _ADDED, _DELETED = 0, 1, 2
_COLUMNAR, _DUAL = 0, 1


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


@dataclass(frozen=True, slots=True)
class Manifest:
    """One snapshot of the table. `schema` is the engine's JSON as of the table's creation: it never grows."""

    snapshot_id: int
    table_uuid: UUID
    table_name: str
    schema: dict[str, object]
    files: tuple[DataFile, ...]  # live ones, in the manifest's order

    @property
    def base_seq(self) -> int:
        """The newest seq that the files hold; 0 without files. A dropped tombstone can have been newer."""
        return max((file.seq_max for file in self.files), default=0)


def decode_manifest(data: bytes, name: str) -> Manifest:
    """The manifest in `data`; `name` stands in messages.

    Raises `BaseNotUsable` for bytes that may be half written, `BaseError` for every other damage and
    for entries that contradict each other.
    """
    message = manifest_pb2.Manifest()
    try:
        message.ParseFromString(_payload(data, name))
    except DecodeError as error:
        raise BaseError(f"manifest {name}: payload is no manifest protobuf: {error}") from error
    if message.delete_files:
        raise BaseError(f"manifest {name}: {len(message.delete_files)} delete files, which aren't supported")
    schema = _schema_document(message.properties, name)
    return Manifest(
        snapshot_id=message.snapshot_id,
        table_uuid=_table_uuid(message.table_uuid, name),
        table_name=str(schema.get("table_name")),
        schema=schema,
        files=_live_files(message.data_files, name),
    )


def relative_path(path: str, name: str) -> str:
    """`path`, which stays below the catalog. Raises `BaseError` for one that could leave it."""
    parts = PurePosixPath(path).parts
    if not parts or "\\" in path or "\0" in path or parts[0] == "/" or ".." in parts:
        raise BaseError(f"manifest {name}: path {path!r} leaves the catalog directory")
    return path


def _payload(data: bytes, name: str) -> bytes:
    if data[:1] == b"{":
        raise BaseError(f"manifest {name}: legacy JSON manifest, which isn't supported")
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


def _schema_document(properties: dict[str, str], name: str) -> dict[str, object]:
    if _SCHEMA_PROPERTY not in properties:
        raise BaseError(f"manifest {name}: property {_SCHEMA_PROPERTY} is missing")
    return parse_schema(properties[_SCHEMA_PROPERTY], f"manifest {name}: property {_SCHEMA_PROPERTY}")


def parse_schema(text: str | bytes, place: str) -> dict[str, object]:
    """The engine's schema JSON as an object; `place` begins the message of the `BaseError` if it is none."""
    try:
        document = json.loads(text)
    except ValueError as error:
        raise BaseError(f"{place} is not JSON: {error}") from error
    if not isinstance(document, dict):
        raise BaseError(f"{place} is a JSON {type(document).__name__}, expected an object")
    return document


def _table_uuid(text: str, name: str) -> UUID:
    try:
        return UUID(text)
    except ValueError as error:
        raise BaseError(f"manifest {name}: table_uuid {text!r} is no UUID") from error


def _live_files(entries: Sequence[manifest_pb2.DataFileRef], name: str) -> tuple[DataFile, ...]:
    files: dict[str, DataFile] = {}  # path -> file
    for entry in entries:
        if entry.status == _DELETED:
            continue
        if entry.path in files:
            raise BaseError(f"manifest {name}: file {entry.path} is listed twice")
        files[entry.path] = _data_file(entry, name)
    return tuple(files.values())


def _data_file(entry: manifest_pb2.DataFileRef, name: str) -> DataFile:
    place = f"manifest {name}: file {entry.path}"
    if entry.status not in (_EXISTING, _ADDED):
        raise BaseError(f"{place}: unknown status {entry.status}")
    if entry.HasField("format") and entry.format not in (_COLUMNAR, _DUAL):
        raise BaseError(f"{place}: unknown format {entry.format}")
    if entry.level < 0 or entry.file_size < 0 or entry.num_rows < 0:
        raise BaseError(
            f"{place}: negative level {entry.level}, size {entry.file_size} or rows {entry.num_rows}"
        )
    if not 0 <= entry.seq_min <= entry.seq_max <= _SEQ_MAX:
        raise BaseError(f"{place}: impossible seq range {entry.seq_min} to {entry.seq_max}")
    return DataFile(
        path=relative_path(entry.path, name),
        size_bytes=entry.file_size,
        row_count=entry.num_rows,
        level=entry.level,
        seq_min=entry.seq_min,
        seq_max=entry.seq_max,
        key_min=entry.key_min,
        key_max=entry.key_max,
        deletion_vector=_deletion_vector(entry, name),
    )


def _deletion_vector(entry: manifest_pb2.DataFileRef, name: str) -> ByteRange | None:
    present = [field for field in ("dv_path", "dv_offset", "dv_length") if entry.HasField(field)]
    if not present:
        return None
    if len(present) < 3:
        raise BaseError(f"manifest {name}: file {entry.path}: of the deletion vector only {present} given")
    if entry.dv_offset < 0 or entry.dv_length < 0:
        raise BaseError(
            f"manifest {name}: file {entry.path}: vector of {entry.dv_length} bytes at {entry.dv_offset}"
        )
    return ByteRange(relative_path(entry.dv_path, name), entry.dv_offset, entry.dv_length)
