"""What clients see of a primary and its replica: through ADBC, and by bare pyarrow what ADBC hides."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import adbc_driver_flightsql.dbapi as flightsql
import adbc_driver_manager
import pyarrow as pa
import pytest
from pyarrow import flight

from flight_replica._pb import flight_sql_pb2 as pb
from flight_replica.client import position_of, query
from flight_replica.errors import ReplicaError
from flight_replica.flightsql.commands import pack
from flight_replica.log.wire import decode_log_gap, decode_positions
from tests.processes import Server, end, is_answered, position, rows, until

ROWS = 300_000
NEWEST = ROWS + 2010  # seq of the last op of the fixture
BATCH_BYTES_MAX = 2 << 20
GROWTH_BYTES_MAX = 200 << 20  # of a server that streams 800 MB to a client that hardly reads
ELSEWHERE = {"TZ": "America/New_York"}


@dataclass
class Pair:
    """A primary with table `t` of `ROWS` rows whose first ops are trimmed, and a replica of it."""

    primary: Server
    replica: Server

    @property
    def both(self) -> tuple[Server, Server]:
        return self.primary, self.replica


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    data = str(tmp_path_factory.mktemp("clients") / "primary")
    servers = [
        Server("primary", "--data", data, "--base-seconds", "0.3", "--retain-ops", "1000", env=ELSEWHERE)
    ]
    try:
        uri = servers[0].uri
        rows(uri, "CREATE TABLE t (id BIGINT PRIMARY KEY, ts TIMESTAMP WITH TIME ZONE, day DATE, v VARCHAR)")
        moment = "TIMESTAMPTZ '2024-03-10 01:30:00+00' + to_hours(i)"
        rows(uri, f"INSERT INTO t SELECT i, {moment}, ({moment})::DATE, 'v' || i FROM range({ROWS}) r(i)")
        rows(uri, "UPDATE t SET day = day WHERE id < 2000")  # now the first commit is past what is retained
        rows(uri, "DELETE FROM t WHERE id < 10")
        until(is_answered(uri, f"SELECT low_water >= {ROWS} FROM merutable_tables()", [(True,)]), "a trim")
        servers.append(Server("serve", "--primary", uri, env=ELSEWHERE))
        found = Pair(*servers)
        until(is_answered(found.replica.uri, "SELECT count(*) FROM t", [(ROWS - 10,)]), "the replica is up")
        yield found
    finally:
        end(*servers)


def refusal(uri: str, sql: str) -> adbc_driver_manager.Error:
    """The error that a statement ends with."""
    with (
        flightsql.connect(uri, autocommit=True) as connection,
        connection.cursor() as cursor,
        pytest.raises(adbc_driver_manager.Error) as caught,
    ):
        cursor.execute(sql)
        cursor.fetch_arrow_table()
    return caught.value


class RawClient:
    """Flight SQL by hand."""

    def __init__(self, uri: str) -> None:
        self._client = flight.FlightClient(uri)

    def plan(self, sql: str) -> flight.FlightInfo:
        command = pack(pb.CommandStatementQuery(query=sql))
        return self._client.get_flight_info(flight.FlightDescriptor.for_command(command))

    def open(self, info: flight.FlightInfo) -> flight.FlightStreamReader:
        return self._client.do_get(info.endpoints[0].ticket)

    def close(self) -> None:
        self._client.close()


@pytest.fixture
def raw(pair: Pair) -> Iterator[RawClient]:
    """A client of the replica."""
    client = RawClient(pair.replica.uri)
    yield client
    client.close()


# --- positions and the server's own relations -----------------------------------------------------------


def test_digests_of_primary_and_replica_are_equal_at_one_seq(pair: Pair) -> None:
    sql = "SELECT table_name, lineage, seq, row_count, digest FROM merutable_digest('t')"
    primary, replica = (rows(server.uri, sql)[0] for server in pair.both)
    assert primary == replica
    assert primary[2:4] == (NEWEST, ROWS - 10)


def test_tables_status_clock_and_changes_answer_on_both(pair: Pair) -> None:
    for server in pair.both:
        (table,) = query(server.uri, "SELECT * FROM merutable_tables()").to_pylist()
        assert (table["table_name"], table["primary_key"], table["base_kind"]) == ("t", ["id"], "iceberg")
        (status,) = query(server.uri, "SELECT * FROM merutable_status()").to_pylist()
        assert (status["state"], status["visible_seq"]) == ("serving", table["high_water"])
        ((now_us,),) = rows(server.uri, "SELECT epoch_us(now) FROM merutable_clock()")
        assert isinstance(now_us, int)
        assert abs(now_us / 1e6 - time.time()) < 10
        changes = f"SELECT op, id, v FROM merutable_changes('t', {NEWEST})"
        assert rows(server.uri, changes) == []


def test_changes_are_a_relation_on_both(pair: Pair) -> None:
    seq = rows(pair.primary.uri, "INSERT INTO t VALUES (-1, NULL, NULL, 'x')")[0][1]
    rows(pair.primary.uri, "DELETE FROM t WHERE id = -1")
    assert isinstance(seq, int)
    for server in pair.both:
        sql = f"SELECT op, id FROM merutable_changes('t', {seq - 1}) WHERE seq <= {seq + 1} ORDER BY seq"
        until(is_answered(server.uri, sql, [("INSERT", -1), ("DELETE", -1)]), "both ops")


def test_every_answer_states_its_position(pair: Pair, raw: RawClient) -> None:
    for what in ("* FROM t LIMIT 1", "count(*) FROM t", "row_count FROM merutable_digest('t')"):
        for server in pair.both:
            (at,) = position_of(query(server.uri, f"SELECT {what}"))
            assert at["table"] == "t"
            assert isinstance(at["visible_seq"], int) and at["visible_seq"] >= NEWEST
            assert at["lineage"] == position(pair.primary.uri, "t")["lineage"]
    positions, mark = decode_positions(raw.plan("SELECT count(*) FROM t").app_metadata)
    assert [at.table for at in positions] == ["t"]
    assert mark is None


@pytest.mark.statement(14, 80)
def test_a_log_gap_is_readable_through_adbc(pair: Pair) -> None:
    for server in pair.both:
        low_water = rows(server.uri, "SELECT low_water FROM merutable_tables()")[0][0]
        text = str(refusal(server.uri, "SELECT * FROM merutable_changes('t', 3)"))
        assert f"log gap: requested since 3, earliest available {low_water}: table 't' keeps ops" in text
        assert_clean(text)


def test_a_log_gap_has_details_for_a_raw_client(raw: RawClient, pair: Pair) -> None:
    with pytest.raises(flight.FlightServerError) as caught:
        raw.plan("SELECT * FROM merutable_changes('t', 3)")
    gap = decode_log_gap(caught.value.extra_info)
    assert gap is not None
    assert gap.requested == 3
    assert gap.earliest_available == rows(pair.replica.uri, "SELECT low_water FROM merutable_tables()")[0][0]
    assert str(gap.lineage) == position(pair.replica.uri, "t")["lineage"]


# --- refusals -------------------------------------------------------------------------------------------

REFUSED = {
    "INSERT INTO t VALUES (-5, NULL, NULL, 'x')": "INSERT",
    "UPDATE t SET v = 'x'": "UPDATE",
    "DELETE FROM t": "DELETE",
    "DROP TABLE t": "DROP",
    "CREATE TABLE u (id BIGINT PRIMARY KEY)": "CREATE",
    "COPY t TO '/tmp/t.csv'": "COPY",
    "COPY (SELECT 1) TO '/tmp/t.csv'": "COPY",
    "ATTACH '/tmp/x.db'": "ATTACH",
    "INSTALL httpfs": "INSTALL",
    "LOAD httpfs": "LOAD",
    "SET threads = 1": "SET",
    "PRAGMA database_list": "PRAGMA",
    "CALL pragma_version()": "CALL",
    "EXPORT DATABASE '/tmp/x'": "EXPORT",
    "CHECKPOINT": "CHECKPOINT",
    "SELECT * FROM read_parquet('/etc/passwd')": "read_parquet",
    "SELECT * FROM read_text('/etc/passwd')": "read_text",
    "SELECT * FROM glob('/etc/*')": "glob",
    "SELECT * FROM '/etc/passwd'": "files can't be read",
    "SELECT * FROM query('SELECT 1')": "query",
    "SELECT getenv('HOME')": "getenv",
    "SELECT current_setting('temp_directory')": "current_setting",
    "FROM enable_logging(storage = 'file')": "enable_logging",
    "SELECT * FROM duckdb_settings()": "duckdb_settings",
    "WITH x AS (DELETE FROM t RETURNING *) SELECT * FROM x": "DELETE",
    "SELECT 1; SELECT 2": "one statement",
    "SELECT repeat('x', 2000000000)": "repeat",
}


@pytest.mark.parametrize("sql", REFUSED)
def test_what_writes_or_leaves_the_sandbox_is_refused_clearly(pair: Pair, sql: str) -> None:
    error = refusal(pair.replica.uri, sql)
    assert isinstance(error, adbc_driver_manager.ProgrammingError)
    assert REFUSED[sql].lower() in str(error).lower()
    assert_clean(str(error))
    assert pair.replica.code is None, "the replica has ended"


def assert_clean(text: str) -> None:
    """No trace of our code, nor of where it lives."""
    assert "Traceback" not in text
    assert 'File "' not in text
    assert ".py" not in text
    assert "flight_replica" not in text
    assert len(text) < 1000


@pytest.mark.statement(44)
def test_a_write_to_a_replica_names_the_primary(pair: Pair) -> None:
    text = str(refusal(pair.replica.uri, "INSERT INTO t VALUES (-5, NULL, NULL, 'x')"))
    assert f"read-only replica; write to the primary at {pair.primary.uri}" in text
    with (
        flightsql.connect(pair.replica.uri, autocommit=True) as connection,
        connection.cursor() as cursor,
        pytest.raises(adbc_driver_manager.Error, match=pair.primary.uri),
    ):
        cursor.adbc_ingest("t", pa.table({"id": [-5]}), mode="append")


@pytest.mark.parametrize(
    ("sql", "said"),
    [
        ("SELEC 1", "syntax error"),
        ("SELECT nix FROM t", "nix"),
        ("SELECT * FROM nix", "'nix'"),
        ("SELECT v::BIGINT FROM t", "Could not convert"),
        ("SELECT * FROM merutable_changes('nix', 0)", "'nix'"),
        ("SELECT * FROM merutable_changes('t', -1)", "merutable_changes"),
    ],
)
def test_a_statement_that_is_wrong_is_told_so_shortly(pair: Pair, sql: str, said: str) -> None:
    for server in pair.both:
        text = str(refusal(server.uri, sql))
        assert said in text
        assert_clean(text)


# --- streams and hosts ----------------------------------------------------------------------------------


def test_results_come_in_batches_of_at_most_two_mib(raw: RawClient) -> None:
    reader = raw.open(raw.plan("SELECT *, repeat('x', 100) AS padding FROM t"))
    sizes = [chunk.data.nbytes for chunk in reader]
    assert len(sizes) > 10
    assert max(sizes) <= BATCH_BYTES_MAX


def test_a_slow_reader_of_a_large_result_costs_no_memory(pair: Pair) -> None:
    for server in pair.both:
        query(server.uri, "SELECT count(*), sum(id) FROM t")
        before = server.resident_bytes
        client = RawClient(server.uri)
        sql = "SELECT i.id, t.id AS other, t.v, repeat('x', 200) AS padding FROM t, range(10) i(id)"
        reader = client.open(client.plan(sql))
        peak = before
        for number, chunk in enumerate(reader):
            assert chunk.data.num_rows
            peak = max(peak, server.resident_bytes)
            if number == 40:
                break
            time.sleep(0.02)  # the slow reader itself
        reader.cancel()
        client.close()
        assert peak - before < GROWTH_BYTES_MAX, f"{(peak - before) >> 20} MiB more"


def test_the_host_s_time_zone_does_not_matter(pair: Pair) -> None:
    for server in pair.both:
        sql = "SELECT hour(ts), strftime(ts, '%Y-%m-%d %H'), ts::DATE, day, ts::VARCHAR FROM t WHERE id = 20"
        ((hour, text, cast, day, shown),) = rows(server.uri, sql)
        assert (hour, text, str(cast), cast, shown) == (
            21,
            "2024-03-10 21",
            "2024-03-10",
            day,
            "2024-03-10 21:30:00+00",
        )
        assert query(server.uri, "SELECT ts FROM t LIMIT 1").schema.types == [pa.timestamp("us", "UTC")]


def test_many_clients_at_once_each_get_their_own_answer(pair: Pair) -> None:
    def ask(number: int) -> list[tuple[object, ...]]:
        return rows(pair.replica.uri, f"SELECT v, {number} FROM t WHERE id = {number}")

    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(ask, range(100, 164)))
    assert answers == [[(f"v{number}", number)] for number in range(100, 164)]


def test_a_client_that_goes_away_leaves_a_server_that_answers(pair: Pair) -> None:
    for _ in range(5):
        client = RawClient(pair.replica.uri)
        client.open(client.plan("SELECT * FROM t, range(100)")).read_chunk()
        client.close()
    with pytest.raises(ReplicaError):
        query(pair.replica.uri, "SELECT nix")
    assert rows(pair.replica.uri, "SELECT v FROM t WHERE id = 100") == [("v100",)]
