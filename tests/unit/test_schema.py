"""TableSchema: what can be a table, its two JSON forms, type names, and `conform`."""

from __future__ import annotations

import datetime
import json
import math
from decimal import Decimal
from uuid import UUID

import pyarrow as pa
import pytest

from flight_replica.arrow_types import arrow_type, type_name
from flight_replica.conform import conform
from flight_replica.errors import SchemaMismatch
from flight_replica.schema import Column, TableSchema
from tests.samples import needs_samples, scenarios

AN_ID = UUID("01890a5d-ac96-774b-bcce-b302099a8057")
NESTED = pa.struct(
    [
        ("a", pa.list_(pa.map_(pa.string(), pa.uuid()))),
        ('odd "name", really', pa.decimal128(3, 1)),
        ("", pa.struct([("é", pa.int8())])),
    ]
)

NAMES = [
    (pa.bool_(), "bool"),
    (pa.int8(), "int8"),
    (pa.uint64(), "uint64"),
    (pa.float32(), "float"),
    (pa.float64(), "double"),
    (pa.string(), "string"),
    (pa.binary(), "binary"),
    (pa.binary(16), "fixed_size_binary[16]"),
    (pa.uuid(), "uuid"),
    (pa.decimal128(10, 2), "decimal128(10, 2)"),
    (pa.decimal256(76, 0), "decimal256(76, 0)"),
    (pa.date32(), "date32[day]"),
    (pa.time32("s"), "time32[s]"),
    (pa.time64("us"), "time64[us]"),
    (pa.timestamp("ms"), "timestamp[ms]"),
    (pa.timestamp("us", "UTC"), "timestamp[us, tz=UTC]"),
    (pa.timestamp("s", "+02:00"), "timestamp[s, tz=+02:00]"),
    (pa.list_(pa.int32()), "list<item: int32>"),
    (pa.list_(pa.field("l", pa.int32())), "list<l: int32>"),
    (pa.map_(pa.string(), pa.int64()), "map<string, int64>"),
    (pa.struct([("a", pa.int32()), ("odd name", pa.string())]), 'struct<a: int32, "odd name": string>'),
    (
        NESTED,
        "struct<a: list<item: map<string, uuid>>, "
        '"odd \\"name\\", really": decimal128(3, 1), "": struct<"é": int8>>',
    ),
]

REFUSED = [
    pa.timestamp("ns"),
    pa.timestamp("ns", "UTC"),
    pa.time64("ns"),
    pa.date64(),
    pa.duration("us"),
    pa.month_day_nano_interval(),
    pa.float16(),
    pa.null(),
    pa.large_string(),
    pa.large_binary(),
    pa.large_list(pa.int32()),
    pa.string_view(),
    pa.binary_view(),
    pa.list_view(pa.int32()),
    pa.list_(pa.int32(), 3),
    pa.dictionary(pa.int32(), pa.string()),
    pa.dense_union([pa.field("a", pa.int32())]),
    pa.decimal32(5, 2),
    pa.decimal128(5, -2),
    pa.struct([]),
    pa.struct([("a", pa.int32()), ("a", pa.int32())]),
    pa.list_(pa.field("item", pa.int32(), nullable=False)),
    pa.map_(pa.string(), pa.int32(), keys_sorted=True),
    pa.list_(pa.timestamp("ns")),
]

