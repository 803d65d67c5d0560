"""A Flight SQL client for the command line: ADBC, as anybody would use it, and how answers are printed."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TextIO

import adbc_driver_flightsql.dbapi as flightsql
import adbc_driver_manager
import pyarrow as pa

from flight_replica.errors import InvalidStatement, Unavailable

CONNECT_SECONDS = 5.0
_TIMEOUT = "adbc.flight.sql.rpc.timeout_seconds.connect"
_SERVER_TEXT = b"x-arrow-status-message-bin"  # Arrow servers send an error's text so, without any wrapping
_LARGEST_TEXT = 60  # characters of one value in a printed table
_ROWS_SHOWN = 1000  # of a printed table; csv and json print all


def connect(uri: str, options: Mapping[str, str] | None = None) -> flightsql.Connection:
    """A connection in autocommit; `options` of the driver, such as certificates and a token.

    Raises `Unavailable` with one line when nobody answers.
    """
    settings = {_TIMEOUT: str(CONNECT_SECONDS), **(options or {})}
    try:
        return flightsql.connect(uri, db_kwargs=settings, autocommit=True)
    except adbc_driver_manager.Error as error:
        raise Unavailable(f"{uri}: {one_line(error)}") from error


def query(uri: str, statement: str, options: Mapping[str, str] | None = None) -> pa.Table:
    """The rows of one statement. Raises `Unavailable`, `InvalidStatement` with the server's text."""
    with told(uri), connect(uri, options) as connection, connection.cursor() as cursor:
        cursor.execute(statement)
        return cursor.fetch_arrow_table()


@contextmanager
def told(uri: str) -> Iterator[None]:
    """What the driver raises in the block, as `Unavailable` or `InvalidStatement` with the server's text."""
    try:
        yield
    except adbc_driver_manager.OperationalError as error:
        raise Unavailable(f"{uri}: {one_line(error)}") from error
    except adbc_driver_manager.Error as error:
        raise InvalidStatement(one_line(error)) from error


def one_line(error: Exception) -> str:
    """The server's own text where the error carries it, else the driver's; its first line."""
    details = getattr(error, "details", None) or []
    said = [value for name, value in details if name == _SERVER_TEXT]
    text = said[0].decode("utf-8", "replace") if said else str(error)
    return text.partition("\n")[0].strip()


def position_of(table: pa.Table) -> list[dict[str, object]]:
    """The position that an answer states, one entry a table it read."""
    metadata = table.schema.metadata or {}
    found = json.loads(metadata.get(b"merutable.position", b'{"tables": []}'))
    return list(found["tables"])


def print_rows(rows: pa.Table, form: str, out: TextIO = sys.stdout) -> None:
    """`form`: table, csv or json (a line a row). The position goes to stderr, so that output stays data."""
    _PRINTERS[form](rows, out)
    for at in position_of(rows):
        print(f"{at['table']} at seq {at['visible_seq']}, lag {_lag(at['lag_us'])}", file=sys.stderr)


def _lag(lag_us: object) -> str:
    return f"{lag_us / 1000:.1f} ms" if isinstance(lag_us, int) and lag_us >= 0 else "unknown"


def print_status(rows: pa.Table, out: TextIO = sys.stdout) -> None:
    """`merutable_status()` on one screen."""
    _print_table(rows, out)


def _print_table(rows: pa.Table, out: TextIO) -> None:
    names = rows.schema.names
    shown = [[_text(value) for value in row.values()] for row in _rows(rows.slice(0, _ROWS_SHOWN))]
    widths = [max([len(name), *(len(row[i]) for row in shown)]) for i, name in enumerate(names)]
    for line in [names, ["-" * width for width in widths], *shown]:
        print(
            "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip(), file=out
        )
    more = f", the first {_ROWS_SHOWN} shown" if len(rows) > _ROWS_SHOWN else ""
    print(f"({len(rows)} {'row' if len(rows) == 1 else 'rows'}{more})", file=out)


def _print_csv(rows: pa.Table, out: TextIO) -> None:
    writer = csv.writer(out)
    writer.writerow(rows.schema.names)
    writer.writerows([plain(value) for value in row.values()] for row in _rows(rows))


def _print_json(rows: pa.Table, out: TextIO) -> None:
    for row in _rows(rows):
        print(json.dumps(row, default=plain), file=out)


def _rows(rows: pa.Table) -> Sequence[dict[str, object]]:
    """Rows with unique names, since a result may have a name twice."""
    unique = [
        f"{name}_{i}" if rows.schema.names.count(name) > 1 else name
        for i, name in enumerate(rows.schema.names)
    ]
    found: list[dict[str, object]] = rows.rename_columns(unique).to_pylist()
    return found


def _text(value: object) -> str:
    text = "NULL" if value is None else str(plain(value))
    return text if len(text) <= _LARGEST_TEXT else text[: _LARGEST_TEXT - 1] + "…"


def plain(value: object) -> object:
    """Bytes as hex, other values as they are or as their text."""
    if isinstance(value, bytes):
        return value.hex()
    return value if isinstance(value, int | float | str | bool) or value is None else str(value)


_PRINTERS: dict[str, Callable[[pa.Table, TextIO], None]] = {
    "table": _print_table,
    "csv": _print_csv,
    "json": _print_json,
}
