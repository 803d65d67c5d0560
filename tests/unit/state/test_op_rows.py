"""Which op is its key's newest, by whatever way that is found out; and the row that a single one wrote."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from flight_replica.keys import KeyCodec
from flight_replica.schema import Column, TableSchema
from flight_replica.state.op_rows import _SPREAD, KEPT_ARRAYS_OPS_MIN, HeldOps, OpRows

_KINDS = [pa.int8(), pa.int16(), pa.int32(), pa.int64(), pa.uint8(), pa.uint64()]
_COUNT = 3000
_random = np.random.default_rng(20)


def _keys(kind: pa.DataType, spread: str) -> np.ndarray:
    limits = np.iinfo(kind.to_pandas_dtype())
    span = int(limits.max) - int(limits.min)
    numbers = {
        "one key": np.zeros(_COUNT, np.uint64),
        "few keys": _random.integers(0, min(50, span), _COUNT, np.uint64),
        "from end to end": _random.integers(0, span, _COUNT, np.uint64, endpoint=True),
        "far apart": _random.integers(0, 2000, _COUNT, np.uint64)
        % np.uint64(256)
        * np.uint64(max(1, span // 256)),
        "each once": np.arange(_COUNT, dtype=np.uint64) % np.uint64(span),
    }[spread]
    return (numbers + np.uint64(int(limits.min) % 2**64)).astype(limits.dtype)


def _newest(keys: np.ndarray, kind: pa.DataType) -> dict[int, int]:
    """Key -> the number of the op that is found to be its newest, out of one op for each of `keys`."""
    schema = TableSchema((Column("k", kind, False), Column("v", pa.int64())), ("k",))
    values = pa.array(keys)
    ops = pa.RecordBatch.from_arrays(
        [
            pa.array(range(1, len(keys) + 1), pa.uint64()),
            pa.array(["UPDATE"] * len(keys)),
            KeyCodec(schema).encode([values]),
            values,
            pa.array(range(len(keys)), pa.int64()),
        ],
        schema=schema.feed_schema,
    )
    rows = OpRows(schema).newest(ops)
    found = dict(zip(rows["c0"].to_pylist(), rows["c1"].to_pylist(), strict=True))
    assert len(rows) == len(found)
    return found


@pytest.mark.parametrize("spread", ["one key", "few keys", "from end to end", "far apart", "each once"])
@pytest.mark.parametrize("kind", _KINDS, ids=str)
def test_the_last_op_of_each_integer_key_is_its_newest(kind: pa.DataType, spread: str) -> None:
    keys = _keys(kind, spread)
    assert _newest(keys, kind) == {int(key): number for number, key in enumerate(keys)}


@pytest.mark.parametrize("kind", [pa.int64(), pa.uint64()], ids=str)
def test_integer_keys_that_share_a_slot_are_told_apart(kind: pa.DataType) -> None:
    """Forced collisions: multiples of the spreading number that differ in their last bits alone."""
    inverse = pow(int(_SPREAD), -1, 2**64)
    colliding = np.array([(7 << 60) + n for n in range(_COUNT // 3)], np.uint64) * np.uint64(inverse)
    keys = _random.permutation(np.tile(colliding, 3)).astype(kind.to_pandas_dtype())
    assert len(set(colliding * _SPREAD >> np.uint64(48))) == 1
    assert _newest(keys, kind) == {int(key): number for number, key in enumerate(keys)}


def test_no_ops_have_no_newest() -> None:
    schema = TableSchema((Column("k", pa.int64(), False),), ("k",))
    ops = pa.RecordBatch.from_pylist([], schema=schema.feed_schema)
    assert len(OpRows(schema).newest(ops)) == 0


@pytest.mark.parametrize("count", [1, KEPT_ARRAYS_OPS_MIN - 1, KEPT_ARRAYS_OPS_MIN, 100])
def test_each_op_of_a_batch_gives_its_row_also_once_columns_were_added(count: int) -> None:
    key, value = Column("k", pa.int64(), False), Column("v", pa.string())
    schema = TableSchema((key, value), ("k",))
    wider = TableSchema((key, value, Column("d", pa.int32(), default=7)), ("k",))
    ops = pa.RecordBatch.from_pylist(
        [
            {"seq": n + 1, "op": "DELETE" if n % 3 == 2 else "INSERT", "pk_bytes": b"", "k": n, "v": f"{n}"}
            for n in range(count)
        ],
        schema=schema.feed_schema,
    )
    held = HeldOps(ops)
    for rows, more in ((OpRows(schema), {}), (OpRows(wider), {"d": 7}), (OpRows(schema), {})):
        found = [rows.row(held, n) for n in range(count)]
        assert found == [None if n % 3 == 2 else {"k": n, "v": f"{n}"} | more for n in range(count)]