DEFAULTS = [
    (pa.bool_(), False),
    (pa.int8(), -128),
    (pa.uint64(), 2**64 - 1),
    (pa.float32(), 1.5),
    (pa.float32(), -0.0),
    (pa.float64(), 0.1),
    (pa.float64(), math.nan),
    (pa.float64(), math.inf),
    (pa.float64(), -math.inf),
    (pa.float64(), -0.0),
    (pa.string(), 'a"\0é😀'),
    (pa.string(), ""),
    (pa.binary(), b"\x00\xff"),
    (pa.binary(2), b"ab"),
    (pa.uuid(), AN_ID),
    (pa.decimal128(38, 2), Decimal("1.5")),
    (pa.decimal256(60, 0), Decimal(10**50)),
    (pa.date32(), datetime.date(1, 1, 1)),
    (pa.time32("s"), datetime.time(23, 59, 59)),
    (pa.time64("us"), datetime.time(1, 2, 3, 4)),
    (pa.timestamp("us"), datetime.datetime(2020, 1, 2, 3, 4, 5, 6)),
    (pa.timestamp("us", "Europe/Berlin"), datetime.datetime(2020, 1, 2, tzinfo=datetime.UTC)),
]


def table(*columns: Column, key: tuple[str, ...] = ("id",)) -> TableSchema:
    return TableSchema((Column("id", pa.int64(), False), *columns), key)


# --- what can be a table


@pytest.mark.parametrize(
    ("columns", "key", "message"),
    [
        ((), (), "at least one column"),
        ((Column("a", pa.int64(), False),), (), "at least one key column"),
        ((Column("a", pa.int64(), False),), ("b",), "'b' is none of"),
        ((Column("a", pa.int64(), False),), ("a", "a"), "key column 'a' is there 2 times"),
        ((Column("a", pa.int64(), False),) * 2, ("a",), "column 'a' is there 2 times"),
        ((Column("", pa.int64(), False),), ("",), "column 0 has no name"),
        ((Column("a", pa.int64()),), ("a",), "'a' is nullable"),
        ((Column("a", pa.list_(pa.int64()), False),), ("a",), "list<item: int64> can't be in a key"),
    ],
)
def test_what_cannot_be_a_table_is_refused(
    columns: tuple[Column, ...], key: tuple[str, ...], message: str
) -> None:
    with pytest.raises(SchemaMismatch, match=message):
        TableSchema(columns, key)


def test_names_that_differ_by_case_and_names_of_the_feed_are_allowed() -> None:
    schema = table(*(Column(name, pa.int32()) for name in ("ID", "seq", "op", "pk_bytes")))
    assert schema.feed_schema.names == ["seq", "op", "pk_bytes", "id", "ID", "seq", "op", "pk_bytes"]
    assert all(field.nullable for field in list(schema.feed_schema)[3:])
    assert not schema.arrow_schema.field("id").nullable


def test_key_columns_follow_the_order_of_the_key() -> None:
    schema = table(Column("b", pa.string(), False), key=("b", "id"))
    assert [column.name for column in schema.key_columns] == ["b", "id"]


@pytest.mark.parametrize("kind", REFUSED, ids=str)
def test_a_type_that_cannot_be_carried_is_refused_with_its_column(kind: pa.DataType) -> None:
    with pytest.raises(SchemaMismatch, match=r"column 'x': type .* can't be carried"):
        Column("x", kind)


@pytest.mark.parametrize(
    ("kind", "default"),
    [
        (pa.int8(), 300),
        (pa.int64(), 1.5),
        (pa.int64(), True),
        (pa.float64(), True),
        (pa.float32(), 0.1),
        (pa.string(), 5),
        (pa.binary(), "text"),
        (pa.binary(2), b"abc"),
        (pa.timestamp("s"), datetime.datetime(2020, 1, 1, 0, 0, 0, 1)),
        (pa.list_(pa.int8()), [1]),
    ],
    ids=str,
)
def test_a_default_that_is_not_of_the_type_exactly_is_refused(kind: pa.DataType, default: object) -> None:
    with pytest.raises(SchemaMismatch, match="column 'x': default"):
        Column("x", kind, default=default)


# --- names of types


@pytest.mark.parametrize(("kind", "name"), NAMES, ids=[name for _, name in NAMES])
def test_a_type_and_its_name_lead_to_each_other(kind: pa.DataType, name: str) -> None:
    assert type_name(kind) == name
    assert arrow_type(name) == kind
    assert type_name(arrow_type(name)) == name


