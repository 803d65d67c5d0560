"""`merutable_changes` as a relation in a client's SQL: its ops, its columns, and what filters do.

Over the real server, by ADBC. Streams and marks: `tests/integration/log/test_log_source_contract.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import adbc_driver_flightsql.dbapi as adbc
import pyarrow as pa
import pytest

from flight_replica.flightsql.server import FlightSqlServer
from flight_replica.log.op_log import OpLog
from flight_replica.log.source import Op
from flight_replica.primary.service import PrimaryService
from flight_replica.primary.settings import PrimarySettings
from flight_replica.schema import Column, TableSchema
from tests.bases import LINEAGE, op_batch, put
from tests.integration.flightsql.primary_server import connect, fetch
from tests.integration.log.feed_service import FeedService

OPS = [
    (1, "INSERT", 1, 10),
    (2, "INSERT", 2, 20),
    (3, "UPDATE", 1, 11),
    (4, "DELETE", 2, 20),
    (5, "INSERT", 3, 30),
]


@pytest.fixture(scope="module")
def connection(tmp_path_factory: pytest.TempPathFactory) -> Iterator[adbc.Connection]:
    """Of a primary whose table `kv` has the five ops above, and whose table `none` has none."""
    directory = tmp_path_factory.mktemp("primary")
    with closing(PrimaryService.open(directory, PrimarySettings(publish_seconds=3600))) as service:
        for sql in (
            "CREATE TABLE kv (id BIGINT PRIMARY KEY, v BIGINT NOT NULL)",
            "CREATE TABLE none (id BIGINT PRIMARY KEY, v BIGINT NOT NULL)",
            "INSERT INTO kv VALUES (1, 10)",
            "INSERT INTO kv VALUES (2, 20)",
            "UPDATE kv SET v = 11 WHERE id = 1",
            "DELETE FROM kv WHERE id = 2",
            "INSERT INTO kv VALUES (3, 30)",
        ):
            service.write(sql)
        with (
            closing(FlightSqlServer(service, "127.0.0.1", 0)) as server,
            connect(server, autocommit=True) as found,
        ):
            yield found


def seqs(connection: adbc.Connection, where: str, since: int = 0) -> list[int]:
    """The seqs of `kv`'s changes after `since` for which `where` holds."""
    rows = fetch(connection, f"SELECT seq FROM merutable_changes('kv', {since}) WHERE {where} ORDER BY seq")
    return [row[0] for row in rows]


@pytest.mark.statement(78, 89, 100)
def test_changes_are_rows_with_seq_op_and_columns(connection: adbc.Connection) -> None:
    assert fetch(connection, "SELECT seq, op, id, v FROM merutable_changes('kv', 0) ORDER BY seq") == OPS
    assert fetch(connection, "SELECT seq, op FROM merutable_changes('kv', 0)") == [op[:2] for op in OPS]


@pytest.mark.statement(82, 103)
@pytest.mark.parametrize("since", range(6))
def test_ops_up_to_since_are_not_there(connection: adbc.Connection, since: int) -> None:
    assert seqs(connection, "true", since) == list(range(since + 1, 6))


Claim = Callable[[int, str], bool]

FILTERS: dict[str, Claim] = {
    "op = 'DELETE'": lambda seq, op: op == "DELETE",
    "op <> 'DELETE' AND seq < 5": lambda seq, op: op != "DELETE" and seq < 5,
    "seq > 2": lambda seq, op: seq > 2,
    "seq >= 4": lambda seq, op: seq >= 4,
    "2 < seq": lambda seq, op: seq > 2,
    "4 <= seq": lambda seq, op: seq >= 4,
    "seq >= 0": lambda seq, op: True,
    "seq > -1": lambda seq, op: True,
    "seq >= -9223372036854775808": lambda seq, op: True,
    "seq < -1": lambda seq, op: False,
    "seq = 3": lambda seq, op: seq == 3,
    "seq <> 3": lambda seq, op: seq != 3,
    "seq < 3": lambda seq, op: seq < 3,
    "seq <= 3": lambda seq, op: seq <= 3,
    "seq > 1 AND op = 'INSERT'": lambda seq, op: seq > 1 and op == "INSERT",
    "seq > 3 OR op = 'UPDATE'": lambda seq, op: seq > 3 or op == "UPDATE",
    "NOT seq > 3": lambda seq, op: seq <= 3,
    "seq > 2.5": lambda seq, op: seq > 2.5,
    "seq BETWEEN 2 AND 4": lambda seq, op: 2 <= seq <= 4,
    "seq IN (1, 5, 9)": lambda seq, op: seq in (1, 5),
    "seq > 18446744073709551614": lambda seq, op: False,
    "seq > 1 + 1": lambda seq, op: seq > 2,
    "seq IS NULL": lambda seq, op: False,
}


