"""`TableSchema`: a table's columns, types, nullability, defaults and ordered primary key.

Arrow types are the types of the system; `arrow_type` and `type_name` are the two ways between a type
and its name in `merutable.schema` JSON, and `conform` brings data to a table's types without loss.
Key bytes: `keys.py`. SQL types: `sql/types.py`.
"""

from __future__ import annotations

import datetime
import json
import math
import re
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from functools import cached_property, lru_cache
from uuid import UUID

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from flight_replica.errors import SchemaMismatch

__all__ = ["Column", "TableSchema", "arrow_type", "conform", "type_name"]

NESTING_MAX = 32  # levels of list, struct and map in a type's name; a guard against endless input


# --- tables -----------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Column:
    """One column. `default` is what rows written before the column existed hold (None: null).

    The default is kept as pyarrow's Python value of the type. Two columns are equal when their
    defaults have the same bits: −0.0 is not 0.0, NaN is NaN.
    Raises `SchemaMismatch` for a type that can't be carried exactly or a default that isn't of it.
    """

    name: str
    type: pa.DataType
    nullable: bool = True
    default: object = None

    def __post_init__(self) -> None:
        try:
            type_name(self.type)
            default = None if self.default is None else _exact_value(self.default, self.type)
        except SchemaMismatch as error:
            raise SchemaMismatch(f"column {self.name!r}: {error}") from error
        object.__setattr__(self, "default", default)

    @cached_property
    def _identity(self) -> tuple[str, str, bool, str]:
        default = None if self.default is None else _default_to_json(self.default)
        return self.name, type_name(self.type), self.nullable, json.dumps(default)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Column) and self._identity == other._identity

    def __hash__(self) -> int:
        return hash(self._identity)


@dataclass(frozen=True)
class TableSchema:
    """Columns in table order and the key in key order. Raises `SchemaMismatch` for what can't be a table."""

    columns: tuple[Column, ...]
    primary_key: tuple[str, ...]

    def __post_init__(self) -> None:
        _check_names(self.names, "column")
        _check_names(self.primary_key, "key column")
        if missing := [name for name in self.primary_key if name not in self.names]:
            raise SchemaMismatch(f"key column {missing[0]!r} is none of the columns {list(self.names)}")
        for column in self.key_columns:
            if column.nullable:
                raise SchemaMismatch(f"key column {column.name!r} is nullable")
            if pa.types.is_nested(column.type):
                raise SchemaMismatch(
                    f"key column {column.name!r}: {type_name(column.type)} can't be in a key"
                )

    @cached_property
    def names(self) -> tuple[str, ...]:
        return tuple(column.name for column in self.columns)

    @cached_property
    def key_columns(self) -> tuple[Column, ...]:
        by_name = {column.name: column for column in self.columns}
        return tuple(by_name[name] for name in self.primary_key)

    @cached_property
    def arrow_schema(self) -> pa.Schema:
        """The table's rows."""
        return pa.schema([pa.field(c.name, c.type, c.nullable) for c in self.columns])

    @cached_property
    def feed_schema(self) -> pa.Schema:
        """Rows of the change feed: `seq, op, pk_bytes`, then every column, nullable."""
        head = [
            pa.field("seq", pa.uint64(), False),
            pa.field("op", pa.string(), False),
            pa.field("pk_bytes", pa.binary(), False),
        ]
        return pa.schema(head + [pa.field(c.name, c.type, True) for c in self.columns])

    @classmethod
    def from_json(cls, text: str) -> TableSchema:
        """The table that `merutable.schema` JSON describes. Raises `SchemaMismatch`."""
        try:
            document = json.loads(text)
            columns = tuple(_column_from_json(column) for column in document["columns"])
            return cls(columns, tuple(document["primary_key"]))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise SchemaMismatch(f"not a table schema in JSON ({error!r}): {text[:200]}") from error

    def to_json(self) -> str:
        """`merutable.schema` JSON; `from_json` gives an equal schema back."""
        columns: list[dict[str, object]] = []
        for column in self.columns:
            entry: dict[str, object] = {"name": column.name, "type": type_name(column.type)}
            entry["nullable"] = column.nullable
            if column.default is not None:
                entry["default"] = _default_to_json(column.default)
            columns.append(entry)
        return json.dumps({"columns": columns, "primary_key": list(self.primary_key)}, ensure_ascii=False)

    @classmethod
    def from_engine_json(cls, document: Mapping[str, object]) -> TableSchema:
        """The table that merutable's own schema JSON describes (manifest property, Parquet footer).

        A column's default is its `initial_default`: what rows from before the column hold.
        Raises `SchemaMismatch`. Source: MF 4.3.
        """
        try:
            columns = tuple(_column_from_engine(column) for column in _items(document["columns"]))
            key = tuple(columns[_index(index)].name for index in _items(document["primary_key"]))
        except (KeyError, TypeError, ValueError, IndexError) as error:
            raise SchemaMismatch(f"not an engine schema ({error!r}): {str(document)[:200]}") from error
        return cls(columns, key)