@pytest.mark.parametrize(
    "name",
    [
        "",
        "utf9",
        "int32 ",
        " int32",
        "int32>",
        "timestamp[ns]",
        "fixed_size_binary[0]",
        "decimal128(39, 0)",
        "decimal128(3, 4)",
        "list<int32>",
        "list<item: int32",
        "list<item: int32 not null>",
        "struct<>",
        "struct<a: int8, a: int8>",
        'struct<"a: int8>',
        "struct<1: int8>",
        "map<string>",
        "list<item: " * 40 + "int8" + ">" * 40,
    ],
)
def test_what_names_no_type_is_refused(name: str) -> None:
    with pytest.raises(SchemaMismatch, match=r"^type "):
        arrow_type(name)


# --- JSON


@pytest.mark.parametrize(("kind", "default"), DEFAULTS, ids=str)
def test_a_default_survives_json(kind: pa.DataType, default: object) -> None:
    schema = table(Column("x", kind, default=default))
    again = TableSchema.from_json(schema.to_json())
    assert again == schema
    assert hash(again) == hash(schema)
    assert repr(again.columns[1].default) == repr(schema.columns[1].default)


def test_json_has_the_documented_shape() -> None:
    schema = table(Column("x", pa.timestamp("us", "UTC")), Column("y", pa.int32(), default=-7))
    assert json.loads(schema.to_json()) == {
        "columns": [
            {"name": "id", "type": "int64", "nullable": False},
            {"name": "x", "type": "timestamp[us, tz=UTC]", "nullable": True},
            {"name": "y", "type": "int32", "nullable": True, "default": -7},
        ],
        "primary_key": ["id"],
    }


def test_defaults_that_differ_in_bits_make_different_columns() -> None:
    assert Column("x", pa.float64(), default=0.0) != Column("x", pa.float64(), default=-0.0)
    assert Column("x", pa.float64(), default=math.nan) == Column("x", pa.float64(), default=float("nan"))
    assert Column("x", pa.int32(), default=0) != Column("x", pa.int32())


def test_a_short_float_default_is_rounded_to_the_columns_type() -> None:
    text = table(Column("x", pa.float32(), default=0.5)).to_json().replace("0.5", "0.1")
    assert TableSchema.from_json(text).columns[1].default == 0.10000000149011612


def with_default(kind: str, default: str) -> str:
    column = f'{{"name": "a", "type": "{kind}", "nullable": false, "default": {default}}}'
    return f'{{"columns": [{column}], "primary_key": ["a"]}}'


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        '{"columns": 5, "primary_key": ["a"]}',
        '{"columns": [{"name": "a", "type": "int64"}], "primary_key": ["a"]}',
        '{"columns": [{"name": "a", "type": "int64", "nullable": 0}], "primary_key": ["a"]}',
        '{"columns": [{"name": "a", "type": "int65", "nullable": false}], "primary_key": ["a"]}',
        with_default("int8", '"x"'),
        with_default("binary", '"x"'),
        with_default("float", "1e99"),
        with_default("date32[day]", '"2020-13-01"'),
        with_default("decimal128(5, 2)", '"x"'),
    ],
)
def test_json_that_describes_no_table_is_refused(text: str) -> None:
    with pytest.raises(SchemaMismatch):
        TableSchema.from_json(text)


def engine_column(
    name: str, kind: object, nullable: bool = True, default: object = None
) -> dict[str, object]:
    return {"name": name, "col_type": kind, "nullable": nullable, "initial_default": default}


