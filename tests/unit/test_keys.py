"""KeyCodec: known bytes, the engine's own keys, and what is refused."""

from __future__ import annotations

import datetime
import math
from decimal import Decimal
from pathlib import Path
from uuid import UUID

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from flight_replica.errors import FeedError, SchemaMismatch
from flight_replica.keys import KeyCodec
from flight_replica.schema import Column, TableSchema
from tests.samples import needs_samples, ops, scenarios, table_schema


def codec(*kinds: pa.DataType) -> KeyCodec:
    columns = tuple(Column(f"k{place}", kind, False) for place, kind in enumerate(kinds))
    return KeyCodec(TableSchema(columns, tuple(column.name for column in columns)))


WORKED = [
    ((pa.bool_(),), (False,), "00"),
    ((pa.bool_(),), (True,), "01"),
    ((pa.int32(),), (0,), "80000000"),
    ((pa.int32(),), (1,), "80000001"),
    ((pa.int32(),), (-1,), "7fffffff"),
    ((pa.int32(),), (-(2**31),), "00000000"),
    ((pa.int32(),), (2**31 - 1,), "ffffffff"),
    ((pa.int32(),), (-5,), "7ffffffb"),
    ((pa.int64(),), (0,), "8000000000000000"),
    ((pa.int64(),), (42,), "800000000000002a"),
    ((pa.int64(),), (-1_000_000,), "7ffffffffff0bdc0"),
    ((pa.int64(),), (-(2**63),), "0000000000000000"),
    ((pa.int64(),), (2**63 - 1,), "ffffffffffffffff"),
    ((pa.float32(),), (0.0,), "80000000"),
    ((pa.float32(),), (-0.0,), "7fffffff"),
    ((pa.float32(),), (1.0,), "bf800000"),
    ((pa.float32(),), (-1.0,), "407fffff"),
    ((pa.float32(),), (math.inf,), "ff800000"),
    ((pa.float32(),), (-math.inf,), "007fffff"),
    ((pa.float64(),), (0.0,), "8000000000000000"),
    ((pa.float64(),), (-0.0,), "7fffffffffffffff"),
    ((pa.float64(),), (-1.0,), "400fffffffffffff"),
    ((pa.float64(),), (0.1,), "bfb999999999999a"),
    ((pa.float64(),), (math.inf,), "fff0000000000000"),
    ((pa.float64(),), (-math.inf,), "000fffffffffffff"),
    ((pa.float64(),), (2.2250738585072014e-308,), "8010000000000000"),
    ((pa.float64(),), (1.7976931348623157e308,), "ffefffffffffffff"),
    ((pa.binary(),), (b"",), "0000"),
    ((pa.binary(),), (b"\0",), "00ff0000"),
    ((pa.binary(),), (b"\0\0",), "00ff00ff0000"),
    ((pa.binary(),), (b"\0\1",), "00ff010000"),
    ((pa.binary(),), (b"\1",), "010000"),
    ((pa.binary(),), (b"\xff",), "ff0000"),
    ((pa.binary(),), (b"\0\xff",), "00ffff0000"),
    ((pa.binary(),), (b"abc",), "6162630000"),
    ((pa.binary(),), (b"a\0\xff\0b",), "6100ffff00ff620000"),
    ((pa.string(),), ("a\0b",), "6100ff620000"),
    ((pa.string(),), ("é",), "c3a90000"),
    ((pa.binary(4),), (b"\xde\xad\xbe\xef",), "deadbeef"),
    ((pa.binary(2),), (b"\0\0",), "0000"),
    ((pa.int32(), pa.string()), (-5, "hello\0world"), "7ffffffb68656c6c6f00ff776f726c640000"),
    ((pa.int64(), pa.binary()), (7, b"ab"), "800000000000000761620000"),
    ((pa.string(), pa.float64(), pa.bool_()), ("us", 1.5, True), "75730000bff800000000000001"),
    # The types that the feed has beyond merutable's seven.
    ((pa.int8(),), (-1,), "7f"),
    ((pa.int16(),), (1,), "8001"),
    ((pa.uint8(),), (200,), "c8"),
    ((pa.uint16(),), (258,), "0102"),
    ((pa.uint32(),), (2**32 - 1,), "ffffffff"),
    ((pa.uint64(),), (2**63,), "8000000000000000"),
    ((pa.decimal128(10, 2),), (Decimal("1.00"),), "80000000000000000000000000000064"),
    ((pa.decimal128(10, 2),), (Decimal("-0.01"),), "7fffffffffffffffffffffffffffffff"),
    ((pa.decimal256(10, 2),), (Decimal("1.00"),), "80000000000000000000000000000064"),
    ((pa.decimal256(39, 0),), (Decimal(-1),), "7f" + "ff" * 31),
    ((pa.date32(),), (datetime.date(1970, 1, 2),), "80000001"),
    ((pa.time32("s"),), (datetime.time(0, 0, 1),), "8000000000000001"),
    ((pa.time64("us"),), (datetime.time(0, 0, 0, 1),), "8000000000000001"),
    ((pa.timestamp("ms"),), (datetime.datetime(1969, 12, 31, 23, 59, 59, 999000),), "7fffffffffffffff"),
    (
        (pa.timestamp("us", "Europe/Berlin"),),
        (datetime.datetime(1970, 1, 1, 0, 0, 1, tzinfo=datetime.UTC),),
        "80000000000f4240",
    ),
    ((pa.uuid(),), (UUID(int=1),), "00" * 15 + "01"),
]


