"""`TextColumns`: which byte columns of a table are served as strings.

merutable knows no text: its ByteArray columns hold bytes, whether they were written as text or not. A setting
says which are text. A string and its UTF-8 bytes have the same key bytes, so keys stay what they are.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from urllib.parse import unquote

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from flight_replica.errors import ConfigError, InvalidText
from flight_replica.schema import Column, TableSchema

__all__ = ["TextChoice", "TextColumns", "to_text"]

_ALL = "*"
_LENIENT = "?"
_HEAD_COLUMNS = 3  # of ops: seq, op, pk_bytes


@dataclass(frozen=True, slots=True)
class TextColumns:
    """Names of columns that are text. An invalid value in one of `strict` is an error; a column of `lenient`
    is served as bytes as soon as it holds one."""

    strict: frozenset[str] = frozenset()
    lenient: frozenset[str] = frozenset()
    rest: str | None = None  # the byte columns not named: None bytes, "*" strict, "*?" lenient
    bytes_after_all: frozenset[str] = frozenset()  # lenient ones that turned out to hold other bytes

    @classmethod
    def parse(cls, text: str) -> TextColumns:
        """Of `a,b?,*`: names, `*` for every other byte column, `?` behind one for leniency.

        Other characters of a name are written as `%2C` (,), `%3F` (?), `%2A` (*), `%25` (%). Raises
        `ConfigError`.
        """
        strict: set[str] = set()
        lenient: set[str] = set()
        rest: str | None = None
        for word in text.split(","):
            name = word.removesuffix(_LENIENT)
            if not name:
                raise ConfigError(f"text columns {text!r}: a name is missing")
            if name == _ALL and rest is None:
                rest = word
            elif name == _ALL or unquote(name) in strict | lenient:
                raise ConfigError(f"text columns {text!r}: {name} is there twice")
            else:
                (lenient if word.endswith(_LENIENT) else strict).add(unquote(name))
        return cls(frozenset(strict), frozenset(lenient), rest)

    @classmethod
    def strings_of(cls, schema: TableSchema) -> TextColumns:
        """The string columns of a table that has been through `apply`."""
        return cls(frozenset(column.name for column in schema.columns if pa.types.is_string(column.type)))

    def __bool__(self) -> bool:
        return bool(self.strict or self.lenient or self.rest)

    def check(self, schema: TableSchema) -> None:
        """Raise `ConfigError` for a name that is no byte column of the table."""
        types = {column.name: column.type for column in schema.columns}
        for name in sorted(self.strict | self.lenient):
            if name not in types:
                raise ConfigError(f"text column {name!r} is none of the columns {list(types)}")
            if not (pa.types.is_binary(types[name]) or pa.types.is_string(types[name])):
                raise ConfigError(f"text column {name!r} is {types[name]}, only binary columns can be text")

    def is_lenient(self, name: str) -> bool:
        """Whether a column that is served as text may turn out to be bytes."""
        return name in self.lenient or (name not in self.strict and self.rest == _ALL + _LENIENT)

    def without(self, name: str) -> TextColumns:
        """The same, but for one lenient column that isn't text after all."""
        return replace(self, bytes_after_all=self.bytes_after_all | {name})

    def is_text(self, column: Column) -> bool:
        """Whether the column, as it is stored, is to be a string."""
        is_named = column.name in self.strict | self.lenient or self.rest is not None
        return is_named and column.name not in self.bytes_after_all and bool(pa.types.is_binary(column.type))

    def apply(self, schema: TableSchema) -> TableSchema:
        """`schema` with strings where they are to be. Raises `InvalidText` for a default that is none."""
        columns = [_as_text(column) if self.is_text(column) else column for column in schema.columns]
        return TableSchema(tuple(columns), schema.primary_key)

    @staticmethod
    def stored(schema: TableSchema) -> TableSchema:
        """`schema` with bytes for its strings: how merutable stores the table."""
        columns = [
            _as_bytes(column) if pa.types.is_string(column.type) else column for column in schema.columns
        ]
        return TableSchema(tuple(columns), schema.primary_key)

    def apply_to_ops(self, ops: pa.RecordBatch) -> pa.RecordBatch:
        """Ops in the feed's schema, with strings. A pre-image that is no text is left out.

        Raises `InvalidText`, with column and key, for any other value that is none.
        """
        columns, fields = list(ops.columns), list(ops.schema)
        for number in range(_HEAD_COLUMNS, len(columns)):
            column = Column(fields[number].name, fields[number].type)
            if self.is_text(column):
                columns[number] = _op_values(ops, number, column.name)
                fields[number] = fields[number].with_type(pa.string())
        return pa.RecordBatch.from_arrays(columns, schema=pa.schema(fields, ops.schema.metadata))


class TextChoice:
    """What counts as text in one table now. Shared by its base and its log; safe between threads."""

    def __init__(self, texts: TextColumns) -> None:
        self.texts = texts  # replaced whole, and only ever by a narrower one

    def leave_as_bytes(self, error: InvalidText) -> None:
        """Take the column of `error` for bytes from now on. Raises `error` unless the column is lenient."""
        if not self.texts.is_lenient(error.column):
            raise error
        self.texts = self.texts.without(error.column)


def to_text(values: pa.Array, column: str, key_of: Callable[[int], bytes]) -> pa.StringArray:
    """Bytes as strings. Raises `InvalidText` for the first that isn't UTF-8; `key_of` gives a row's key."""
    try:
        return values.cast(pa.string())
    except pa.ArrowInvalid as error:
        row = _first_invalid(values)
        raise InvalidText(column, key_of(row), values[row].as_py()) from error


def _op_values(ops: pa.RecordBatch, number: int, name: str) -> pa.StringArray:
    values = ops.column(number)
    try:
        return values.cast(pa.string())
    except pa.ArrowInvalid:
        # Rare, so a loop may do. A deleted row can be older than the setting, and nobody reads it.
        deletes = np.flatnonzero(pc.equal(ops.column(1), "DELETE").to_numpy(zero_copy_only=False))
        is_bad = np.zeros(len(values), np.bool_)
        is_bad[[row for row in deletes if not _is_valid(values[row])]] = True
        values = pc.if_else(pa.array(is_bad), pa.scalar(None, pa.binary()), values)
        keys = ops.column(2)
        return to_text(values, name, lambda row: bytes(keys[row].as_py()))


def _is_valid(value: pa.Scalar) -> bool:
    try:
        value.cast(pa.string())
    except pa.ArrowInvalid:
        return False
    return True


def _first_invalid(values: pa.Array) -> int:
    """The row of the first value that isn't UTF-8, by halving."""
    low, high = 0, len(values)  # rows below `low` are valid, those below `high` aren't all
    while high - low > 1:
        middle = (low + high) // 2
        try:
            values.slice(low, middle - low).cast(pa.string())
            low = middle
        except pa.ArrowInvalid:
            high = middle
    return low


def _as_text(column: Column) -> Column:
    default = column.default
    if isinstance(default, bytes):
        try:
            default = default.decode()
        except UnicodeDecodeError as error:
            raise InvalidText(column.name, None, column.default) from error
    return replace(column, type=pa.string(), default=default)


def _as_bytes(column: Column) -> Column:
    default = column.default.encode() if isinstance(column.default, str) else None
    return replace(column, type=pa.binary(), default=default)