def test_the_engines_schema_keeps_types_key_order_and_initial_defaults() -> None:
    document = {
        "table_name": "t",
        "columns": [
            engine_column("b", "ByteArray", False),
            engine_column("i", "Int64", False),
            engine_column("f", "Float", default={"Float": 0.1}),
            engine_column("x", {"FixedLenByteArray": 2}, default={"Bytes": [104, 105]}),
            engine_column("t", "Boolean", default={"Boolean": True}),
            engine_column("n", "Int32", default={"Int32": -7}) | {"write_default": {"Int32": 5}},
            engine_column("d", "Double"),
        ],
        "primary_key": [1, 0],
    }
    schema = TableSchema.from_engine_json(document)
    assert schema == TableSchema(
        (
            Column("b", pa.binary(), False),
            Column("i", pa.int64(), False),
            Column("f", pa.float32(), default=0.10000000149011612),
            Column("x", pa.binary(2), default=b"hi"),
            Column("t", pa.bool_(), default=True),
            Column("n", pa.int32(), default=-7),
            Column("d", pa.float64()),
        ),
        ("i", "b"),
    )


@pytest.mark.parametrize(
    "document",
    [
        {},
        {"columns": [engine_column("a", "Int64", False)], "primary_key": [1]},
        {"columns": [engine_column("a", "Int64", False)], "primary_key": [-1]},
        {"columns": [engine_column("a", "Int128", False)], "primary_key": [0]},
        {"columns": [engine_column("a", {"FixedLenByteArray": 0}, False)], "primary_key": [0]},
        {"columns": [engine_column("a", "Int64", False)] * 2, "primary_key": [0]},
        {"columns": ["a"], "primary_key": [0]},
        {"columns": [engine_column("a", "Int64", False) | {"initial_default": 7}], "primary_key": [0]},
        {"columns": [engine_column("a", "Int64", False) | {"initial_default": {}}], "primary_key": [0]},
    ],
)
def test_an_engine_schema_that_describes_no_table_is_refused(document: dict[str, object]) -> None:
    with pytest.raises(SchemaMismatch):
        TableSchema.from_engine_json(document)


@needs_samples
def test_every_schema_of_the_engine_survives_json() -> None:
    for scenario in scenarios(["s"]):
        path = scenario / "schema.json"
        if path.exists():
            schema = TableSchema.from_engine_json(json.loads(path.read_text())["engine_schema"])
            assert TableSchema.from_json(schema.to_json()) == schema


# --- conform


def conformed(values: pa.Array, kind: pa.DataType) -> pa.Array:
    schema = table(Column("x", kind))
    result = conform(pa.record_batch({"x": values, "id": pa.array(range(len(values)))}), schema)
    result.validate(full=True)
    assert result.schema == schema.arrow_schema
    return result.column(1)


CASTS = [
    (pa.array([-128, 127, None], pa.int32()), pa.int8()),
    (pa.array([0, 65535], pa.int32()), pa.uint16()),
    (pa.array([2**32 - 1], pa.int64()), pa.uint32()),
    (pa.array([Decimal(2**64 - 1), None], pa.decimal128(20, 0)), pa.uint64()),
    (pa.array([Decimal("1.50")], pa.decimal128(20, 2)), pa.decimal256(40, 1)),
    (pa.array([1.5, -math.inf], pa.float32()), pa.float64()),
    (pa.array([2**53], pa.int64()), pa.float64()),
    (pa.array(["é", None], pa.large_string()), pa.string()),
    (pa.array(["é", None], pa.string_view()), pa.string()),
    (pa.array([b"\xff"], pa.large_binary()), pa.binary()),
    (pa.array([b"\xff"], pa.binary_view()), pa.binary()),
    (pa.array([b"ab", None], pa.binary()), pa.binary(2)),
    (pa.array([b"ab"], pa.binary(2)), pa.binary()),
    (pa.array(["a", None, "a"]).dictionary_encode(), pa.string()),
    (pa.array([datetime.time(1)], pa.time64("us")), pa.time32("s")),
    (pa.array([datetime.datetime(2020, 1, 1)], pa.timestamp("us")), pa.timestamp("s")),
    (pa.array([[1], None, []], pa.large_list(pa.int64())), pa.list_(pa.int8())),
    (pa.array([{"a": [1]}]), pa.struct([("a", pa.list_(pa.field("l", pa.int8())))])),
    (pa.array([[("k", 1)]], pa.map_(pa.string(), pa.int64())), pa.map_(pa.string(), pa.int8())),
    (pa.nulls(2), pa.list_(pa.uuid())),
]  # fmt: skip


