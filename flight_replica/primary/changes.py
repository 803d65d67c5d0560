"""Rows into a table and its ops, whole batches at a time: puts, updates that may move keys, deletes.

Each function changes the table's rows in the transaction that it gets, logs the ops and returns the number
of rows affected. Rows come as record batches of the table's own schema. Every error names the user's table.
"""

from __future__ import annotations

from enum import Enum
from functools import lru_cache

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from flight_replica.conform import conform
from flight_replica.errors import ConstraintViolation, SchemaMismatch
from flight_replica.keys import KeyCodec
from flight_replica.log.source import Op
from flight_replica.primary.store import PK_BYTES, TableRecord
from flight_replica.primary.transaction import WriteTransaction
from flight_replica.sql.database import quote

# DuckDB looks up to 2048 keys up in the index, at 9 µs of processor each; a join reads the table, at 25 ns
# a row. So a few keys are always looked up, and more of them where the table is that much larger.
KEYS_LOOKED_UP_MAX = 2000
KEYS_LOOKED_UP_ALWAYS = 200
ROWS_SCANNED_A_KEY = 400
_PK_NAME = PK_BYTES.strip('"')
codec_of = lru_cache(maxsize=1024)(KeyCodec)


class OnConflict(Enum):
    """What a put does about a key that the table has already."""

    REFUSE = "refuse"
    REPLACE = "replace"
    IGNORE = "ignore"


# --- puts -------------------------------------------------------------------------------------------


def put(tx: WriteTransaction, record: TableRecord, rows: pa.RecordBatch, conflict: OnConflict) -> int:
    """Insert `rows`, which are in the order they were given. One op a key: where keys are equal the last
    row wins (REPLACE), the first one (IGNORE), or it is an error (REFUSE).

    Raises `ConstraintViolation` for a duplicate key, NaN in a key.
    """
    keys = encode_keys(record, rows)
    chosen = _one_per_key(record, rows, keys, conflict)
    rows, keys = rows.take(chosen), keys.take(chosen)
    if conflict is OnConflict.REPLACE:
        is_there = pc.is_in(keys, _delete_keys(tx, record, keys))
    else:
        is_there = pc.is_in(keys, existing_keys(tx, record, keys))
    if conflict is OnConflict.IGNORE:
        rows, keys = rows.filter(pc.invert(is_there)), keys.filter(pc.invert(is_there))
        is_there = pa.repeat(pa.scalar(False), len(keys))
    elif conflict is OnConflict.REFUSE:
        _refuse_where(record, rows, is_there, "exists already")
    _insert(tx, record, rows, keys)
    ops = pc.if_else(is_there, Op.UPDATE.value, Op.INSERT.value).cast(pa.string())
    tx.log(record, _ops_batch(ops, keys, rows))
    return len(keys)


def encode_keys(record: TableRecord, rows: pa.RecordBatch) -> pa.BinaryArray:
    """`pk_bytes` of each row. Raises `ConstraintViolation` for NaN."""
    try:
        return codec_of(record.schema).encode_batch(rows)
    except SchemaMismatch as error:
        raise ConstraintViolation(f"table {record.name!r}: {error}") from error


def _one_per_key(
    record: TableRecord, rows: pa.RecordBatch, keys: pa.BinaryArray, conflict: OnConflict
) -> npt.NDArray[np.int64]:
    """The rows to take, ascending: the first or last of equal keys."""
    encoded = keys.dictionary_encode()
    if len(encoded.dictionary) == len(keys):
        return np.arange(len(keys))
    codes = encoded.indices.to_numpy()
    if conflict is OnConflict.REPLACE:
        _, from_end = np.unique(codes[::-1], return_index=True)
        return np.sort(len(codes) - 1 - from_end)
    _, first = np.unique(codes, return_index=True)
    if conflict is OnConflict.REFUSE:
        is_repeated = np.ones(len(codes), np.bool_)
        is_repeated[first] = False
        _refuse_where(record, rows, pa.array(is_repeated), "is there twice in this statement")
    return np.sort(first)


def _refuse_where(record: TableRecord, rows: pa.RecordBatch, is_bad: pa.BooleanArray, reason: str) -> None:
    """Raise `ConstraintViolation` that names the first bad key, and how many there are."""
    bad = rows.filter(is_bad)
    if bad.num_rows:
        key = {name: bad.column(name)[0].as_py() for name in record.schema.primary_key}
        shown = ", ".join(f"{name} = {value!r}" for name, value in key.items())
        more = f" (and {bad.num_rows - 1} more keys)" if bad.num_rows > 1 else ""
        raise ConstraintViolation(f"table {record.name!r}: key {shown} {reason}{more}")