@pytest.mark.statement(122, 123)
@pytest.mark.parametrize(("kinds", "values", "expected"), WORKED, ids=str)
def test_worked_keys(kinds: tuple[pa.DataType, ...], values: tuple[object, ...], expected: str) -> None:
    keys = codec(*kinds)
    assert keys.encode_row(values).hex() == expected
    encoded = pa.array([bytes.fromhex(expected)], pa.binary())
    assert [array[0].as_py() for array in keys.decode(encoded)] == list(values)
    assert repr([array[0].as_py() for array in keys.decode(encoded)]).count("-0.0") == repr(values).count(
        "-0.0"
    )


@needs_samples
@pytest.mark.parametrize(
    "scenario",
    [path for path in scenarios(["s"]) if (path / "ops.arrow").exists()],
    ids=lambda path: path.name,
)
def test_keys_are_the_engines_own(scenario: Path) -> None:
    table, schema = ops(scenario), table_schema(scenario)
    keys = KeyCodec(schema)
    columns = [table[column.name].cast(column.type) for column in schema.key_columns]
    is_known = pc.is_valid(
        pa.concat_arrays(columns[0].chunks)
    )  # a delete of a key never written has no columns
    assert pc.sum(is_known).as_py() > 0
    pk_bytes = pa.concat_arrays(table["pk_bytes"].chunks)
    known = pk_bytes.filter(is_known)
    assert keys.encode([column.filter(is_known) for column in columns]).equals(known)
    decoded = keys.decode(pk_bytes)
    assert keys.encode(decoded).equals(pk_bytes)


def test_a_batch_gives_its_key_columns_by_name_in_key_order() -> None:
    schema = TableSchema((Column("a", pa.int8(), False), Column("b", pa.string(), False)), ("b", "a"))
    batch = pa.record_batch({"x": [0], "a": pa.array([1], pa.int8()), "b": ["s"]})
    assert KeyCodec(schema).encode_batch(batch).to_pylist() == [b"s\0\0\x81"]


def test_a_batch_without_a_key_column_or_with_two_of_its_name_is_refused() -> None:
    for names in (["b"], ["k0", "k0"]):
        batch = pa.RecordBatch.from_arrays([pa.array([1])] * len(names), names=names)
        with pytest.raises(SchemaMismatch, match=r"'k0' is there [02] times"):
            codec(pa.int64()).encode_batch(batch)


def test_slices_and_chunks_encode_and_decode_like_whole_arrays() -> None:
    keys = codec(pa.bool_(), pa.string(), pa.int16(), pa.decimal128(5, 1), pa.uuid())
    columns = [
        pa.array([True, False, True, False]),
        pa.array(["a\0", "", "bc", "d"]),
        pa.array([1, -2, 3, -4], pa.int16()),
        pa.array([Decimal("1.5"), Decimal(-2), Decimal(3), Decimal(4)], pa.decimal128(5, 1)),
        pa.array([UUID(int=value) for value in range(4)], pa.uuid()),
    ]
    whole = keys.encode(columns)
    assert keys.encode([column[1:3] for column in columns]).equals(whole[1:3])
    chunked = [pa.chunked_array([column[:1], column[1:3], column[3:]]) for column in columns]
    assert keys.encode(chunked).equals(whole)
    for decoded, column in zip(keys.decode(whole[1:3]), columns, strict=True):
        assert decoded.equals(column[1:3])


