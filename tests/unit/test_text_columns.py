"""Byte columns as text: which ones, what an invalid value is, and that keys stay the same."""

from __future__ import annotations

import pyarrow as pa
import pytest

from flight_replica.errors import ConfigError, InvalidText
from flight_replica.keys import KeyCodec
from flight_replica.log.source import Op
from flight_replica.schema import Column, TableSchema
from flight_replica.text_columns import TextColumns, to_text
from tests.bases import op_batch

SCHEMA = TableSchema(
    (
        Column("id", pa.binary(), False),
        Column("name", pa.binary(), True, b"none"),
        Column("note", pa.binary()),
        Column("hash", pa.binary(4)),
        Column("n", pa.int64()),
    ),
    ("id",),
)


def types(text: str) -> list[str]:
    return [str(column.type) for column in TextColumns.parse(text).apply(SCHEMA).columns]


def test_named_columns_become_strings_and_others_stay() -> None:
    assert types("name") == ["binary", "string", "binary", "fixed_size_binary[4]", "int64"]
    assert types("id,note?") == ["string", "binary", "string", "fixed_size_binary[4]", "int64"]
    assert types("*") == types("*?") == ["string", "string", "string", "fixed_size_binary[4]", "int64"]


def test_a_default_becomes_a_string_too() -> None:
    assert TextColumns.parse("name").apply(SCHEMA).columns[1].default == "none"
    bad = TableSchema((SCHEMA.columns[0], Column("name", pa.binary(), True, b"\xff")), ("id",))
    with pytest.raises(InvalidText, match="text column 'name', its default: ff isn't UTF-8"):
        TextColumns.parse("name").apply(bad)


def test_key_bytes_of_text_are_those_of_its_bytes() -> None:
    texts = ["", "a", "a\0b", "é", "\U0001f600"]
    encoded = KeyCodec(SCHEMA).encode([pa.array([text.encode() for text in texts])])
    assert encoded == KeyCodec(TextColumns.parse("id").apply(SCHEMA)).encode([pa.array(texts)])


def test_leniency_is_by_column() -> None:
    texts = TextColumns.parse("name,*?")
    assert (texts.is_lenient("name"), texts.is_lenient("note")) == (False, True)
    assert str(texts.without("note").apply(SCHEMA).columns[2].type) == "binary"
    assert str(texts.without("note").apply(SCHEMA).columns[1].type) == "string"


def test_names_with_special_characters_are_escaped() -> None:
    texts = TextColumns.parse("a%2Cb,why%3F,%2A,100%25?")
    assert texts.strict == {"a,b", "why?", "*"}
    assert texts.lenient == {"100%"}


@pytest.mark.parametrize("text", ["", "a,,b", "?", "a,a", "a,a?", "*,*?"])
def test_a_setting_that_says_nothing_or_twice_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="text columns"):
        TextColumns.parse(text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("nme", "'nme' is none of the columns"),
        ("n", "'n' is int64, only binary columns"),
        ("hash", r"'hash' is fixed_size_binary\[4\]"),
    ],
)
def test_a_name_that_is_no_byte_column_is_refused(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        TextColumns.parse(text).check(SCHEMA)


def test_the_first_invalid_value_is_named_with_its_key() -> None:
    values = pa.array([b"a", None, "é".encode(), b"\xc3", b"\xff"])
    with pytest.raises(InvalidText, match="text column 'name', key 03: c3 isn't UTF-8") as caught:
        to_text(values, "name", lambda row: bytes([row]))
    assert (caught.value.column, caught.value.pk_bytes) == ("name", b"\x03")
    assert to_text(values[:3], "name", lambda row: b"").to_pylist() == ["a", None, "é"]


def row(key: bytes, name: bytes | None) -> dict[str, object]:
    return {"id": key, "name": name, "note": b"\xff", "hash": None, "n": 1}


def test_ops_become_text_and_keep_their_key_bytes() -> None:
    ops = op_batch(SCHEMA, [(1, Op.INSERT, row(b"a", b"x")), (2, Op.UPDATE, row(b"b", None))])
    found = TextColumns.parse("id,name").apply_to_ops(ops)
    assert found.column("name").to_pylist() == ["x", None]
    assert found.column("id").to_pylist() == ["a", "b"]
    assert found.column("pk_bytes") == ops.column("pk_bytes")
    assert found.schema == TextColumns.parse("id,name").apply(SCHEMA).feed_schema


def test_an_invalid_op_is_refused_and_an_invalid_pre_image_left_out() -> None:
    deleted = op_batch(SCHEMA, [(1, Op.DELETE, row(b"a", b"\xff")), (2, Op.DELETE, row(b"b", b"old"))])
    assert TextColumns.parse("name").apply_to_ops(deleted).column("name").to_pylist() == [None, "old"]
    ops = op_batch(SCHEMA, [(1, Op.DELETE, row(b"a", b"\xff")), (2, Op.INSERT, row(b"b", b"\xfe"))])
    with pytest.raises(InvalidText, match="'name', key 620000: fe isn't UTF-8"):
        TextColumns.parse("name").apply_to_ops(ops)
