"""`KeyPlaces`: where in a native state's table the row of a key probably lies, so that little is read.

A table is built in key order, and what comes later lies behind that in no order. DuckDB knows the smallest
and the largest key of each row group only, so it reads the keys of all that came later. Here one row in
`SAMPLE_ROWS` of the ordered part is known, and of the others, where the key is one number, each one's row id.

All of it is a guess, which whoever looks a key up checks: a row that isn't there is looked for in the whole
table. So nothing depends on DuckDB's row ids, which change when it drops rows that were deleted.
"""

from __future__ import annotations

import logging
import threading
import time
from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import duckdb
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from flight_replica.conform import conform
from flight_replica.keys import KeyCodec, fixed_parts
from flight_replica.schema import TableSchema

__all__ = ["KeyPlaces"]

_log = logging.getLogger(__name__)

Span = tuple[int, int]  # the first and the last row id
NewSession = Callable[[], duckdb.DuckDBPyConnection]

SAMPLE_ROWS = 2048  # what DuckDB reads at once
SAMPLES_MAX = 65_536
SAMPLE_KEY_BYTES_MAX = 128  # of each text in it; longer ones are no samples
OTHERS_MAX = 1 << 21  # rows, of 8 bytes each
PATIENCE_SECONDS = 0.05  # that lookups have taken in vain before the table is looked at, at least
_INTERRUPT_SECONDS = 0.02
_UNSURE_SAMPLES = 8  # the last ones in order may lie among the others, and be larger by chance

_SPREAD = np.uint64(0x9E3779B97F4A7C15)  # 2**64 over the golden ratio: multiples of it lie far apart
_LOW_HALF = np.uint64(2**32 - 1)
_HALF = np.uint64(32)

_Numbers = npt.NDArray[np.uint64]