@pytest.mark.statement(123)
def test_bytes_with_zeros_are_ordered_as_their_values() -> None:
    values = [b"", b"\0", b"\0\0", b"\0\1", b"\1"]
    keys = codec(pa.binary()).encode([pa.array(values, pa.binary())]).to_pylist()
    assert sorted(keys) == keys and len(set(keys)) == len(values)


@pytest.mark.parametrize("kinds", [kinds for kinds, _, _ in WORKED if len(kinds) == 1], ids=str)
def test_no_rows_make_no_keys(kinds: tuple[pa.DataType, ...]) -> None:
    keys = codec(*kinds, *kinds)
    encoded = keys.encode([pa.array([], kind) for kind in kinds] * 2)
    assert encoded.equals(pa.array([], pa.binary()))
    assert [array.type for array in keys.decode(encoded)] == [*kinds, *kinds]


def test_nulls_are_refused_with_their_column() -> None:
    with pytest.raises(SchemaMismatch, match="'k1' has 1 nulls of 2"):
        codec(pa.int64(), pa.string()).encode([pa.array([1, 2]), pa.array(["a", None])])


@pytest.mark.statement(122)
@pytest.mark.parametrize("kind", [pa.float32(), pa.float64()], ids=str)
def test_a_nan_is_refused_with_its_column(kind: pa.DataType) -> None:
    with pytest.raises(SchemaMismatch, match="'k0' has a NaN"):
        codec(kind).encode([pa.array([1.0, math.nan], kind)])
    with pytest.raises(SchemaMismatch, match="'k0' has a NaN"):
        codec(kind).encode_row([math.nan])


def test_columns_of_another_type_or_number_are_refused() -> None:
    with pytest.raises(SchemaMismatch, match="'k0' is int64, the data's is int32"):
        codec(pa.int64()).encode([pa.array([1], pa.int32())])
    with pytest.raises(SchemaMismatch, match="has 1 columns, 2 were given"):
        codec(pa.int64()).encode([pa.array([1]), pa.array([1])])
    with pytest.raises(SchemaMismatch, match="has 1 columns, 0 values were given"):
        codec(pa.int64()).encode_row([])


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        (pa.int64(), 1.5),
        (pa.int64(), True),
        (pa.float64(), True),
        (pa.int64(), "1"),
        (pa.int64(), None),
        (pa.int8(), 128),
        (pa.uint8(), -1),
        (pa.float32(), 0.1),
        (pa.float32(), 1e300),
        (pa.string(), b"a"),
        (pa.binary(), "a"),
        (pa.binary(2), b"a"),
        (pa.bool_(), 1),
        (pa.timestamp("us"), 5),
        (pa.uuid(), "01890a5d-ac96-774b-bcce-b302099a8057"),
    ],
    ids=str,
)
def test_a_value_that_is_not_exactly_of_the_columns_type_is_refused(kind: pa.DataType, value: object) -> None:
    with pytest.raises(
        SchemaMismatch, match=rf"'k0' is {str(kind).partition('[')[0]}.*{type(value).__name__}"
    ):
        codec(kind).encode_row([value])


INTEGERS = [pa.int8(), pa.int16(), pa.int32(), pa.int64(), pa.uint8(), pa.uint16(), pa.uint32(), pa.uint64()]


