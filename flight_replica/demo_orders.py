"""The demo's table of orders, made up from a seed: its DDL, its rows and what the writer does to them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

CREATE = """CREATE TABLE orders (
  id BIGINT PRIMARY KEY,
  customer INTEGER NOT NULL,
  status VARCHAR NOT NULL,
  country VARCHAR NOT NULL,
  amount DECIMAL(12, 2) NOT NULL,
  note VARCHAR,
  updated_at TIMESTAMP WITH TIME ZONE NOT NULL
)"""

_STATUSES = pa.array(["new", "paid", "packed", "shipped", "delivered", "returned"])
_COUNTRIES = pa.array(["DE", "FR", "IT", "ES", "NL", "PL", "SE", "US", "GB", "JP"])
_CUSTOMERS = 50_000
_FIRST_DAY_US = 1_700_000_000_000_000  # 2023-11-14


def orders(ids: np.ndarray[tuple[int], np.dtype[np.int64]], random: np.random.Generator) -> pa.RecordBatch:
    """A version of each of these orders."""
    count = len(ids)
    amounts = pa.array(random.integers(100, 5_000_000, count)).cast(pa.decimal128(21, 0))
    updated = _FIRST_DAY_US + random.integers(0, 10**13, count)
    notes = pa.array([None, "gift", "call before delivery", "express"])
    return pa.RecordBatch.from_arrays(
        [
            pa.array(ids, pa.int64()),
            pa.array(random.integers(0, _CUSTOMERS, count), pa.int32()),
            _STATUSES.take(pa.array(random.integers(0, len(_STATUSES), count))),
            _COUNTRIES.take(pa.array(random.integers(0, len(_COUNTRIES), count))),
            _cents(amounts),
            notes.take(pa.array(random.integers(0, len(notes), count))),
            pa.array(updated, pa.timestamp("us", "UTC")),
        ],
        names=["id", "customer", "status", "country", "amount", "note", "updated_at"],
    )


def _cents(amounts: pa.Array) -> pa.Array:
    """Whole cents as DECIMAL(12, 2)."""
    unscaled = pa.Array.from_buffers(pa.decimal128(21, 2), len(amounts), amounts.buffers())
    return unscaled.cast(pa.decimal128(12, 2))


@dataclass(frozen=True, slots=True)
class Step:
    """What the writer does in one go: rows to put, and ids to delete."""

    puts: pa.RecordBatch
    deletes: tuple[int, ...]


class Orders:
    """Which orders there are, and a random next step: of 10 ops 6 change an order, 3 add, 1 deletes."""

    def __init__(self, row_count: int, seed: int) -> None:
        self._random = np.random.default_rng(seed)
        self._next_id = row_count

    def step(self, op_count: int) -> Step:
        added = np.arange(self._next_id, self._next_id + 3 * op_count // 10, dtype=np.int64)
        self._next_id += len(added)
        deleted = np.unique(self._random.integers(0, self._next_id, op_count // 10))
        changed = np.unique(self._random.integers(0, self._next_id, op_count - len(added) - len(deleted)))
        ids = np.union1d(np.setdiff1d(changed, deleted), added)
        return Step(orders(ids, self._random), tuple(int(key) for key in deleted))
