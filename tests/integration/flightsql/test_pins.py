"""Pins by name: statements of any connection see one moment, at once, until the pin ends. And older seqs."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import adbc_driver_flightsql.dbapi as adbc
import pyarrow as pa
import pytest
from pyarrow import flight

from flight_replica.flightsql.auth import BasicLogins
from flight_replica.flightsql.limits import DEFAULT_LIMITS
from flight_replica.flightsql.server import FlightSqlServer
from flight_replica.flightsql.tokens import Tokens
from flight_replica.flightsql.users import UsersFile
from tests.accounts import write_users
from tests.integration.flightsql.clients import RawClient, wait_until
from tests.integration.flightsql.conftest import Serve
from tests.integration.flightsql.memory_service import MemoryService
from tests.integration.flightsql.primary_server import connect, fetch, ids, serving

COUNT = "SELECT count(*) AS n, merutable_seq('orders') AS seq FROM orders"


@pytest.fixture
def primary(tmp_path: Path) -> Iterator[FlightSqlServer]:
    with serving(tmp_path) as server:
        yield server


def add_order(service: MemoryService, order_id: int) -> None:
    service.put("orders", pa.table({"id": [order_id], "item": ["x"], "price": [0.0]}))


def seen(raw: RawClient, **headers: str) -> tuple[int, int]:
    """How many orders there are, and at which seq."""
    (row,) = raw.rows(COUNT, **headers).to_pylist()
    return row["n"], row["seq"]


def test_statements_with_a_pin_see_its_moment_from_any_connection(primary: FlightSqlServer) -> None:
    with connect(primary, autocommit=True) as writer, connect(primary, autocommit=True, pin="x") as one:
        assert ids(one) == [1, 2]
        fetch(writer, "INSERT INTO t VALUES (3, 'c')")
        with connect(primary, autocommit=True, pin="x") as another:
            assert (ids(one), ids(another), ids(writer)) == ([1, 2], [1, 2], [1, 2, 3])
        with connect(primary, autocommit=True, pin="y") as later:
            assert ids(later) == [1, 2, 3]


def test_the_first_statements_of_a_pin_may_come_at_once(
    raw: RawClient, service: MemoryService, server: FlightSqlServer
) -> None:
    """As the partitions of one JDBC read do, each on a connection of its own."""

    def read(number: int) -> tuple[int, int]:
        with flight.connect(f"grpc://127.0.0.1:{server.port}") as client:
            add_order(service, 100 + number)
            return seen(RawClient(client), merutable_pin="job")

    with ThreadPoolExecutor(8) as pool:
        assert len(set(pool.map(read, range(24)))) == 1
    assert server.stats.pins == 1
    assert service.open_views == DEFAULT_LIMITS.pin_sessions


def test_streams_on_one_pin_run_side_by_side(raw: RawClient) -> None:
    infos = [raw.info("SELECT range FROM range(100000)", merutable_pin="p") for _ in range(8)]
    readers = [raw.open(info) for info in infos]
    assert [reader.read_chunk().data.num_rows > 0 for reader in readers] == [True] * 8
    assert sum(reader.read_all().num_rows for reader in readers) > 0


def test_what_a_statement_sets_is_gone_for_the_next_one_on_its_session(
    serve: Serve, service: MemoryService
) -> None:
    server = serve(replace(DEFAULT_LIMITS, pin_sessions=1))
    with flight.connect(f"grpc://127.0.0.1:{server.port}") as client:
        raw = RawClient(client)
        zone = "SELECT '2020-07-01'::TIMESTAMPTZ::VARCHAR AS at"
        berlin = raw.rows(zone, merutable_pin="p", merutable_time_zone="Europe/Berlin").to_pylist()
        utc = raw.rows(zone, merutable_pin="p").to_pylist()
        assert (berlin, utc) == ([{"at": "2020-07-01 00:00:00+02"}], [{"at": "2020-07-01 00:00:00+00"}])
        assert seen(raw, merutable_pin="p") == seen(raw, merutable_pin="p") == (3, 3)


def test_a_statement_waits_for_a_session_and_is_told_the_limit(serve: Serve) -> None:
    server = serve(replace(DEFAULT_LIMITS, pin_sessions=1, query_wait_seconds=0.1))
    with flight.connect(f"grpc://127.0.0.1:{server.port}") as client:
        raw = RawClient(client)
        held = raw.info("SELECT 1", merutable_pin="p")
        with pytest.raises(flight.FlightUnavailableError, match="all of its 1 sessions are in use"):
            raw.info("SELECT 1", merutable_pin="p")
        raw.open(held).read_all()
        assert raw.rows("SELECT 1", merutable_pin="p").num_rows == 1


def test_a_pin_outlives_statements_that_fail_until_it_has_no_session_left(serve: Serve) -> None:
    server = serve(replace(DEFAULT_LIMITS, pin_sessions=2))
    with flight.connect(f"grpc://127.0.0.1:{server.port}") as client:
        raw = RawClient(client)
        for _ in range(2):
            with pytest.raises(pa.ArrowInvalid, match="Could not convert"):
                raw.rows("SELECT item::INTEGER FROM orders", merutable_pin="p")
        with pytest.raises(flight.FlightUnavailableError, match=r"is gone: each of its 2 sessions"):
            seen(raw, merutable_pin="p")


def test_a_pin_outlives_streams_that_are_dropped(
    raw: RawClient, server: FlightSqlServer, service: MemoryService
) -> None:
    assert seen(raw, merutable_pin="p") == (3, 3)
    add_order(service, 4)
    for _ in range(3):
        reader = raw.open(raw.info("SELECT r.range FROM range(10000000) r, orders", merutable_pin="p"))
        reader.read_chunk()
        reader.cancel()
        wait_until(lambda: server.stats.queries == 0)
    assert seen(raw, merutable_pin="p") == (3, 3)


# --- limits -------------------------------------------------------------------------------------------


def test_pins_beyond_the_limit_are_refused_with_its_name(serve: Serve) -> None:
    server = serve(replace(DEFAULT_LIMITS, pins_max=2))
    with flight.connect(f"grpc://127.0.0.1:{server.port}") as client:
        raw = RawClient(client)
        for name in "ab":
            seen(raw, merutable_pin=name)
        with pytest.raises(pa.ArrowInvalid, match=r"pin 'c': 2 pinned views are open \(pins_max\)"):
            seen(raw, merutable_pin="c")
        assert seen(raw, merutable_pin="a") == (3, 3)


@pytest.mark.parametrize("limit", ["pin_seconds", "pin_idle_seconds"])
def test_a_pin_that_ended_lets_go_and_never_comes_back_with_other_rows(
    serve: Serve, service: MemoryService, limit: str
) -> None:
    server = serve(replace(DEFAULT_LIMITS, **{limit: 0.4}))
    with flight.connect(f"grpc://127.0.0.1:{server.port}") as client:
        raw = RawClient(client)
        seen(raw, merutable_pin="p")
        wait_until(lambda: (server.stats.pins, service.open_views) == (0, 0))
        with pytest.raises(flight.FlightUnavailableError, match=f"pin 'p' has ended: .*{limit}, 0.4 s"):
            seen(raw, merutable_pin="p")


def test_a_table_made_after_the_pin_is_not_in_it(primary: FlightSqlServer) -> None:
    with connect(primary, autocommit=True) as writer, connect(primary, autocommit=True, pin="p") as reader:
        assert ids(reader) == [1, 2]
        fetch(writer, "CREATE TABLE u (id BIGINT PRIMARY KEY)")
        with pytest.raises(adbc.ProgrammingError, match="table 'u' isn't in pin 'p'"):
            fetch(reader, "SELECT * FROM u")


# --- users --------------------------------------------------------------------------------------------


def test_a_pin_is_its_users_alone_and_holds_what_he_may_read(
    serve: Serve, service: MemoryService, tmp_path: Path
) -> None:
    file = tmp_path / "users.json"
    write_users(file, ann={"password": "pw"}, bob={"password": "pw", "read": ["orders"]})
    server = serve(logins=BasicLogins(UsersFile(file), Tokens()))

    def user(name: str) -> adbc.Connection:
        options = {
            "username": name,
            "password": "pw",
            "adbc.flight.sql.rpc.call_header.merutable-pin": "p",
        }
        return adbc.connect(f"grpc://127.0.0.1:{server.port}", db_kwargs=options, autocommit=True)

    with user("ann") as ann, user("bob") as bob:
        assert fetch(ann, "SELECT count(*) FROM orders") == [(3,)]
        add_order(service, 4)
        assert fetch(bob, "SELECT count(*) FROM orders") == [(4,)]
        assert fetch(ann, "SELECT count(*) FROM orders") == [(3,)]
        assert fetch(ann, "SELECT count(*) FROM odd") == [(0,)]
        with pytest.raises(adbc.ProgrammingError, match="odd"):
            fetch(bob, "SELECT count(*) FROM odd")


# --- demands ------------------------------------------------------------------------------------------


def test_a_pin_is_made_when_its_first_statements_demand_is_met(
    raw: RawClient, service: MemoryService
) -> None:
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(seen, raw, merutable_pin="p", merutable_min_seq="4")
        add_order(service, 4)
        assert waiting.result(10) == (4, 4)


def test_a_demand_that_a_standing_pin_does_not_meet_is_refused_at_once(
    raw: RawClient, service: MemoryService
) -> None:
    seen(raw, merutable_pin="p")
    add_order(service, 4)
    with pytest.raises(flight.FlightUnavailableError, match=r"seq 4 \(min_seq\); visible is seq 3"):
        seen(raw, merutable_pin="p", merutable_min_seq="4")


def test_an_older_seq_is_the_pins_or_refused_with_what_is_held(
    raw: RawClient, service: MemoryService
) -> None:
    seen(raw, merutable_pin="p")
    add_order(service, 4)
    assert seen(raw, merutable_pin="p", merutable_as_of_seq="3") == (3, 3)
    assert seen(raw, merutable_as_of_seq="orders=4") == (4, 4)
    with pytest.raises(pa.ArrowInvalid, match="as_of_seq 4: in pin 'p' table 'orders' is at seq 3"):
        seen(raw, merutable_pin="p", merutable_as_of_seq="4")


def test_a_primary_holds_its_newest_seq_alone(primary: FlightSqlServer) -> None:
    with connect(primary, autocommit=True, as_of_seq="2") as reader:
        assert ids(reader) == [1, 2]
    with (
        connect(primary, autocommit=True, as_of_seq="1") as reader,
        pytest.raises(adbc.ProgrammingError, match="which is 2; ask a replica"),
    ):
        ids(reader)
