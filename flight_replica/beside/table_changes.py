"""`TableChanges`: the changes that the table files of one version hold, from a seq on, in seq order.

Files are ordered by key, so what is newer than `since` is read once, sorted in chunks, spooled where it is
more than one chunk, merged, and then read from any place. Memory is bounded by the chunk, whatever the
table's size. Older versions of a row that a file still has come along: in order they do no harm. What
deletion vectors hide is left out. Source: merutable format, sections 1.7, 5 and 6.
"""

from __future__ import annotations

import os
import tempfile
import weakref
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from flight_replica.base.data_files import CheckedFile
from flight_replica.base.deletion_vectors import read_deletion_vector
from flight_replica.base.newest import Versions
from flight_replica.base.row_blobs import field_counts
from flight_replica.errors import Closed
from flight_replica.log import batches
from flight_replica.log.source import Op
from flight_replica.schema import TableSchema
from flight_replica.text_columns import TextColumns

_IKEY, _SEQ, _VALUE = "_merutable_ikey", "_merutable_seq", "_merutable_value"
_OP_NAMES = pa.array([Op.DELETE.value, Op.INSERT.value])
READ_ROWS = 16_384  # of one file at a time, the row groups of level 0
CHUNK_BYTES = 64 << 20  # sorted in memory; what is more goes to disk
PAGE_ROWS = 4096  # of a spooled run or the result: what the merge holds of each run


class TableChanges:
    """Every op in `(since, through]` that the files hold. Immutable; safe to share between threads.

    What is spooled goes with the object.

    State-complete at `through`, not between: of a key that changed twice the older op may be gone.
    """

    def __init__(
        self,
        files: Sequence[CheckedFile],
        schema: TableSchema,
        since: int,
        through: int,
        directory: Path,
        *,
        chunk_bytes: int = CHUNK_BYTES,
        is_over: Callable[[], bool] = lambda: False,
    ) -> None:
        """Reads and sorts; takes as long as reading the files. `directory` is where it may spool.

        Raises `Closed` when `is_over` says so on the way, `BaseNotUsable` for a file that is gone,
        `BaseError` for a damaged one.
        """
        self.since = since
        self.through = through
        self.schema = schema
        self._directory = directory
        self._pages: list[pa.RecordBatch] | None = None  # in memory, None: in `_spool`
        self._spool: _Spool | None = None
        self._ends: list[int] = []  # of each page its last seq
        runs: list[_Spool] = []
        try:
            self._sort(_chunks(files, schema, since, through, chunk_bytes, is_over), runs, is_over)
        finally:
            for run in runs:
                run.close()

    def _sort(
        self, chunks: Iterator[pa.RecordBatch], runs: list[_Spool], is_over: Callable[[], bool]
    ) -> None:
        held: pa.RecordBatch | None = None
        for chunk in chunks:
            if held is not None:
                runs.append(_Spool.of(self._directory, _pages(held)))
            held = chunk
        if not runs:
            self._pages = [] if held is None else list(_pages(held))
            self._ends = [_last_seq(page) for page in self._pages]
            return
        assert held is not None, "runs without a last chunk"
        runs.append(_Spool.of(self._directory, _pages(held)))
        del held
        self._spool = _Spool(self._directory, self.schema.feed_schema)
        for page in _merged(runs):
            if is_over():
                raise Closed("the feed is closed")
            self._spool.append(page)
            self._ends.append(_last_seq(page))

    def read(self, since: int, through: int, byte_limit: int) -> tuple[pa.RecordBatch, int]:
        """The next ops of `(since, through]`, and the seq up to which that is all of them.

        `since` and `through` lie within those of the whole.
        """
        assert self.since <= since and through <= self.through, f"({since}, {through}]"
        pieces: list[pa.RecordBatch] = []
        left = byte_limit
        for number in range(bisect_right(self._ends, since), len(self._ends)):
            page = batches.between(self._page(number), since, through)
            if not page.num_rows:
                break
            if pieces and page.nbytes > left:
                return batches.concat(pieces, self.schema.feed_schema), _last_seq(pieces[-1])
            rows = batches.fitting_rows(page, left)
            pieces.append(page.slice(0, rows))
            if rows < page.num_rows:
                return batches.concat(pieces, self.schema.feed_schema), _last_seq(pieces[-1])
            left -= page.nbytes
        return batches.concat(pieces, self.schema.feed_schema), through

    def _page(self, number: int) -> pa.RecordBatch:
        if self._pages is not None:
            return self._pages[number]
        assert self._spool is not None, "changes neither in memory nor spooled"
        return self._spool.read(number)


