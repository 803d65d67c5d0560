"""Transactions, pins and older seqs over real processes: a primary, its replica, and kill -9."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import adbc_driver_flightsql.dbapi as adbc
import pytest
from pyarrow import flight

from tests.integration.flightsql.clients import RawClient
from tests.integration.flightsql.primary_server import COOKIES, fetch
from tests.processes import Server, end, is_answered, running, until

HEADER = "adbc.flight.sql.rpc.call_header.merutable-"


def connect(uri: str, autocommit: bool = True, **headers: str) -> adbc.Connection:
    options = {f"{HEADER}{name.replace('_', '-')}": value for name, value in headers.items()}
    return adbc.connect(uri, db_kwargs=COOKIES | options, autocommit=autocommit)


@pytest.fixture(scope="module")
def line(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str]]:
    """URIs of a primary that publishes no newer base, and of its replica."""
    folder = tmp_path_factory.mktemp("line")
    primary = Server("primary", "--data", str(folder / "primary"), "--base-seconds", "3600")
    with running(primary), connect(primary.uri) as connection:
        fetch(connection, "CREATE TABLE accounts (id BIGINT PRIMARY KEY, amount BIGINT)")
        fetch(connection, "INSERT INTO accounts SELECT range, 100 FROM range(10)")
        replica = Server("serve", "--primary", primary.uri)
        with running(replica):
            until(is_answered(replica.uri, "SELECT count(*) FROM accounts", [(10,)]), "the replica follows")
            yield primary.uri, replica.uri


class Mover:
    """Moves amounts between accounts in transactions of several statements, until the block ends."""

    def __init__(self, uri: str) -> None:
        self._uri = uri
        self._is_over = threading.Event()
        self.moved = 0
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        with connect(self._uri, autocommit=False) as connection, connection.cursor() as cursor:
            while not self._is_over.is_set():
                giver, taker = self.moved % 10, (self.moved + 3) % 10
                cursor.execute("UPDATE accounts SET amount = amount - 7 WHERE id = ?", (giver,))
                cursor.execute("UPDATE accounts SET amount = amount + 7 WHERE id = ?", (taker,))
                connection.commit()
                self.moved += 1

    def __enter__(self) -> Mover:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        self._thread.join()


def test_a_replica_shows_each_transaction_whole(line: tuple[str, str]) -> None:
    primary, replica = line
    with Mover(primary) as mover, connect(replica) as reader:
        seen: list[int] = []

        def look() -> bool:
            total, seq = fetch(reader, "SELECT sum(amount), merutable_seq('accounts') FROM accounts")[0]
            assert total == 1000
            seen.append(seq)
            return len(seen) >= 60 and len(set(seen)) > 3

        until(lambda: mover.moved > 3, "the first transactions")
        until(look, "reads of more than three moments")


def test_a_snapshot_and_a_pin_of_a_replica_stand_still_while_it_follows(line: tuple[str, str]) -> None:
    primary, replica = line
    rows = "SELECT merutable_seq('accounts'), list(amount ORDER BY id) FROM accounts"
    with (
        Mover(primary) as mover,
        connect(replica, autocommit=False, isolation="snapshot") as report,
        connect(replica, pin="job") as job,
        connect(replica, pin="job") as other,
    ):
        first, pinned = fetch(report, rows), fetch(job, rows)
        begun = mover.moved
        until(lambda: mover.moved > begun + 5, "more transactions")
        for _ in range(5):
            assert fetch(report, rows) == first
            assert fetch(job, rows) == fetch(other, rows) == pinned
        report.commit()

        def moves_on() -> bool:
            newer = fetch(report, rows) != first
            report.commit()
            return newer

        until(moves_on, "a newer snapshot")


def test_the_dbapi_default_reads_a_replica_and_is_told_where_to_write(line: tuple[str, str]) -> None:
    primary, replica = line
    with connect(replica, autocommit=False) as connection:
        assert fetch(connection, "SELECT sum(amount) FROM accounts") == [(1000,)]
        with pytest.raises(adbc.ProgrammingError, match=f"write to the primary at {primary}"):
            fetch(connection, "DELETE FROM accounts")
        connection.commit()
        assert fetch(connection, "SELECT sum(amount) FROM accounts") == [(1000,)]


def test_a_replica_reads_older_seqs_exactly(line: tuple[str, str]) -> None:
    primary, replica = line
    with connect(primary) as writer, connect(replica) as reader:
        fetch(writer, "CREATE TABLE steps (id BIGINT PRIMARY KEY, v BIGINT)")
        fetch(writer, "INSERT INTO steps VALUES (1, -1)")
        base = "SELECT base_seq FROM merutable_tables() WHERE table_name = 'steps'"
        until(is_answered(primary, base, [(1,)]), "its first base is published")
        until(is_answered(replica, "SELECT count(*) FROM steps", [(1,)]), "the table is served")
        seqs = []
        for value in range(5):
            rows = f"(1, {value}), ({10 + value}, 0)"
            ((_, seq),) = fetch(writer, f"INSERT OR REPLACE INTO steps VALUES {rows}")
            seqs.append(seq)
            fetch(reader, f"SELECT * FROM merutable_wait('steps', {seq}, 10000)")
        for value, seq in enumerate(seqs):
            with connect(replica, as_of_seq=f"steps={seq}") as past:
                found = fetch(past, "SELECT max(v), count(*), merutable_seq('steps') FROM steps")
                assert found == [(value, value + 2, seq)]
        for seq, error in ((seqs[2] - 1, "known to end there"), (10**6, f"the seqs from 1 to {seqs[-1]}")):
            with (
                connect(replica, as_of_seq=str(seq)) as past,
                pytest.raises(adbc.ProgrammingError, match=error),
            ):
                fetch(past, "SELECT * FROM steps")


def test_a_primary_killed_amid_transactions_keeps_what_was_acknowledged_and_nothing_else(
    tmp_path: Path,
) -> None:
    """Each transaction is three statements, so one that is kept in part would show."""
    primary = Server("primary", "--data", str(tmp_path / "data"))
    acknowledged: list[int] = []

    def write(client: RawClient) -> None:
        with suppress(flight.FlightUnavailableError):
            for batch in range(1000):
                transaction = client.begin()
                for part in range(3):
                    client.rows_in(transaction, f"INSERT INTO parts VALUES ({batch}, {part})")
                client.commit(transaction)
                acknowledged.append(batch)

    with running(primary), flight.connect(primary.uri) as connected:
        client = RawClient(connected)
        client.rows("CREATE TABLE parts (batch BIGINT, part BIGINT, PRIMARY KEY (batch, part))")
        client.rows_in(client.begin(), "INSERT INTO parts VALUES (-1, 0)")
        writer = threading.Thread(target=write, args=(client,))
        writer.start()
        until(lambda: len(acknowledged) >= 6, "transactions")
        primary.kill()
        writer.join()
    primary = Server("primary", "--data", str(tmp_path / "data"))
    try:
        with connect(primary.uri) as connection:
            found = fetch(connection, "SELECT batch, count(*) FROM parts GROUP BY batch ORDER BY batch")
            assert [count for _, count in found] == [3] * len(found)
            batches = [batch for batch, _ in found]
            # One more may have been committed whose answer didn't arrive.
            assert batches in (acknowledged, [*acknowledged, len(acknowledged)])
            ((seq,),) = fetch(connection, "SELECT merutable_seq('parts')")
            assert seq == 3 * len(batches)
    finally:
        end(primary)