def _check_names(names: Sequence[str], what: str) -> None:
    """Raise `SchemaMismatch` unless there is a name, and each is a text of its own."""
    if not names:
        raise SchemaMismatch(f"a table needs at least one {what}")
    for name in names:
        if not isinstance(name, str) or not name:
            raise SchemaMismatch(f"{what} {names.index(name)} has no name")
        if names.count(name) > 1:
            raise SchemaMismatch(f"{what} {name!r} is there {names.count(name)} times")


def _column_from_json(entry: Mapping[str, object]) -> Column:
    name, nullable, default = str(entry["name"]), entry["nullable"], entry.get("default")
    if not isinstance(nullable, bool):
        raise SchemaMismatch(f"column {name!r}: nullable is {nullable!r}")
    kind = arrow_type(str(entry["type"]))
    try:
        return Column(name, kind, nullable, None if default is None else _default_from_json(default, kind))
    except (ValueError, TypeError, OverflowError, InvalidOperation) as error:
        raise SchemaMismatch(f"column {name!r}: {default!r} is no {type_name(kind)} ({error})") from error


_ENGINE_TYPES = {
    "Boolean": pa.bool_(),
    "Int32": pa.int32(),
    "Int64": pa.int64(),
    "Float": pa.float32(),
    "Double": pa.float64(),
    "ByteArray": pa.binary(),
}


def _column_from_engine(entry: object) -> Column:
    if not isinstance(entry, Mapping):
        raise TypeError(f"column {entry!r}")
    name, kind = str(entry["name"]), _engine_type(entry["col_type"])
    default = entry.get("initial_default")
    value = None if default is None else _engine_value(default, kind)
    return Column(name, kind, bool(entry["nullable"]), value)


def _engine_type(col_type: object) -> pa.DataType:
    if isinstance(col_type, Mapping):
        return pa.binary(_index(col_type["FixedLenByteArray"]))
    return _ENGINE_TYPES[str(col_type)]


def _engine_value(tagged: Mapping[str, object], kind: pa.DataType) -> object:
    """The value of `{"Int64": 1}` or `{"Bytes": [104, 105]}`."""
    ((tag, value),) = tagged.items()
    if tag == "Bytes":
        return bytes(_index(byte) for byte in _items(value))
    return _single(float(str(value))) if pa.types.is_float32(kind) else value


def _items(value: object) -> Sequence[object]:
    if not isinstance(value, Sequence) or isinstance(value, str):
        raise TypeError(f"expected a list, found {value!r}")
    return value


def _index(value: object) -> int:
    if not isinstance(value, int) or value < 0:
        raise ValueError(f"expected a number from 0, found {value!r}")
    return value


# --- values -----------------------------------------------------------------------------------------


def _exact_value(value: object, kind: pa.DataType) -> object:
    """`value` as pyarrow gives it back for the type. Raises `SchemaMismatch` when it isn't of it exactly."""
    problem = f"default {value!r} is no {type_name(kind)}"
    if pa.types.is_nested(kind):
        raise SchemaMismatch(f"{problem}: a nested column's default is null")
    try:
        found = pa.scalar(value, kind).as_py()
    except (pa.ArrowException, ValueError, TypeError, OverflowError) as error:
        raise SchemaMismatch(f"{problem} ({error})") from error
    is_nan = isinstance(value, float) and math.isnan(value)
    if isinstance(value, bool) is not isinstance(found, bool) or (found != value and not is_nan):
        raise SchemaMismatch(f"{problem}: it would become {found!r}")
    return found


def _default_to_json(value: object) -> object:
    """A JSON value from which `_default_from_json` makes the same default again."""
    match value:
        case bool() | int() | str():
            return value
        case float():  # JSON has neither NaN nor infinities
            return value if math.isfinite(value) else str(value)
        case bytes():
            return value.hex()
        case datetime.datetime() if value.tzinfo is not None:
            return value.astimezone(datetime.UTC).isoformat()
        case datetime.datetime() | datetime.date() | datetime.time():
            return value.isoformat()
        case Decimal() | UUID():
            return str(value)
    raise AssertionError(f"default {value!r} was checked by Column")


