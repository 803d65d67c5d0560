"""`flight-replica verify` between real servers: equal, different, moving, and what can't be compared."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pytest
from pyiceberg.catalog.sql import SqlCatalog

from flight_replica.client import connect
from tests.processes import Process, Server, is_answered, rows, running, until

ROWS = 50_000  # more than one leaf
EQUAL, DIFFERS, NOT_COMPARED = 0, 1, 2


@dataclass(frozen=True, slots=True)
class Servers:
    """A primary, its replica, and one over a base that isn't what the primary has."""

    primary: Server
    replica: Server
    wrong: Server


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    folder = tmp_path_factory.mktemp("verify")
    primary = Server("primary", "--data", str(folder / "primary"))
    with running(primary):
        rows(primary.uri, "CREATE TABLE t (id BIGINT PRIMARY KEY, v VARCHAR, x DOUBLE)")
        rows(primary.uri, f"INSERT INTO t SELECT range, 'v' || range, range / 4 FROM range({ROWS})")
        rows(primary.uri, "CREATE TABLE u (id BIGINT PRIMARY KEY)")
        lineage = rows(primary.uri, "SELECT lineage FROM merutable_tables() WHERE table_name = 't'")[0][0]
        replica = Server("serve", "--primary", primary.uri)
        wrong = Server(
            "serve",
            f"--base=t=iceberg:{damaged_copy(folder / 'lake')}",
            "--key=t=id",
            f"--base-seq=t={ROWS}",
            f"--lineage=t={lineage}",
            f"--feed=t={primary.uri}",
        )
        with running(replica, wrong):
            rows(primary.uri, "UPDATE t SET v = 'new' WHERE id = 5")
            for server in (replica, wrong):
                until(is_answered(server.uri, "SELECT v FROM t WHERE id = 5", [("new",)]), "it follows")
            until(is_answered(replica.uri, "SELECT count(*) FROM u", [(0,)]), "both tables are there")
            yield Servers(primary, replica, wrong)


def damaged_copy(folder: Path) -> str:
    """The metadata file of an Iceberg table that is `t`, but for key 30 000 (v, x), 7 and −3."""
    folder.mkdir()
    ids = [-3, *(number for number in range(ROWS) if number != 7)]
    values = [(number, f"v{number}", number / 4) for number in ids]
    values[values.index((30_000, "v30000", 7500.0))] = (30_000, "v3000O", -0.0)
    schema = pa.schema(
        [pa.field("id", pa.int64(), False), pa.field("v", pa.string()), pa.field("x", pa.float64())]
    )
    table = pa.table([pa.array(column) for column in zip(*values, strict=True)], schema)
    with closing(SqlCatalog("c", uri=f"sqlite:///{folder}/catalog.db", warehouse=str(folder))) as catalog:
        catalog.create_namespace("n")
        created = catalog.create_table("n.t", schema)
        created.append(table)
        return str(created.metadata_location)


def verify(*arguments: str) -> tuple[int, list[str], list[str]]:
    process = Process("flight_replica", "verify", *arguments)
    with running(process):
        code = process.wait(60)
        return code, list(process.lines()), process.errors


def test_a_replica_that_has_what_its_primary_has_is_equal_at_one_seq(servers: Servers) -> None:
    code, out, errors = verify(servers.primary.uri, servers.replica.uri)
    assert (code, errors) == (EQUAL, [])
    assert [line.partition(", digest")[0] for line in out] == [
        f"t: equal at seq {ROWS + 1}: {ROWS} rows",
        "u: equal at seq 0: 0 rows",
    ]


def test_a_value_a_row_too_many_and_one_too_few_are_found_by_key(servers: Servers) -> None:
    code, out, errors = verify(servers.primary.uri, servers.wrong.uri, "--table", "t")
    assert (code, errors) == (DIFFERS, [])
    head, *found = out
    assert head.startswith(f"t: DIFFERS at seq {ROWS + 1}: {ROWS} rows at A ")
    assert found == [
        "  id=-3: only at B",
        "  id=7: only at A",
        "  id=30000: v: A has 'v30000', B has 'v3000O'; x: A has 7500.0, B has -0.0",
    ]


def test_differences_are_told_as_json_and_no_more_than_wanted(servers: Servers) -> None:
    code, out, errors = verify(
        servers.wrong.uri, servers.replica.uri, "--table", "t", "--json", "--keys", "2"
    )
    assert (code, errors) == (DIFFERS, [])
    document = json.loads("\n".join(out))
    assert document["is_equal"] is False
    (table,) = document["tables"]
    assert (table["table"], table["seq"], table["a"]["row_count"]) == ("t", ROWS + 1, ROWS)
    assert [(each["key"], each["only_at"]) for each in table["differences"]] == [
        ({"id": -3}, "a"),
        ({"id": 7}, "b"),
    ]


def test_tables_that_are_written_all_the_time_are_compared_at_one_seq(servers: Servers) -> None:
    with written(servers.primary):
        code, out, errors = verify(servers.primary.uri, servers.replica.uri, "--table", "t")
        assert (code, errors) == (EQUAL, []), out
        code, out, errors = verify(servers.replica.uri, servers.primary.uri, "--table", "t")
        assert (code, errors) == (EQUAL, []), out
        code, out, _ = verify(servers.primary.uri, servers.wrong.uri, "--table", "t")
        assert code == DIFFERS
        assert "  id=7: only at A" in out


@contextmanager
def written(primary: Server) -> Iterator[None]:
    """Keys from 10 on are changed all the time."""
    stop = threading.Event()

    def write() -> None:
        number = 0
        with connect(primary.uri) as connection, connection.cursor() as cursor:
            while not stop.is_set():
                number += 1
                cursor.execute(f"UPDATE t SET v = 'w{number}' WHERE id = {10 + number % 20_000}")
                cursor.fetchall()

    thread = threading.Thread(target=write)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def test_what_can_not_be_compared_is_one_line_each_and_code_2(servers: Servers, tmp_path: Path) -> None:
    code, out, errors = verify(servers.primary.uri, servers.wrong.uri, "--table", "u")
    assert (code, errors) == (NOT_COMPARED, [])
    assert out == [f"u: not compared: {servers.wrong.uri}: table 'u' isn't served here"]

    other = Server("primary", "--data", str(tmp_path / "other"))
    with running(other):
        rows(other.uri, "CREATE TABLE t (id BIGINT PRIMARY KEY)")
        code, out, _ = verify(servers.primary.uri, other.uri, "--table", "t", "--wait", "1")
        assert code == NOT_COMPARED
        assert "lineage" in out[0]

    code, out, errors = verify(servers.primary.uri, "grpc://127.0.0.1:1")
    assert (code, out) == (NOT_COMPARED, [])
    assert len(errors) == 1 and "grpc://127.0.0.1:1" in errors[0]


def test_wrong_usage_of_verify_is_code_2() -> None:
    assert verify("grpc://127.0.0.1:1")[0] == NOT_COMPARED
    assert verify("grpc://127.0.0.1:1", "grpc://127.0.0.1:1", "--keys", "0")[0] == NOT_COMPARED
