"""Manifests in their older JSON form: as much is kept, and as much refused, as of the newer one."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any
from uuid import UUID

import pytest

from flight_replica.base.manifest import ByteRange, DataFile, decode_manifest
from flight_replica.errors import BaseError, BaseNotUsable

TABLE_UUID = UUID("98eb5bc5-62bf-4199-aac7-48caf2c8fa6c")


def document() -> dict[str, Any]:
    """Two live files, of which the second has a deletion vector, and one that is gone."""
    vector = {"dv_path": "data/L0/b.dv-7.puffin", "dv_offset": 4, "dv_length": 44}
    none = {"dv_path": None, "dv_offset": None, "dv_length": None}
    meta_a = {"level": 1, "seq_min": 1, "seq_max": 9, "key_min": "00", "key_max": "ff", "num_rows": 9}
    meta_b = {"level": 0, "seq_min": 10, "seq_max": 14, "key_min": "61", "key_max": "62", "num_rows": 5}
    return {
        "format_version": 3,
        "table_uuid": str(TABLE_UUID),
        "snapshot_id": 7,
        "schema": {"table_name": "events", "columns": [], "primary_key": []},
        "entries": [
            {"path": "data/L1/a.parquet", "meta": {**meta_a, "file_size": 900, **none, "format": None}},
            {
                "path": "data/L0/b.parquet",
                "meta": {**meta_b, "file_size": 500, **vector, "format": "dual"},
                **vector,
                "status": "added",
            },
            {"path": "../gone", "meta": {}, "status": "deleted"},
        ],
        "properties": {"merutable.job": "flush"},
    }


def encoded(value: object) -> bytes:
    return json.dumps(value).encode()


def test_manifest_keeps_what_a_reader_needs() -> None:
    manifest = decode_manifest(encoded(document()), "v7")
    assert (manifest.snapshot_id, manifest.table_uuid, manifest.table_name) == (7, TABLE_UUID, "events")
    assert manifest.base_seq == 14
    vector = ByteRange("data/L0/b.dv-7.puffin", 4, 44)
    assert manifest.files == (
        DataFile("data/L1/a.parquet", 900, 9, 1, 1, 9, b"\x00", b"\xff", None, is_dual=False),
        DataFile("data/L0/b.parquet", 500, 5, 0, 10, 14, b"a", b"b", vector, is_dual=True),
    )


def test_a_manifest_cut_anywhere_may_be_half_written() -> None:
    data = encoded(document())
    for size in range(1, len(data)):
        with pytest.raises(BaseNotUsable, match=f"truncated: JSON ends after {size} bytes"):
            decode_manifest(data[:size], "v7")


Change = Callable[[dict[str, Any]], object]


def set_meta(**fields: object) -> Change:
    return lambda manifest: manifest["entries"][1]["meta"].update(fields)


def set_entry(**fields: object) -> Change:
    return lambda manifest: manifest["entries"][1].update(fields)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda m: m.update(format_version=4), "JSON format version 4, supported is 3"),
        (lambda m: m.pop("schema"), "schema is missing"),
        (lambda m: m.update(entries={}), "entries are a JSON dict, expected a list"),
        (lambda m: m.update(entries=["x"]), "entry x is no JSON object"),
        (lambda m: m.update(snapshot_id="7"), "snapshot_id is '7', expected a whole number"),
        (lambda m: m.update(table_uuid=None), "table_uuid 'None' is no UUID"),
        (set_entry(path=3), "entry without path or meta"),
        (set_entry(path="data/L1/a.parquet"), "is listed twice"),
        (set_entry(path="/etc/passwd"), "leaves the catalog directory"),
        (set_entry(status="moved"), "unknown status 'moved'"),
        (set_meta(format="rows"), "unknown format 'rows'"),
        (set_meta(level=-1), "negative level -1"),
        (set_meta(num_rows=True), "num_rows is 'True'"),
        (set_meta(seq_max=2**56), "impossible seq range"),
        (set_meta(seq_min=2**70), "seq_min is '1180591620717411303424'"),
        (set_meta(key_min="6g"), "key_min is '6g', expected hex digits"),
        (set_meta(dv_offset=5), "dv_offset is 4 in the entry, 5 in its meta"),
        (lambda m: (set_meta(dv_length=None)(m), set_entry(dv_length=None)(m)), "only .* given"),
        (set_entry(dv_path="../b", meta={**document()["entries"][1]["meta"], "dv_path": "../b"}), "leaves"),
    ],
)
def test_contradicting_manifest_is_refused_with_its_reason(change: Change, text: str) -> None:
    changed = document()
    change(changed)
    with pytest.raises(BaseError, match=text) as caught:
        decode_manifest(encoded(changed), "v7")
    assert type(caught.value) is BaseError


@pytest.mark.parametrize("data", [b"{]}", b"{\xff}", b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}"])
def test_what_is_no_json_is_refused(data: bytes) -> None:
    with pytest.raises(BaseError, match="manifest v7 is not JSON"):
        decode_manifest(data, "v7")
