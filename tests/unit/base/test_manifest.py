"""The frame and the protobuf of a manifest: what is kept, and what is refused."""

from __future__ import annotations

import struct
from collections.abc import Callable
from uuid import UUID

import pytest

from flight_replica._pb import manifest_pb2
from flight_replica.base.manifest import ByteRange, DataFile, decode_manifest
from flight_replica.errors import BaseError, BaseNotUsable

TABLE_UUID = UUID("98eb5bc5-62bf-4199-aac7-48caf2c8fa6c")


def message() -> manifest_pb2.Manifest:
    """Two live files, of which the second has a deletion vector."""
    return manifest_pb2.Manifest(
        snapshot_id=7,
        table_uuid=str(TABLE_UUID),
        properties={"merutable.schema.json": '{"table_name": "events", "columns": [], "primary_key": []}'},
        data_files=[
            manifest_pb2.DataFileRef(
                path="data/L1/a.parquet", file_size=900, num_rows=9, level=1, seq_min=1, seq_max=9, status=1
            ),
            manifest_pb2.DataFileRef(
                path="data/L0/b.parquet",
                file_size=500,
                num_rows=5,
                seq_min=10,
                seq_max=14,
                key_min=b"a",
                key_max=b"b",
                dv_path="data/L0/b.dv-7.puffin",
                dv_offset=4,
                dv_length=44,
                format=1,
            ),
        ],
    )


def frame(payload: bytes, *, magic: bytes = b"MRUB", version: int = 1, length: int | None = None) -> bytes:
    return struct.pack("<4sBI", magic, version, len(payload) if length is None else length) + payload


def test_manifest_keeps_what_a_reader_needs() -> None:
    manifest = decode_manifest(frame(message().SerializeToString()), "v7")
    assert manifest.snapshot_id == 7
    assert manifest.table_uuid == TABLE_UUID
    assert manifest.table_name == "events"
    assert manifest.schema["columns"] == []
    assert manifest.base_seq == 14
    assert manifest.files == (
        DataFile("data/L1/a.parquet", 900, 9, 1, 1, 9, b"", b"", None, is_dual=False),
        DataFile(
            "data/L0/b.parquet",
            500,
            5,
            0,
            10,
            14,
            b"a",
            b"b",
            ByteRange("data/L0/b.dv-7.puffin", 4, 44),
            is_dual=True,
        ),
    )


def test_manifest_without_files_has_base_seq_zero() -> None:
    empty = message()
    del empty.data_files[:]
    assert decode_manifest(frame(empty.SerializeToString()), "v7").base_seq == 0


def test_deleted_entries_are_not_live_and_not_judged() -> None:
    changed = message()
    changed.data_files[1].status = 2
    changed.data_files[1].path = "../gone"
    manifest = decode_manifest(frame(changed.SerializeToString()), "v7")
    assert [file.path for file in manifest.files] == ["data/L1/a.parquet"]
    assert manifest.base_seq == 9


def test_bytes_after_the_payload_are_ignored() -> None:
    data = frame(message().SerializeToString())
    assert decode_manifest(data + b"more", "v7") == decode_manifest(data, "v7")


@pytest.mark.parametrize(
    ("data", "error", "text"),
    [
        (b"", BaseNotUsable, "too short: 0 bytes, need 9"),
        (b"MRUB\x01\x00", BaseNotUsable, "too short: 6 bytes, need 9"),
        (frame(b"abc", length=4), BaseNotUsable, "payload of 4 bytes, found 3"),
        (b"PAR1 and more", BaseError, "magic is 50 41 52 31"),
        (b"PAR1", BaseError, "magic is 50 41 52 31"),
        (frame(b"", version=2), BaseError, "format version 2, supported is 1"),
        (frame(b"\xff\xff\xff"), BaseError, "no manifest protobuf"),
    ],
)
def test_damaged_frame_is_refused_with_its_reason(data: bytes, error: type[BaseError], text: str) -> None:
    with pytest.raises(error, match=text) as caught:
        decode_manifest(data, "v7")
    assert type(caught.value) is error


Change = Callable[[manifest_pb2.Manifest], object]


def set_file(**fields: object) -> Change:
    def change(manifest: manifest_pb2.Manifest) -> None:
        for name, value in fields.items():
            setattr(manifest.data_files[1], name, value)

    return change


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda m: m.properties.clear(), r"property merutable\.schema\.json is missing"),
        (lambda m: m.properties.update({"merutable.schema.json": "{"}), "is not JSON"),
        (
            lambda m: m.properties.update({"merutable.schema.json": "[]"}),
            "is a JSON list, expected an object",
        ),
        (lambda m: setattr(m, "table_uuid", "events"), "table_uuid 'events' is no UUID"),
        (lambda m: m.delete_files.add(path="x"), "1 delete files"),
        (set_file(path="data/L1/a.parquet"), "is listed twice"),
        (set_file(path="data/../../b.parquet"), "leaves the catalog directory"),
        (set_file(path="/data/b.parquet"), "leaves the catalog directory"),
        (set_file(path=""), "leaves the catalog directory"),
        (set_file(dv_path="../b.puffin"), "leaves the catalog directory"),
        (set_file(status=7), "unknown status 7"),
        (set_file(format=9), "unknown format 9"),
        (set_file(level=-1), "negative level -1"),
        (set_file(num_rows=-5), "rows -5"),
        (set_file(seq_min=15), "impossible seq range 15 to 14"),
        (set_file(seq_max=2**56), "impossible seq range 10 to 72057594037927936"),
        (lambda m: m.data_files[1].ClearField("dv_length"), r"only \['dv_path', 'dv_offset'\] given"),
        (set_file(dv_offset=-4), "vector of 44 bytes at -4"),
    ],
)
def test_contradicting_manifest_is_refused_with_its_reason(change: Change, text: str) -> None:
    changed = message()
    change(changed)
    with pytest.raises(BaseError, match=text):
        decode_manifest(frame(changed.SerializeToString()), "v7")