def _default_from_json(value: object, kind: pa.DataType) -> object:
    """The default that a JSON value stands for. Raises ValueError, TypeError and their like."""
    if pa.types.is_floating(kind):
        number = float(str(value))
        return _single(number) if pa.types.is_float32(kind) else number
    if not isinstance(value, str) or pa.types.is_string(kind):
        return value
    if pa.types.is_binary(kind) or pa.types.is_fixed_size_binary(kind):
        return bytes.fromhex(value)
    if pa.types.is_date(kind):
        return datetime.date.fromisoformat(value)
    if pa.types.is_time(kind):
        return datetime.time.fromisoformat(value)
    if pa.types.is_timestamp(kind):
        return datetime.datetime.fromisoformat(value)
    return Decimal(value) if pa.types.is_decimal(kind) else UUID(value)


def _single(number: float) -> float:
    """`number` rounded to float32: writers print the shortest text that means it."""
    return float(struct.unpack("<f", struct.pack("<f", number))[0])


# --- types and their names --------------------------------------------------------------------------

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


# --- data -------------------------------------------------------------------------------------------


def conform(data: pa.RecordBatch, schema: TableSchema) -> pa.RecordBatch:
    """The table's columns of `data`, matched by name, in table order, with exactly the table's types.

    Columns that `data` lacks hold their default or null; those that the table lacks are left out.
    Casts keep every value (a NaN's bits and the sign of zero too). Raises `SchemaMismatch`, with the
    first value that doesn't fit, and for nulls in a column that is NOT NULL.
    """
    columns = [_conform_column(data, column) for column in schema.columns]
    return pa.RecordBatch.from_arrays(columns, schema=schema.arrow_schema)


def _conform_column(data: pa.RecordBatch, column: Column) -> pa.Array:
    found = data.schema.get_all_field_indices(column.name)
    if len(found) > 1:
        raise SchemaMismatch(f"column {column.name!r}: the data has {len(found)} columns of this name")
    if found:
        values = _cast_column(data.column(found[0]), column)
    else:
        values = _repeat(column.default, column.type, data.num_rows)
    if values.null_count and not column.nullable:
        raise SchemaMismatch(
            f"column {column.name!r} is NOT NULL, {values.null_count} of its values are null"
        )
    return values


def _repeat(value: object, kind: pa.DataType, count: int) -> pa.Array:
    if value is None:
        return pa.nulls(count, kind)
    return pa.array([value], kind).take(pa.repeat(0, count))  # `pa.repeat` knows no extension types


def _cast_column(values: pa.Array, column: Column) -> pa.Array:
    if not _is_cast_permitted(values.type, column.type):
        raise SchemaMismatch(f"column {column.name!r} is {column.type}, the data's is {values.type}")
    try:
        return _cast(values, column.type)
    except pa.ArrowException as error:
        offender = _first_offender(values, column.type)
        raise SchemaMismatch(
            f"column {column.name!r} is {column.type}, the data's is {values.type} and "
            f"its value {_shown(values, offender)} in row {offender} doesn't fit ({error})"
        ) from error


def _cast(values: pa.Array, kind: pa.DataType) -> pa.Array:
    """Raises `pa.ArrowException` when a value would change."""
    if kind == pa.uuid() and _is_text(values.type):
        return _uuids_from_text(values.cast(pa.string()))
    if pa.types.is_nested(values.type) and values.type != kind:
        return _cast_nested(values, kind)
    return values.cast(kind)


def _cast_nested(values: pa.Array, kind: pa.DataType) -> pa.Array:
    """Children by `_cast`, since pyarrow reads no UUIDs in text and casts elements that aren't in a slice."""
    if pa.types.is_large_list(values.type):
        values = values.cast(pa.list_(values.type.value_field))
    values = values.take(pa.array(np.arange(len(values))))  # a copy without hidden elements
    if pa.types.is_struct(kind):
        children = [_cast(v, field.type) for v, field in zip(values.flatten(), kind, strict=True)]
        return pa.Array.from_buffers(kind, len(values), values.buffers()[:1], children=children)
    if pa.types.is_map(kind):
        pairs = [_cast(values.keys, kind.key_type), _cast(values.items, kind.item_type)]
        children = [pa.StructArray.from_arrays(pairs, fields=[kind.key_field, kind.item_field])]
    else:
        children = [_cast(values.values, kind.value_type)]
    return pa.Array.from_buffers(kind, len(values), values.buffers()[:2], children=children)


