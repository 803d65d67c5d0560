"""Which rows of base files the tail stands for, one bitmap a file: what merge on read leaves out of a scan.

To look a row up by its number in the file costs a fraction of a join on its key, and the same however long
the tail is (docs/decisions/0012). It takes a file whose rows are in the order of a key of one integer: of
such a file, which number a key's row has is kept in about a byte a row. All other files are joined.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

import duckdb
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from flight_replica.base.source import BaseFile
from flight_replica.schema import TableSchema
from flight_replica.state.state import Session, StatePosition
from flight_replica.state.writing import registered

Keys = npt.NDArray[np.integer]
Scan = Callable[[int], str]  # a file's number -> a query of the key and number of each row

ROWS_MIN = 50_000  # of all files that may be looked up; below it, a join costs less than to bind bitmaps
ROWS_MAX = 1 << 24  # of a file; to set bits takes a byte a row for a moment
SPREAD_MAX = 16  # how many times a file's rows the range of its keys may be, which takes 1.5 bits a key
ROWS_MAPPED_AT_ONCE = 1 << 21  # by one query, but one file at least; the rest is joined until the next one


class KeyRows:
    """What number the row of each key has in a file, whose keys ascend."""

    def __init__(self, keys: Keys) -> None:
        self._low, self._high = int(keys[0]), int(keys[-1])
        flags = np.zeros(((self._high - self._low) // 64 + 1) * 64, np.bool_)
        flags[self._offsets(keys)] = True
        self._words = np.packbits(flags, bitorder="little").view("<u8")
        counts = np.bitwise_count(self._words)
        self._before = (np.cumsum(counts, dtype=np.uint64) - counts).astype(np.uint32)  # rows, by word

    def _offsets(self, keys: Keys) -> npt.NDArray[np.uint64]:
        offsets: npt.NDArray[np.uint64] = keys.astype(np.uint64) - np.uint64(self._low % 2**64)
        return offsets  # also of narrow and negative ones: all of it is modulo 2**64

    def of(self, keys: Keys) -> npt.NDArray[np.uint64]:
        """The rows of those of `keys` that the file has."""
        offsets = self._offsets(keys[(keys >= self._low) & (keys <= self._high)])
        word, bit = offsets >> np.uint64(6), offsets & np.uint64(63)
        held = self._words[word]
        below = held & ((np.uint64(1) << bit) - np.uint64(1))
        rows = self._before[word] + np.bitwise_count(below).astype(np.uint64)
        found: npt.NDArray[np.uint64] = rows[(held >> bit) & np.uint64(1) == 1]
        return found


def key_rows(keys: Keys, row_count: int) -> KeyRows | None:
    """None for keys that don't ascend, aren't all there or lie too far apart. In the order of the file."""
    if len(keys) != row_count or not row_count or not bool(np.all(keys[1:] > keys[:-1])):
        return None
    if int(keys[-1]) - int(keys[0]) >= SPREAD_MAX * row_count:
        return None
    return KeyRows(keys)


@dataclass(frozen=True, slots=True)
class HiddenRows:
    """The rows that a moment of the tail stands for, of some files."""

    name: str  # of a table in a session with a row of bitmaps, `b0, b1, …` by the files' numbers
    version: int  # of the tail
    bits_by_file: dict[int, bytes]  # 1: the row doesn't count

    def left_out(self, number: int) -> int:
        """How many rows of a file don't count."""
        return int(np.bitwise_count(np.frombuffer(self.bits_by_file[number], np.uint8)).sum())

    def bind(self, session: duckdb.DuckDBPyConnection) -> None:
        row = pa.table({f"b{number}": pa.array([bits]) for number, bits in self.bits_by_file.items()})
        bitmaps = ", ".join(f"{name}::BIT AS {name}" for name in row.column_names)
        with registered(session, row) as incoming:
            session.execute(
                f"CREATE TEMP TABLE IF NOT EXISTS {self.name} AS SELECT {bitmaps} FROM {incoming}"
            )