@pytest.mark.parametrize("kind", INTEGERS, ids=str)
def test_one_key_of_integers_is_encoded_as_an_array_of_them(kind: pa.DataType) -> None:
    limits = np.iinfo(kind.to_pandas_dtype())
    values = [int(limits.min), int(limits.max), 0, 1, int(limits.max) // 3]
    keys = codec(kind, pa.int16())
    columns = [pa.array(values, kind), pa.array(range(len(values)), pa.int16())]
    assert [keys.encode_row([v, n]) for n, v in enumerate(values)] == keys.encode(columns).to_pylist()
    for beyond in (int(limits.min) - 1, int(limits.max) + 1):
        with pytest.raises(SchemaMismatch, match="'k0' is "):
            keys.encode_row([beyond, 0])


MALFORMED = [
    ((pa.int64(),), "80000000000000", "row 0, 80000000000000: it ends early"),
    ((pa.int64(),), "800000000000000000", "bytes are left over"),
    ((pa.int64(),), "", "row 0, empty: it ends early"),
    ((pa.bool_(),), "02", "neither 00 nor 01"),
    ((pa.float32(),), "ffc00000", "NaN"),
    ((pa.float64(),), "0007ffffffffffff", "NaN"),
    ((pa.string(),), "6162", "a text isn't terminated"),
    ((pa.string(),), "616200", "a text isn't terminated"),
    ((pa.string(),), "6100ff", "a text isn't terminated"),
    ((pa.string(),), "6100610000", "00 stands before neither 00 nor FF"),
    ((pa.string(),), "61000061", "bytes are left over"),
    ((pa.string(),), "ff0000", "UTF8"),
    ((pa.string(), pa.int8()), "610000", "it ends early"),
    ((pa.int8(), pa.binary()), "00", "a text isn't terminated"),
    ((pa.time32("s"),), "8000000000015180", "range"),
    ((pa.time32("s"),), "7fffffffffffffff", "not in range"),
    ((pa.time64("us"),), "7fffffffffffffff", "range"),
    ((pa.decimal128(3, 0),), "800000000000000000000000000003e8", "precision"),
]


@pytest.mark.parametrize(("kinds", "key", "message"), MALFORMED, ids=str)
def test_malformed_keys_are_refused(kinds: tuple[pa.DataType, ...], key: str, message: str) -> None:
    with pytest.raises(FeedError, match=message):
        codec(*kinds).check(pa.array([bytes.fromhex(key)], pa.binary()))


def test_a_malformed_key_is_found_between_good_ones() -> None:
    good, bad = b"ab\0\0", b"ab\0"
    for row in range(3):
        rows = [good] * 3
        rows[row] = bad
        with pytest.raises(FeedError, match=f"row {row}, "):
            codec(pa.string()).check(pa.array([*rows, b"\xff\0\0"], pa.binary()))


def test_integers_of_other_widths_are_found_where_their_bytes_are_as_many_as_they_should_be() -> None:
    good, short, long = b"\x80" + bytes(7), b"\x80" + bytes(6), b"\x80" + bytes(8)
    for keys in ([short, long], [long, short], [good, short, long, good]):
        for array in (pa.array(keys, pa.binary()), pa.array([good, *keys, good], pa.binary())[1:-1]):
            with pytest.raises(FeedError, match=r"it ends early|bytes are left over"):
                codec(pa.int64()).check(array)
            with pytest.raises(FeedError):
                codec(pa.int32(), pa.int32()).check(array)
    codec(pa.int64()).check(pa.array([short, good, good, long], pa.binary())[1:3])
    codec(pa.int64()).check(pa.array([], pa.binary()))


def test_a_value_after_a_part_that_ends_in_zero_keeps_its_first_ff() -> None:
    keys = codec(pa.uint8(), pa.binary())
    columns = [pa.array([0, 0], pa.uint8()), pa.array([b"\xff", b"\xff\0\xff"], pa.binary())]
    assert [a.equals(b) for a, b in zip(keys.decode(keys.encode(columns)), columns, strict=True)] == [
        True
    ] * 2


def test_null_keys_and_other_arrays_are_refused() -> None:
    for keys in (pa.array([None], pa.binary()), pa.array(["a"]), pa.array([b"a"], pa.large_binary())):
        with pytest.raises(FeedError, match="malformed keys"):
            codec(pa.binary()).check(keys)


def test_keys_past_the_reach_of_one_array_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    from flight_replica import keys
    from flight_replica.errors import LimitExceeded

    monkeypatch.setattr(keys, "ARRAY_BYTES_MAX", 79)
    values = pa.array(np.arange(10))
    with pytest.raises(LimitExceeded, match="keys of 80 bytes in one array, limit 79 bytes"):
        codec(pa.int64()).encode([values])
    with pytest.raises(LimitExceeded, match="keys of 80 bytes"):
        codec(pa.binary()).encode([pa.array([b"\0" * 39])])
    with pytest.raises(LimitExceeded, match="keys of 115 bytes"):
        codec(pa.int64(), pa.binary()).encode([values[:5], pa.array([b"a" * 13] * 5)])