@pytest.mark.parametrize(("values", "kind"), CASTS, ids=[f"{v.type} to {k}" for v, k in CASTS])
def test_conform_casts_what_loses_nothing(values: pa.Array, kind: pa.DataType) -> None:
    result = conformed(values, kind)
    assert result.type == kind
    assert result.to_pylist() == values.to_pylist()


@pytest.mark.parametrize(
    "values",
    [
        pa.array([str(AN_ID), None, str(AN_ID).upper()]),
        pa.array([None, None, None, str(AN_ID), None, str(AN_ID)])[3:],
        pa.array([str(AN_ID), None, str(AN_ID)], pa.large_string()),
        pa.array([AN_ID.bytes, None, AN_ID.bytes], pa.binary()),
        pa.array([AN_ID.bytes, None, AN_ID.bytes], pa.binary(16)),
    ],
    ids=["text", "slice of text", "large text", "binary", "fixed"],
)
def test_conform_makes_uuids_of_text_and_bytes(values: pa.Array) -> None:
    assert conformed(values, pa.uuid()).to_pylist() == [AN_ID, None, AN_ID]


def test_conform_makes_text_of_bytes_that_are_utf8() -> None:
    assert conformed(pa.array([b"a", "é".encode()]), pa.string()).to_pylist() == ["a", "é"]


def test_conform_looks_at_no_element_outside_a_slice() -> None:
    values = pa.array([[300], [1, None], None, [2], [300]])[1:4]
    assert conformed(values, pa.list_(pa.int8())).to_pylist() == [[1, None], None, [2]]


@pytest.mark.parametrize("offset", [0, 1])
def test_conform_makes_uuids_of_text_inside_nested_values(offset: int) -> None:
    text = str(AN_ID)
    rows = [{"m": [("k", [text, None])], "n": 1}, None, {"m": None, "n": 300}, {"m": [("k", None)], "n": 2}]
    found = pa.struct([("m", pa.map_(pa.string(), pa.large_list(pa.string()))), ("n", pa.int64())])
    wanted = pa.struct([("m", pa.map_(pa.string(), pa.list_(pa.uuid()))), ("n", pa.int16())])
    expected = [{"m": [("k", [AN_ID, None])], "n": 1}, *rows[1:]]
    assert conformed(pa.array(rows, found)[offset:], wanted).to_pylist() == expected[offset:]


def test_conform_ignores_what_lies_below_nulls() -> None:
    children = [pa.array([300, 1])]
    values = pa.StructArray.from_arrays(children, names=["a"], mask=pa.array([True, False]))
    assert conformed(values, pa.struct([("a", pa.int8())])).to_pylist() == [None, {"a": 1}]


def test_conform_makes_uuids_of_no_text_at_all() -> None:
    assert conformed(pa.array([], pa.string()), pa.uuid()).to_pylist() == []


