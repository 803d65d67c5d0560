"""What happens to tables and servers while a replica follows: created, altered, dropped, restored."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import adbc_driver_flightsql.dbapi as flightsql
import pyarrow as pa
import pytest

from flight_replica.client import position_of, query
from flight_replica.errors import InvalidStatement, ReplicaError, Unavailable
from tests.processes import Server, end, is_answered, position, rows, running, status, until

COMMIT_ROWS = 200_000


class Line:
    """A primary in a folder and a replica of all its tables. Ends with the test."""

    def __init__(self, folder: Path, *primary_options: str) -> None:
        self.data = folder / "primary"
        self._options = primary_options
        self._servers: list[Server] = []
        self.primary = self._primary(self.data, "127.0.0.1:0")
        self.replica = self._start("serve", "--primary", self.primary.uri)

    def _start(self, *arguments: str, listen: str = "127.0.0.1:0") -> Server:
        try:
            self._servers.append(Server(*arguments, listen=listen))
        except BaseException:
            self.close()
            raise
        return self._servers[-1]

    def _primary(self, data: Path, listen: str, *options: str) -> Server:
        return self._start("primary", "--data", str(data), *self._options, *options, listen=listen)

    def write(self, sql: str) -> int:
        """The seq of the commit."""
        ((_, seq),) = rows(self.primary.uri, sql)
        assert isinstance(seq, int)
        return seq

    def reaches(self, table: str, seq: int) -> None:
        """Wait until the replica shows `seq`."""

        def is_there() -> bool:
            try:
                return position(self.replica.uri, table)["visible_seq"] >= seq
            except ReplicaError:
                return False

        until(is_there, f"the replica shows {table} at {seq}")

    def shows(self, sql: str, *expected: tuple[object, ...]) -> None:
        """Wait until the replica answers the statement so."""
        until(is_answered(self.replica.uri, sql, list(expected)), f"{sql} gives {expected}")

    def restart_primary(self, data: Path | None = None, *options: str) -> None:
        """Start the primary, which has ended, where it was; on another folder's copy if it is given."""
        self.primary = self._primary(data or self.data, self.primary.address, *options)

    def close(self) -> None:
        end(*self._servers)


@pytest.fixture
def line(tmp_path: Path) -> Iterator[Line]:
    found = Line(tmp_path, "--base-seconds", "0.3")
    try:
        yield found
    finally:
        found.close()


def test_new_tables_appear_and_one_query_joins_two_of_them(line: Line) -> None:
    line.write("CREATE TABLE orders (id BIGINT PRIMARY KEY, customer BIGINT)")
    line.write("INSERT INTO orders VALUES (1, 10), (2, 20), (3, 10)")
    line.shows("SELECT count(*) FROM orders", (3,))

    line.write("CREATE TABLE customers (id BIGINT PRIMARY KEY, name VARCHAR)")
    line.write("INSERT INTO customers VALUES (10, 'Ada'), (20, 'Bob')")

    joined = (
        "SELECT c.name, count(*) FROM orders o JOIN customers c ON c.id = o.customer GROUP BY ALL ORDER BY 1"
    )
    line.shows(joined, ("Ada", 2), ("Bob", 1))
    positions = {at["table"]: at["visible_seq"] for at in position_of(query(line.replica.uri, joined))}
    assert positions == {"orders": 3, "customers": 2}


def test_a_dropped_table_goes_and_its_name_is_not_found(line: Line) -> None:
    line.write("CREATE TABLE kept (id BIGINT PRIMARY KEY)")
    line.write("CREATE TABLE gone (id BIGINT PRIMARY KEY)")
    line.write("INSERT INTO gone VALUES (1)")
    line.shows("SELECT * FROM gone", (1,))

    line.write("DROP TABLE gone")

    until(lambda: not status(line.replica.uri, "gone"), "the table is listed no more")
    with pytest.raises(InvalidStatement, match=r"'gone'"):
        query(line.replica.uri, "SELECT * FROM gone")
    line.shows("SELECT count(*) FROM kept", (0,))


