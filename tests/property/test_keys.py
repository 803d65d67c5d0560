"""Keys of any values. Invariants:

- the vectorised codec writes what a slow encoder, value by value, writes;
- decoding gives the values back, to the bit;
- keys compare as bytes the way their values compare, column by column, and are equal only for equal values;
- bytes that the codec accepts are the bytes that it would write.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flight_replica.errors import FeedError
from flight_replica.keys import KeyCodec
from flight_replica.schema import Column, TableSchema


@dataclass(frozen=True)
class Kind:
    """A key type: how to draw its values, make an array of them, order them, and encode one slowly."""

    type: pa.DataType
    values: st.SearchStrategy[Any]
    encode: Callable[[Any], bytes]
    order: Callable[[Any], Any] = lambda value: value
    storage: pa.DataType | None = None  # drawn values are of this type, the array is a view of it

    def array(self, values: list[Any]) -> pa.Array:
        return pa.array(values, self.storage or self.type).view(self.type)


def signed(kind: pa.DataType, size: int, storage: pa.DataType | None = None) -> Kind:
    half = 1 << (8 * size - 1)
    values = st.integers(-half, half - 1)
    return Kind(kind, values, lambda value: (value + half).to_bytes(size, "big"), storage=storage)


def time_of_day(kind: pa.DataType, storage: pa.DataType, units_a_second: int) -> Kind:
    values = st.integers(0, 86_400 * units_a_second - 1)
    return Kind(kind, values, lambda value: (value + 2**63).to_bytes(8, "big"), storage=storage)


def unsigned(kind: pa.DataType, size: int) -> Kind:
    return Kind(kind, st.integers(0, 2 ** (8 * size) - 1), lambda value: value.to_bytes(size, "big"))


def floating(kind: pa.DataType, size: int, code: str) -> Kind:
    def encode(value: float) -> bytes:
        bits = int.from_bytes(struct.pack(f">{code}", value), "big")
        sign = 1 << (8 * size - 1)
        return ((~bits & (2 * sign - 1)) if bits & sign else bits | sign).to_bytes(size, "big")

    values = st.floats(width=8 * size, allow_nan=False) | st.sampled_from([0.0, -0.0, math.inf, -math.inf])
    return Kind(kind, values, encode, lambda value: (value, math.copysign(1, value)))


def decimal(kind: pa.DataType) -> Kind:
    limit, size = 10**kind.precision - 1, 16 if kind.precision <= 38 else 32

    def unscaled(value: Decimal) -> int:
        return int(value.as_tuple().sign * -2 + 1) * int("".join(map(str, value.as_tuple().digits)))

    def scaled(number: int) -> Decimal:
        return Decimal((number < 0, tuple(map(int, str(abs(number)))), -kind.scale))

    values = st.integers(-limit, limit).map(scaled)
    return Kind(kind, values, lambda value: (unscaled(value) + (1 << (8 * size - 1))).to_bytes(size, "big"))


def escaped(raw: bytes) -> bytes:
    return raw.replace(b"\0", b"\0\xff") + b"\0\0"


_TRICKY = st.lists(st.sampled_from([b"\0", b"\1", b"a", b"\xfe", b"\xff"]), max_size=6).map(b"".join)
_TEXT = st.text(st.sampled_from("\0\1a\x7fé\ud7ff\ue000\uffff😀"), max_size=5)

KINDS = {
    str(kind.type): kind
    for kind in (
        Kind(pa.bool_(), st.booleans(), lambda value: bytes([value])),
        signed(pa.int8(), 1),
        signed(pa.int16(), 2),
        signed(pa.int32(), 4),
        signed(pa.int64(), 8),
        unsigned(pa.uint8(), 1),
        unsigned(pa.uint16(), 2),
        unsigned(pa.uint32(), 4),
        unsigned(pa.uint64(), 8),
        floating(pa.float32(), 4, "f"),
        floating(pa.float64(), 8, "d"),
        decimal(pa.decimal128(5, 2)),
        decimal(pa.decimal128(38, 0)),
        decimal(pa.decimal256(20, 20)),
        decimal(pa.decimal256(60, 7)),
        Kind(pa.string(), _TEXT, lambda text: escaped(text.encode()), str.encode),
        Kind(pa.binary(), _TRICKY, escaped),
        Kind(pa.binary(3), st.binary(min_size=3, max_size=3), bytes),
        Kind(pa.uuid(), st.uuids(), lambda value: value.bytes),
        signed(pa.date32(), 4, pa.int32()),
        time_of_day(pa.time32("s"), pa.int32(), 1),
        time_of_day(pa.time32("ms"), pa.int32(), 1_000),
        time_of_day(pa.time64("us"), pa.int64(), 1_000_000),
        signed(pa.timestamp("s"), 8, pa.int64()),
        signed(pa.timestamp("ms"), 8, pa.int64()),
        signed(pa.timestamp("us"), 8, pa.int64()),
        signed(pa.timestamp("us", "America/New_York"), 8, pa.int64()),
    )
}


def codec(kinds: list[Kind]) -> KeyCodec:
    columns = tuple(Column(f"k{place}", kind.type, False) for place, kind in enumerate(kinds))
    return KeyCodec(TableSchema(columns, tuple(column.name for column in columns)))


def check(kinds: list[Kind], rows: list[tuple[Any, ...]]) -> None:
    columns = [kind.array([row[place] for row in rows]) for place, kind in enumerate(kinds)]
    keys = codec(kinds)
    encoded = keys.encode(columns)
    slowly = [b"".join(kind.encode(value) for kind, value in zip(kinds, row, strict=True)) for row in rows]
    assert encoded.to_pylist() == slowly
    for decoded, column in zip(keys.decode(encoded), columns, strict=True):
        decoded.validate(full=True)
        assert decoded.equals(column)
    assert keys.encode(keys.decode(encoded)).equals(encoded)
    orders = [tuple(kind.order(value) for kind, value in zip(kinds, row, strict=True)) for row in rows]
    by_value = [key for _, key in sorted(set(zip(orders, slowly, strict=True)))]
    assert by_value == sorted(set(slowly))
    assert len(set(orders)) == len(set(slowly))


@pytest.mark.statement(123)
@pytest.mark.parametrize("name", KINDS)
@given(data=st.data())
def test_keys_of_one_column_keep_value_and_order(name: str, data: st.DataObject) -> None:
    kind = KINDS[name]
    check([kind], data.draw(st.lists(st.tuples(kind.values), max_size=12)))


@given(data=st.data())
def test_keys_of_several_columns_keep_values_and_order(data: st.DataObject) -> None:
    kinds = data.draw(st.lists(st.sampled_from(list(KINDS.values())), min_size=2, max_size=4))
    # Few values a column, so that rows share their first columns.
    pools = [data.draw(st.lists(kind.values, min_size=1, max_size=3)) for kind in kinds]
    check(kinds, data.draw(st.lists(st.tuples(*map(st.sampled_from, pools)), max_size=12)))


@given(data=st.data())
def test_bytes_that_are_accepted_are_the_bytes_that_would_be_written(data: st.DataObject) -> None:
    short = [KINDS[name] for name in ("bool", "int8", "binary", "string", "fixed_size_binary[3]")]
    keys = codec(data.draw(st.lists(st.sampled_from(short), min_size=1, max_size=3)))
    raw = data.draw(
        st.lists(st.lists(st.sampled_from(b"\0\0\0\1a\xff\xff"), max_size=9).map(bytes), max_size=3)
    )
    encoded = pa.array(raw, pa.binary())
    try:
        decoded = keys.decode(encoded)
    except FeedError:
        return
    assert keys.encode(decoded).equals(encoded)