def existing_keys(tx: WriteTransaction, record: TableRecord, keys: pa.BinaryArray) -> pa.BinaryArray:
    """Those of `keys` that the table has."""
    return _of_keys(tx, record, f"SELECT {PK_BYTES} FROM {record.rows} WHERE {PK_BYTES} IN", keys)


def _delete_keys(tx: WriteTransaction, record: TableRecord, keys: pa.BinaryArray) -> pa.BinaryArray:
    """Those of `keys` that the table had."""
    delete = f"DELETE FROM {record.rows} WHERE {PK_BYTES} IN"
    return _of_keys(tx, record, delete, keys, f"RETURNING {PK_BYTES}")


def _of_keys(
    tx: WriteTransaction, record: TableRecord, begin: str, keys: pa.BinaryArray, end: str = ""
) -> pa.BinaryArray:
    """What a statement over the rows with `keys` gives: their keys. It `begin`s as far as `IN`."""
    if len(keys) == 0:
        return keys
    if _are_looked_up(tx, record, len(keys)):
        signs = ", ".join("?" * len(keys))
        found = tx.connection.execute(f"{begin} ({signs}) {end}", keys.to_pylist()).fetchall()
    else:
        with tx.data("$keys", pa.table({"k": keys})) as relation:
            found = tx.connection.execute(f"{begin} (SELECT k FROM {relation}) {end}").fetchall()
    return pa.array([key for (key,) in found], pa.binary())


def _are_looked_up(tx: WriteTransaction, record: TableRecord, key_count: int) -> bool:
    """Whether it is cheaper to look each key up than to read the table."""
    if not KEYS_LOOKED_UP_ALWAYS < key_count <= KEYS_LOOKED_UP_MAX:
        return key_count <= KEYS_LOOKED_UP_ALWAYS
    # Deleted rows count, too, until a checkpoint: a scan passes them. count(*) would take longer for them.
    query = "SELECT estimated_size FROM duckdb_tables() WHERE table_name = ?"
    ((row_count,),) = tx.connection.execute(query, [record.rows_name]).fetchall()
    return bool(row_count > key_count * ROWS_SCANNED_A_KEY)


def _insert(tx: WriteTransaction, record: TableRecord, rows: pa.RecordBatch, keys: pa.BinaryArray) -> None:
    if rows.num_rows == 0:
        return
    data = pa.Table.from_arrays([*rows.columns, keys], names=[*rows.schema.names, _PK_NAME])
    columns = ", ".join(quote(name) for name in data.schema.names)
    with tx.data("$rows", data) as relation:
        tx.connection.execute(f"INSERT INTO {record.rows} ({columns}) SELECT {columns} FROM {relation}")


def replace_rows(
    tx: WriteTransaction, record: TableRecord, keys: pa.BinaryArray, ops: pa.RecordBatch
) -> None:
    """Put the rows of `ops` (`op, pk_bytes`, then the columns) in the place of all that have `keys`.

    Logs nothing. `keys` are distinct, and those of `ops` are among them.
    """
    _delete_keys(tx, record, keys)
    rows = pa.RecordBatch.from_arrays(ops.columns[2:], names=list(record.schema.names))
    _insert(tx, record, rows, ops.column(1))


def without_seqs(ops: pa.RecordBatch) -> pa.RecordBatch:
    """Ops in the feed's schema as `op, pk_bytes`, then the columns, for `WriteTransaction.log`."""
    names = ["op", "pk_bytes", *(f"c{number}" for number in range(ops.num_columns - 3))]
    return pa.RecordBatch.from_arrays(ops.columns[1:], names=names)


def newest_of(ops: pa.RecordBatch) -> pa.RecordBatch:
    """The last op of each key. `ops` are `op, pk_bytes`, then the columns."""
    codes = ops.column(1).dictionary_encode().indices.to_numpy()
    _, from_end = np.unique(codes[::-1], return_index=True)
    return ops.take(pa.array(np.sort(len(codes) - 1 - from_end)))


def living(ops: pa.RecordBatch) -> pa.RecordBatch:
    """Those of `ops` after which their key has a row. `ops` are `op, pk_bytes`, then the columns."""
    return ops.filter(pc.not_equal(ops.column(0), Op.DELETE.value))