def test_a_table_created_anew_never_shows_rows_of_the_old_one(line: Line) -> None:
    create = "CREATE TABLE t (id BIGINT PRIMARY KEY, life BIGINT)"
    line.write(create)
    line.write("INSERT INTO t SELECT i, 0 FROM range(1000) r(i)")
    line.shows("SELECT count(*) FROM t", (1000,))
    for life in range(1, 4):
        line.write("DROP TABLE t")
        line.write(create)
        lineage = position(line.primary.uri, "t")["lineage"]
        line.write(f"INSERT INTO t VALUES (1, {life})")
        shown = None
        while shown != [(1, life)]:
            try:
                answer = query(line.replica.uri, "SELECT id, life FROM t")
            except ReplicaError:  # gone, or not there yet
                continue
            shown = [tuple(row.values()) for row in answer.to_pylist()]
            is_of_this_life = position_of(answer)[0]["lineage"] == lineage
            assert not is_of_this_life or shown in ([], [(1, life)]), "rows of another life"


def test_added_columns_appear_while_a_reader_reads_on(line: Line) -> None:
    line.write("CREATE TABLE t (id BIGINT PRIMARY KEY, v BIGINT)")
    line.write("INSERT INTO t SELECT i, i FROM range(300000) r(i)")
    line.shows("SELECT count(*) FROM t", (300_000,))
    with (
        flightsql.connect(line.replica.uri, autocommit=True) as connection,
        connection.cursor() as cursor,
    ):
        cursor.execute("SELECT * FROM t")
        reader = cursor.fetch_record_batch()
        first = reader.read_next_batch()

        line.write("ALTER TABLE t ADD COLUMN note VARCHAR")
        line.write("ALTER TABLE t ADD COLUMN rank INTEGER DEFAULT 7")
        line.write("INSERT INTO t VALUES (-1, -1, 'new', 8)")

        line.shows("SELECT * FROM t WHERE id IN (-1, 5) ORDER BY id", (-1, -1, "new", 8), (5, 5, None, 7))
        line.shows("SELECT count(*), sum(rank) FROM t", (300_001, 300_000 * 7 + 8))
        assert first.num_rows + sum(batch.num_rows for batch in reader) == 300_000
        assert reader.schema.names == ["id", "v"]


def test_a_commit_of_many_batches_is_seen_whole_or_not_at_all(line: Line) -> None:
    line.write("CREATE TABLE t (id BIGINT PRIMARY KEY, version BIGINT, padding VARCHAR)")
    line.shows("SELECT count(*) FROM t", (0,))
    with (
        flightsql.connect(line.primary.uri, autocommit=True) as connection,
        connection.cursor() as writer,
        flightsql.connect(line.replica.uri, autocommit=True) as reading,
        reading.cursor() as reader,
    ):
        for version in (1, 2):
            writer.adbc_ingest("t", _commit(version), mode="append")
            newest = None
            while newest != version:
                reader.execute("SELECT count(*), min(version), max(version) FROM t")
                count, oldest, newest = reader.fetchone()
                assert count in (0, COMMIT_ROWS), f"{count} rows of a commit of {COMMIT_ROWS}"
                assert oldest == newest, "two commits mixed"


def _commit(version: int) -> pa.Table:
    """A commit that spans many batches of the feed."""
    ids = pa.array(range(COMMIT_ROWS), pa.int64())
    padding = pa.array(["some text to make the rows larger"]).take(pa.array([0] * COMMIT_ROWS))
    return pa.table(
        [ids, pa.array([version] * COMMIT_ROWS, pa.int64()), padding], ["id", "version", "padding"]
    )


