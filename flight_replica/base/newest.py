"""Which rows of merutable's data files are the table: the newest version of each key, if it is a put.

Values in, positions out; nothing here opens a file. Deletion vectors come first, then the highest
seq of a key wins, then tombstones go: in this order, since a tombstone of one file hides the puts
of others. Source: merutable format, sections 3.2 (internal keys) and 9 (merge semantics).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from flight_replica.base.deletion_vectors import Positions
from flight_replica.errors import BaseError

_TAG_SIZE = 8  # big-endian (2^56 - 1 - seq) << 8 | op
_SEQ_MAX = np.uint64(2**56 - 1)
_DELETE, _PUT = 0, 1


@dataclass(frozen=True, slots=True)
class Versions:
    """Physical rows of one file, in file order."""

    keys: pa.LargeBinaryArray  # user keys
    seqs: npt.NDArray[np.uint64]
    is_put: npt.NDArray[np.bool_]  # False: a tombstone

    @classmethod
    def from_internal_keys(cls, column: pa.ChunkedArray, name: str) -> Versions:
        """Split `_merutable_ikey` of file `name`. Raises `BaseError` for what can't be an internal key."""
        ikeys = column.cast(pa.large_binary()).combine_chunks()
        if ikeys.null_count:
            raise BaseError(f"file {name}: {ikeys.null_count} internal keys are null")
        tags = _tags(ikeys, name)
        ops = tags & np.uint64(0xFF)
        if (ops > _PUT).any():
            raise BaseError(f"file {name}: internal key with op {ops.max()}, expected {_DELETE} or {_PUT}")
        return cls(pc.binary_slice(ikeys, 0, -_TAG_SIZE), _SEQ_MAX - (tags >> np.uint64(8)), ops == _PUT)

    @classmethod
    def none(cls) -> Versions:
        return cls(pa.array([], pa.large_binary()), np.empty(0, np.uint64), np.empty(0, np.bool_))

    def __len__(self) -> int:
        return len(self.seqs)

    def __getitem__(self, rows: slice) -> Versions:
        return Versions(self.keys[rows], self.seqs[rows], self.is_put[rows])

    def followed_by(self, other: Versions) -> Versions:
        if not len(self):
            return other
        return Versions(
            pa.concat_arrays([self.keys, other.keys]),
            np.concatenate([self.seqs, other.seqs]),
            np.concatenate([self.is_put, other.is_put]),
        )


def dead_rows(files: Sequence[Versions], masked: Sequence[Positions]) -> list[Positions]:
    """Per file the sorted positions that are not in the table; `masked` are those of deletion vectors.

    Versions with the same key and seq hold the same op and values; the first one stays.
    """
    visible = [_without(len(file), gone) for file, gone in zip(files, masked, strict=True)]
    rows = np.concatenate([*visible, np.empty(0, np.bool_)])
    is_put = np.concatenate([*(file.is_put for file in files), np.empty(0, np.bool_)])
    alive = rows & is_put
    if len(files) > 1 or any(not _is_ascending(file.keys) for file in files):
        is_newest = np.zeros(len(rows), np.bool_)
        is_newest[_newest(files, np.flatnonzero(rows))] = True
        alive &= is_newest
    ends = np.cumsum([len(file) for file in files], dtype=np.int64)
    return [np.flatnonzero(~part) for part in np.split(alive, ends)[: len(files)]]


def _tags(ikeys: pa.LargeBinaryArray, name: str) -> npt.NDArray[np.uint64]:
    """The last eight bytes of each internal key as a number."""
    _, offset_buffer, data_buffer = ikeys.buffers()
    offsets = np.frombuffer(offset_buffer, np.int64)[ikeys.offset : ikeys.offset + len(ikeys) + 1]
    sizes = np.diff(offsets)
    if len(sizes) and sizes.min() < _TAG_SIZE:
        raise BaseError(f"file {name}: internal key of {sizes.min()} bytes, need at least {_TAG_SIZE}")
    data = np.frombuffer(data_buffer or b"", np.uint8)
    tags = np.zeros(len(ikeys), np.uint64)
    for byte in range(_TAG_SIZE):  # by byte, not by row
        tags = tags << np.uint64(8) | data[offsets[1:] - _TAG_SIZE + byte]
    return tags


def _without(row_count: int, masked: Positions) -> npt.NDArray[np.bool_]:
    """Which rows stay. Positions past the last row are tolerated, as the engine does."""
    stays = np.ones(row_count, np.bool_)
    stays[masked[masked < row_count]] = False
    return stays


def _is_ascending(keys: pa.LargeBinaryArray) -> bool:
    """Whether the keys are distinct because each is greater than the one before it."""
    return bool(pc.all(pc.less(keys[:-1], keys[1:])).as_py()) if len(keys) > 1 else True


def _newest(files: Sequence[Versions], rows: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Of `rows` (numbered through all files) the one with the highest seq for each key."""
    keys = pa.concat_arrays([file.keys for file in files]).take(pa.array(rows))
    seqs = np.concatenate([file.seqs for file in files])[rows]
    codes = keys.dictionary_encode()
    key_of_row = codes.indices.to_numpy()
    seq_of_key = np.zeros(len(codes.dictionary), np.uint64)
    np.maximum.at(seq_of_key, key_of_row, seqs)
    candidates = np.flatnonzero(seqs == seq_of_key[key_of_row])[::-1]
    row_of_key = np.empty(len(seq_of_key), np.int64)
    row_of_key[key_of_row[candidates]] = (
        candidates  # of equal ones the last assigned, so the first row, stays
    )
    return rows[row_of_key]