class KeyPlaces:
    """Of one table under one schema. Thread-safe. Looks on a thread of its own, until `close`."""

    def __init__(self, schema: TableSchema, table: str, new_session: NewSession) -> None:
        """`new_session` makes what looks use, from any thread; nobody else closes it."""
        self._table = table
        self._new_session = new_session
        self._codec = KeyCodec(schema)
        self._key = TableSchema(schema.key_columns, schema.primary_key)
        names = [f"c{schema.names.index(name)}" for name in schema.primary_key]
        self._is_number = len(names) == 1 and _numbers(pa.nulls(0, schema.key_columns[0].type)) is not None
        lengths = [_length_sql(name, c.type) for name, c in zip(names, schema.key_columns, strict=True)]
        terms = [f"{length} <= {SAMPLE_KEY_BYTES_MAX}" for length in lengths if length is not None]
        rows = f"SELECT rowid, {', '.join(names)} FROM {table} WHERE"
        self._samples_sql = f"{rows} {' AND '.join([f'rowid % {SAMPLE_ROWS} = 0', *terms])} ORDER BY rowid"
        self._others_sql = f"{rows} rowid BETWEEN {{first}} AND {{last}}"
        self._places: _Places | None = None  # as looked at last
        self._lock = threading.Lock()
        self._is_closed = False
        self._looker: threading.Thread | None = None  # while it looks, on …
        self._session: duckdb.DuckDBPyConnection | None = None
        self._missed_seconds = 0.0  # since then
        self._look_seconds = PATIENCE_SECONDS  # what looking takes

    def guess(self, key: bytes) -> Span | None:
        """Where the row of `key` (pk_bytes) may be; None where that isn't known."""
        places = self._places
        if places is None:
            return None
        if not self._is_number:
            return places.among_ordered(key)
        number = int.from_bytes(key)
        other = places.among_others(number)
        return places.among_ordered(number) if other is None else (other, other)

    def missed(self, row_id: int, seconds: float) -> None:
        """The row at `row_id` was found in the whole table, which took `seconds`.

        Once that has happened for as long as it takes, the table is looked at anew: then lookups and looks
        together take at most twice as long as lookups alone would.
        """
        with self._lock:
            if self._is_closed or (self._places is not None and not self._can_know(row_id, self._places)):
                return
            self._missed_seconds += seconds
            if self._looker is not None or self._missed_seconds < self._look_seconds:
                return
            self._missed_seconds = 0.0
            session = self._new_session()
            looker = threading.Thread(
                target=self._run, args=(session,), name=f"key-places-{self._table}", daemon=True
            )
            try:
                looker.start()
            except RuntimeError as error:  # the system has no thread more; a later miss tries again
                session.close()
                _log.warning("key places not looked for table=%s error=%s", self._table, error)
                return
            self._session, self._looker = session, looker

    def _run(self, session: duckdb.DuckDBPyConnection) -> None:
        began = time.monotonic()
        try:
            self._places = self._look(session)
        except duckdb.Error as error:  # a later miss tries again
            if not self._is_closed:
                _log.warning("key places not found out table=%s error=%s", self._table, error)
        finally:
            with self._lock:
                session.close()
                self._looker = self._session = None
                self._missed_seconds = 0.0
                self._look_seconds = max(PATIENCE_SECONDS, time.monotonic() - began)

    def close(self) -> None:
        """Look no more. Returns when nothing is read any longer. Idempotent."""
        with self._lock:
            self._is_closed = True
            looker = self._looker
        while looker is not None and looker.is_alive():
            with self._lock:
                if self._session is not None:  # what is just between two statements goes on, so again
                    self._session.interrupt()
            looker.join(_INTERRUPT_SECONDS)

    def _can_know(self, row_id: int, places: _Places) -> bool:
        """Whether looking anew would tell of the row at `row_id`."""
        return row_id < places.ordered_end + (OTHERS_MAX if self._is_number else 0)

    def _look(self, session: duckdb.DuckDBPyConnection) -> _Places:
        """The places of now. The table may change meanwhile."""
        row_ids, columns = self._rows(session, self._samples_sql)
        numbers = _numbers(columns[0]) if self._is_number else None
        keys = self._codec.encode(columns).to_pylist() if numbers is None else numbers.tolist()
        count = next((n for n in range(1, len(keys)) if keys[n] <= keys[n - 1]), len(keys))
        last = max(0, count - 1 - _UNSURE_SAMPLES)
        chosen = [*range(0, last, 1 + last // SAMPLES_MAX), last] if count else []
        ordered_end = int(row_ids[last]) if count else 0
        places = _Places([keys[n] for n in chosen], row_ids[chosen].tolist(), ordered_end)
        if not self._is_number:
            return places
        row_ids, columns = self._rows(
            session, self._others_sql.format(first=ordered_end, last=ordered_end + OTHERS_MAX - 1)
        )
        numbers = _numbers(columns[0])
        assert numbers is not None, "the key is a number"
        entries = _tags(numbers) | (row_ids - ordered_end).astype(np.uint64)
        entries.sort()
        return _Places(places.keys, places.row_ids, ordered_end, entries)

    def _rows(
        self, session: duckdb.DuckDBPyConnection, sql: str
    ) -> tuple[npt.NDArray[np.int64], Sequence[pa.Array]]:
        """The row ids that a query gives, and their keys by columns, in the table's types."""
        row_ids, *columns = (column.combine_chunks() for column in session.sql(sql).to_arrow_table().columns)
        keys = pa.RecordBatch.from_arrays(columns, list(self._key.names))
        return row_ids.to_numpy(), conform(keys, self._key).columns


@dataclass(frozen=True, slots=True)
class _Places:
    """What was seen of a table at some moment."""

    keys: Sequence[int] | Sequence[bytes]  # of the rows at `row_ids`, ascending as these
    row_ids: Sequence[int]
    ordered_end: int  # the last of these; what lies behind it isn't known to be in order
    # Of each row from there on its key's tag and, in the lower half, how far from there it is; ascending.
    others: _Numbers = field(default_factory=lambda: np.empty(0, np.uint64))

    def among_ordered(self, key: int | bytes) -> Span | None:
        """Between which rows of the ordered part `key` would lie."""
        if not self.keys:
            return None
        at = bisect_right(self.keys, key)
        if at == 0:
            return 0, self.row_ids[0]
        if at == len(self.keys):
            return None
        first, last, low, high = self.row_ids[at - 1], self.row_ids[at], self.keys[at - 1], self.keys[at]
        if not isinstance(key, int) or not isinstance(low, int) or not isinstance(high, int):
            return first, last
        exactly = first + key - low  # where each number between the two has a row
        return (exactly, exactly) if high - low == last - first else (first, last)

    def among_others(self, key: int) -> int | None:
        """The row id of a key with the tag of `key`."""
        tag = _tags(np.array([key], np.uint64))[0]
        at = int(self.others.searchsorted(tag | _LOW_HALF, "right")) - 1  # the newest
        if at < 0 or self.others[at] < tag:
            return None
        return self.ordered_end + int(self.others[at] & _LOW_HALF)


def _numbers(values: pa.Array) -> _Numbers | None:
    """The numbers whose bytes are the keys `values`; None where keys of this type are no such numbers."""
    parts = fixed_parts(values)
    return parts.astype(np.uint64) if parts is not None and parts.ndim == 1 else None


def _tags(keys: _Numbers) -> _Numbers:
    """The upper half of each is a hash of the key, the lower one 0."""
    return keys * _SPREAD >> _HALF << _HALF


def _length_sql(name: str, kind: pa.DataType) -> str | None:
    """How many bytes a key column has; None where they are few anyway."""
    if pa.types.is_string(kind):
        return f"strlen({name})"
    if pa.types.is_binary(kind) or pa.types.is_fixed_size_binary(kind):
        return f"octet_length({name})"
    return None
