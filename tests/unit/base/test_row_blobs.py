"""Row blobs against the typed columns beside them, for every type; and files where they differ."""

from __future__ import annotations

import shutil
import struct
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flight_replica._pb import manifest_pb2
from flight_replica.base.merutable import MerutableBase
from flight_replica.base.row_blobs import disagreeing, field_counts
from flight_replica.errors import BaseError
from tests import samples

TYPES = [pa.bool_(), pa.int32(), pa.int64(), pa.float32(), pa.float64(), pa.binary(), pa.binary(2)]
Row = tuple[object, ...]


def varint(number: int) -> bytes:
    found = b""
    while number >= 0x80:
        found, number = found + bytes([number & 0x7F | 0x80]), number >> 7
    return found + bytes([number])


def zigzag(number: int) -> bytes:
    return varint(number << 1 if number >= 0 else -2 * number - 1)


def blob(row: Row) -> bytes:
    """Postcard, field by field, as the format's page describes it."""
    found = varint(len(row))
    for value, kind in zip(row, TYPES, strict=False):
        if value is None:
            found += b"\0"
            continue
        number = min(TYPES.index(kind), 5)
        found += bytes([1, number])
        if isinstance(value, bool):
            found += bytes([value])
        elif isinstance(value, int):
            found += zigzag(value)
        elif isinstance(value, float):
            found += struct.pack("<f" if kind == pa.float32() else "<d", value)
        elif isinstance(value, bytes):
            found += varint(len(value)) + value
    return found


def columns(rows: list[Row]) -> list[pa.Array]:
    padded = [(*row, *[None] * (len(TYPES) - len(row))) for row in rows]
    return [pa.array([row[n] for row in padded], kind) for n, kind in enumerate(TYPES)]


def wrong(rows: list[Row], blobs: list[bytes]) -> list[int]:
    array = pa.array([b"before", *blobs], pa.binary())[1:]
    return disagreeing(array, columns(rows), field_counts(array, "x")).tolist()


def test_worked_examples_of_the_format() -> None:
    assert blob((True, 300)).hex() == "020100010101d804"
    assert field_counts(pa.array([b"", bytes.fromhex("03010254000105 0568656c6c6f")]), "x").tolist() == [0, 3]


values = st.tuples(
    st.none() | st.booleans(),
    st.none() | st.integers(-(2**31), 2**31 - 1),
    st.none() | st.integers(-(2**63), 2**63 - 1),
    st.none() | st.floats(width=32),
    st.none() | st.floats(),
    st.none() | st.binary(max_size=300),
    st.none() | st.binary(min_size=2, max_size=2),
)


@given(st.lists(st.tuples(values, st.integers(1, len(TYPES))), max_size=6))
def test_a_blob_of_the_same_values_agrees_however_short(found: list[tuple[Row, int]]) -> None:
    rows = [row[:count] for row, count in found]
    assert wrong(rows, [blob(row) for row in rows]) == []


@given(st.lists(values, min_size=1, max_size=4), st.data())
def test_any_changed_byte_disagrees(rows: list[Row], data: st.DataObject) -> None:
    blobs = [bytearray(blob(row)) for row in rows]
    number = data.draw(st.integers(0, len(rows) - 1))
    at = data.draw(st.integers(1, len(blobs[number]) - 1))
    blobs[number][at] ^= data.draw(st.integers(1, 255))
    assert wrong(rows, [bytes(changed) for changed in blobs]) == [number]


@pytest.mark.parametrize("blob_", [b"\x80", b"\xff\xff", b"\x80\x80\x80\x01"])
def test_a_number_of_fields_that_cannot_be_is_refused(blob_: bytes) -> None:
    with pytest.raises(BaseError, match="a row blob"):
        field_counts(pa.array([blob_]), "x")


def sample_catalog(tmp_path: Path) -> tuple[Path, Path, manifest_pb2.Manifest]:
    """(a catalog, its newest file, its manifest)."""
    catalog = tmp_path / "catalog"
    shutil.copytree(samples.scenario("s13") / "base" / "catalog", catalog)
    message = manifest_pb2.Manifest.FromString((catalog / "metadata/v4.metadata.pb").read_bytes()[9:])
    return catalog, catalog / message.data_files[3].path, message


def replace_file(catalog: Path, file: Path, table: pa.Table, message: manifest_pb2.Manifest) -> None:
    """Write the newest file anew, footer and all, and its size into the manifest."""
    pq.write_table(table.replace_schema_metadata(pq.read_metadata(file).metadata), file)
    message.data_files[3].file_size = file.stat().st_size
    payload = message.SerializeToString()
    frame = struct.pack("<4sBI", b"MRUB", 1, len(payload))
    (catalog / "metadata/v4.metadata.pb").write_bytes(frame + payload)


@samples.needs_samples
@pytest.mark.parametrize("column", ["name", "qty", "price"])
def test_a_value_that_its_row_blob_contradicts_is_refused(column: str, tmp_path: Path) -> None:
    """A file that was written anew with one other value, and says so in its size."""
    catalog, file, message = sample_catalog(tmp_path)
    table = pq.read_table(file)
    row = int(np.flatnonzero(table["_merutable_op"].to_numpy())[2])
    changed = table[column].to_pylist()
    changed[row] = {"name": b"other", "qty": -12345, "price": 0.125}[column]
    place = table.schema.get_field_index(column)
    table = table.set_column(
        place, table.schema.field(place), pa.array(changed, table.schema.field(place).type)
    )
    replace_file(catalog, file, table, message)
    with pytest.raises(BaseError, match=f"row {row}: its columns disagree with its row blob"):
        MerutableBase(catalog, table="events").load()


@samples.needs_samples
def test_a_dual_file_without_its_row_blobs_is_refused(tmp_path: Path) -> None:
    catalog, file, message = sample_catalog(tmp_path)
    replace_file(catalog, file, pq.read_table(file).drop_columns(["_merutable_value"]), message)
    with pytest.raises(BaseError, match="column '_merutable_value' is missing, though its footer says dual"):
        MerutableBase(catalog, table="events").load()