@pytest.mark.statement(101, 102, 104)
@pytest.mark.parametrize("where", FILTERS)
def test_a_filter_on_changes_leaves_exactly_what_it_says(connection: adbc.Connection, where: str) -> None:
    expected = [seq for seq, op, _, _ in OPS if FILTERS[where](seq, op)]
    assert seqs(connection, where) == expected


@pytest.mark.statement(105)
@pytest.mark.parametrize("where", ["seq > 1", "seq >= 0", "seq > -5", "1 < seq"])
def test_a_filter_never_lowers_since(connection: adbc.Connection, where: str) -> None:
    assert seqs(connection, where, since=3) == [4, 5]


def test_a_limit_on_changes_is_kept(connection: adbc.Connection) -> None:
    found = fetch(connection, "SELECT seq FROM merutable_changes('kv', 1) ORDER BY seq LIMIT 2")
    assert found == [(2,), (3,)]


def changes(connection: adbc.Connection, sql: str) -> pa.Table:
    with connection.cursor() as cursor:
        cursor.execute(sql)
        return cursor.fetch_arrow_table()


FIELDS = [
    ("seq", pa.uint64()),
    ("op", pa.string()),
    ("pk_bytes", pa.binary()),
    ("id", pa.int64()),
    ("v", pa.int64()),
]


@pytest.mark.statement(106, 108)
@pytest.mark.parametrize("table", ["kv", "none"])
@pytest.mark.parametrize("rest", ["", " WHERE seq > 0"], ids=["as it is", "filtered"])
def test_changes_have_three_columns_before_the_table_s_which_are_all_nullable(
    connection: adbc.Connection, table: str, rest: str
) -> None:
    found = changes(connection, f"SELECT * FROM merutable_changes('{table}', 0){rest}")
    assert [(field.name, field.type) for field in found.schema] == FIELDS
    assert all(field.nullable for field in list(found.schema)[3:])
    assert [field.nullable for field in list(found.schema)[:3]] == [bool(rest)] * 3
    assert found.num_rows == (5 if table == "kv" else 0)
    assert [found[name].null_count for name in ("seq", "op", "pk_bytes")] == [0, 0, 0]


@pytest.mark.statement(84, 99, 108)
def test_since_the_newest_seq_there_are_no_rows_and_above_it_is_an_error(connection: adbc.Connection) -> None:
    assert changes(connection, "SELECT * FROM merutable_changes('kv', 5)").num_rows == 0
    with pytest.raises(adbc.Error, match="log gap: requested since 6"):
        changes(connection, "SELECT * FROM merutable_changes('kv', 6)")


@pytest.fixture
def bare_deletes(tmp_path: Path) -> Iterator[adbc.Connection]:
    """Of a feed whose second op deletes a key that never was, so that there is no row to show."""
    schema = TableSchema((Column("id", pa.int64(), False), Column("v", pa.int64(), False)), ("id",))
    log = OpLog("kv", LINEAGE, schema, bytes_max=1 << 20, clock_us=lambda: 1)
    log.append(op_batch(schema, [(1, *put(1, 10, schema=schema))]), through=1, commit_time_us=1)
    bare = op_batch(schema, [(2, Op.DELETE, {"id": 9})], is_bare_delete=True)
    log.append(bare, through=2, commit_time_us=2)
    service = FeedService(log)
    with (
        closing(service),
        closing(FlightSqlServer(service, "127.0.0.1", 0)) as server,
        connect(server, autocommit=True) as found,
    ):
        yield found


@pytest.mark.statement(93, 107)
@pytest.mark.parametrize("rest", ["", " WHERE seq > 0"], ids=["as it is", "filtered"])
def test_a_delete_without_pre_image_has_its_key_bytes_and_nulls(
    bare_deletes: adbc.Connection, rest: str
) -> None:
    found: list[dict[str, Any]] = changes(
        bare_deletes, f"SELECT * FROM merutable_changes('kv', 0){rest}"
    ).to_pylist()
    assert found[1] == {
        "seq": 2,
        "op": "DELETE",
        "pk_bytes": bytes.fromhex("8000000000000009"),
        "id": None,
        "v": None,
    }
