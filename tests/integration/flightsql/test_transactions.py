"""Transactions through real clients: the DB-API's own, raw actions, isolation, limits, rights."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import adbc_driver_flightsql.dbapi as adbc
import pyarrow as pa
import pytest
from pyarrow import flight

from flight_replica._pb import flight_sql_pb2 as pb
from flight_replica.errors import TransactionNotFound
from flight_replica.flightsql.limits import DEFAULT_LIMITS
from flight_replica.flightsql.pins import Pins
from flight_replica.flightsql.server import FlightSqlServer
from flight_replica.flightsql.transactions import Transactions
from tests.integration.flightsql.clients import RawClient, descriptor, wait_until
from tests.integration.flightsql.primary_server import connect, fetch, ids, serving


@pytest.fixture
def primary(tmp_path: Path) -> Iterator[FlightSqlServer]:
    with serving(tmp_path) as server:
        yield server


@pytest.fixture
def connection(primary: FlightSqlServer) -> Iterator[adbc.Connection]:
    with connect(primary) as found:
        yield found


@pytest.fixture
def other(primary: FlightSqlServer) -> Iterator[adbc.Connection]:
    with connect(primary, autocommit=True) as found:
        yield found


@pytest.fixture
def client(primary: FlightSqlServer) -> Iterator[RawClient]:
    with flight.connect(f"grpc://127.0.0.1:{primary.port}") as found:
        yield RawClient(found)


# --- the DB-API ---------------------------------------------------------------------------------------


def test_the_dbapi_default_connects_without_a_warning(primary: FlightSqlServer) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with connect(primary) as connection:
            assert ids(connection) == [1, 2]


def test_writes_become_visible_at_commit(connection: adbc.Connection, other: adbc.Connection) -> None:
    assert fetch(connection, "INSERT INTO t VALUES (3, 'c')") == [(1, None)]
    fetch(connection, "DELETE FROM t WHERE id = ?", (1,))
    assert (ids(connection), ids(other)) == ([2, 3], [1, 2])
    connection.commit()
    assert (ids(connection), ids(other)) == ([2, 3], [2, 3])


def test_rollback_undoes_every_statement(connection: adbc.Connection, other: adbc.Connection) -> None:
    with connection.cursor() as cursor:
        cursor.executemany("INSERT INTO t VALUES (?, ?)", [(7, "x"), (8, "y")])
        assert cursor.rowcount == 2
    assert ids(connection) == [1, 2, 7, 8]
    connection.rollback()
    assert (ids(connection), ids(other)) == ([1, 2], [1, 2])


@pytest.mark.parametrize("with_cookies", [True, False], ids=["session", "connection"])
def test_a_cursor_goes_on_with_its_statement_after_commit(
    primary: FlightSqlServer, other: adbc.Connection, with_cookies: bool
) -> None:
    """The driver prepares a statement once and sends its handle alone in the next transaction."""
    uri = f"grpc://127.0.0.1:{primary.port}"
    with (
        connect(primary) if with_cookies else adbc.connect(uri) as connection,
        connection.cursor() as writer,
        connection.cursor() as reader,
    ):
        for key in (3, 4, 5):
            writer.execute("INSERT INTO t VALUES (?, 'again')", (key,))
            reader.execute("SELECT max(id) FROM t")
            assert reader.fetchall() == [(key,)]
            assert max(ids(other)) == key - 1
            connection.commit()
            assert max(ids(other)) == key
        writer.execute("INSERT INTO t VALUES (?, 'again')", (6,))
        connection.rollback()
        assert max(ids(other)) == 5


def test_each_statement_sees_the_newest_view_by_default(
    connection: adbc.Connection, other: adbc.Connection
) -> None:
    assert ids(connection) == [1, 2]
    fetch(other, "INSERT INTO t VALUES (3, 'c')")
    assert ids(connection) == [1, 2, 3]
    fetch(connection, "INSERT INTO t VALUES (4, 'mine')")
    fetch(other, "INSERT INTO t VALUES (5, 'e')")
    assert ids(connection) == [1, 2, 3, 4, 5]


def test_a_conflict_is_retryable_and_the_connection_goes_on_after_a_rollback(
    connection: adbc.Connection, other: adbc.Connection
) -> None:
    fetch(connection, "UPDATE t SET a = 'mine' WHERE id = 1")
    fetch(other, "UPDATE t SET a = 'theirs' WHERE id = 1")
    with pytest.raises(adbc.OperationalError, match=r"another commit has changed key id = 1.*\(retryable\)"):
        fetch(connection, "DELETE FROM t WHERE id = 2")
    with pytest.raises(adbc.ProgrammingError, match="has failed, roll it back"):
        fetch(connection, "SELECT 1")
    connection.rollback()
    fetch(connection, "UPDATE t SET a = 'mine at last' WHERE id = 1")
    connection.commit()
    assert fetch(other, "SELECT a FROM t WHERE id = 1") == [("mine at last",)]


def test_a_conflict_at_commit_leaves_the_transaction_to_be_rolled_back(
    client: RawClient, other: adbc.Connection
) -> None:
    transaction = client.begin()
    client.rows_in(transaction, "UPDATE t SET a = 'mine' WHERE id = 1")
    fetch(other, "DELETE FROM t WHERE id = 1")
    with pytest.raises(flight.FlightUnavailableError, match="another commit has changed key id = 1"):
        client.commit(transaction)
    with pytest.raises(pa.ArrowInvalid, match=r"roll it back: .* key id = 1") as again:
        client.commit(transaction)
    assert "retryable" not in str(again.value)
    client.roll_back(transaction)
    assert ids(other) == [2]


def test_of_several_connections_that_change_one_row_at_once_one_wins(primary: FlightSqlServer) -> None:
    """Each adds 1 under retries, so a lost update would show in the sum."""

    def add(_: int) -> None:
        for _ in range(5):
            while True:
                # After a commit that failed the driver's connection has no transaction and can't begin one.
                with connect(primary) as connection, suppress(adbc.OperationalError):
                    fetch(connection, "UPDATE t SET a = (a::INT + 1)::VARCHAR WHERE id = 1")
                    connection.commit()
                    break

    with connect(primary, autocommit=True) as first:
        fetch(first, "UPDATE t SET a = '0' WHERE id = 1")
        with ThreadPoolExecutor(3) as pool:
            list(pool.map(add, range(3)))
        assert fetch(first, "SELECT a FROM t WHERE id = 1") == [("15",)]


def test_closing_a_connection_undoes_what_it_left_open(primary: FlightSqlServer) -> None:
    with connect(primary) as connection:
        fetch(connection, "INSERT INTO t VALUES (3, 'c')")
        assert primary.stats.transactions == 1
    wait_until(lambda: primary.stats.transactions == 0)
    with connect(primary) as connection:
        assert ids(connection) == [1, 2]


def test_ingestion_commits_by_itself(connection: adbc.Connection, other: adbc.Connection) -> None:
    fetch(connection, "INSERT INTO t VALUES (3, 'c')")
    with connection.cursor() as cursor:
        cursor.adbc_ingest("t", pa.table({"id": [9], "a": ["i"]}), mode="append")
    assert ids(other) == [1, 2, 9]
    connection.rollback()
    assert ids(connection) == [1, 2, 9]


def test_ddl_commits_by_itself_but_not_among_writes_that_wait(
    connection: adbc.Connection, other: adbc.Connection
) -> None:
    fetch(connection, "CREATE TABLE u (id BIGINT PRIMARY KEY)")
    assert fetch(other, "SELECT count(*) FROM u") == [(0,)]
    fetch(connection, "INSERT INTO u VALUES (1)")
    with pytest.raises(adbc.ProgrammingError, match="has writes that aren't committed"):
        fetch(connection, "DROP TABLE u")
    connection.commit()
    assert fetch(other, "SELECT count(*) FROM u") == [(1,)]


# --- snapshots ----------------------------------------------------------------------------------------


def test_a_snapshot_transaction_sees_one_moment_until_it_ends(
    primary: FlightSqlServer, other: adbc.Connection
) -> None:
    fetch(other, "CREATE TABLE u (id BIGINT PRIMARY KEY)")
    with connect(primary, isolation="snapshot") as report:
        assert ids(report) == [1, 2]
        fetch(other, "INSERT INTO t VALUES (3, 'c')")
        fetch(other, "INSERT INTO u VALUES (1)")
        assert ids(report) == [1, 2]
        assert fetch(report, "SELECT count(*) FROM u") == [(0,)], "tables not read at first are pinned too"
        assert fetch(report, "SELECT merutable_seq('t')") == [(2,)]
        report.commit()
        assert ids(report) == [1, 2, 3]


def test_a_session_option_asks_for_the_snapshot(primary: FlightSqlServer, other: adbc.Connection) -> None:
    with connect(primary) as report:
        report.adbc_connection.set_options(**{"adbc.flight.sql.session.option.isolation": "snapshot"})
        assert ids(report) == [1, 2]
        fetch(other, "INSERT INTO t VALUES (3, 'c')")
        assert ids(report) == [1, 2]


def test_a_snapshot_transaction_sees_its_own_writes_and_conflicts_with_later_ones(
    primary: FlightSqlServer, other: adbc.Connection
) -> None:
    with connect(primary, isolation="snapshot") as connection:
        fetch(connection, "INSERT INTO t VALUES (3, 'mine')")
        assert ids(connection) == [1, 2, 3]
        fetch(other, "INSERT INTO t VALUES (4, 'theirs')")
        assert ids(connection) == [1, 2, 3]
        connection.commit()
        assert ids(connection) == [1, 2, 3, 4]
        fetch(other, "INSERT INTO t VALUES (5, 'theirs')")
        with pytest.raises(adbc.OperationalError, match="can't be written with isolation=snapshot"):
            fetch(connection, "INSERT INTO t VALUES (6, 'mine')")
        connection.rollback()


def test_statements_that_fail_leave_the_snapshot_standing(
    primary: FlightSqlServer, other: adbc.Connection
) -> None:
    with connect(primary, isolation="snapshot") as report:
        assert ids(report) == [1, 2]
        fetch(other, "INSERT INTO t VALUES (3, 'c')")
        for sql in ("SELECT nothing FROM t", "SELECT a::INTEGER FROM t", "SELECT error('no')"):
            with pytest.raises(adbc.Error):
                fetch(report, sql)
        with report.cursor() as cursor:  # read in part
            cursor.execute("SELECT r.range FROM range(5000000) r, t")
            cursor.fetchone()
        assert ids(report) == [1, 2]


def test_a_snapshot_asked_for_too_late_is_refused(client: RawClient) -> None:
    transaction = client.begin()
    client.rows_in(transaction, "SELECT 1")
    with pytest.raises(pa.ArrowInvalid, match="at the first statement"):
        client.rows_in(transaction, "SELECT 1", merutable_isolation="snapshot")


# --- raw actions --------------------------------------------------------------------------------------


def test_raw_statements_of_a_transaction_commit_together(client: RawClient) -> None:
    transaction = client.begin()
    for key in (3, 4):
        found = client.rows_in(transaction, f"INSERT INTO t VALUES ({key}, 'x')")
        assert found == [{"rows_affected": 1, "seq": None}]
    assert client.rows("SELECT count(*) AS n FROM t").to_pylist() == [{"n": 2}]
    client.commit(transaction)
    assert client.rows("SELECT merutable_seq('t') AS s, count(*) AS n FROM t").to_pylist() == [
        {"s": 4, "n": 4}
    ]


def test_an_update_by_do_put_is_part_of_its_transaction(client: RawClient) -> None:
    transaction = client.begin()
    command = pb.CommandStatementUpdate(query="DELETE FROM t", transaction_id=transaction)
    writer, reader = client.client.do_put(descriptor(command), pa.schema([]))
    result = pb.DoPutUpdateResult()
    writer.done_writing()
    result.ParseFromString(reader.read().to_pybytes())
    writer.close()
    assert result.record_count == 2
    assert client.rows("SELECT count(*) AS n FROM t").to_pylist() == [{"n": 2}]
    client.commit(transaction)
    assert client.rows("SELECT count(*) AS n FROM t").to_pylist() == [{"n": 0}]


def test_unknown_forged_and_ended_ids_are_not_found(client: RawClient) -> None:
    ended = client.begin()
    client.roll_back(ended)
    for transaction_id in (b"forged", ended, b"x" * 100_000):
        with pytest.raises(KeyError, match="unknown or has ended"):
            client.rows_in(transaction_id, "SELECT 1")
        with pytest.raises(KeyError, match="unknown or has ended"):
            client.commit(transaction_id)


def test_an_end_without_an_action_is_refused_and_changes_nothing(client: RawClient) -> None:
    transaction = client.begin()
    with pytest.raises(pa.ArrowInvalid, match="1 commits, 2 rolls back"):
        client.end_transaction(transaction, 0)
    client.commit(transaction)


@pytest.mark.parametrize("name", ["BeginSavepoint", "EndSavepoint"])
def test_savepoints_are_refused_clearly(client: RawClient, name: str) -> None:
    with pytest.raises(NotImplementedError, match="there are no savepoints"):
        list(client.client.do_action((name, b"")))
    assert name not in {action.type for action in client.client.list_actions()}


def test_an_id_is_its_users_alone() -> None:
    transactions = Transactions(DEFAULT_LIMITS, Pins(DEFAULT_LIMITS))
    transaction_id = transactions.begin("ann", "her session")
    for attempt in (transactions.find, transactions.commit, transactions.roll_back):
        with pytest.raises(TransactionNotFound):
            attempt(transaction_id, "bob")
    with pytest.raises(TransactionNotFound):
        transactions.of_prepared(transaction_id, "bob", "her session")
    assert transactions.commit(transaction_id, "ann") == {}


# --- limits -------------------------------------------------------------------------------------------


def test_an_idle_transaction_that_holds_writes_is_undone_and_can_be_rolled_back(tmp_path: Path) -> None:
    limits = replace(DEFAULT_LIMITS, transaction_idle_seconds=0.05)
    with serving(tmp_path, limits) as server, connect(server) as connection:
        fetch(connection, "INSERT INTO t VALUES (3, 'c')")
        wait_until(lambda: server.stats.transactions_holding == 0)
        with pytest.raises(adbc.OperationalError, match="transaction_idle_seconds"):
            fetch(connection, "SELECT 1")
        connection.rollback()
        assert ids(connection) == [1, 2]


def test_a_transaction_that_holds_nothing_never_expires(tmp_path: Path) -> None:
    limits = replace(DEFAULT_LIMITS, transaction_idle_seconds=0.0, transaction_seconds=0.0)
    with serving(tmp_path, limits) as server, connect(server) as connection:
        assert ids(connection) == [1, 2]
        server._expire()
        assert ids(connection) == [1, 2]


def test_one_that_holds_nothing_makes_room_and_the_rest_are_limited(tmp_path: Path) -> None:
    with (
        serving(tmp_path, replace(DEFAULT_LIMITS, transactions_max=2)) as server,
        flight.connect(f"grpc://127.0.0.1:{server.port}") as connected,
    ):
        client = RawClient(connected)
        idle, writing = client.begin(), client.begin()
        client.rows_in(writing, "INSERT INTO t VALUES (3, 'c')")
        newest = client.begin()
        with pytest.raises(KeyError):
            client.rows_in(idle, "SELECT 1")
        client.rows_in(newest, "INSERT INTO t VALUES (4, 'd')")
        with pytest.raises(pa.ArrowInvalid, match="transactions_max"):
            client.begin()