def test_a_replica_that_slept_through_the_log_recovers_by_a_newer_base(tmp_path: Path) -> None:
    line = Line(tmp_path, "--base-seconds", "0.3", "--retain-ops", "50")
    try:
        line.write("CREATE TABLE t (id BIGINT PRIMARY KEY, v BIGINT, padding VARCHAR)")
        line.write("INSERT INTO t SELECT i, 0, '' FROM range(100) r(i)")
        line.shows("SELECT count(*) FROM t", (100,))
        before = position(line.replica.uri, "t")
        with line.replica.stopped():
            for version in range(1, 21):  # far more than the buffers of the connection hold
                seq = line.write(f"UPDATE t SET v = {version}, padding = repeat(chr(64 + {version}), 10000)")
            trimmed = f"SELECT low_water >= {seq - 100}, base_seq FROM merutable_tables()"
            until(is_answered(line.primary.uri, trimmed, [(True, seq)]), "old ops are trimmed")
        line.shows("SELECT count(*), min(v), max(v) FROM t", (100, 20, 20))
        until(lambda: any("from a log gap" in said for said in line.replica.errors), "there was a gap")
        after = position(line.replica.uri, "t")
        assert after["lineage"] == before["lineage"]
        line.reaches("t", line.write("INSERT INTO t VALUES (100, 0, '')"))
        until(lambda: status(line.replica.uri, "t")["state"] == "serving", "the table is well again")
    finally:
        line.close()


def test_a_restarted_primary_is_followed_on_from_where_it_was(line: Line) -> None:
    line.write("CREATE TABLE t (id BIGINT PRIMARY KEY, v BIGINT)")
    line.reaches("t", line.write("INSERT INTO t VALUES (1, 1)"))
    before = position(line.replica.uri, "t")

    assert line.primary.terminate() == 0
    line.shows("SELECT * FROM t", (1, 1))
    line.restart_primary()

    line.reaches("t", line.write("INSERT INTO t VALUES (2, 2)"))
    line.shows("SELECT * FROM t ORDER BY id", (1, 1), (2, 2))
    assert position(line.replica.uri, "t")["lineage"] == before["lineage"]


def test_after_a_restore_with_a_new_lineage_the_replica_loads_the_table_afresh(
    line: Line, tmp_path: Path
) -> None:
    line.write("CREATE TABLE t (id BIGINT PRIMARY KEY, v BIGINT)")
    line.write("INSERT INTO t VALUES (1, 1)")
    assert line.primary.terminate() == 0
    backup = tmp_path / "backup"
    shutil.copytree(line.data, backup)
    line.restart_primary()
    line.reaches("t", line.write("INSERT INTO t VALUES (2, 2), (3, 3)"))
    before = position(line.replica.uri, "t")

    assert line.primary.terminate() == 0
    line.restart_primary(backup, "--new-lineage")
    line.write("INSERT INTO t VALUES (4, 4)")

    line.shows("SELECT * FROM t ORDER BY id", (1, 1), (4, 4))
    after = position(line.replica.uri, "t")
    assert after["lineage"] != before["lineage"]
    assert after["lineage"] == position(line.primary.uri, "t")["lineage"]


def test_a_table_that_is_asked_for_by_name_may_come_later(line: Line) -> None:
    replica = Server("serve", "--primary", line.primary.uri, "--table", "later")
    with running(replica):
        until(lambda: status(replica.uri, "later").get("state") == "waiting", "the table is waited for")
        with pytest.raises(Unavailable, match=r"'later' is waiting.*has no table 'later'"):
            query(replica.uri, "SELECT * FROM later")
        line.write("CREATE TABLE other (id BIGINT PRIMARY KEY)")
        line.write("CREATE TABLE later (id BIGINT PRIMARY KEY)")
        line.write("INSERT INTO later VALUES (1)")
        until(is_answered(replica.uri, "SELECT * FROM later", [(1,)]), "the table appears")
        assert not status(replica.uri, "other"), "a table that wasn't asked for"
