"""What a client is told when something is wrong: code, exact code, text; and what it is never told."""

from __future__ import annotations

from collections.abc import Iterator

import adbc_driver_flightsql.dbapi as adbc
import adbc_driver_manager
import pytest

from flight_replica._pb import flight_sql_pb2 as pb
from flight_replica.errors import (
    AlreadyExists,
    BaseError,
    Cancelled,
    ConstraintViolation,
    Forbidden,
    ReplicaError,
    TimedOut,
    Unavailable,
)
from flight_replica.flightsql.limits import ServerLimits
from flight_replica.flightsql.server import FlightSqlServer
from flight_replica.flightsql.service import WriteResult
from tests.integration.flightsql.bare_grpc import BareGrpc, Reply
from tests.integration.flightsql.conftest import Serve
from tests.integration.flightsql.memory_service import MemoryService


@pytest.fixture
def bare(server: FlightSqlServer) -> Iterator[BareGrpc]:
    with BareGrpc(server.port) as found:
        yield found


def exact(reply: Reply) -> str:
    return str(reply.trailers["merutable-error-code"])


def is_retryable(reply: Reply) -> bool:
    assert ("(retryable)" in reply.text) == ("merutable-retryable" in reply.trailers)
    return reply.trailers.get("merutable-retryable") == "true"


