"""Malformed and hostile input: no call crashes the server, shows its inside, or leaves anything behind.

Every case is made from a seed, which a failure names. `CASES` by default, `LONG_CASES` with `-m long`.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pyarrow as pa
import pytest
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.message import Message
from pyarrow import flight

from flight_replica._pb import flight_cancel_pb2 as cancel_pb
from flight_replica._pb import flight_session_pb2 as session_pb
from flight_replica._pb import flight_sql_pb2 as pb
from flight_replica.flightsql.commands import pack
from flight_replica.flightsql.limits import ServerLimits
from flight_replica.flightsql.server import FlightSqlServer
from flight_replica.flightsql.stats import ServerStats
from tests.integration.flightsql.bare_grpc import BareGrpc, Reply, descriptor
from tests.integration.flightsql.clients import wait_until
from tests.integration.flightsql.conftest import Serve
from tests.integration.flightsql.memory_service import MemoryService

CASES = 3000
LONG_CASES = 100_000
THREADS = 4
OUTER_SECONDS = 60.0
LIMITS = ServerLimits(
    planned_seconds=1.0,
    planned_max=5000,
    prepared_idle_seconds=1.0,
    session_idle_seconds=1.0,
    transaction_idle_seconds=1.0,
    pin_idle_seconds=1.0,
)

# An id of the kind that the server gives, but nobody's.
_HANDLE = b"0123456789abcdef"
_INSIDE = ("Traceback", 'File "', ".py", "site-packages", "flight_replica", "internal error", "assert")
_CODES = {
    "OK",
    "INVALID_ARGUMENT",
    "NOT_FOUND",
    "UNIMPLEMENTED",
    "UNAVAILABLE",
    "UNAUTHENTICATED",
    "DEADLINE_EXCEEDED",
    "PERMISSION_DENIED",
}

_SQL = (
    "SELECT 1",
    "SELECT * FROM orders WHERE id = ?",
    "WITH a AS (SELECT 1 AS x) SELECT x, count(*) FROM a GROUP BY x HAVING x > 0 ORDER BY 1 LIMIT 3",
    "SELECT id, item || 'x', sum(price) OVER (PARTITION BY item ORDER BY id) FROM orders",
    "SELECT * FROM merutable_changes('orders', 0)",
    "SELECT * FROM merutable_tables()",
    "EXPLAIN SELECT [1, 2, {'a': 3}], CASE WHEN true THEN 'é' END FROM orders o JOIN odd ON o.id = odd.seq",
    "INSERT INTO orders VALUES (9, 'x', 1.0)",
    "SHOW TABLES",
    "SET x = 1",
)


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


_PIECES = (
    *_words(
        "SELECT FROM WHERE ( ) , ; ' \" $1 ? * -- /* */ [ ] { } :: || -> => . .. 1e999 0x orders id NULL CAST"
    ),
    *_words("AS INT UNION ALL EXPLAIN VALUES WITH RECURSIVE LATERAL PIVOT USING x.csv '/etc/passwd'"),
    *("\0", "\u202e", "\U0001f600"),
)

_MESSAGES: tuple[type[Message], ...] = tuple(
    getattr(pb, name) for name in sorted(pb.DESCRIPTOR.message_types_by_name)
)
_ACTIONS = (
    *_words("CreatePreparedStatement ClosePreparedStatement CreatePreparedSubstraitPlan BeginTransaction"),
    *_words("EndTransaction BeginSavepoint EndSavepoint CancelQuery CancelFlightInfo RenewFlightEndpoint"),
    *_words("SetSessionOptions GetSessionOptions CloseSession Dance"),
)


@pytest.fixture
def server(serve: Serve) -> FlightSqlServer:
    return serve(LIMITS)


# --- making cases -------------------------------------------------------------------------------------


def some_sql(seed: random.Random) -> str:
    """Well-formed, damaged or made of pieces."""
    match seed.randrange(4):
        case 0:
            return seed.choice(_SQL)
        case 1:
            return " ".join(seed.choices(_PIECES, k=seed.randrange(12)))
        case 2:
            text = list(seed.choice(_SQL))
            for _ in range(seed.randrange(1, 4)):
                text[seed.randrange(len(text))] = seed.choice(_PIECES)
            return "".join(text)
        case _:
            text = seed.choice(_SQL)
            return text[: seed.randrange(len(text) + 1)]


def some_bytes(seed: random.Random) -> bytes:
    return seed.randbytes(seed.choice((0, 1, 2, 7, 16, 64, 1000)))


def some_message(seed: random.Random) -> Message:
    """A Flight SQL message with its fields filled at random, as far as their types allow."""
    message = seed.choice(_MESSAGES)()
    _fill(message, seed, depth=0)
    return message


def _fill(message: Message, seed: random.Random, depth: int) -> None:
    for field in message.DESCRIPTOR.fields:
        if seed.random() < 0.3 or depth > 3:
            continue
        if field.is_repeated:
            if field.message_type is None and field.type == field.TYPE_STRING:
                getattr(message, field.name).extend(["TABLE", some_sql(seed)])
            elif field.message_type is None:
                getattr(message, field.name).extend([0, 1, seed.randrange(1 << 31)])
        elif field.message_type is not None:
            _fill(getattr(message, field.name), seed, depth + 1)
            getattr(message, field.name).SetInParent()
        else:
            setattr(message, field.name, _scalar(field, seed))


def _scalar(field: object, seed: random.Random) -> object:
    kind = field.type  # type: ignore[attr-defined]
    if kind == field.TYPE_STRING:  # type: ignore[attr-defined]
        # Protobuf takes no half characters.
        return some_sql(seed).encode("utf-8", "replace").decode()
    if kind == field.TYPE_BYTES:  # type: ignore[attr-defined]
        return seed.choice((b"", _HANDLE, some_bytes(seed)))
    if kind == field.TYPE_BOOL:  # type: ignore[attr-defined]
        return seed.random() < 0.5
    return seed.choice((0, 1, 2, 99, (1 << 31) - 1))


def damaged(data: bytes, seed: random.Random) -> bytes:
    """Cut, flipped, doubled, or with a length that lies."""
    match seed.randrange(6):
        case 0:
            return data[: seed.randrange(len(data) + 1)]
        case 1 if data:
            place = seed.randrange(len(data))
            return data[:place] + bytes([data[place] ^ (1 << seed.randrange(8))]) + data[place + 1 :]
        case 2:
            return data + data
        case 3 if data:
            # A varint length of nearly 2^63 in the place of one.
            place = seed.randrange(len(data))
            return data[:place] + b"\xff" * 8 + b"\x7f" + data[place + 1 :]
        case 4:
            return seed.randbytes(seed.randrange(40)) + data
        case _:
            return data


def some_command(seed: random.Random) -> bytes:
    """The bytes of a command, ticket or action body."""
    message = some_message(seed)
    match seed.randrange(6):
        case 0:
            return some_bytes(seed)
        case 1:  # a wrong Any
            url = seed.choice(
                ("", "/", "x/" + message.DESCRIPTOR.full_name, "type.googleapis.com/a.b.C", "é" * 99)
            )
            return bytes(AnyMessage(type_url=url, value=message.SerializeToString()).SerializeToString())
        case 2:  # one message's name and another's bytes
            carrier = AnyMessage(value=some_message(seed).SerializeToString())
            carrier.type_url = f"type.googleapis.com/{message.DESCRIPTOR.full_name}"
            return bytes(carrier.SerializeToString())
        case 3:  # nested
            return pack(AnyMessage(type_url="x/y", value=pack(message)))
        case 4:
            return pack(message)
        case _:
            return damaged(pack(message), seed)


def some_body(name: str, seed: random.Random) -> bytes:
    match name:
        case "CancelFlightInfo":
            info = cancel_pb.FlightInfo()
            info.endpoint.add().ticket.ticket = some_command(seed)
            return damaged(cancel_pb.CancelFlightInfoRequest(info=info).SerializeToString(), seed)
        case "SetSessionOptions":
            request = session_pb.SetSessionOptionsRequest()
            request.session_options[some_sql(seed).encode("utf-8", "replace").decode()].string_value = "x"
            request.session_options["min_seq"].double_value = seed.choice((0.5, float("nan"), 1e300))
            return damaged(request.SerializeToString(), seed)
    return some_command(seed)


def some_headers(seed: random.Random) -> dict[str, str]:
    names = ("merutable-min-seq", "merutable-statement-timeout-ms", "merutable-wait-timeout-ms", "cookie")
    names += ("authorization", "merutable-lineage", "merutable-as-of-seq", "merutable-isolation")
    values = ("", "-1", "1e400", "nan", "orders=1,orders=2", "%ff%fe", "x" * 500, "Bearer", "Basic !!!", "1")
    # Waits are bounded: some of these ask for a seq that never comes.
    chosen = {seed.choice(names): seed.choice(values) for _ in range(seed.randrange(3))}
    return {"merutable-wait-timeout-ms": "1", **chosen}


def one_case(bare: BareGrpc, number: int) -> Reply:
    seed = random.Random(number)
    headers = some_headers(seed) if seed.random() < 0.2 else {}
    match seed.randrange(8):
        case 0:
            return bare.call("GetFlightInfo", descriptor(some_command(seed)), headers, OUTER_SECONDS)
        case 1:
            return bare.call("GetSchema", descriptor(some_command(seed)), headers, OUTER_SECONDS)
        case 2:
            return bare.call("DoGet", flight.Ticket(some_command(seed)).serialize(), headers, OUTER_SECONDS)
        case 3 | 4:
            name = seed.choice(_ACTIONS)
            return bare.act(name, some_body(name, seed))
        case 5:  # the descriptor of a DoPut without a schema, field 1 of FlightData
            data = descriptor(some_command(seed))
            return bare.call("DoPut", b"\x0a" + _varint(len(data)) + data, headers, OUTER_SECONDS)
        case 6:
            method = seed.choice(("GetFlightInfo", "DoGet", "DoAction", "DoPut", "GetSchema", "ListFlights"))
            return bare.call(method, some_bytes(seed), headers, OUTER_SECONDS)
        case _:
            return bare.query(some_sql(seed).encode("utf-8", "replace").decode())


def _varint(number: int) -> bytes:
    data = b""
    while number > 127:
        data, number = data + bytes([number & 127 | 128]), number >> 7
    return data + bytes([number])


# --- what must hold -----------------------------------------------------------------------------------


def is_fit(reply: Reply) -> bool:
    """Whether the reply has a code for a client's fault, a short text, and nothing of the inside."""
    text = reply.text + " ".join(str(value) for value in reply.trailers.values())
    is_of_grpc = "merutable-error-code" not in reply.trailers  # refused before it came to the server's code
    is_clean = not any(sign in text for sign in _INSIDE)
    return is_clean and (reply.code in _CODES or is_of_grpc) and len(reply.text.encode()) < 2500