LOSSES = [
    (pa.array([1, 2, 300], pa.int32()), pa.int8(), "its value 300 in row 2"),
    (pa.array([1, -1], pa.int64()), pa.uint32(), "its value -1 in row 1"),
    (pa.array([Decimal(2**64)], pa.decimal128(20, 0)), pa.uint64(), "its value Decimal"),
    (pa.array([Decimal("1.55")], pa.decimal128(20, 2)), pa.decimal128(20, 1), "its value Decimal"),
    (pa.array([2**53 + 1]), pa.float64(), "its value 9007199254740993"),
    (pa.array([b"a", b"\xff"]), pa.string(), r"its value b'\\xff' in row 1"),
    (pa.array([b"ab", b"abc"]), pa.binary(2), "its value b'abc' in row 1"),
    (pa.array(["a" * 36]), pa.uuid(), "not the dashed text of a UUID"),
    (pa.array([str(AN_ID), AN_ID.hex]), pa.uuid(), "in row 1"),
    (pa.array([1], pa.timestamp("us")), pa.timestamp("s"), "would lose data"),
    (pa.array([2**62], pa.timestamp("s")), pa.timestamp("us"), "out of bounds"),
    (pa.array([[1], [300]]), pa.list_(pa.int8()), r"its value \[300\] in row 1"),
]


@pytest.mark.parametrize(
    ("values", "kind", "message"), LOSSES, ids=[f"{v.type} to {k}, {m}" for v, k, m in LOSSES]
)
def test_conform_names_the_first_value_that_does_not_fit(
    values: pa.Array, kind: pa.DataType, message: str
) -> None:
    with pytest.raises(SchemaMismatch, match=message) as caught:
        conformed(values, kind)
    assert f"column 'x' is {kind}, the data's is {values.type}" in str(caught.value)


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        (pa.array([1.0]), pa.float32()),
        (pa.array([1.0]), pa.int64()),
        (pa.array(["1"]), pa.int64()),
        (pa.array([1]), pa.string()),
        (pa.array([1]), pa.bool_()),
        (pa.array([1], pa.timestamp("us")), pa.timestamp("us", "UTC")),
        (pa.array([1], pa.timestamp("us")), pa.int64()),
        (pa.array([1], pa.date32()), pa.timestamp("us")),
        (pa.array([[1]], pa.list_view(pa.int8())), pa.list_(pa.int8())),
        (pa.array([{"a": 1}]), pa.struct([("b", pa.int64())])),
        (pa.array([{"a": 1}]), pa.struct([("a", pa.string())])),
        (pa.array([1]), pa.list_(pa.int64())),
    ],
    ids=str,
)
def test_conform_refuses_casts_that_change_the_meaning(values: pa.Array, kind: pa.DataType) -> None:
    with pytest.raises(SchemaMismatch, match="column 'x' is"):
        conformed(values, kind)


def test_conform_keeps_the_bits_of_floats() -> None:
    bits = pa.array([0x8000000000000000, 0x7FF8000000000001, 0xFFF0000000000000], pa.uint64())
    assert conformed(bits.view(pa.float64()), pa.float64()).view(pa.uint64()) == bits
    widened = conformed(pa.array([-0.0], pa.float32()), pa.float64())
    assert widened.view(pa.uint64()).to_pylist() == [0x8000000000000000]


@pytest.mark.parametrize(("kind", "default"), [*DEFAULTS, (NESTED, None)], ids=str)
def test_conform_fills_absent_columns_with_their_default(kind: pa.DataType, default: object) -> None:
    column = Column("x", kind, default=default)
    result = conform(pa.record_batch({"id": [1, 2], "other": [3, 4]}), table(column))
    result.validate(full=True)
    assert result.schema.names == ["id", "x"]
    assert repr(result.column("x").to_pylist()) == repr([column.default] * 2)


def test_conform_refuses_nulls_where_the_table_has_none() -> None:
    schema = table(Column("x", pa.int32(), False))
    for data in ({"id": [1], "x": pa.nulls(1)}, {"id": [1]}):
        with pytest.raises(SchemaMismatch, match="column 'x' is NOT NULL, 1 of its values are null"):
            conform(pa.record_batch(data), schema)


def test_conform_refuses_a_name_that_is_there_twice() -> None:
    data = pa.RecordBatch.from_arrays([pa.array([1]), pa.array([2])], names=["id", "id"])
    with pytest.raises(SchemaMismatch, match="has 2 columns of this name"):
        conform(data, table())
