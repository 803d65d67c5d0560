"""A primary and a replica as processes: what a writer was told is what a reader may demand elsewhere."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import adbc_driver_flightsql.dbapi as adbc
import pyarrow as pa
import pytest

from tests.processes import Server, is_answered, rows, running, until

COUNT = 200
HEADER = "adbc.flight.sql.rpc.call_header.merutable-"


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Server, Server]]:
    """A primary with two tables, and a replica of it whose host is in another time zone."""
    folder: Path = tmp_path_factory.mktemp("primary")
    primary = Server("primary", "--data", str(folder))
    with running(primary):
        rows(primary.uri, "CREATE TABLE orders (id BIGINT PRIMARY KEY, made TIMESTAMPTZ)")
        rows(primary.uri, "CREATE TABLE items (id BIGINT PRIMARY KEY)")
        replica = Server("serve", "--primary", primary.uri, env={"TZ": "Asia/Tokyo"})
        with running(replica):
            serving = "SELECT count(*) FROM merutable_status() WHERE state = 'serving'"
            until(is_answered(replica.uri, serving, [(2,)]), "the replica serves both tables")
            yield primary, replica


@pytest.fixture
def primary(servers: tuple[Server, Server]) -> Server:
    return servers[0]


@pytest.fixture
def replica(servers: tuple[Server, Server]) -> Server:
    return servers[1]


def _read(connection: adbc.Connection, sql: str, **options: object) -> pa.Table:
    """The rows of a query with these `merutable-` headers."""
    with connection.cursor() as cursor:
        headers = {f"{HEADER}{name.replace('_', '-')}": str(value) for name, value in options.items()}
        cursor.adbc_statement.set_options(**headers)
        cursor.execute(sql)
        return cursor.fetch_arrow_table()


def _write(connection: adbc.Connection, sql: str, *values: object) -> int:
    """The seq of a write."""
    with connection.cursor() as cursor:
        cursor.execute(sql, values or None)
        ((_, seq),) = cursor.fetchall()
        return int(seq)


def _tables(answer: pa.Table) -> dict[str, dict[str, int]]:
    found = json.loads(answer.schema.metadata[b"merutable.position"])["tables"]
    return {at["table"]: at for at in found}


def test_a_writer_reads_its_own_writes_at_the_replica_two_hundred_times(
    primary: Server, replica: Server
) -> None:
    with (
        adbc.connect(primary.uri, autocommit=True) as writer,
        adbc.connect(replica.uri, autocommit=True) as reader,
    ):
        for number in range(COUNT):
            seq = _write(writer, "INSERT INTO orders VALUES (?, NULL)", number)
            found = _read(reader, f"SELECT id FROM orders WHERE id = {number}", min_seq=seq)
            assert found["id"].to_pylist() == [number]
            assert _tables(found)["orders"]["visible_seq"] >= seq


def test_seqs_of_two_tables_are_demanded_together(primary: Server, replica: Server) -> None:
    with (
        adbc.connect(primary.uri, autocommit=True) as writer,
        adbc.connect(replica.uri, autocommit=True) as reader,
    ):
        for number in range(20):
            seqs = [
                _write(writer, "INSERT INTO orders VALUES (?, NULL)", 1000 + number),
                _write(writer, "INSERT INTO items VALUES (?)", 1000 + number),
            ]
            sql = f"SELECT count(*) AS n FROM orders JOIN items USING (id) WHERE id = {1000 + number}"
            found = _read(reader, sql, min_seq=f"orders={seqs[0]},items={seqs[1]}")
            assert found["n"].to_pylist() == [1]


def test_merutable_wait_at_the_replica_is_followed_by_the_rows(primary: Server, replica: Server) -> None:
    with adbc.connect(primary.uri, autocommit=True) as writer:
        seq = _write(writer, "INSERT INTO orders VALUES (5000, NULL)")
    sql = (
        f"SELECT w.visible_seq >= {seq}, merutable_seq('orders') >= w.visible_seq,"
        f" merutable_lag_ms('orders') "
        f"FROM merutable_wait('orders', {seq}, 10000) w, orders WHERE id = 5000"
    )
    ((is_there, is_in_view, lag_ms),) = rows(replica.uri, sql)
    assert (is_there, is_in_view) == (True, True)
    assert isinstance(lag_ms, float) and lag_ms >= 0


def test_a_primary_waits_for_a_seq_that_it_has_not_given_yet(primary: Server) -> None:
    with (
        adbc.connect(primary.uri, autocommit=True) as reader,
        pytest.raises(adbc.OperationalError, match=r"waited \d+ ms .* for seq 999999"),
    ):
        _read(reader, "SELECT id FROM orders", min_seq=999_999, wait_timeout_ms=20)


def test_an_age_is_proven_by_the_feed_and_not_by_the_connection(primary: Server, replica: Server) -> None:
    sql = "SELECT count(*) FROM orders"
    with adbc.connect(replica.uri, autocommit=True) as reader:
        for limit_ms in (5000, 200, 100):
            at = _tables(_read(reader, sql, max_staleness_ms=limit_ms))["orders"]
            assert 0 <= at["lag_us"] <= limit_ms * 1000
        with primary.stopped():
            old = "SELECT merutable_lag_ms('orders') > 300"
            until(is_answered(replica.uri, old, [(True,)]), "the lag grows while nothing arrives")
            with pytest.raises(
                adbc.OperationalError,
                match=r"for a lag of at most 300 ms \(max_staleness_ms\); visible is seq",
            ):
                _read(reader, sql, max_staleness_ms=300, wait_timeout_ms=50)
            assert _read(reader, sql).num_rows == 1
        at = _tables(_read(reader, sql, max_staleness_ms=1000, wait_timeout_ms=60_000))["orders"]
        assert 0 <= at["lag_us"] <= 1_000_000


def test_times_are_shown_in_the_clients_zone_and_never_in_the_hosts(primary: Server, replica: Server) -> None:
    with adbc.connect(primary.uri, autocommit=True) as writer:
        seq = _write(writer, "INSERT INTO orders VALUES (6000, TIMESTAMPTZ '2024-07-01 12:00:00+00')")
    sql = "SELECT made, made::VARCHAR AS text FROM orders WHERE id = 6000"
    with adbc.connect(replica.uri, autocommit=True) as reader:
        plain = _read(reader, sql, min_seq=seq)
        berlin = _read(reader, sql, min_seq=seq, time_zone="Europe/Berlin")
    assert plain.to_pydict()["text"] == ["2024-07-01 12:00:00+00"]
    assert plain.schema.field("made").type == pa.timestamp("us", "UTC")
    assert berlin.to_pydict()["text"] == ["2024-07-01 14:00:00+02"]
    assert berlin.schema.field("made").type == pa.timestamp("us", "Europe/Berlin")
    assert plain["made"].cast(pa.int64()) == berlin["made"].cast(pa.int64())
