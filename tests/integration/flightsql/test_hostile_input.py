"""Input made to take long: it is answered, and meanwhile other clients are too."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pyarrow as pa
import pytest
from pyarrow import flight

from flight_replica._pb import flight_sql_pb2 as pb
from flight_replica.flightsql.server import FlightSqlServer
from tests.integration.flightsql.clients import RawClient, descriptor
from tests.integration.flightsql.test_cancel import OUTER_SECONDS, client_of

BLANKS = " " * 400_000
OTHERS_SECONDS = 5.0  # far above what a loaded machine needs; what this is about took minutes


def _query(sql: str) -> Callable[[flight.FlightClient], None]:
    return lambda client: _read(client, pb.CommandStatementQuery(query=sql))


def _tables(pattern: str) -> Callable[[flight.FlightClient], None]:
    return lambda client: _read(client, pb.CommandGetTables(table_name_filter_pattern=pattern))


def _read(client: flight.FlightClient, command: object) -> None:
    info = client.get_flight_info(descriptor(command))  # type: ignore[arg-type]
    client.do_get(info.endpoints[0].ticket).read_all()


HOSTILE = {
    "runs in a pattern": _tables("%" * 40 + "x"),
    "runs and signs in a pattern": _tables("%a" * 4000),
    "a long pattern": _tables("a" * 1_000_000),
    "blanks in a cast": _query(f"SELECT CAST('{BLANKS[:99_000]}' AS INT)"),
    "blanks in a name": _query(f'SELECT * FROM "{BLANKS}"'),
    "lines in a name": _query(f'SELECT * FROM "{chr(10) * 400_000}"'),
    "a name of many parts": _query("SELECT " + "a." * 40_000 + "b"),
    "a table of many parts": _query("SELECT 1 FROM " + "a." * 40_000 + "b"),
    "many named queries": _query(
        "WITH " + ",".join(f"c{n} AS (SELECT 1)" for n in range(10_000)) + "SELECT 1"
    ),
    "many columns": _query("SELECT " + "id," * 45_000 + "id FROM orders"),
    "aliases of aliases": _query("SELECT 1 AS a0" + "".join(f", a{n} + a{n} AS a{n + 1}" for n in range(40))),
    "many subqueries": _query(
        "SELECT " + ",".join(["(SELECT max(b.id) FROM orders b WHERE b.id = o.id)"] * 500) + " FROM orders o"
    ),
    "tables beside tables": _query(
        "SELECT 1 FROM orders a0" + "".join(f", (SELECT a{n}.id) a{n + 1}" for n in range(300))
    ),
}


@pytest.mark.parametrize("call", HOSTILE.values(), ids=list(HOSTILE))
def test_hostile_input_is_answered_and_delays_nobody_else(
    call: Callable[[flight.FlightClient], None], server: FlightSqlServer
) -> None:
    with client_of(server) as hostile, client_of(server) as other, ThreadPoolExecutor(1) as pool:
        answer = pool.submit(call, hostile)
        longest = 0.0
        while not answer.done() or not longest:
            began = time.monotonic()
            assert RawClient(other).rows("SELECT 1 AS one").to_pylist() == [{"one": 1}]
            longest = max(longest, time.monotonic() - began)
        assert longest < OTHERS_SECONDS
        assert isinstance(
            answer.exception(OUTER_SECONDS), (flight.FlightError, pa.ArrowException, type(None))
        )
