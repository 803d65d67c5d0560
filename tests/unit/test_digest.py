"""The digest against a slow reference that goes row by row, value by value."""

from __future__ import annotations

import datetime
import math
import random
import struct
from collections.abc import Sequence
from decimal import Decimal
from uuid import UUID

import pyarrow as pa
import pytest
from xxhash import xxh3_64_intdigest

from flight_replica.digest import Digest, digest, encode_values
from flight_replica.keys import KeyCodec
from flight_replica.schema import Column, TableSchema

NAN_BITS = struct.unpack("<d", bytes.fromhex("010000000000f8ff"))[0]  # negative, with a payload

VALUES: list[tuple[pa.DataType, Sequence[object]]] = [
    (pa.bool_(), [True, None, False]),
    (pa.int8(), [-128, None, 127]),
    (pa.int64(), [-(2**63), None, 2**63 - 1]),
    (pa.uint64(), [0, None, 2**64 - 1]),
    (pa.float32(), [1.5, None, float("nan"), -0.0, -math.inf]),
    (pa.float64(), [1.5, None, float("nan"), NAN_BITS, -0.0, 0.0, math.inf]),
    (pa.decimal128(9, 2), [Decimal("-1.25"), None, Decimal("7.00")]),
    (pa.decimal256(50, 2), [Decimal("-1.25"), None]),
    (pa.string(), ["", None, "a\0b", "é"]),
    (pa.binary(), [b"", None, b"\0\xff\0"]),
    (pa.binary(3), [b"abc", None]),
    (pa.date32(), [datetime.date(1969, 12, 31), None]),
    (pa.timestamp("us", "UTC"), [datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC), None]),
    (pa.time32("ms"), [datetime.time(1, 2, 3), None]),
    (pa.uuid(), [UUID(int=5), None]),
    (pa.list_(pa.string()), [["a", None, ""], None, []]),
    (pa.list_(pa.list_(pa.int32())), [[[1], None, []], None, [[2, 3]]]),
    (pa.map_(pa.string(), pa.float64()), [[("a", 1.0), ("b", None)], None, []]),
    (
        pa.struct({"x": pa.int32(), "y": pa.list_(pa.bool_())}),
        [{"x": 1, "y": [True]}, None, {"x": None, "y": None}],
    ),
]
IDS = [str(kind) for kind, _ in VALUES]


def _reference(value: object, kind: pa.DataType) -> bytes:
    """One value as the contract says it, without arrays."""
    if value is None:
        return b"\0"
    if pa.types.is_list(kind):
        assert isinstance(value, list)
        return b"\1" + struct.pack(">I", len(value)) + b"".join(_reference(v, kind.value_type) for v in value)
    if pa.types.is_map(kind):
        assert isinstance(value, list)
        pairs = b"".join(_reference(k, kind.key_type) + _reference(v, kind.item_type) for k, v in value)
        return b"\1" + struct.pack(">I", len(value)) + pairs
    if pa.types.is_struct(kind):
        assert isinstance(value, dict)
        return b"\1" + b"".join(_reference(value[field.name], field.type) for field in kind)
    if isinstance(value, float) and math.isnan(value):
        return b"\1" + bytes.fromhex("ffc00000" if kind == pa.float32() else "fff8000000000000")
    return b"\1" + KeyCodec(TableSchema((Column("v", kind, False),), ("v",))).encode_row([value])


@pytest.mark.parametrize(("kind", "values"), VALUES, ids=IDS)
def test_every_type_is_encoded_as_the_contract_says(kind: pa.DataType, values: Sequence[object]) -> None:
    array = pa.array(values, kind)
    assert encode_values(array).to_pylist() == [_reference(value, kind) for value in values]


@pytest.mark.parametrize(("kind", "values"), VALUES, ids=IDS)
def test_slices_are_encoded_as_what_they_show(kind: pa.DataType, values: Sequence[object]) -> None:
    array = pa.array([*values, *values, *values], kind).slice(1, len(values))
    expected = [_reference(value, kind) for value in [*values[1:], values[0]]]
    assert encode_values(array).to_pylist() == expected
    assert encode_values(array.slice(0, 0)).to_pylist() == []


def _table() -> tuple[TableSchema, pa.Table]:
    random.seed(7)
    columns = [Column("id", pa.int32(), nullable=False)]
    columns += [Column(f"c{number}", kind) for number, (kind, _) in enumerate(VALUES)]
    data = {"id": pa.array(range(300), pa.int32())}
    for number, (kind, values) in enumerate(VALUES):
        data[f"c{number}"] = pa.array([random.choice(values) for _ in range(300)], kind)
    return TableSchema(tuple(columns), ("id",)), pa.table(data)


def _slow(schema: TableSchema, table: pa.Table) -> Digest:
    codec, total = KeyCodec(schema), 0
    for row in table.to_pylist():
        key = codec.encode_row([row["id"]])
        total += xxh3_64_intdigest(key + b"".join(_reference(row[c.name], c.type) for c in schema.columns))
    return Digest(table.num_rows, total % 2**64)


def test_the_digest_is_the_reference_however_the_rows_come() -> None:
    schema, table = _table()
    expected = _slow(schema, table)
    assert digest(table.to_batches(), schema) == expected
    shuffled = table.take(random.sample(range(300), 300))
    assert digest(shuffled.to_batches(max_chunksize=7), schema) == expected
    assert digest([], schema) == Digest(0, 0)


def test_ranges_of_keys_add_up_to_the_whole() -> None:
    schema, table = _table()
    start, end = (KeyCodec(schema).encode_row([number]) for number in (100, 250))
    batches = table.to_batches(max_chunksize=64)
    assert digest(batches, schema, start, end) == _slow(schema, table.slice(100, 150))
    below, above = digest(batches, schema, None, start), digest(batches, schema, end)
    assert (below.row_count, above.row_count) == (100, 50)
    parts = below.value + digest(batches, schema, start, end).value + above.value
    assert parts % 2**64 == digest(batches, schema).value