def ops_of_keys_after(
    tx: WriteTransaction, record: TableRecord, keys: pa.BinaryArray, seq: int
) -> pa.BinaryArray:
    """Those of `keys` that a commit after `seq` has changed, one in this very transaction too."""
    found = [commit.ops.column(2) for commit in tx.changes.commits.get(record.id, ())]
    select = f"SELECT pk_bytes FROM {record.ops} WHERE seq > $1"
    table = tx.connection.sql(select, params=[seq]).to_arrow_table()
    found.append(table.column(0).combine_chunks())
    return keys.filter(pc.is_in(keys, pa.concat_arrays(found)))


def _ops_batch(ops: pa.StringArray, keys: pa.BinaryArray, rows: pa.RecordBatch) -> pa.RecordBatch:
    names = ["op", "pk_bytes", *(f"c{number}" for number in range(rows.num_columns))]
    return pa.RecordBatch.from_arrays([ops, keys, *rows.columns], names=names)


def _op_repeated(op: Op, count: int) -> pa.StringArray:
    return pa.repeat(pa.scalar(op.value, pa.string()), count)


# --- updates and deletes ----------------------------------------------------------------------------


def rows_updated(tx: WriteTransaction, record: TableRecord, returned: pa.Table) -> int:
    """Log an UPDATE that has run. `returned`: its new rows, with the `$pk_bytes` they had before.

    A row whose key changed is a DELETE of the old key (without pre-image) and an INSERT of the new one.
    Raises `ConstraintViolation` where the new keys aren't unique, `SchemaMismatch` for values that don't fit.
    """
    old_keys, rows = _split(record, returned)
    keys = encode_keys(record, rows)
    is_moved = pc.not_equal(keys, old_keys)
    puts = pc.if_else(is_moved, Op.INSERT.value, Op.UPDATE.value).cast(pa.string())
    ops = _ops_batch(puts, keys, rows)
    if pc.any(is_moved).as_py():
        gone = old_keys.filter(is_moved)
        _move_keys(tx, record, gone, keys.filter(is_moved), rows.filter(is_moved))
        ops = _deletes_first(ops, gone)
    tx.log(record, ops)
    return int(rows.num_rows)


def rows_deleted(tx: WriteTransaction, record: TableRecord, returned: pa.Table) -> int:
    """Log a DELETE that has run. `returned`: the rows it removed, with their `$pk_bytes`."""
    keys, rows = _split(record, returned)
    tx.log(record, _ops_batch(_op_repeated(Op.DELETE, len(keys)), keys, rows))
    return len(keys)


def _split(record: TableRecord, returned: pa.Table) -> tuple[pa.BinaryArray, pa.RecordBatch]:
    batch = one_batch(returned)
    return batch.column(_PK_NAME), conform_rows(record, batch)


def conform_rows(record: TableRecord, batch: pa.RecordBatch) -> pa.RecordBatch:
    """The table's columns of `batch`, in its types. Raises `ConstraintViolation` with the table's name."""
    try:
        return conform(batch, record.schema)
    except SchemaMismatch as error:
        raise ConstraintViolation(f"table {record.name!r}: {error}") from error


def one_batch(table: pa.Table) -> pa.RecordBatch:
    """All rows of `table` in one batch."""
    arrays = [column.combine_chunks() for column in table.columns]
    return pa.RecordBatch.from_arrays(arrays, schema=table.schema)


def _move_keys(
    tx: WriteTransaction,
    record: TableRecord,
    old_keys: pa.BinaryArray,
    new_keys: pa.BinaryArray,
    rows: pa.RecordBatch,
) -> None:
    """Put moved rows under their new `$pk_bytes`, unless one is another row's."""
    encoded = new_keys.dictionary_encode()
    if len(encoded.dictionary) < len(new_keys):
        _one_per_key(record, rows, new_keys, OnConflict.REFUSE)
    # A key that moves away in this statement frees its place; the row still stands under its old key.
    taken = existing_keys(tx, record, new_keys)
    taken = taken.filter(pc.invert(pc.is_in(taken, old_keys)))
    _refuse_where(record, rows, pc.is_in(new_keys, taken), "exists already")
    _delete_keys(tx, record, old_keys)
    _insert(tx, record, rows, new_keys)


def _deletes_first(puts: pa.RecordBatch, gone: pa.BinaryArray) -> pa.RecordBatch:
    """Old keys go before new ones come, so that a key may pass from one row to another."""
    nulls = [pa.nulls(len(gone), field.type) for field in list(puts.schema)[2:]]
    deletes = pa.RecordBatch.from_arrays(
        [_op_repeated(Op.DELETE, len(gone)), gone, *nulls], names=puts.schema.names
    )
    return pa.concat_batches([deletes, puts])
