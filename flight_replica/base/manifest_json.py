"""The JSON form that manifests had before the protobuf one. Source: merutable format, section 4.4.

The same checks as the newer form's (`manifest.py`). A file is written in place, so one that ends too early
may be half written.
"""

from __future__ import annotations

import json
from collections.abc import Mapping

from flight_replica.base.manifest import (
    DataFile,
    Manifest,
    byte_range,
    checked,
    compacted_to,
    distinct,
    parse_object,
    table_uuid,
)
from flight_replica.errors import BaseError, BaseNotUsable

_FORMAT_VERSION = 3
_STATUSES = ("existing", "added", "deleted")
_FORMATS = ("columnar", "dual")
_VECTOR_FIELDS = ("dv_path", "dv_offset", "dv_length")

_Object = Mapping[str, object]


def decode_json_manifest(data: bytes, name: str) -> Manifest:
    """The manifest in `data`. Raises as `decode_manifest`."""
    document = _document(data, name)
    version = document.get("format_version", _FORMAT_VERSION)
    if version != _FORMAT_VERSION:
        raise BaseError(f"manifest {name}: JSON format version {version!r}, supported is {_FORMAT_VERSION}")
    schema = document.get("schema")
    if not isinstance(schema, dict):
        raise BaseError(f"manifest {name}: schema is missing")
    entries = document.get("entries", [])
    if not isinstance(entries, list):
        raise BaseError(f"manifest {name}: entries are a JSON {type(entries).__name__}, expected a list")
    live = (entry for entry in (_entry(entry, name) for entry in entries) if entry is not None)
    return Manifest(
        snapshot_id=_number(document, "snapshot_id", f"manifest {name}"),
        table_uuid=table_uuid(str(document.get("table_uuid")), name),
        table_name=str(schema.get("table_name")),
        schema=schema,
        files=distinct(live, name),
        compacted_to=compacted_to(_properties(document), name),
    )


def _properties(document: _Object) -> _Object:
    properties = document.get("properties")
    return properties if isinstance(properties, dict) else {}


def _document(data: bytes, name: str) -> _Object:
    try:
        return parse_object(data, f"manifest {name}")
    except BaseError as error:
        cause = error.__cause__
        ends_early = isinstance(cause, json.JSONDecodeError) and cause.pos >= len(cause.doc.rstrip())
        if ends_early or not data.rstrip().endswith(b"}"):
            raise BaseNotUsable(f"manifest {name}: truncated: JSON ends after {len(data)} bytes") from error
        raise


def _entry(entry: object, name: str) -> DataFile | None:
    """One file, None for a deleted one."""
    if not isinstance(entry, dict):
        raise BaseError(f"manifest {name}: entry {str(entry)[:100]} is no JSON object")
    path, meta = entry.get("path"), entry.get("meta")
    place = f"manifest {name}: file {path}"
    if not isinstance(path, str) or not isinstance(meta, dict):
        raise BaseError(f"{place}: entry without path or meta")
    status, stamp = entry.get("status", "existing"), meta.get("format")
    if status not in _STATUSES:
        raise BaseError(f"{place}: unknown status {status!r}")
    if status == "deleted":
        return None
    if stamp is not None and stamp not in _FORMATS:
        raise BaseError(f"{place}: unknown format {stamp!r}")
    level = _number(meta, "level", place)
    file = DataFile(
        path=path,
        size_bytes=_number(meta, "file_size", place),
        row_count=_number(meta, "num_rows", place),
        level=level,
        seq_min=_number(meta, "seq_min", place),
        seq_max=_number(meta, "seq_max", place),
        key_min=_key(meta, "key_min", place),
        key_max=_key(meta, "key_max", place),
        deletion_vector=byte_range(_vector(entry, meta, place), place),
        is_dual=stamp == "dual" if stamp is not None else level == 0,
    )
    return checked(file, name)


def _vector(entry: _Object, meta: _Object, place: str) -> dict[str, object]:
    """The fields that are given. They stand in the entry, and in its meta as well or instead."""
    given: dict[str, object] = {}
    for field in _VECTOR_FIELDS:
        values = [holder[field] for holder in (entry, meta) if holder.get(field) is not None]
        if len(values) == 2 and values[0] != values[1]:
            raise BaseError(f"{place}: {field} is {values[0]!r} in the entry, {values[1]!r} in its meta")
        if values:
            given[field] = values[0]
    return given


def _number(document: _Object, field: str, place: str) -> int:
    value = document.get(field)
    if not isinstance(value, int) or isinstance(value, bool) or not -(2**63) <= value < 2**63:
        raise BaseError(f"{place}: {field} is {str(value)[:50]!r}, expected a whole number")
    return value


def _key(document: _Object, field: str, place: str) -> bytes:
    value = document.get(field)
    try:
        return bytes.fromhex(str(value))
    except ValueError as error:
        raise BaseError(f"{place}: {field} is {str(value)[:50]!r}, expected hex digits") from error