def check(reply: Reply, what: object) -> None:
    assert is_fit(reply), f"{what}: {reply}"


def run_cases(server: FlightSqlServer, service: MemoryService, cases: range) -> None:
    with BareGrpc(server.port) as bare, ThreadPoolExecutor(THREADS) as pool:
        replies = zip(cases, pool.map(lambda n: one_case(bare, n), cases), strict=True)
        wrong = [(seed, reply) for seed, reply in replies if not is_fit(reply)]
        assert not wrong, f"{len(wrong)} of {len(cases)}: {wrong[:5]}"
        assert bare.query("SELECT 1").code == "OK"
    wait_nothing_left(server, service)


def wait_nothing_left(server: FlightSqlServer, service: MemoryService) -> None:
    """What clients left behind expires, under `LIMITS`, but for transactions that hold nothing."""
    nothing = ServerStats(**dict.fromkeys(ServerStats.__slots__, 0))
    wait_until(
        lambda: replace(server.stats, transactions=0) == nothing and service.open_views == 0, OUTER_SECONDS
    )


def test_thousands_of_malformed_calls_leave_nothing_behind(
    server: FlightSqlServer, service: MemoryService, caplog: pytest.LogCaptureFixture
) -> None:
    run_cases(server, service, range(CASES))
    assert not [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]