def _shown(values: pa.Array, row: int) -> str:
    try:
        text = repr(values[row].as_py())
    except (ValueError, OverflowError):  # a time that Python can't say
        text = " ".join(str(values.slice(row, 1)).split())
    return text[:100]


def _first_offender(values: pa.Array, kind: pa.DataType) -> int:
    """The row of the first value that can't be cast, by halving."""
    low, high = 0, len(values)  # rows below `low` can be cast, those below `high` can't
    while high - low > 1:
        middle = (low + high) // 2
        try:
            _cast(values.slice(low, middle - low), kind)
            low = middle
        except pa.ArrowException:
            high = middle
    return low


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def _is_bytes(kind: pa.DataType) -> bool:
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_binary_view(kind))


@lru_cache(maxsize=4096)
def _is_cast_permitted(source: pa.DataType, target: pa.DataType) -> bool:
    """Whether a safe cast between the types keeps what values mean; it still checks each value."""
    types = pa.types
    if source == target or types.is_null(source):
        return True
    if types.is_dictionary(source):
        return _is_cast_permitted(source.value_type, target)
    if types.is_integer(source):
        return bool(types.is_integer(target) or types.is_floating(target))
    if types.is_floating(source):
        return bool(types.is_float32(source) and types.is_float64(target))
    if types.is_decimal(source):
        return bool(types.is_decimal(target) or types.is_integer(target))
    if types.is_timestamp(source):
        return bool(types.is_timestamp(target)) and (source.tz is None) == (target.tz is None)
    if types.is_time(source):
        return bool(types.is_time(target))
    if _is_text(source) or _is_bytes(source):
        is_raw = _is_bytes(source) and types.is_fixed_size_binary(target)
        return bool(types.is_string(target) or types.is_binary(target) or target == pa.uuid() or is_raw)
    if types.is_fixed_size_binary(source):
        return bool(types.is_binary(target) or (target == pa.uuid() and source.byte_width == 16))
    if source == pa.uuid():
        return bool(types.is_binary(target) or target == pa.binary(16))
    return _is_nested_cast_permitted(source, target)


def _is_nested_cast_permitted(source: pa.DataType, target: pa.DataType) -> bool:
    """List views are left out: pyarrow 26 casts them to empty lists."""
    types = pa.types
    if types.is_list(target):
        is_list = types.is_list(source) or types.is_large_list(source)
        return is_list and _is_cast_permitted(source.value_type, target.value_type)
    if types.is_map(target):
        pairs = (
            [(source.key_type, target.key_type), (source.item_type, target.item_type)]
            if types.is_map(source)
            else []
        )
        return bool(pairs) and all(_is_cast_permitted(*pair) for pair in pairs)
    if types.is_struct(source) and types.is_struct(target):
        # Arrow fills a field that the source lacks with nulls, so the names have to be the same.
        is_same = [field.name for field in source] == [field.name for field in target]
        return is_same and all(
            _is_cast_permitted(s.type, t.type) for s, t in zip(source, target, strict=True)
        )
    return False


_NIBBLES = np.full(256, 255, np.uint8)  # ASCII hex digit -> its value, 255 for any other byte
_NIBBLES[np.frombuffer(b"0123456789abcdef", np.uint8)] = np.arange(16)
_NIBBLES[np.frombuffer(b"ABCDEF", np.uint8)] = np.arange(10, 16)
_DASHES = [8, 13, 18, 23]


def _uuids_from_text(texts: pa.StringArray) -> pa.Array:
    """DuckDB hands out UUIDs as dashed text. Raises `pa.ArrowInvalid`."""
    filled = pc.fill_null(texts, str(UUID(int=0))).cast(pa.binary())
    signs = filled.cast(pa.binary(36))  # refuses any other length
    matrix = np.frombuffer(signs.buffers()[1], np.uint8).reshape(-1, 36)[signs.offset :][: len(signs)]
    nibbles = np.delete(_NIBBLES[matrix], _DASHES, axis=1)
    if (matrix[:, _DASHES] != ord("-")).any() or (nibbles == 255).any():
        raise pa.ArrowInvalid("not the dashed text of a UUID")
    raw = np.ascontiguousarray(nibbles[:, 0::2] << 4 | nibbles[:, 1::2])
    storage = pa.Array.from_buffers(pa.binary(16), len(texts), [None, pa.py_buffer(raw)])
    if texts.null_count:
        storage = pc.if_else(pc.is_valid(texts), storage, pa.scalar(None, pa.binary(16)))
    return storage.cast(pa.uuid())
