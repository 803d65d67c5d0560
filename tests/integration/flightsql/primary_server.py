"""A primary of one table behind a server of its own, in this process, and ways to look at it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import adbc_driver_flightsql.dbapi as adbc

from flight_replica.flightsql.limits import DEFAULT_LIMITS, ServerLimits
from flight_replica.flightsql.server import FlightSqlServer
from flight_replica.primary.service import PrimaryService
from flight_replica.primary.settings import PrimarySettings

COOKIES = {"adbc.flight.sql.rpc.with_cookie_middleware": "true"}

Row = tuple[Any, ...]


@contextmanager
def serving(directory: Path, limits: ServerLimits = DEFAULT_LIMITS) -> Iterator[FlightSqlServer]:
    """The table `t (id, a)` with rows 1 and 2, behind a server."""
    with closing(PrimaryService.open(directory, PrimarySettings(publish_seconds=3600))) as service:
        service.write("CREATE TABLE t (id BIGINT PRIMARY KEY, a VARCHAR)")
        service.write("INSERT INTO t VALUES (1, 'a'), (2, 'b')")
        with closing(FlightSqlServer(service, "127.0.0.1", 0, limits)) as server:
            yield server


def connect(server: FlightSqlServer, autocommit: bool = False, **headers: str) -> adbc.Connection:
    """A DB-API connection with cookies; autocommit is off by default, as the DB-API has it."""
    options = COOKIES | {
        f"adbc.flight.sql.rpc.call_header.merutable-{name.replace('_', '-')}": value
        for name, value in headers.items()
    }
    return adbc.connect(f"grpc://127.0.0.1:{server.port}", db_kwargs=options, autocommit=autocommit)


def fetch(connection: adbc.Connection, sql: str, parameters: object = None) -> list[Row]:
    """All rows of one statement, by a cursor of its own."""
    with connection.cursor() as cursor:
        cursor.execute(sql, parameters)
        return list(cursor.fetchall())


def ids(connection: adbc.Connection) -> list[int]:
    """The keys that a connection sees."""
    return [row[0] for row in fetch(connection, "SELECT id FROM t ORDER BY id")]
