"""`TextBase`: a base whose byte columns are served as strings, where they are UTF-8 throughout."""

from __future__ import annotations

import logging
from dataclasses import replace
from functools import partial

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import fs

from flight_replica.base.folder import Folder
from flight_replica.base.on_demand import OnDemandBase
from flight_replica.base.source import BaseFile, BaseSnapshot, BaseSource
from flight_replica.errors import InvalidText, LineageChanged
from flight_replica.keys import KeyCodec
from flight_replica.schema import TableSchema
from flight_replica.text_columns import TextChoice, TextColumns, to_text

_log = logging.getLogger(__name__)

_BATCH_ROWS = 65_536


class TextBase:
    """A `BaseSource` over another one. Every live value of a text column is read once before it is served.

    A lenient column that holds other bytes is bytes for good; where it was text before, the table has to
    begin afresh, since types of a table that is served don't change.
    """

    def __init__(self, base: BaseSource, choice: TextChoice, *, is_joined: bool = False) -> None:
        """`is_joined`: a log already goes by what is text now, so that nothing can turn to bytes quietly."""
        self._base = base
        self._choice = choice
        self._has_loaded = is_joined

    def poll(self) -> int | None:
        return self._base.poll()

    def load(self) -> BaseSnapshot:
        """The snapshot with strings.

        Raises `InvalidText` with column and key, `LineageChanged` where a lenient column turns to bytes while
        it is served, `ConfigError` for a name that is no byte column, and what the other base raises.
        """
        snapshot = self._base.load()
        self._choice.texts.check(snapshot.schema)
        while True:
            texts = self._choice.texts
            try:
                found = in_text(snapshot, texts)
            except InvalidText as error:
                self._leave_as_bytes(snapshot.table, error)
            else:
                self._has_loaded = True
                return found

    def _leave_as_bytes(self, table: str, error: InvalidText) -> None:
        self._choice.leave_as_bytes(error)
        _log.warning("text column left as bytes table=%s reason=%s", table, error)
        if self._has_loaded:
            raise LineageChanged(
                f"table {table!r}: column {error.column!r} turns from text to bytes: {error}"
            )


class OnDemandTextBase(TextBase):
    """The same over an `OnDemandBase`."""

    def __init__(self, base: BaseSource, on_demand: OnDemandBase, choice: TextChoice) -> None:
        """`base` and `on_demand` are one object, as what it is in either way."""
        super().__init__(base, choice, is_joined=True)
        self._on_demand = on_demand

    @property
    def progress(self) -> str:
        return self._on_demand.progress

    @property
    def remark(self) -> str:
        return self._on_demand.remark

    def resume(self) -> None:
        self._on_demand.resume()

    def want(self, seq: int) -> None:
        self._on_demand.want(seq)

    def close(self) -> None:
        self._on_demand.close()


def in_text(snapshot: BaseSnapshot, texts: TextColumns) -> BaseSnapshot:
    """`snapshot` with strings. Raises `InvalidText` for a live value that isn't UTF-8."""
    schema = texts.apply(snapshot.schema)
    for file in snapshot.files:
        _check_file(file, snapshot.schema, texts)
    return replace(snapshot, schema=schema)


def _check_file(file: BaseFile, schema: TableSchema, texts: TextColumns) -> None:
    """Raise `InvalidText` for a live row's value that isn't UTF-8."""
    names = [c.name for c in schema.columns if texts.is_text(c) and c.name in file.columns]
    if not names:
        return
    folder = Folder(file.store or fs.LocalFileSystem(), "", file.store is None, file.path)
    with folder.reading(f"base file {file.path}"), folder.filesystem.open_input_file(file.path) as opened:
        start = 0
        wanted = list(dict.fromkeys([*names, *schema.primary_key]))
        for batch in pq.ParquetFile(opened).iter_batches(_BATCH_ROWS, columns=wanted):
            live = _live_rows(batch, start, file.deleted)
            start += len(batch)
            for name in names:
                to_text(live.column(name), name, partial(_key, live, schema))


def _live_rows(batch: pa.RecordBatch, start: int, deleted: np.ndarray) -> pa.RecordBatch:
    first, last = np.searchsorted(deleted, [start, start + len(batch)])
    if first == last:
        return batch
    is_live = np.ones(len(batch), np.bool_)
    is_live[deleted[first:last] - start] = False
    return batch.filter(pa.array(is_live))


def _key(batch: pa.RecordBatch, schema: TableSchema, row: int) -> bytes:
    columns = [
        batch.column(name).slice(row, 1).cast(c.type)
        for name, c in zip(schema.primary_key, schema.key_columns, strict=True)
    ]
    key: bytes = KeyCodec(schema).encode(columns)[0].as_py()
    return key