# --- codes --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "code", "exact_code", "retryable"),
    [
        (Unavailable("orders is loading"), "UNAVAILABLE", "UNAVAILABLE", True),
        (TimedOut("too late"), "DEADLINE_EXCEEDED", "DEADLINE_EXCEEDED", True),
        (Cancelled("ended"), "CANCELLED", "CANCELLED", False),
        (Forbidden("not yours"), "PERMISSION_DENIED", "PERMISSION_DENIED", False),
        (BaseError("base file /srv/secret/a.parquet is gone"), "INVALID_ARGUMENT", "INVALID_ARGUMENT", False),
        (MemoryError("out"), "INTERNAL", "INTERNAL", False),
        (AssertionError("state"), "INTERNAL", "INTERNAL", False),
    ],
)
def test_an_error_of_the_service_has_its_code_in_every_call(
    error: Exception,
    code: str,
    exact_code: str,
    retryable: bool,
    bare: BareGrpc,
    service: MemoryService,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(service, "open_view", fail)
    command = pb.CommandStatementQuery(query="SELECT * FROM orders")
    prepare = pb.ActionCreatePreparedStatementRequest(query=command.query)
    for reply in (bare.info(command), bare.act("CreatePreparedStatement", prepare)):
        assert (reply.code, exact(reply), is_retryable(reply)) == (code, exact_code, retryable)
        assert is_clean(reply.text)
        assert "secret" not in reply.text
    # Flight's own codes can't be had in GetSchema.
    reply = bare.schema(command)
    assert reply.code in (code, "UNKNOWN")
    assert (exact(reply), is_retryable(reply)) == (exact_code, retryable)
    assert is_clean(reply.text)


@pytest.mark.parametrize(
    ("sql", "code", "exact_code"),
    [
        ("SELECT * FROM nope", "NOT_FOUND", "NOT_FOUND"),
        ("SELEC 1", "INVALID_ARGUMENT", "INVALID_ARGUMENT"),
        ("SELECT item::INT FROM orders", "INVALID_ARGUMENT", "INVALID_ARGUMENT"),
        ("SELECT getenv('HOME')", "INVALID_ARGUMENT", "INVALID_ARGUMENT"),
        ("SELECT repeat('x', 100000000)", "INVALID_ARGUMENT", "RESOURCE_EXHAUSTED"),
        ("SELECT " + "(" * 200 + "1" + ")" * 200, "INVALID_ARGUMENT", "RESOURCE_EXHAUSTED"),
    ],
)
def test_a_statement_that_is_wrong_has_the_code_of_its_kind(
    sql: str, code: str, exact_code: str, bare: BareGrpc
) -> None:
    reply = bare.query(sql)
    assert (reply.code, exact(reply), is_retryable(reply)) == (code, exact_code, False)
    assert is_clean(reply.text)
    # The exact code stands in the text as well, for those who see nothing else.
    assert reply.text.endswith(f"Python exception: {exact_code}\n")


def test_limits_of_handles_and_places_are_resource_exhausted(serve: Serve) -> None:
    server = serve(ServerLimits(prepared_max=0, planned_max=1, queries_max=0, query_wait_seconds=0.0))
    with BareGrpc(server.port) as bare:
        prepared = bare.act(
            "CreatePreparedStatement", pb.ActionCreatePreparedStatementRequest(query="SELECT 1")
        )
        assert (prepared.code, exact(prepared)) == ("INVALID_ARGUMENT", "RESOURCE_EXHAUSTED")
        full = bare.query("SELECT 1")
        assert (full.code, exact(full)) == ("UNAVAILABLE", "RESOURCE_EXHAUSTED")
        assert is_retryable(full) and "queries_max: all 0 are in use" in full.text


@pytest.mark.parametrize(
    ("error", "exact_code"),
    [
        (AlreadyExists("table 'orders' exists already"), "ALREADY_EXISTS"),
        (ConstraintViolation("key 1 is there twice"), "INVALID_ARGUMENT"),
    ],
)
def test_an_error_of_a_write_has_its_exact_code(
    error: ReplicaError,
    exact_code: str,
    bare: BareGrpc,
    service: MemoryService,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(sql: str, *_: object) -> WriteResult:
        raise error

    monkeypatch.setattr(service, "write", fail)
    reply = bare.info(pb.CommandStatementQuery(query="INSERT INTO orders VALUES (1, 'x', 1.0)"))
    assert (reply.code, exact(reply)) == ("INVALID_ARGUMENT", exact_code)


def test_unknown_handles_and_actions_have_their_codes(bare: BareGrpc) -> None:
    gone = bare.info(pb.CommandPreparedStatementQuery(prepared_statement_handle=b"guess"))
    assert (gone.code, exact(gone)) == ("NOT_FOUND", "NOT_FOUND")
    renew = bare.act("RenewFlightEndpoint", b"")
    assert (renew.code, exact(renew)) == ("UNIMPLEMENTED", "UNIMPLEMENTED")
    unknown = bare.act("Dance", b"")
    assert (unknown.code, exact(unknown)) == ("INVALID_ARGUMENT", "INVALID_ARGUMENT")


def test_an_error_in_the_middle_of_a_stream_has_code_and_trailers(bare: BareGrpc) -> None:
    sql = "SELECT CASE WHEN range = 999999 THEN error('late') ELSE range END AS n FROM range(1000000)"
    reply = bare.query(sql.replace("error('late')", "CAST('late' || range AS INT)"))
    assert (reply.code, exact(reply)) == ("INVALID_ARGUMENT", "INVALID_ARGUMENT")
    assert "late999999" in reply.text and is_clean(reply.text)


def test_adbc_shows_text_code_and_details(connection: adbc.Connection) -> None:
    with connection.cursor() as cursor, pytest.raises(adbc_driver_manager.Error) as found:
        cursor.execute("SELECT * FROM nope")
    assert found.value.status_code == adbc_driver_manager.AdbcStatusCode.NOT_FOUND
    assert "table 'nope' isn't served here" in str(found.value)
    assert dict(found.value.details)[b"merutable-error-code"] == b"NOT_FOUND"


# --- texts ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sql", "place"),
    [
        ("SELECT 1 FROM", "line 1, column 10"),
        ("SELECT 1,\n  2,,\n  3", "line 2, column 5"),
        ("\n\n -- first\n  SELECT é, FROM FROM t", "line 4, column 18"),
        ("SELECT " + "1, " * 200 + ", 2", "line 1, column 608"),
        ("UPDATE orders SETT x = 1", "line 1, column 20"),
        ("SELECT 'open", "line 1, column 8"),
    ],
)
def test_a_syntax_error_says_line_and_column_of_the_text_as_it_was_sent(
    sql: str, place: str, bare: BareGrpc
) -> None:
    reply = bare.query(sql)
    assert place in reply.text and "LINE" not in reply.text


def test_other_errors_name_the_part_that_is_wrong(bare: BareGrpc) -> None:
    assert "at: ::INT" in bare.query("SELECT id,\n item::INT FROM orders").text
    assert 'Referenced column "nope"' in bare.query("SELECT nope FROM orders").text


def test_a_text_travels_once_and_is_one_line(bare: BareGrpc) -> None:
    reply = bare.query("SELECT abs('x', 'y') FROM orders")
    assert reply.text.count("No function matches") == 1
    assert "\n" not in reply.text.rstrip("\n")
    assert len(reply.text.encode()) < 1100


def test_directories_of_the_server_are_cut_out_of_texts(
    bare: BareGrpc, service: MemoryService, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise BaseError("base file '/srv/my data/t/part-1.parquet': No magic bytes found")

    monkeypatch.setattr(service, "open_view", fail)
    reply = bare.query("SELECT * FROM orders")
    assert "'…/part-1.parquet': No magic bytes" in reply.text and "srv" not in reply.text


def is_clean(text: str) -> bool:
    """Whether a text shows nothing of the server's inside."""
    return not any(
        sign in text for sign in ("Traceback", 'File "', ".py", "/work", "/home", "/srv", "site-packages")
    )
