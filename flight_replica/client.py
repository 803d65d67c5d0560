"""A Flight SQL client for the command line: ADBC, as anybody would use it, and how answers are printed."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TextIO, TypeAlias

import adbc_driver_flightsql.dbapi as flightsql
import adbc_driver_manager
import pyarrow as pa

from flight_replica.errors import InvalidStatement, Unavailable
from flight_replica.text_table import printable, table_lines

Connection: TypeAlias = flightsql.Connection

CONNECT_SECONDS = 5.0
_TIMEOUT = "adbc.flight.sql.rpc.timeout_seconds.connect"
_SERVER_TEXT = b"x-arrow-status-message-bin"  # Arrow servers send an error's text so, without any wrapping


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


def position_of(answer: pa.Table | pa.Schema) -> list[dict[str, object]]:
    """The position that an answer, or its schema, states, one entry a table it read."""
    metadata = (answer if isinstance(answer, pa.Schema) else answer.schema).metadata or {}
    found = json.loads(metadata.get(b"merutable.position", b'{"tables": []}'))
    return list(found["tables"])


def freshness(schema: pa.Schema) -> list[str]:
    """A line for each table that an answer read: where it stands, for people."""
    return [
        f"{printable(str(at['table']))} at seq {at['visible_seq']}, lag {_lag(at['lag_us'])}"
        for at in position_of(schema)
    ]


def _lag(lag_us: object) -> str:
    return f"{lag_us / 1000:.1f} ms" if isinstance(lag_us, int) and lag_us >= 0 else "unknown"


def print_status(rows: pa.Table, out: TextIO = sys.stdout) -> None:
    """`merutable_status()` on one screen."""
    _print_table(rows, out)


def _print_table(rows: pa.Table, out: TextIO) -> None:
    values = list(zip(*(column.to_pylist() for column in rows.columns), strict=True))
    for line in [
        *table_lines(rows.schema.names, values),
        f"({len(rows)} {'row' if len(rows) == 1 else 'rows'})",
    ]:
        print(line, file=out)
