"""Ops as rows of a state's table: the newest of each key, under internal column names.

Internal names are positions (`c0, c1, …`), so that no name of a user's column can collide.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from flight_replica.errors import SchemaMismatch
from flight_replica.keys import KeyCodec
from flight_replica.log.batches import HEAD_COLUMNS, conform_ops
from flight_replica.log.source import Op
from flight_replica.schema import TableSchema
from flight_replica.sql.types import equal_key_sql
from flight_replica.state.python_times import is_in_us, time_maker
from flight_replica.state.state import Row

KEPT_ARRAYS_OPS_MIN = 32  # the arrays of a batch with fewer ops would take more memory than these
_SPREAD = np.uint64(0x9E3779B97F4A7C15)  # 2**64 over the golden ratio: multiples of it lie far apart


def column_names(schema: TableSchema) -> list[str]:
    """The internal names `c0, c1, …` of a table's columns."""
    return [f"c{number}" for number in range(len(schema.columns))]


def same_key(schema: TableSchema, left: str, right: str) -> str:
    """An SQL predicate: the relations `left` and `right` (internal column names) hold the same key."""
    terms = []
    for column in schema.key_columns:
        name = f"c{schema.names.index(column.name)}"
        terms.append(equal_key_sql(f"{left}.{name}", f"{right}.{name}", column.type))
    return " AND ".join(terms)


def having_keys_of(schema: TableSchema, table: str, rows: str) -> str:
    """The end of a DELETE on `table`: of the rows whose key is in `rows`; by the way that measures best.

    A key may be in `rows` many times. A join that gives columns of `rows` takes half as long again as IN.

    A key of several columns is looked for by its widest integer first, which is cheap, and compared as a
    whole then. A stored hash of the key would cost more than it saves (docs/decisions/0007).
    """
    columns = schema.key_columns
    names = [f"c{schema.names.index(column.name)}" for column in columns]
    floats = [name for name, column in zip(names, columns, strict=True) if pa.types.is_floating(column.type)]
    integers = [column for column in columns if pa.types.is_integer(column.type)]
    if len(columns) == 1 or not integers or floats:
        # DuckDB says −0.0 = 0.0, keys don't. An EXISTS with both equalities would still take them for one
        # another, since DuckDB brings it down to the distinct keys first.
        signs = [f"signbit({table}.{name})" for name in floats]
        whole = ", ".join([f"{table}.{name}" for name in names] + signs)
        each = ", ".join(names + [f"signbit({name})" for name in floats])
        return f"WHERE ({whole}) IN (SELECT {each} FROM {rows})"
    widest = max(integers, key=lambda column: column.type.bit_width)
    first = f"c{schema.names.index(widest.name)}"
    whole, each = ", ".join(f"{table}.{name}" for name in names), ", ".join(names)
    return (
        f"WHERE {table}.{first} IN (SELECT {first} FROM {rows}) "
        f"AND ({whole}) IN (SELECT ({each}) FROM {rows})"
    )


class HeldOps:
    """A batch of ops in the feed's schema that single ones are read from, again and again.

    Asking pyarrow for an array of a batch takes longer than reading one value of it.
    """

    __slots__ = ("_arrays", "batch")

    def __init__(self, batch: pa.RecordBatch) -> None:
        self.batch = batch
        self._arrays: Sequence[pa.Array] | None = None

    @property
    def arrays(self) -> Sequence[pa.Array]:
        if self._arrays is not None:
            return self._arrays
        arrays: Sequence[pa.Array] = self.batch.columns
        if len(self.batch) >= KEPT_ARRAYS_OPS_MIN:
            self._arrays = arrays
        return arrays


