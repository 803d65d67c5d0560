"""Logins through real clients: ADBC and bare pyarrow, with passwords, tokens and JWTs."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import adbc_driver_flightsql.dbapi as adbc
import adbc_driver_manager
import jwt
import pytest
from pyarrow import flight

from flight_replica._pb import flight_sql_pb2 as pb
from flight_replica.flightsql.auth import BasicLogins, JwtLogins
from flight_replica.flightsql.commands import pack, unpack
from flight_replica.flightsql.jwt_logins import JwtSettings, JwtVerifier
from flight_replica.flightsql.server import FlightSqlServer
from flight_replica.flightsql.tokens import Tokens
from flight_replica.flightsql.users import UsersFile
from tests.accounts import write_users
from tests.integration.flightsql.clients import descriptor
from tests.integration.flightsql.conftest import Serve

SECRET = b"a secret of more than thirty-two bytes"
COUNT = "SELECT count(*) FROM orders"


@pytest.fixture
def users(tmp_path: Path) -> Path:
    return write_users(tmp_path / "users.json", ann={"password": "a-pw"}, bob={"password": "b-pw"})


@pytest.fixture
def basic(serve: Serve, users: Path) -> FlightSqlServer:
    return serve(logins=BasicLogins(UsersFile(users), Tokens()))


@pytest.fixture
def issued(serve: Serve) -> FlightSqlServer:
    return serve(logins=JwtLogins(JwtVerifier(JwtSettings("replicas", secret=SECRET))))


def _uri(server: FlightSqlServer) -> str:
    return f"grpc://127.0.0.1:{server.port}"


def _count(server: FlightSqlServer, **options: str) -> object:
    """What ADBC gets for a count, connected with these database options."""
    given = {name.replace("__", "."): value for name, value in options.items()}
    with adbc.connect(_uri(server), given, autocommit=True) as connection, connection.cursor() as cursor:
        cursor.execute(COUNT)
        return cursor.fetchall()[0][0]


@contextlib.contextmanager
def _raw(server: FlightSqlServer) -> Iterator[flight.FlightClient]:
    with flight.connect(_uri(server)) as client:
        yield client


def _as(header: str) -> flight.FlightCallOptions:
    return flight.FlightCallOptions(headers=[(b"authorization", header.encode())])


def _rows(client: flight.FlightClient, options: flight.FlightCallOptions, sql: str = COUNT) -> list[object]:
    info = client.get_flight_info(descriptor(pb.CommandStatementQuery(query=sql)), options)
    return list(client.do_get(info.endpoints[0].ticket, options).read_all().column(0).to_pylist())


def _header(user: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode().rstrip("=")


def _jwt(**claims: object) -> str:
    return jwt.encode({"sub": "ann", "aud": "replicas", "exp": time.time() + 60, **claims}, SECRET, "HS256")


# --- user and password --------------------------------------------------------------------------------


def test_adbc_logs_in_with_user_and_password(basic: FlightSqlServer) -> None:
    assert _count(basic, username="ann", password="a-pw") == 3


@pytest.mark.parametrize(
    "options",
    [
        {"username": "ann", "password": "b-pw"},
        {"username": "carol", "password": "a-pw"},
        {"adbc__flight__sql__authorization_header": "Bearer nonsense"},
        {},
    ],
)
def test_adbc_is_told_that_it_is_not_let_in(basic: FlightSqlServer, options: dict[str, str]) -> None:
    with pytest.raises(adbc_driver_manager.ProgrammingError) as caught:
        _count(basic, **options)
    assert caught.value.status_code == adbc_driver_manager.AdbcStatusCode.UNAUTHENTICATED
    assert "Traceback" not in str(caught.value)
    assert "a-pw" not in str(caught.value)


def test_a_driver_that_sends_user_and_password_on_every_call_pays_for_one_hash(
    basic: FlightSqlServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    hashed = []
    scrypt = hashlib.scrypt
    monkeypatch.setattr(hashlib, "scrypt", lambda *a, **k: hashed.append(a) or scrypt(*a, **k))
    with _raw(basic) as client:
        for _ in range(20):
            assert _rows(client, _as(_header("bob", "b-pw"))) == [3]
    assert len(hashed) == 1


def test_the_handshake_of_pyarrow_gives_a_token(basic: FlightSqlServer) -> None:
    with _raw(basic) as client:
        name, token = client.authenticate_basic_token(b"ann", b"a-pw")
        assert name == b"authorization"
        assert _rows(client, _as(token.decode())) == [3]
        with pytest.raises(flight.FlightUnauthenticatedError, match="wrong user or password"):
            client.authenticate_basic_token(b"ann", b"b-pw")


class PayloadAuth(flight.ClientAuthHandler):  # type: ignore[misc]
    """User and password in the handshake's payload, as Flight's first clients have it."""

    def __init__(self, password: str) -> None:
        super().__init__()
        self._password = password
        self._token = b""

    def authenticate(self, outgoing: object, incoming: object) -> None:
        outgoing.write(flight.BasicAuth("ann", self._password).serialize())  # type: ignore[attr-defined]
        self._token = incoming.read()  # type: ignore[attr-defined]

    def get_token(self) -> bytes:
        return self._token


def test_user_and_password_in_the_payload_of_a_handshake_do_too(basic: FlightSqlServer) -> None:
    with _raw(basic) as client:
        client.authenticate(PayloadAuth("a-pw"))
        assert _rows(client, flight.FlightCallOptions()) == [3]
    with _raw(basic) as client, pytest.raises(flight.FlightUnauthenticatedError):
        client.authenticate(PayloadAuth("b-pw"))
    with _raw(basic) as client, pytest.raises(flight.FlightUnauthenticatedError):
        client.authenticate_basic_token(b"", b"")


def test_no_call_is_answered_without_a_login(basic: FlightSqlServer) -> None:
    query = descriptor(pb.CommandStatementQuery(query="SELECT 1"))
    prepare = ("CreatePreparedStatement", pack(pb.ActionCreatePreparedStatementRequest(query="SELECT 1")))
    with _raw(basic) as client:
        calls = [
            lambda: client.get_flight_info(query),
            lambda: client.get_schema(query),
            lambda: client.do_get(flight.Ticket(pack(pb.CommandGetTables()))).read_all(),
            lambda: list(client.do_action(prepare)),
            lambda: list(client.list_actions()),
            lambda: list(client.list_flights()),
        ]
        for call in calls:
            # pyarrow's client makes an OSError of GetSchema's errors.
            with pytest.raises((flight.FlightUnauthenticatedError, OSError), match="log in with user"):
                call()


def test_too_many_wrong_passwords_are_told_when_to_try_again(basic: FlightSqlServer) -> None:
    with _raw(basic) as client:
        for _ in range(5):
            with pytest.raises(flight.FlightUnauthenticatedError, match="wrong user or password"):
                client.authenticate_basic_token(b"ann", b"guess")
        with pytest.raises(flight.FlightUnauthenticatedError, match=r"try again in \d+\.\d s"):
            client.authenticate_basic_token(b"ann", b"a-pw")
        assert client.authenticate_basic_token(b"bob", b"b-pw")


def test_many_connections_logging_in_at_once_are_all_let_in(basic: FlightSqlServer) -> None:
    counts: list[object] = []
    threads = [
        threading.Thread(target=lambda: counts.append(_count(basic, username="ann", password="a-pw")))
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert counts == [3] * 8


# --- tokens -------------------------------------------------------------------------------------------


def test_adbc_goes_on_with_the_next_token_after_the_first_has_ended(serve: Serve, users: Path) -> None:
    clock = [1_000_000.0]
    server = serve(logins=BasicLogins(UsersFile(users), Tokens(seconds=100.0, now=lambda: clock[0])))
    options = {"username": "ann", "password": "a-pw"}
    with (
        adbc.connect(_uri(server), options, autocommit=True) as connection,
        connection.cursor() as cursor,
    ):
        for _ in range(5):
            clock[0] += 60.0  # past the middle of each token, past the end of the first
            cursor.execute(COUNT)
            assert cursor.fetchall() == [(3,)]
        clock[0] += 100.0
        with pytest.raises(adbc_driver_manager.ProgrammingError, match="expired"):
            cursor.execute(COUNT)
        clock[0] -= 100.0  # the driver's statement and connection can't be closed otherwise


def test_a_removed_user_is_out_at_the_next_call_and_its_streams_end(
    basic: FlightSqlServer, users: Path
) -> None:
    with _raw(basic) as client:
        token = client.authenticate_basic_token(b"bob", b"b-pw")[1].decode()
        follow = "SELECT * FROM merutable_changes('orders', 0, follow := true)"
        info = client.get_flight_info(descriptor(pb.CommandStatementQuery(query=follow)), _as(token))
        stream = client.do_get(info.endpoints[0].ticket, _as(token))
        assert stream.read_chunk().data.num_rows == 3
        write_users(users, ann={"password": "a-pw"})
        with pytest.raises(flight.FlightUnauthenticatedError, match="user is gone"):
            _rows(client, _as(token))
        with pytest.raises(flight.FlightUnavailableError, match="user 'bob' was changed"):
            stream.read_all()


def test_a_session_lives_as_long_as_its_login_whatever_its_token(serve: Serve, users: Path) -> None:
    clock = [1_000_000.0]
    server = serve(logins=BasicLogins(UsersFile(users), Tokens(seconds=100.0, now=lambda: clock[0])))
    key = "adbc.flight.sql.session.option.min_seq"
    options = {"username": "ann", "password": "a-pw"}
    with adbc.connect(_uri(server), options, autocommit=True) as connection:
        connection.adbc_connection.set_options(**{key: "2"})
        clock[0] += 60.0
        with connection.cursor() as cursor:
            cursor.execute(COUNT)  # brings the next token
            cursor.fetchall()
        assert connection.adbc_connection.get_option(key) == "2"


# --- JWT ----------------------------------------------------------------------------------------------


def test_adbc_logs_in_with_a_jwt(issued: FlightSqlServer) -> None:
    assert _count(issued, adbc__flight__sql__authorization_header=f"Bearer {_jwt()}") == 3


def test_a_jwt_that_is_over_or_for_others_is_refused_with_the_reason(issued: FlightSqlServer) -> None:
    for claims, reason in (({"exp": time.time() - 60}, "expired"), ({"aud": "others"}, "audience")):
        token = _jwt(**claims)
        with pytest.raises(adbc_driver_manager.ProgrammingError, match=f"(?i){reason}") as caught:
            _count(issued, adbc__flight__sql__authorization_header=f"Bearer {token}")
        assert token not in str(caught.value)


def test_a_handshake_with_a_jwt_gives_it_back(issued: FlightSqlServer) -> None:
    """As the JDBC driver logs in with `token=`."""
    seen: list[dict[str, list[str]]] = []

    class Seen(flight.ClientMiddleware):  # type: ignore[misc]
        def received_headers(self, headers: dict[str, list[str]]) -> None:
            seen.append(headers)

    class SeenFactory(flight.ClientMiddlewareFactory):  # type: ignore[misc]
        def start_call(self, info: flight.CallInfo) -> Seen:
            return Seen()

    token = _jwt()

    class Silent(flight.ClientAuthHandler):  # type: ignore[misc]
        def authenticate(self, outgoing: object, incoming: object) -> None:
            """The header says all."""

        def get_token(self) -> bytes:
            return b""

    with flight.FlightClient(_uri(issued), middleware=[SeenFactory()]) as client:
        client.authenticate(Silent(), _as(f"Bearer {token}"))
    assert [f"Bearer {token}"] in [headers.get("authorization") for headers in seen]


# --- handles ------------------------------------------------------------------------------------------


def test_the_handles_of_others_are_not_there(basic: FlightSqlServer) -> None:
    ann, bob = _as(_header("ann", "a-pw")), _as(_header("bob", "b-pw"))
    with _raw(basic) as client:
        query = descriptor(pb.CommandStatementQuery(query=COUNT))
        ticket = client.get_flight_info(query, ann).endpoints[0].ticket
        with pytest.raises(KeyError, match="ticket is unknown"):
            client.do_get(ticket, bob).read_all()
        assert client.do_get(ticket, ann).read_all().column(0).to_pylist() == [3]

        request = pack(pb.ActionCreatePreparedStatementRequest(query=COUNT))
        (result,) = client.do_action(("CreatePreparedStatement", request), ann)
        handle = unpack(result.body.to_pybytes(), "a result").prepared_statement_handle
        command = descriptor(pb.CommandPreparedStatementQuery(prepared_statement_handle=handle))
        for call in (client.get_flight_info, client.get_schema):
            with pytest.raises(KeyError, match="prepared statement is unknown"):
                call(command, bob)
        close = pack(pb.ActionClosePreparedStatementRequest(prepared_statement_handle=handle))
        with contextlib.suppress(KeyError):
            list(client.do_action(("ClosePreparedStatement", close), bob))
        assert client.get_flight_info(command, ann).endpoints