class _Spool:
    """Batches of one schema in a file without a name, which goes with it."""

    def __init__(self, directory: Path, schema: pa.Schema) -> None:
        self._schema = schema
        directory.mkdir(parents=True, exist_ok=True)
        self._file = tempfile.TemporaryFile(dir=directory)  # noqa: SIM115
        self.close = weakref.finalize(self, self._file.close)  # with the last reader, if not before
        self._places: list[tuple[int, int]] = []  # offset and size of each batch

    @classmethod
    def of(cls, directory: Path, pages: Iterator[pa.RecordBatch]) -> _Spool:
        first = next(pages)
        spool = cls(directory, first.schema)
        try:
            spool.append(first)
            for page in pages:
                spool.append(page)
        except BaseException:
            spool.close()
            raise
        return spool

    def __len__(self) -> int:
        return len(self._places)

    def append(self, batch: pa.RecordBatch) -> None:
        data = batch.serialize()
        offset = sum(self._places[-1]) if self._places else 0
        self._file.write(data)
        self._file.flush()
        self._places.append((offset, data.size))

    def read(self, number: int) -> pa.RecordBatch:
        """One batch. By any thread: it moves no position."""
        offset, size = self._places[number]
        return pa.ipc.read_record_batch(
            pa.py_buffer(os.pread(self._file.fileno(), size, offset)), self._schema
        )


def _pages(rows: pa.RecordBatch) -> Iterator[pa.RecordBatch]:
    for start in range(0, rows.num_rows, PAGE_ROWS):
        yield rows.slice(start, PAGE_ROWS)


def _merged(runs: Sequence[_Spool]) -> Iterator[pa.RecordBatch]:
    """The rows of all runs in seq order, a row that is there twice once."""
    held = [run.read(0) for run in runs]
    following = [1] * len(runs)
    last = 0
    while held:
        for number, rows in enumerate(held):
            if not rows.num_rows and following[number] < len(runs[number]):
                held[number] = runs[number].read(following[number])
                following[number] += 1
        # What a run holds no further rows of bounds nothing.
        unfinished = [_last_seq(rows) for n, rows in enumerate(held) if following[n] < len(runs[n])]
        bound = min(unfinished, default=2**64 - 1)
        parts = [batches.between(rows, last, bound) for rows in held]
        merged = _in_order(batches.concat([part for part in parts if part.num_rows], held[0].schema))
        yield from _pages(merged)
        if not unfinished:
            return
        held = [batches.between(rows, bound, 2**64 - 1) for rows in held]
        last = bound


def _chunks(
    files: Sequence[CheckedFile],
    schema: TableSchema,
    since: int,
    through: int,
    chunk_bytes: int,
    is_over: Callable[[], bool],
) -> Iterator[pa.RecordBatch]:
    """Sorted batches of about `chunk_bytes`, none of them empty."""
    held: list[pa.RecordBatch] = []
    size = 0
    for file in files:
        if file.entry.seq_max <= since:
            continue
        for rows in _changes(file, schema, since, through):
            if is_over():
                raise Closed("the feed is closed")
            held.append(rows)
            size += rows.nbytes
            if size >= chunk_bytes:
                yield _in_order(pa.concat_batches(held))
                held, size = [], 0
    if held:
        yield _in_order(pa.concat_batches(held))


def _in_order(rows: pa.RecordBatch) -> pa.RecordBatch:
    """By seq; a seq that was flushed twice, after a replay of the log, once."""
    seqs = batches.seqs_of(rows)
    _, order = np.unique(seqs, return_index=True)
    return rows.take(pa.array(order))


