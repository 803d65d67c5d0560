"""Rows of the log to Arrow: every type, short and empty rows, JSON rows, and what no engine writes."""

from __future__ import annotations

import json
import math
import struct

import pyarrow as pa
import pytest

from flight_replica.beside import few_rows
from flight_replica.beside.log_file import LogRecord, WriteBatch
from flight_replica.beside.row_values import field_count, ops_of
from flight_replica.errors import DamagedLog, SchemaMismatch
from flight_replica.log.source import Op
from flight_replica.schema import Column, TableSchema
from tests.log_writing import int_key, row, varint
from tests.samples import float_bits

SCHEMA = TableSchema(
    (
        Column("id", pa.int64(), False),
        Column("flag", pa.bool_()),
        Column("small", pa.int32()),
        Column("single", pa.float32()),
        Column("double", pa.float64()),
        Column("bytes", pa.binary()),
        Column("four", pa.binary(4)),
    ),
    ("id",),
)
NEW_COLUMNS = TableSchema(
    (
        Column("id", pa.int64(), False),
        Column("a", pa.int64(), True, 7),
        Column("b", pa.binary(), True, b"init"),
        Column("c", pa.binary(2), True, b"xy"),
        Column("d", pa.float64()),
        Column("e", pa.bool_(), False, True),
    ),
    ("id",),
)


