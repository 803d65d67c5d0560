"""Session actions and session statements through real clients: bare pyarrow and ADBC."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import adbc_driver_flightsql.dbapi as adbc
import adbc_driver_manager
import pyarrow as pa
import pytest
from google.protobuf.message import Message
from pyarrow import flight

from flight_replica._pb import flight_session_pb2 as session_pb
from flight_replica._pb import flight_sql_pb2 as pb
from flight_replica.flightsql.commands import unpack
from flight_replica.flightsql.limits import ServerLimits
from flight_replica.flightsql.options import OPTION_NAMES
from flight_replica.flightsql.server import FlightSqlServer
from tests.integration.flightsql.clients import RawClient
from tests.integration.flightsql.conftest import Serve
from tests.integration.flightsql.test_cancel import ENDLESS

COOKIE = "arrow_flight_session_id"
COOKIES = {"adbc.flight.sql.rpc.with_cookie_middleware": "true"}
OPTION = "adbc.flight.sql.session.option."
ERASE = "adbc.flight.sql.session.optionerase."
ALL_OPTIONS = "adbc.flight.sql.session.options"
INVALID_NAME, INVALID_VALUE = 1, 2


class CookieJar(flight.ClientMiddlewareFactory):  # type: ignore[misc]
    """Keeps the cookies of one client, as drivers do; `told` are the set-cookie headers in order."""

    def __init__(self) -> None:
        self.cookies: dict[str, str] = {}
        self.told: list[str] = []

    def start_call(self, info: flight.CallInfo) -> _Cookies:
        return _Cookies(self)


class _Cookies(flight.ClientMiddleware):  # type: ignore[misc]
    def __init__(self, jar: CookieJar) -> None:
        self._jar = jar

    def sending_headers(self) -> dict[str, str]:
        pairs = [f"{name}={value}" for name, value in self._jar.cookies.items()]
        return {"cookie": "; ".join(pairs)} if pairs else {}

    def received_headers(self, headers: Mapping[str, list[str]]) -> None:
        for text in headers.get("set-cookie", ()):
            self._jar.told.append(text)
            pair, _, attributes = text.partition(";")
            name, _, value = pair.partition("=")
            if "Max-Age=0" in attributes:
                self._jar.cookies.pop(name, None)
            else:
                self._jar.cookies[name] = value


class Client(RawClient):
    """A raw client with sessions."""

    def __init__(self, port: int, jar: CookieJar | None) -> None:
        self.jar = jar
        super().__init__(flight.connect(f"grpc://127.0.0.1:{port}", middleware=[jar] if jar else []))

    def bare(self, name: str, message: Message) -> bytes:
        (result,) = self.client.do_action((name, message.SerializeToString()))
        return bytes(result.body)

    def set(self, **values: object) -> dict[str, int]:
        """Option -> what is wrong with it."""
        request = session_pb.SetSessionOptionsRequest()
        for name, value in values.items():
            message = request.session_options[name]
            match value:
                case None:
                    message.SetInParent()
                case bool():
                    message.bool_value = value
                case int():
                    message.int64_value = value
                case float():
                    message.double_value = value
                case str():
                    message.string_value = value
                case list():
                    message.string_list_value.values.extend(value)
        result = session_pb.SetSessionOptionsResult.FromString(self.bare("SetSessionOptions", request))
        return {name: error.value for name, error in result.errors.items()}

    def options(self) -> dict[str, object]:
        body = self.bare("GetSessionOptions", session_pb.GetSessionOptionsRequest())
        found = session_pb.GetSessionOptionsResult.FromString(body).session_options
        return {name: getattr(value, value.WhichOneof("option_value")) for name, value in found.items()}

    def close_session(self) -> int:
        body = self.bare("CloseSession", session_pb.CloseSessionRequest())
        return int(session_pb.CloseSessionResult.FromString(body).status)

    def zone(self) -> str:
        (kind,) = self.rows("SELECT now() AS now").schema.types
        return str(kind.tz)


@pytest.fixture
def client(server: FlightSqlServer) -> Iterator[Client]:
    found = Client(server.port, CookieJar())
    with found.client:
        yield found


@pytest.fixture
def cookieless(server: FlightSqlServer) -> Iterator[Client]:
    found = Client(server.port, None)
    with found.client:
        yield found


@pytest.fixture
def connection(server: FlightSqlServer) -> Iterator[adbc.Connection]:
    with adbc.connect(f"grpc://127.0.0.1:{server.port}", db_kwargs=COOKIES, autocommit=True) as found:
        yield found


# --- actions ----------------------------------------------------------------------------------------


def test_a_first_call_gets_a_cookie_and_later_ones_none(client: Client) -> None:
    assert client.options() == {"catalog": "merutable", "schema": "main"}
    client.options()
    client.rows("SELECT 1 AS one")
    assert client.jar is not None
    (told,) = client.jar.told
    assert told.startswith(f"{COOKIE}=")


def test_options_set_in_the_very_first_call_stay_and_come_back_as_they_were(client: Client) -> None:
    assert client.set(min_seq=3, max_staleness_ms=250.5, pin="report", wait_timeout_ms="5") == {}
    assert client.options() == {
        "catalog": "merutable",
        "schema": "main",
        "min_seq": 3,
        "max_staleness_ms": 250.5,
        "pin": "report",
        "wait_timeout_ms": "5",
    }


def test_wrong_names_and_values_are_answered_per_option_and_the_others_are_set(client: Client) -> None:
    errors = client.set(
        min_seq="three",
        max_staleness_ms=True,
        time_zone=["UTC"],
        catalog="other",
        schema=5,
        Min_Seq="1",
        nope="x",
        wait_timeout_ms=5,
    )
    assert errors == {
        "min_seq": INVALID_VALUE,
        "max_staleness_ms": INVALID_VALUE,
        "time_zone": INVALID_VALUE,
        "catalog": INVALID_VALUE,
        "schema": INVALID_VALUE,
        "Min_Seq": INVALID_NAME,
        "nope": INVALID_NAME,
    }
    assert client.options() == {"catalog": "merutable", "schema": "main", "wait_timeout_ms": 5}


def test_an_unset_value_erases_an_option(client: Client) -> None:
    client.set(min_seq=99, pin="p")
    assert client.set(min_seq=None, nope=None) == {"nope": INVALID_NAME}
    assert client.options() == {"catalog": "merutable", "schema": "main", "pin": "p"}


def test_catalog_and_schema_can_be_set_to_what_they_are(client: Client) -> None:
    assert client.set(catalog="merutable", schema="MAIN") == {}
    assert client.set(catalog=None, schema=None) == {}
    assert client.options() == {"catalog": "merutable", "schema": "main"}


def test_an_option_of_too_many_bytes_is_an_invalid_value(serve: Serve) -> None:
    client = Client(serve(ServerLimits(session_option_bytes_max=8)).port, CookieJar())
    with client.client:
        assert client.set(min_seq="orders=11111") == {"min_seq": INVALID_VALUE}


def test_closing_a_session_forgets_its_options_and_its_cookie(client: Client) -> None:
    client.set(min_seq=99)
    assert client.jar is not None
    old = dict(client.jar.cookies)
    assert client.close_session() == session_pb.CloseSessionResult.CLOSED
    assert client.jar.cookies == {}
    assert client.options() == {"catalog": "merutable", "schema": "main"}
    client.jar.cookies = old  # a client that doesn't care
    assert client.rows("SELECT count(*) AS n FROM orders")["n"].to_pylist() == [3]


def test_a_body_that_is_no_message_is_refused(client: Client) -> None:
    for name in ("SetSessionOptions", "GetSessionOptions", "CloseSession"):
        with pytest.raises(pa.ArrowInvalid, match=f"action {name}: 2 bytes that are no"):
            list(client.client.do_action((name, b"\xff\xff")))


def test_clients_do_not_share_options(server: FlightSqlServer, client: Client) -> None:
    client.set(time_zone="Asia/Tokyo")
    other = Client(server.port, CookieJar())
    with other.client:
        assert (client.zone(), other.zone()) == ("Asia/Tokyo", "UTC")


def test_a_bearer_token_leads_to_the_session_without_any_cookie(server: FlightSqlServer) -> None:
    with flight.connect(f"grpc://127.0.0.1:{server.port}") as bare:
        header = bare.authenticate_basic_token("user", "password")
        options = flight.FlightCallOptions(headers=[header])
        request = session_pb.SetSessionOptionsRequest()
        request.session_options["min_seq"].int64_value = 3
        (body,) = bare.do_action(("SetSessionOptions", request.SerializeToString()), options)
        assert not session_pb.SetSessionOptionsResult.FromString(bytes(body.body)).errors
        (body,) = bare.do_action(("GetSessionOptions", b""), options)
        found = session_pb.GetSessionOptionsResult.FromString(bytes(body.body)).session_options
        assert found["min_seq"].int64_value == 3
        (body,) = bare.do_action(("GetSessionOptions", b""))
        assert (
            "min_seq" not in session_pb.GetSessionOptionsResult.FromString(bytes(body.body)).session_options
        )


def test_the_limit_of_sessions_is_named(serve: Serve) -> None:
    server = serve(ServerLimits(sessions_max=1))
    one, two = Client(server.port, CookieJar()), Client(server.port, CookieJar())
    with one.client, two.client:
        one.set(pin="p")
        with pytest.raises(Exception, match="sessions_max"):
            two.set(pin="p")
        assert two.rows("SELECT 1 AS one")["one"].to_pylist() == [1]


def test_an_expired_sessions_client_is_told_and_can_set_its_options_again(serve: Serve) -> None:
    server = serve(ServerLimits(session_idle_seconds=0.0))
    client = Client(server.port, CookieJar())
    with client.client:
        client.set(pin="p")
        server._sessions.expire()
        with pytest.raises(pa.ArrowKeyError, match="options are gone"):
            client.rows("SELECT count(*) FROM orders")
        assert client.set(pin=None) == {}
        assert client.rows("SELECT 1 AS one")["one"].to_pylist() == [1]


def test_the_actions_are_listed(client: Client) -> None:
    listed = {action.type for action in client.client.list_actions()}
    assert {"SetSessionOptions", "GetSessionOptions", "CloseSession"} <= listed


# --- statements -------------------------------------------------------------------------------------


def test_set_and_reset_are_statements_of_the_session(client: Client) -> None:
    client.options()  # a first call, for the cookie
    for sql in ("SET TimeZone = 'Europe/Berlin'", "SET min_seq TO 'orders=3';", "USE main"):
        answer = client.rows(sql)
        assert (answer.schema.names, answer.num_rows) == (["Success"], 0)
    assert client.zone() == "Europe/Berlin"
    assert client.options()["min_seq"] == "orders=3"
    client.rows("RESET ALL")
    assert (client.zone(), client.options()) == ("UTC", {"catalog": "merutable", "schema": "main"})


def test_a_prepared_set_says_that_it_is_a_query_and_changes_the_session_when_it_is_run(
    client: Client,
) -> None:
    (body,) = client.act(
        "CreatePreparedStatement", pb.ActionCreatePreparedStatementRequest(query="SET pin = 'p'")
    )
    result = unpack(body, "the result")
    assert (result.HasField("is_update"), result.is_update) == (True, False)
    assert pa.ipc.read_schema(pa.py_buffer(result.dataset_schema)).names == ["Success"]
    assert "pin" not in client.options()
    handle = result.prepared_statement_handle
    client.open(client.command(pb.CommandPreparedStatementQuery(prepared_statement_handle=handle))).read_all()
    assert client.options()["pin"] == "p"


def test_set_as_an_update_changes_the_session_and_no_rows(connection: adbc.Connection) -> None:
    with adbc_driver_manager.AdbcStatement(connection.adbc_connection) as statement:
        statement.set_sql_query("SET pin = 'p'")
        assert statement.execute_update() == 0
    assert connection.adbc_connection.get_option(OPTION + "pin") == "p"


def test_set_is_refused_to_a_client_whose_session_ends_with_the_call(cookieless: Client) -> None:
    cookieless.rows("USE main")
    with pytest.raises(pa.ArrowInvalid, match="neither cookie nor bearer token"):
        cookieless.rows("SET min_seq = 5")


@pytest.mark.parametrize("sql", ["SET threads = 1", "SET GLOBAL TimeZone = 'UTC'", "RESET memory_limit"])
def test_duckdbs_settings_are_out_of_reach(client: Client, sql: str) -> None:
    client.options()
    with pytest.raises(pa.ArrowInvalid, match=", ".join(OPTION_NAMES)):
        client.rows(sql)


def test_a_statement_timeout_of_the_session_holds_for_each_of_its_statements(client: Client) -> None:
    client.options()  # begins the session
    client.rows("SET statement_timeout_ms = 200")
    for _ in range(2):
        with pytest.raises(flight.FlightTimedOutError, match="statement_timeout_ms, 200 ms"):
            client.rows(ENDLESS)
    assert client.rows("SELECT 1 AS one").to_pylist() == [{"one": 1}]


# --- ADBC -------------------------------------------------------------------------------------------


def test_adbc_sets_reads_and_erases_options(connection: adbc.Connection) -> None:
    low = connection.adbc_connection
    low.set_options(**{OPTION + "min_seq": "3", OPTION + "wait_timeout_ms": 100})
    assert low.get_option(OPTION + "min_seq") == "3"
    assert low.get_option_int(OPTION + "wait_timeout_ms") == 100
    low.set_options(**{ERASE + "min_seq": ""})
    assert low.get_option(ALL_OPTIONS) == '{"catalog":"merutable","schema":"main","wait_timeout_ms":100}'


def test_adbc_is_told_which_option_is_wrong(connection: adbc.Connection) -> None:
    low = connection.adbc_connection
    with pytest.raises(adbc.ProgrammingError, match=r"'nope' \(invalid name\)"):
        low.set_options(**{OPTION + "nope": "3"})
    with pytest.raises(adbc.ProgrammingError, match=r"'min_seq' \(invalid value\)"):
        low.set_options(**{OPTION + "min_seq": "x"})


def test_adbc_knows_the_current_catalog_and_schema(connection: adbc.Connection) -> None:
    assert (connection.adbc_current_catalog, connection.adbc_current_db_schema) == ("merutable", "main")


def test_adbc_without_cookies_is_told_that_an_option_would_not_last(server: FlightSqlServer) -> None:
    uri = f"grpc://127.0.0.1:{server.port}"
    with (
        adbc.connect(uri, autocommit=True) as connection,
        pytest.raises(adbc.ProgrammingError, match="with_cookie_middleware"),
    ):
        connection.adbc_connection.set_options(**{OPTION + "min_seq": "3"})


def test_adbc_that_logs_in_has_a_session_without_cookies(server: FlightSqlServer) -> None:
    login = {"username": "user", "password": "password"}
    uri = f"grpc://127.0.0.1:{server.port}"
    with adbc.connect(uri, db_kwargs=login, autocommit=True) as connection:
        connection.adbc_connection.set_options(**{OPTION + "min_seq": "3"})
        assert connection.adbc_connection.get_option(OPTION + "min_seq") == "3"