def _last_seq(rows: pa.RecordBatch) -> int:
    return int(batches.seqs_of(rows)[-1])


# --- one file ---------------------------------------------------------------------------------------


def _changes(file: CheckedFile, schema: TableSchema, since: int, through: int) -> Iterator[pa.RecordBatch]:
    """The file's visible rows with seq in `(since, through]`, in the feed's shape and the file's order."""
    entry = file.entry
    vector = entry.deletion_vector
    masked = np.empty(0, np.int64)
    if vector is not None:
        masked = read_deletion_vector(file.folder, vector, entry.row_count, entry.path)
    # Rows from before a column was added are stored short, and only the blob says so.
    wants_blobs = file.has_blobs
    columns = [_IKEY, *([_VALUE] if wants_blobs else []), *file.schema.names]
    problem = "can't be read as Parquet"
    with file.folder.reading(f"file {entry.path}", problem), file.folder.open(entry.path) as opened:
        parquet = pq.ParquetFile(opened)
        first_row = 0
        for group in range(parquet.num_row_groups):
            row_count = parquet.metadata.row_group(group).num_rows
            if _reaches(parquet, group, since):
                start = first_row
                for batch in parquet.iter_batches(READ_ROWS, row_groups=[group], columns=columns):
                    rows = _feed_rows(batch, file, schema, since, through, masked - start)
                    start += batch.num_rows
                    if rows.num_rows:
                        yield rows
            first_row += row_count


def _reaches(parquet: pq.ParquetFile, group: int, since: int) -> bool:
    column = parquet.metadata.row_group(group).column(parquet.schema_arrow.get_field_index(_SEQ))
    statistics = column.statistics
    return statistics is None or not statistics.has_min_max or statistics.max > since


def _feed_rows(
    batch: pa.RecordBatch,
    file: CheckedFile,
    schema: TableSchema,
    since: int,
    through: int,
    masked: np.ndarray,
) -> pa.RecordBatch:
    """`masked` counts from the batch's first row."""
    versions = Versions.from_internal_keys(pa.chunked_array([batch.column(_IKEY)]), file.entry.path)
    is_wanted = (versions.seqs > since) & (versions.seqs <= through)
    is_wanted[masked[(masked >= 0) & (masked < len(versions))]] = False
    rows = np.flatnonzero(is_wanted)
    taken = batch.take(pa.array(rows))
    counts = field_counts(taken.column(_VALUE), file.entry.path) if file.has_blobs else None
    ops = _OP_NAMES.take(pa.array(versions.is_put[rows].astype(np.int8)))
    head = [
        pa.array(versions.seqs[rows]),
        ops,
        versions.keys.take(pa.array(rows)).cast(pa.binary()),
    ]
    stored = TextColumns.stored(schema)
    columns = [_column(taken, file, counts, stored, number) for number in range(len(stored.columns))]
    found = pa.RecordBatch.from_arrays([*head, *columns], schema=stored.feed_schema)
    return TextColumns.strings_of(schema).apply_to_ops(found)


def _column(
    rows: pa.RecordBatch,
    file: CheckedFile,
    counts: np.ndarray | None,
    schema: TableSchema,
    number: int,
) -> pa.Array:
    """One column of the table: as stored, or its default in rows that are older than it."""
    column = schema.columns[number]
    default = pa.scalar(column.default, column.type)
    if column.name not in file.schema.names:
        return _repeat(default, rows.num_rows)
    values = rows.column(column.name)
    if counts is None:
        return values
    is_short = (counts > 0) & (counts <= number)
    if not is_short.any():
        return values
    places = np.where(is_short, rows.num_rows, np.arange(rows.num_rows))
    return pa.concat_arrays([values, _repeat(default, 1)]).take(pa.array(places))


def _repeat(value: pa.Scalar, count: int) -> pa.Array:
    return pa.array([value.as_py()], value.type).take(pa.array(np.zeros(count, np.int64)))