class RowBits:
    """The bitmaps of one state. Thread-safe; the newest ones are kept for whoever asks next."""

    def __init__(self, number: int, tail: str, files: Sequence[BaseFile], schema: TableSchema) -> None:
        """`number` is the state's, `tail` its table with the ops."""
        self._number = number
        self._tail = tail
        self._files = files
        self._key = f"c{schema.names.index(schema.primary_key[0])}"
        is_integer = len(schema.primary_key) == 1 and pa.types.is_integer(schema.key_columns[0].type)
        self._may_have_rows = [is_integer and 0 < file.row_count <= ROWS_MAX for file in files]
        self._lock = threading.Lock()
        self._rows_by_file: dict[int, KeyRows | None] = {}  # None: it has to be joined
        self._newest: HiddenRows | None = None
        self._made = 0

    def hidden(
        self,
        own_session: Session,
        position: StatePosition,
        touched: Collection[int],
        scan: Scan,
    ) -> HiddenRows | None:
        """What the transaction of a session, which is at `position`, leaves out of `touched` files.

        Not of all of them: others are to be joined. None: of none. It isn't bound to the session yet.
        """
        may_have_rows = [number for number in touched if self._may_have_rows[number]]
        if sum(self._files[number].row_count for number in may_have_rows) < ROWS_MIN:
            return None
        session = own_session()
        with self._lock:
            self._map(session, may_have_rows, scan)
            wanted = {number for number in touched if self._rows_by_file.get(number) is not None}
            if not wanted:
                return None
            return self._at(session, position, wanted)

    def _map(self, session: duckdb.DuckDBPyConnection, touched: Collection[int], scan: Scan) -> None:
        """Learn the rows of touched files, as far as one query may."""
        left = ROWS_MAPPED_AT_ONCE
        for number in touched:
            if left <= 0:
                return
            if number in self._rows_by_file:
                continue
            row_count = self._files[number].row_count
            left -= row_count
            found: pa.Table = session.sql(scan(number)).to_arrow_table()
            keys, rows = (column.to_numpy() for column in found.columns)
            if not bool(np.all(rows[1:] > rows[:-1])):  # DuckDB may hand them out as its threads come
                keys = keys[np.argsort(rows)]
            self._rows_by_file[number] = None if found.column(0).null_count else key_rows(keys, row_count)

    def _at(
        self, session: duckdb.DuckDBPyConnection, position: StatePosition, wanted: set[int]
    ) -> HiddenRows:
        known = self._newest
        if known is not None and known.version > position.tail_version:
            return self._extended(session, position, wanted, None)  # an older moment than the newest one
        if known is None or known.version < position.tail_version or known.bits_by_file.keys() != wanted:
            known = self._newest = self._extended(session, position, wanted, known)
        return known

    def _extended(
        self,
        session: duckdb.DuckDBPyConnection,
        position: StatePosition,
        wanted: set[int],
        known: HiddenRows | None,
    ) -> HiddenRows:
        """The bitmaps at `position`, out of those at an earlier one and the keys that have come since."""
        bits_by_file = {}
        kept = wanted & known.bits_by_file.keys() if known is not None else set()
        newer = self._keys_after(session, known.version) if known is not None and kept else None
        every = self._keys_after(session, 0) if kept != wanted else None
        for number in wanted:
            rows = self._rows_by_file[number]
            assert rows is not None, f"file {number} has no rows by key"
            if known is not None and number in kept:
                assert newer is not None, "keys that have come since"
                bits_by_file[number] = _with(known.bits_by_file[number], rows.of(newer))
            else:
                assert every is not None, "keys of the tail"
                file = self._files[number]
                nothing = bytes((file.row_count + 7) // 8)
                deleted = _with(nothing, file.deleted)
                bits_by_file[number] = _with(deleted, rows.of(every))
        self._made += 1
        return HiddenRows(f'"$bits_{self._number}_{self._made}"', position.tail_version, bits_by_file)

    def _keys_after(self, session: duckdb.DuckDBPyConnection, version: int) -> Keys:
        """Of ops that came after a version of the tail, as the session's transaction sees it."""
        found = session.execute(f"SELECT {self._key} FROM {self._tail} WHERE version > {version}")
        return np.asarray(found.fetchnumpy()[self._key])


def _with(bits: bytes, rows: npt.NDArray[np.integer]) -> bytes:
    """`bits` with those of `rows` set."""
    if not len(rows):
        return bits
    flags = np.unpackbits(np.frombuffer(bits, np.uint8))
    flags[rows] = 1
    return np.packbits(flags).tobytes()
