"""How an answer is written: table, csv, json, jsonl, parquet, arrow. Rows stream, in little memory."""

from __future__ import annotations

import io
import itertools
import json
import math
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Protocol

import pyarrow as pa
import pyarrow.parquet as pq

from flight_replica.errors import ConfigError
from flight_replica.text_table import plain, table_lines, values

__all__ = ["BINARY", "FORMATS", "TABLE", "Rows", "format_of", "opened", "write"]

TABLE = "table"
FORMATS = (TABLE, "csv", "json", "jsonl", "parquet", "arrow")
BINARY = frozenset({"parquet", "arrow"})
ROWS_SHOWN = 1000  # of a table, which is for people; the other formats have all
ROW_GROUP_BYTES = 32 << 20  # Arrow bytes collected for a row group of Parquet

_CSV_QUOTED = re.compile(r'[,"\r\n]')

OnRows = Callable[[int], None]
"""Told how many rows have come."""


class Rows(Protocol):
    """An answer as it comes."""

    @property
    def schema(self) -> pa.Schema: ...

    def __iter__(self) -> Iterator[pa.RecordBatch]: ...


def format_of(path: Path | None, given: str | None) -> str:
    """The format that was asked for: by name, else by the ending of the file, else a table."""
    ending = path.suffix.removeprefix(".").lower() if path is not None else ""
    return given or (ending if ending in FORMATS else TABLE)


def write(rows: Rows, form: str, out: BinaryIO, on_rows: OnRows = lambda count: None) -> int:
    """Write an answer in a format; the number of its rows."""
    count = 0

    def counted() -> Iterator[pa.RecordBatch]:
        nonlocal count
        for batch in rows:
            count += batch.num_rows
            on_rows(count)
            yield batch

    _WRITERS[form](rows.schema, counted(), out)
    return count


@contextmanager
def opened(path: Path) -> Iterator[BinaryIO]:
    """A file that is there when it is whole, and not before. Raises `ConfigError`."""
    part = path.with_name(f"{path.name}.part")
    try:
        with part.open("wb") as file:
            yield file
        part.replace(path)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise ConfigError(f"{path} can't be written: {error.strerror or error}") from error
    except BaseException:
        part.unlink(missing_ok=True)
        raise


# --- text ---------------------------------------------------------------------------------------------


def _table(schema: pa.Schema, batches: Iterator[pa.RecordBatch], out: BinaryIO) -> None:
    shown: list[Sequence[object]] = []
    count = 0
    for batch in batches:
        count += batch.num_rows
        if len(shown) < ROWS_SHOWN:
            shown += _values(batch.slice(0, ROWS_SHOWN - len(shown)))
    more = f", the first {ROWS_SHOWN} shown" if count > ROWS_SHOWN else ""
    foot = f"({count} {'row' if count == 1 else 'rows'}{more})"
    for line in [*table_lines(schema.names, shown), foot]:
        out.write(f"{line}\n".encode("utf-8", "replace"))


def _csv(schema: pa.Schema, batches: Iterator[pa.RecordBatch], out: BinaryIO) -> None:
    """NULL is nothing at all, an empty text a pair of quotes: readers such as DuckDB's tell them apart."""
    lines = itertools.chain([schema.names], itertools.chain.from_iterable(map(_values, batches)))
    for line in lines:
        out.write(f"{','.join(map(_csv_field, line))}\r\n".encode("utf-8", "replace"))


def _csv_field(value: object) -> str:
    match value:
        case None:
            return ""
        case bool():
            return "true" if value else "false"
        case dict() | list() | tuple():
            text = json.dumps(_json_value(value), ensure_ascii=False)
        case _:
            text = str(plain(value))
    return '"' + text.replace('"', '""') + '"' if not text or _CSV_QUOTED.search(text) else text


def _jsonl(schema: pa.Schema, batches: Iterator[pa.RecordBatch], out: BinaryIO) -> None:
    for line in _json_rows(schema, batches):
        out.write(f"{line}\n".encode())


def _json(schema: pa.Schema, batches: Iterator[pa.RecordBatch], out: BinaryIO) -> None:
    """One document, an array with a line a row."""
    before = "["
    for line in _json_rows(schema, batches):
        out.write(f"{before}{line}".encode())
        before = ",\n"
    out.write(b"[]\n" if before == "[" else b"]\n")


def _json_rows(schema: pa.Schema, batches: Iterator[pa.RecordBatch]) -> Iterator[str]:
    names = _unique(schema.names)
    for batch in batches:
        for row in _values(batch):
            yield json.dumps(dict(zip(names, map(_json_value, row), strict=True)), allow_nan=False)


def _json_value(value: object) -> object:
    """A value as JSON has it; NaN and infinities, which it hasn't, as their names."""
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, list | tuple):
        return [_json_value(item) for item in value]
    if isinstance(value, dict):
        return {str(name): _json_value(item) for name, item in value.items()}
    return plain(value)


def _unique(names: Sequence[str]) -> list[str]:
    """Names without repetition, since a result may have one twice: those get their place behind them."""
    taken = {name for name in names if names.count(name) == 1}
    found = []
    for place, name in enumerate(names):
        unique = name
        while name not in taken and (unique == name or unique in taken):
            unique = f"{unique}_{place}"
        taken.add(unique)
        found.append(unique)
    return found


def _values(batch: pa.RecordBatch) -> Iterator[tuple[object, ...]]:
    if not batch.num_columns:
        return iter([()] * batch.num_rows)
    return zip(*map(values, batch.columns), strict=True)


# --- binary -------------------------------------------------------------------------------------------


class _Counting(io.RawIOBase):
    """A sink that knows how far it is: a pipe doesn't. It leaves `out` open."""

    def __init__(self, out: BinaryIO) -> None:
        self._out = out
        self._at = 0

    def writable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def write(self, data: object) -> int:
        count = memoryview(data).nbytes  # type: ignore[arg-type]
        self._out.write(data)  # type: ignore[call-overload]
        self._at += count
        return count

    def flush(self) -> None:
        self._out.flush()


def _parquet(schema: pa.Schema, batches: Iterator[pa.RecordBatch], out: BinaryIO) -> None:
    with pq.ParquetWriter(_Counting(out), schema) as writer:
        group: list[pa.RecordBatch] = []
        size = 0
        for batch in batches:
            group.append(batch)
            size += batch.nbytes
            if size >= ROW_GROUP_BYTES:
                writer.write_table(pa.Table.from_batches(group, schema))
                group, size = [], 0
        if group:
            writer.write_table(pa.Table.from_batches(group, schema))


def _arrow(schema: pa.Schema, batches: Iterator[pa.RecordBatch], out: BinaryIO) -> None:
    """The IPC file format."""
    with pa.ipc.new_file(_Counting(out), schema) as writer:
        for batch in batches:
            writer.write_batch(batch)


_WRITERS: dict[str, Callable[[pa.Schema, Iterator[pa.RecordBatch], BinaryIO], None]] = {
    TABLE: _table,
    "csv": _csv,
    "json": _json,
    "jsonl": _jsonl,
    "parquet": _parquet,
    "arrow": _arrow,
}
