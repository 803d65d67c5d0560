"""Arrow types and their names in `merutable.schema` JSON, both ways; a type without a name isn't carried."""

from __future__ import annotations

import json
import re

import pyarrow as pa

from flight_replica.errors import SchemaMismatch

__all__ = ["NESTING_MAX", "arrow_type", "type_name"]

NESTING_MAX = 32  # levels of list, struct and map in a type's name; a guard against endless input

_FLAT_TYPES = {
    str(kind): kind
    for kind in (
        *(pa.bool_(), pa.int8(), pa.int16(), pa.int32(), pa.int64()),
        *(pa.uint8(), pa.uint16(), pa.uint32(), pa.uint64(), pa.float32(), pa.float64()),
        *(pa.string(), pa.binary(), pa.date32(), pa.time32("s"), pa.time32("ms"), pa.time64("us")),
        *(pa.timestamp("s"), pa.timestamp("ms"), pa.timestamp("us")),
    )
} | {"uuid": pa.uuid()}
_FLAT_NAMES = {kind: name for name, kind in _FLAT_TYPES.items()}
_WORD = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_HEAD = re.compile(r"[a-z0-9]\w*(?:\[[^\]]*\]|\([^)]*\))?", re.ASCII)
_ZONED = re.compile(r"timestamp\[(s|ms|us), tz=([^\]]+)\]")
_DECIMAL = re.compile(r"decimal(128|256)\((\d+), ?(\d+)\)", re.ASCII)
_FIXED = re.compile(r"fixed_size_binary\[(\d+)\]", re.ASCII)


def type_name(t: pa.DataType) -> str:
    """The type's name in `merutable.schema`. Raises `SchemaMismatch` where a type can't be carried exactly.

    Names are Arrow's own (`timestamp[us, tz=UTC]`, `list<item: int32>`), field names that aren't plain
    words are quoted as in JSON, the canonical UUID extension is `uuid`. Nested fields are nullable.
    """
    if (flat := _FLAT_NAMES.get(t)) is not None:
        return flat
    if pa.types.is_list(t):
        return f"list<{_field_name(t.value_field)}>"
    if pa.types.is_map(t) and not t.keys_sorted and t.item_field.nullable:
        return f"map<{type_name(t.key_type)}, {type_name(t.item_type)}>"
    if pa.types.is_struct(t) and len({field.name for field in t}) == t.num_fields > 0:
        return f"struct<{', '.join(_field_name(field) for field in t)}>"
    name = str(t)
    if _flat_type(name) is None:
        raise SchemaMismatch(f"type {name} can't be carried exactly")
    return name


def _field_name(field: pa.Field) -> str:
    if not field.nullable:
        raise SchemaMismatch(
            f"type {field.type} not null of the nested field {field.name!r} can't be carried"
        )
    is_word = _WORD.fullmatch(field.name) is not None
    return f"{field.name if is_word else json.dumps(field.name, ensure_ascii=False)}: {type_name(field.type)}"


def arrow_type(name: str) -> pa.DataType:
    """The type of this name, see `type_name`. Raises `SchemaMismatch`."""
    parser = _TypeParser(name)
    kind = parser.type_()
    parser.end()
    return kind


def _flat_type(name: str) -> pa.DataType | None:
    """The type of this name, None where it is no type without fields that can be carried."""
    if name in _FLAT_TYPES:
        return _FLAT_TYPES[name]
    if zoned := _ZONED.fullmatch(name):
        return pa.timestamp(zoned[1], zoned[2])
    if (fixed := _FIXED.fullmatch(name)) and 0 < int(fixed[1]) < 2**31:
        return pa.binary(int(fixed[1]))
    if decimal := _DECIMAL.fullmatch(name):
        precision, scale = int(decimal[2]), int(decimal[3])
        limit, make = (38, pa.decimal128) if decimal[1] == "128" else (76, pa.decimal256)
        if scale <= precision and 0 < precision <= limit:
            return make(precision, scale)
    return None


class _TypeParser:
    """Reads one type's name from left to right."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._depth = 0

    def type_(self) -> pa.DataType:
        head = _HEAD.match(self._text, self._at)
        name = head[0] if head else ""
        self._at += len(name)
        if name not in ("list", "map", "struct"):
            kind = _flat_type(name)
            return kind if kind is not None else self._refuse()
        self._depth += 1
        if self._depth > NESTING_MAX:
            self._refuse(f"more than {NESTING_MAX} levels of nesting")
        self._skip("<")
        kind = self._nested(name)
        self._skip(">")
        self._depth -= 1
        return kind

    def end(self) -> None:
        if self._at != len(self._text):
            self._refuse()

    def _nested(self, name: str) -> pa.DataType:
        if name == "list":
            return pa.list_(self._field())
        if name == "map":
            key = self.type_()
            self._skip(", ")
            return pa.map_(key, self.type_())
        fields = [self._field()]
        while self._text.startswith(", ", self._at):
            self._skip(", ")
            fields.append(self._field())
        kind = pa.struct(fields)
        return kind if len({field.name for field in fields}) == len(fields) else self._refuse("a field twice")

    def _field(self) -> pa.Field:
        if word := _WORD.match(self._text, self._at):
            name, self._at = word[0], word.end()
        else:
            try:
                name, self._at = json.JSONDecoder().raw_decode(self._text, self._at)
            except ValueError:
                self._refuse("a field name is missing")
            if not isinstance(name, str):
                self._refuse("a field name is missing")
        self._skip(": ")
        return pa.field(name, self.type_())

    def _skip(self, sign: str) -> None:
        if not self._text.startswith(sign, self._at):
            self._refuse(f"{sign.strip()!r} is missing")
        self._at += len(sign)

    def _refuse(self, reason: str = "no type that can be carried exactly") -> pa.DataType:
        raise SchemaMismatch(f"type {self._text[:200]!r}: {reason} at character {self._at}")