@pytest.mark.long
def test_a_hundred_thousand_malformed_calls_leave_nothing_behind(
    server: FlightSqlServer, service: MemoryService
) -> None:
    for start in range(0, LONG_CASES, 10_000):
        run_cases(server, service, range(CASES + start, CASES + start + 10_000))


# --- by hand --------------------------------------------------------------------------------------------


def _big(text: str) -> Callable[[], str]:
    return lambda: text


@pytest.mark.parametrize(
    "sql",
    [
        _big("SELECT '" + "x" * 10_000_000 + "'"),
        _big("SELECT 1 " + "-- x\n" * 2_000_000),
        _big("SELECT " + "1, " * 300_000 + "1"),
        _big("SELECT " + "(" * 5000 + "1" + ")" * 5000),
        _big("SELECT " + "[" * 99 + "1" + "]" * 99),
        _big("SELECT " + "1 + " * 20_000 + "1"),
        _big("SELECT " + "NOT " * 20_000 + "true"),
        _big("SELECT " + "-" * 1 + " - " * 20_000 + "1"),
        _big("SELECT 1 " + "UNION ALL SELECT 1 " * 1000),
        _big("SELECT " + "CASE WHEN true THEN " * 3000 + "1" + " END" * 3000),
        _big("SELECT 1 " + "FROM (SELECT 1 " * 90 + ")" * 90),
        _big("SELECT '" + "\U0001f600" * 100_000 + "'::INT"),
        _big("EXPLAIN " * 5000 + "SELECT 1"),
        _big("WITH " + ", ".join(f"a{n} AS (SELECT 1)" for n in range(500)) + " SELECT 1"),
    ],
    ids=range(14),
)
def test_huge_and_deep_statements_are_answered_and_leave_nothing_behind(
    sql: Callable[[], str], server: FlightSqlServer, service: MemoryService
) -> None:
    with BareGrpc(server.port) as bare:
        text = sql()
        check(bare.query(text), "fetched")
        check(
            bare.act("CreatePreparedStatement", pb.ActionCreatePreparedStatementRequest(query=text)),
            "prepared",
        )
        check(bare.schema(pb.CommandStatementQuery(query=text)), "schema")
        assert bare.query("SELECT 1").code == "OK"
    wait_nothing_left(server, service)