class OpRows:
    """Makes rows `seq, dead, c0, …` of ops in the feed's schema, for one table schema."""

    def __init__(self, schema: TableSchema) -> None:
        self.schema = schema
        self._codec = KeyCodec(schema)
        # Of each column its place in an op, and what makes a Python value of it where pyarrow is slow.
        self._readers = [
            (column.name, HEAD_COLUMNS + place, time_maker(column.type) if is_in_us(column.type) else None)
            for place, column in enumerate(schema.columns)
        ]

    def row(self, ops: HeldOps, number: int) -> Row | None:
        """The row that one of `ops`, conformed once, wrote, as Python's values; None for a delete."""
        arrays = ops.arrays
        if arrays[1][number].as_py() == Op.DELETE:
            return None
        if len(arrays) < HEAD_COLUMNS + len(self._readers):  # columns were added since
            arrays, number = self.conformed(ops.batch.slice(number, 1)).columns, 0
        row = {}
        for name, place, make in self._readers:
            value = arrays[place][number]
            row[name] = value.as_py() if make is None else make(value.value)
        return row

    def conformed(self, ops: pa.RecordBatch) -> pa.RecordBatch:
        """Ops, older ones with the defaults of columns added since. Raises `SchemaMismatch`."""
        unknown = [name for name in ops.schema.names[HEAD_COLUMNS:] if name not in self.schema.names]
        if unknown:
            raise SchemaMismatch(f"ops have the column {unknown[0]!r}, the table {list(self.schema.names)}")
        return conform_ops(ops, self.schema)

    def newest(self, ops: pa.RecordBatch) -> pa.RecordBatch:
        """One row a key: its newest op. Seqs ascend in `ops`."""
        rows = self.named(ops)
        are_newest = self._are_newest(rows, ops.column(2))
        return rows if are_newest.all() else rows.filter(pa.array(are_newest))

    def with_lives(self, rows: pa.Table, keys: pa.ChunkedArray) -> pa.Table:
        """`rows`, which `named` made of ops with these `pk_bytes`, and `lives`: a key's newest, no delete."""
        lives = pc.and_not(pa.array(self._are_newest(rows, keys)), rows.column("dead"))
        return rows.append_column("lives", lives)

    def _are_newest(
        self, rows: pa.RecordBatch | pa.Table, keys: pa.Array | pa.ChunkedArray
    ) -> npt.NDArray[np.bool_]:
        (*others, column) = self.schema.key_columns
        if not others and pa.types.is_integer(column.type):  # faster by the number itself
            return _last_of_integers(rows.column(f"c{self.schema.names.index(column.name)}").to_numpy())
        return _last_of_each(keys.combine_chunks() if isinstance(keys, pa.ChunkedArray) else keys)

    def named(self, ops: pa.RecordBatch) -> pa.RecordBatch:
        """Every op as a row. A tombstone's key comes from `pk_bytes`: it may lack a pre-image."""
        dead = pc.equal(ops.column(1), Op.DELETE)
        columns = dict(zip(self.schema.names, ops.columns[HEAD_COLUMNS:], strict=True))
        if pc.any(dead).as_py():
            parts = self._codec.decode(ops.column(2))
            for column, part in zip(self.schema.key_columns, parts, strict=True):
                columns[column.name] = part
        arrays = [ops.column(0), dead, *columns.values()]
        return pa.RecordBatch.from_arrays(arrays, ["seq", "dead", *column_names(self.schema)])


def _last_of_each(values: pa.Array) -> npt.NDArray[np.bool_]:
    """Of each value, whether no later one is equal."""
    codes = values.dictionary_encode().indices.to_numpy()
    last = np.zeros(int(codes.max(initial=-1)) + 1, np.int64)
    last[codes] = np.arange(len(values))  # of equal indices the last one counts
    are_last = np.zeros(len(values), np.bool_)
    are_last[last] = True
    return are_last


def _last_of_integers(values: npt.NDArray[np.integer]) -> npt.NDArray[np.bool_]:
    """As `_last_of_each`, by a table in which each slot holds the place of its last value.

    Equal values share a slot, so one that equals the last of its slot is known to be the last of its kind or
    not. The few that share it with another value are left to `_last_of_each`, which takes twice as long for
    all of them: its own table is several times as large.
    """
    bits = (4 * len(values)).bit_length()
    slots = values.astype(np.uint64) * _SPREAD >> np.uint64(64 - bits)
    places = np.arange(len(values), dtype=np.int32)
    last = np.empty(1 << bits, np.int32)
    last[slots] = places
    last_in_slot = last[slots]
    are_last: npt.NDArray[np.bool_] = last_in_slot == places
    shared = np.flatnonzero(values[last_in_slot] != values)
    are_last[shared] = _last_of_each(pa.array(values[shared]))
    return are_last
