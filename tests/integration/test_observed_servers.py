"""Logs and traces of server processes: an event a line from first to last, and nothing secret in them."""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import adbc_driver_flightsql.dbapi as adbc
import jwt
import pytest

from tests.otlp import Collector, collecting
from tests.processes import Process, Server, running, until

TRACE = "0af7651916cd43dd8448eb211c80319c"
TRACEPARENT = f"00-{TRACE}-b7ad6b7169203331-01"
PASSWORD = f"geheim-{secrets.token_hex(8)}"
WRONG_PASSWORD = f"falsch-{secrets.token_hex(8)}"
JWT_SECRET = f"schluessel-{secrets.token_hex(16)}"
JWT = ("--auth=jwt", "--jwt-audience=replica")
VALUE = f"wert-{secrets.token_hex(8)}"


@pytest.fixture(scope="module")
def collector() -> Iterator[Collector]:
    with collecting() as found:
        yield found


@pytest.fixture(scope="module")
def users(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("users") / "users.json"
    adding = Process("flight_replica", "user", str(path), "ada", "--write", "*", "--ddl")
    with running(adding):
        adding.say(PASSWORD)
        assert adding.wait() == 0, adding.errors
    return path


@pytest.fixture(scope="module")
def primary(users: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    env = {"FLIGHT_REPLICA_LOG_SLOW_QUERY_MS": "0.001", "FLIGHT_REPLICA_LOG_QUERY_TEXT": "full"}
    server = Server(
        "--log-format=json",
        "--log-level=debug",
        "primary",
        "--data",
        str(tmp_path_factory.mktemp("primary")),
        "--auth=basic",
        "--users",
        str(users),
        env=env,
    )
    with running(server):
        yield server


@pytest.fixture(scope="module")
def replica(primary: Server, collector: Collector) -> Iterator[Server]:
    env = {
        "FLIGHT_REPLICA_PRIMARY_PASSWORD": PASSWORD,
        "FLIGHT_REPLICA_JWT_SECRET": JWT_SECRET,
        "FLIGHT_REPLICA_TRACING_ENDPOINT": collector.endpoint,
        "OTEL_BSP_SCHEDULE_DELAY": "50",
        "OTEL_SERVICE_NAME": "shop-replica",
    }
    server = Server(
        "--log-level=debug", "serve", "--primary", primary.uri, "--primary-user=ada", *JWT, env=env
    )
    with running(server):
        yield server


def token(seconds: float = 600) -> str:
    """A user's token for the replica, good for so long."""
    claims = {"sub": "bob", "aud": "replica", "exp": int(time.time() + seconds)}
    return jwt.encode(claims, JWT_SECRET, algorithm="HS256")


# Good for longer than a whole run of the tests: it is made when this file is read.
TOKEN, EXPIRED, FORGED = token(86_400), token(-600), f"Bearer{secrets.token_hex(8)}"


def by_token(replica: Server, text: str = TOKEN, **more: str) -> adbc.Connection:
    options = {"adbc.flight.sql.authorization_header": f"Bearer {text}", **more}
    return adbc.connect(replica.uri, db_kwargs=options, autocommit=True)


def has(replica: Server, sql: str, count: int) -> Callable[[], bool]:
    """A condition for `until`: the statement counts so many rows."""

    def holds() -> bool:
        try:
            with by_token(replica) as connection, connection.cursor() as cursor:
                cursor.execute(sql)
                return cursor.fetchall() == [(count,)]
        except adbc.Error:
            return False

    return holds


def connect(server: Server, password: str, **more: str) -> adbc.Connection:
    return adbc.connect(
        server.uri, db_kwargs={"username": "ada", "password": password, **more}, autocommit=True
    )


def test_no_password_token_or_bound_value_is_in_any_line(primary: Server, replica: Server) -> None:
    with connect(primary, PASSWORD) as connection, connection.cursor() as cursor:
        cursor.execute("CREATE TABLE t (id BIGINT PRIMARY KEY, v VARCHAR)")
        cursor.execute("INSERT INTO t VALUES (1, ?)", [VALUE])
        cursor.execute("SELECT * FROM t WHERE v = ?", [VALUE])
        assert cursor.fetchall() == [(1, VALUE)]
        with pytest.raises(adbc.Error):
            cursor.execute("SELECT ?::INTEGER FROM t", [VALUE])
            cursor.fetchall()
        with pytest.raises(adbc.Error):
            cursor.execute("INSERT INTO t VALUES (1, ?)", [VALUE])
    with pytest.raises(adbc.Error), connect(primary, WRONG_PASSWORD) as connection:
        connection.cursor().execute("SELECT 1")
    with pytest.raises(adbc.Error), by_token(primary, FORGED) as connection:
        connection.cursor().execute("SELECT 1")
    for bad in (EXPIRED, FORGED):
        with pytest.raises(adbc.Error), by_token(replica, bad) as connection:
            connection.cursor().execute("SELECT 1")
    until(has(replica, f"SELECT count(*) FROM t WHERE v = '{VALUE}'", 1), "it is there")
    until(
        lambda: any("slow query" in line and "SELECT ?::INTEGER" in line for line in primary.errors), "slow"
    )
    # Also the literals of the replica's clients: it doesn't log statements in full.
    said = "\n".join([*primary.errors, *replica.errors])
    for secret in (PASSWORD, WRONG_PASSWORD, VALUE, TOKEN, EXPIRED, FORGED, JWT_SECRET):
        assert secret not in said and secret.rpartition(".")[2] not in said


def test_each_line_of_a_json_log_is_one_event(primary: Server, replica: Server) -> None:
    until(lambda: len(primary.errors) > 3, "something was said")
    for line in list(primary.errors):
        event = json.loads(line)
        assert {"ts", "level", "logger", "event"} <= event.keys()
    slow = [event for line in list(primary.errors) if (event := json.loads(line))["event"] == "slow query"]
    assert slow and all(len(event["request_id"]) == 16 and event["user"] == "ada" for event in slow)


def test_spans_of_a_replica_are_below_its_caller_s_and_show_ops_on_their_way(
    primary: Server, replica: Server, collector: Collector
) -> None:
    with connect(primary, PASSWORD) as connection, connection.cursor() as cursor:
        cursor.execute("CREATE TABLE traced (id BIGINT PRIMARY KEY)")
        until(has(replica, "SELECT count(*) FROM traced", 0), "the table is there")
        cursor.execute("INSERT INTO traced VALUES (1), (2), (3)")
    until(has(replica, "SELECT count(*) FROM traced", 3), "the rows are there")
    header = {"adbc.flight.sql.rpc.call_header.traceparent": TRACEPARENT}
    with by_token(replica, **header) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT id FROM traced")
        cursor.fetchall()
    until(lambda: any(span.trace_id == TRACE for span in collector.spans), "its span")
    found = [span for span in collector.named("query") if span.trace_id == TRACE]
    assert all(span.resource["service.name"] == "shop-replica" for span in found)

    def applied() -> list[object]:
        return [span for span in collector.spans if span.attributes.get("flight_replica.table") == "traced"]

    until(lambda: bool(applied()), "the spans of the ops")
    ops = [
        span for span in collector.named("replicate") if span.attributes["flight_replica.table"] == "traced"
    ]
    assert sum(int(str(span.attributes["flight_replica.ops"])) for span in ops) == 3
    (one, *_) = ops
    parts = collector.below(one)
    assert {"feed", "apply"} <= parts.keys()
    assert one.began_ns <= parts["feed"].began_ns <= parts["feed"].ended_ns
    assert parts["apply"].began_ns <= parts["apply"].ended_ns <= one.ended_ns


def test_a_server_that_fails_to_start_says_so_as_an_event() -> None:
    process = Process("flight_replica", "--log-format=json", "serve", "--primary", "grpc://127.0.0.1:1")
    with running(process):
        assert process.wait() == 1
        (line,) = process.errors
    event = json.loads(line)
    assert (event["level"], event["event"]) == ("ERROR", "failed") and "127.0.0.1:1" in event["error"]