@pytest.fixture(autouse=True, params=[0, 32], ids=["by columns", "row by row"])
def few(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every test with both decoders: the one for many rows, and the one for few."""
    monkeypatch.setattr(few_rows, "FEW_ROWS", request.param)


def one(value: bytes, op: Op = Op.INSERT, key: bytes = int_key(1)) -> WriteBatch:
    return WriteBatch(9, (LogRecord(op, key, value),), 3, 120)


def rows_of(schema: TableSchema, *values: bytes) -> list[tuple[object, ...]]:
    batch = WriteBatch(1, tuple(LogRecord(Op.INSERT, int_key(1), value) for value in values), 1, 0)
    ops = ops_of([batch], schema)
    ops.validate(full=True)
    assert ops.schema == schema.feed_schema
    return [tuple(line.values())[3:] for line in ops.to_pylist()]


def test_every_type_comes_through_and_null_too() -> None:
    fields = (2**63 - 1, True, ("i32", -(2**31)), ("f32", 1.5), -0.0, b"a\0b", b"\0\1\2\3")
    plain = tuple(field[1] if isinstance(field, tuple) else field for field in fields)
    assert rows_of(SCHEMA, row(*fields), row(-(2**63), *[None] * 6)) == [plain, (-(2**63), *[None] * 6)]


def test_floats_keep_their_bits() -> None:
    nan = struct.unpack("<d", bytes.fromhex("0100000000f0f87f"))[0]
    values = [nan, -0.0, math.inf, 5e-324]
    batch = WriteBatch(
        1, tuple(LogRecord(Op.INSERT, int_key(1), row(1, None, None, None, v)) for v in values), 1, 0
    )
    found = float_bits(pa.Table.from_batches([ops_of([batch], SCHEMA)]))["double"].to_pylist()
    assert found == [struct.unpack("<q", struct.pack("<d", value))[0] for value in values]


@pytest.mark.parametrize("number", [0, -1, 63, 64, -64, -65, 2**31, -(2**31), 2**62, -(2**62) - 1])
def test_integers_of_every_length_come_through(number: int) -> None:
    assert rows_of(NEW_COLUMNS, row(number, number), row(0, 1))[0][:2] == (number, number)


def test_the_ops_of_several_batches_have_their_seqs_ops_and_keys() -> None:
    batches = [
        WriteBatch(5, (LogRecord(Op.INSERT, b"k5", row(5)), LogRecord(Op.DELETE, b"k6", b"")), 1, 0),
        WriteBatch(9, (LogRecord(Op.DELETE, b"k9", row(9)),), 1, 90),
    ]
    ops = ops_of(batches, SCHEMA)
    assert ops.column(0).to_pylist() == [5, 6, 9]
    assert ops.column(1).to_pylist() == ["INSERT", "DELETE", "DELETE"]
    assert ops.column(2).to_pylist() == [b"k5", b"k6", b"k9"]
    assert ops.column(3).to_pylist() == [5, None, 9]


def test_no_batches_are_no_rows() -> None:
    assert ops_of([], SCHEMA).schema == SCHEMA.feed_schema and ops_of([], SCHEMA).num_rows == 0


def test_columns_that_a_row_is_too_short_for_hold_their_initial_default() -> None:
    assert rows_of(NEW_COLUMNS, row(1), row(2, None, b"there"), row(3, 4, None, None, 1.5, False)) == [
        (1, 7, b"init", b"xy", None, True),
        (2, None, b"there", b"xy", None, True),
        (3, 4, None, None, 1.5, False),
    ]


def test_a_delete_without_pre_image_is_all_null_and_a_short_pre_image_is_filled() -> None:
    ops = ops_of([one(b"", Op.DELETE), one(row(4), Op.DELETE)], NEW_COLUMNS).to_pylist()
    assert list(ops[0].values())[3:] == [None] * 6
    assert list(ops[1].values())[3:] == [4, 7, b"init", b"xy", None, True]


def test_a_put_without_row_is_its_key_and_what_columns_start_with() -> None:
    assert rows_of(NEW_COLUMNS, b"") == [(1, 7, b"init", b"xy", None, True)]


def test_a_row_in_json_is_read_as_the_same_row_in_postcard() -> None:
    fields = [
        {"Int64": -5},
        {"Boolean": True},
        {"Int32": 300},
        {"Float": 0.1},
        {"Double": 1e300},
        {"Bytes": [0, 255]},
        None,
    ]
    same = row(-5, True, ("i32", 300), ("f32", 0.1), 1e300, b"\0\xff", None)
    found = rows_of(SCHEMA, json.dumps({"fields": fields}).encode(), same)
    assert found[0] == found[1]


def test_a_row_of_more_fields_than_columns_is_a_newer_schema_s() -> None:
    with pytest.raises(
        SchemaMismatch, match=r"000003.wal, offset 120: seq 9: a row of 8 fields, .* 7 columns"
    ):
        ops_of([one(row(1, *[None] * 7))], SCHEMA)


def test_the_number_of_fields_is_told_without_a_schema() -> None:
    assert [field_count(row(*[None] * count)) for count in (0, 1, 127, 128, 300)] == [0, 1, 127, 128, 300]
    assert field_count(b"") == 0 and field_count(b'{"fields": [null, null]}') == 2
    with pytest.raises(ValueError, match="count of fields"):
        field_count(b"\x01\xff")


def test_a_value_of_another_type_than_the_column_s_is_a_mismatch() -> None:
    with pytest.raises(SchemaMismatch, match="column 'flag': a value of type Int64, the column is Boolean"):
        ops_of([one(row(1, 2))], SCHEMA)


def test_a_column_of_a_type_that_the_engine_lacks_is_a_mismatch() -> None:
    with pytest.raises(SchemaMismatch, match="column 'day': the engine has no type date32"):
        ops_of([one(row(1))], TableSchema((*SCHEMA.columns, Column("day", pa.date32())), ("id",)))


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (row(1, True)[:-1], "column 'flag': the row is cut off"),
        (row(1, True)[:-2], "column 'flag': the row is cut off"),
        (b"\x01", "the row is cut off"),
        (row(1) + b"\0", "bytes are left behind the row's last field"),
        (b"\x01\x02" + row(1)[2:] + b"\2", "column 'flag': a field that is neither null nor a value"),
        (b"\x01\x02" + row(1)[2:] + b"\1\0\2", "column 'flag': a boolean that is neither 0 nor 1"),
        (b"\x01\x01\x01\x09\x00", "column 'id': a value of the unknown type 9"),
        (b"\x01\x01\x01\x02" + b"\xff" * 9 + b"\x02", "column 'id': a number of more than 64 bits"),
        (b"\x01\x01\x01\x02" + b"\xff" * 12, "column 'id': a number of more than 64 bits"),
        (row(1, None, None)[:-1] + b"\x01\x01" + varint(2**32), "column 'small': an Int32 of more than 32"),
        (row(1, *[None] * 4, b"abc")[:-1], "column 'bytes': the row is cut off"),
        (row(1, *[None] * 4)[:1] + b"\6" + row(1, *[None] * 4)[2:] + b"\1\5" + varint(2**63), "cut off"),
        (row(1, *[None] * 5, b"abc"), "column 'four': bytes that aren't 4 long"),
        (b"{", "neither a postcard row nor one in JSON"),
        (b"[1]", "no list of fields"),
        (b'{"fields": [{"Int64": 1.5}]}', "'1.5' is no Int64"),
        (b'{"fields": [{"Float": 1e39}]}', "neither a postcard row nor one in JSON"),
        (b'{"fields": [{"Bytes": [256]}]}', "neither a postcard row nor one in JSON"),
        (b'{"fields": [{"Text": "a"}]}', "a field of the unknown type 'Text'"),
        (b'{"fields": [{"Double": NaN}]}', "neither a postcard row nor one in JSON"),
        (b'{"fields": ' + b"[" * 100_000, "neither a postcard row nor one in JSON"),
        (b"\x00\xff\xfe", "neither a postcard row nor one in JSON"),
    ],
)
def test_a_value_that_no_engine_writes_is_damage_with_its_place(value: bytes, reason: str) -> None:
    good = one(row(2))
    with pytest.raises(DamagedLog, match=reason) as found:
        ops_of([good, one(value), good], SCHEMA)
    assert "log 000003.wal, offset 120: seq 9, key 8000000000000001" in str(found.value)
