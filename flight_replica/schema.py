"""`TableSchema`: a table's columns, types, nullability, defaults and ordered primary key.

Arrow types are the types of the system; their names: `arrow_types.py`. Data of a table: `conform.py`.
Key bytes: `keys.py`. SQL types: `sql/types.py`.
"""

from __future__ import annotations

import datetime
import json
import math
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from functools import cached_property
from uuid import UUID

import pyarrow as pa

from flight_replica.arrow_types import arrow_type, type_name
from flight_replica.errors import SchemaMismatch

__all__ = ["Column", "TableSchema"]


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
    def folded_names(self) -> tuple[str, ...]:
        """`names` in small letters, as SQL compares them; some may be the same then."""
        return tuple(name.lower() for name in self.names)

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
            columns = tuple(_column_from_engine(column) for column in _items(_member(document, "columns")))
            numbers = [_index(number) for number in _items(_member(document, "primary_key"))]
        except (TypeError, ValueError, OverflowError) as error:
            raise SchemaMismatch(f"not an engine schema: {error}") from error
        for number in numbers:
            if number >= len(columns):
                raise SchemaMismatch(
                    f"not an engine schema: primary_key has {number}, there are {len(columns)} columns from 0"
                )
        return cls(columns, tuple(columns[number].name for number in numbers))


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
    name, kind = str(_member(entry, "name")), _engine_type(_member(entry, "col_type"))
    is_nullable = bool(_member(entry, "nullable"))
    assert isinstance(entry, Mapping), "it has members"
    default = entry.get("initial_default")
    value = None if default is None else _engine_value(default, kind)
    return Column(name, kind, is_nullable, value)


def _engine_type(col_type: object) -> pa.DataType:
    if isinstance(col_type, Mapping):
        return pa.binary(_index(_member(col_type, "FixedLenByteArray")))
    if str(col_type) not in _ENGINE_TYPES:
        raise ValueError(f"there is no type {_shown(col_type)}")
    return _ENGINE_TYPES[str(col_type)]


def _engine_value(tagged: object, kind: pa.DataType) -> object:
    """The value of `{"Int64": 1}` or `{"Bytes": [104, 105]}`."""
    if not isinstance(tagged, Mapping) or len(tagged) != 1:
        raise ValueError(f"{_shown(tagged)} is no default value")
    ((tag, value),) = tagged.items()
    if tag == "Bytes":
        return bytes(_index(byte) for byte in _items(value))
    return _single(float(str(value))) if pa.types.is_float32(kind) else value


def _items(value: object) -> Sequence[object]:
    if not isinstance(value, Sequence) or isinstance(value, str):
        raise TypeError(f"expected a list, found {_shown(value)}")
    return value


def _index(value: object) -> int:
    if not isinstance(value, int) or value < 0:
        raise ValueError(f"expected a number from 0, found {_shown(value)}")
    return value


def _member(value: object, name: str) -> object:
    if not isinstance(value, Mapping):
        raise TypeError(f"expected an object with {name!r}, found {_shown(value)}")
    if name not in value:
        raise ValueError(f"{name!r} is missing in {_shown(value)}")
    return value[name]


def _shown(value: object) -> str:
    """The beginning of a JSON value: a whole document fits no message."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:60]}…"


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