@pytest.fixture
def pyarrow_client(server: FlightSqlServer) -> Iterator[flight.FlightClient]:
    with flight.connect(f"grpc://127.0.0.1:{server.port}") as client:
        yield client


def test_half_characters_in_a_statement_are_refused(server: FlightSqlServer, service: MemoryService) -> None:
    # A CommandStatementQuery whose text is no UTF-8.
    carrier = AnyMessage(type_url="type.googleapis.com/arrow.flight.protocol.sql.CommandStatementQuery")
    carrier.value = b"\x0a\x04'\xed\xa0'"
    with BareGrpc(server.port) as bare:
        reply = bare.info(carrier.SerializeToString())
        assert reply.code == "INVALID_ARGUMENT"
        check(reply, "half a character")


@pytest.mark.parametrize("rows", [0, 1, 3])
def test_parameters_that_do_not_fit_are_refused_and_leave_nothing_behind(
    rows: int, server: FlightSqlServer, service: MemoryService, pyarrow_client: flight.FlightClient
) -> None:
    for columns in (
        {},
        {"1": pa.array([b"\xff"] * rows, pa.binary())},
        {"1": pa.array([[1, None]] * rows, pa.list_(pa.int64()))},
        {"1": pa.array([1.5] * rows, pa.float16()), "2": pa.nulls(rows)},
    ):
        data = pa.table(columns)
        for command in (
            pb.CommandPreparedStatementQuery(prepared_statement_handle=_HANDLE),
            pb.CommandPreparedStatementUpdate(prepared_statement_handle=b""),
            pb.CommandStatementIngest(table="orders", temporary=True),
            pb.CommandStatementIngest(),
        ):
            with pytest.raises((pa.ArrowException, flight.FlightError)) as found:
                writer, reader = pyarrow_client.do_put(
                    flight.FlightDescriptor.for_command(pack(command)), data.schema
                )
                writer.write_table(data)
                writer.done_writing()
                reader.read()
                writer.close()
            assert not any(sign in str(found.value) for sign in _INSIDE)
    wait_nothing_left(server, service)
