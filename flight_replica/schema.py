"""`TableSchema`: a table's columns, types, nullability, defaults and ordered primary key.

Arrow types are the types of the system; `arrow_type` and `type_name` are the two ways between a type
and its name in `merutable.schema` JSON. Key bytes: `keys.py`.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import pyarrow as pa

from flight_replica.errors import SchemaMismatch


@dataclass(frozen=True)
class Column:
    """One column. `default` is what rows written before the column existed hold (None: null)."""

    name: str
    type: pa.DataType
    nullable: bool = True
    default: object = None


@dataclass(frozen=True)
class TableSchema:
    """Columns in table order and the key in key order. Raises `SchemaMismatch` for what can't be a table."""

    columns: tuple[Column, ...]
    primary_key: tuple[str, ...]

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


_ = SchemaMismatch  # used by the constructors added below
