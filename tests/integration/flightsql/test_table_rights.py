"""What a user may not read isn't there for him, and what he may not write stays as it is."""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Iterator
from pathlib import Path

import adbc_driver_flightsql.dbapi as adbc
import adbc_driver_manager
import pyarrow as pa
import pytest
from pyarrow import flight

from flight_replica._pb import flight_sql_pb2 as pb
from flight_replica.flightsql.auth import BasicLogins
from flight_replica.flightsql.commands import pack
from flight_replica.flightsql.rights import RestrictedService
from flight_replica.flightsql.server import FlightSqlServer
from flight_replica.flightsql.service import Service
from flight_replica.flightsql.tokens import Tokens
from flight_replica.flightsql.users import UsersFile
from tests.accounts import write_users
from tests.integration.flightsql.clients import RawClient
from tests.integration.flightsql.conftest import ODD, ORDERS, Serve
from tests.integration.flightsql.memory_service import MemoryService
from tests.processes import until


@pytest.fixture
def users(tmp_path: Path) -> Path:
    return write_users(
        tmp_path / "users.json",
        reader={"password": "pw", "read": ["orders"]},
        writer={"password": "pw", "read": ["orders", "odd", "new*"], "write": ["orders", "hidden"]},
        maker={"password": "pw", "read": ["new*"], "write": ["new*"], "ddl": True},
        root={"password": "pw", "write": ["*"], "ddl": True},
        nobody={"password": "pw", "read": []},
    )


@pytest.fixture
def server(serve: Serve, service: MemoryService, users: Path) -> FlightSqlServer:
    service.add_table("hidden", ORDERS)
    service.put("hidden", pa.table({"id": [7], "item": ["secret"], "price": [0.5]}))
    return serve(logins=BasicLogins(UsersFile(users), Tokens()))


class UserClient(RawClient):
    """A raw client, logged in."""

    def __init__(self, client: flight.FlightClient, user: str) -> None:
        super().__init__(_LoggedIn(client, user))  # type: ignore[arg-type]


class _LoggedIn:
    """A Flight client that says on every call who it is."""

    def __init__(self, client: flight.FlightClient, user: str) -> None:
        self._client = client
        self._header = client.authenticate_basic_token(user.encode(), b"pw")

    def __getattr__(self, name: str) -> object:
        call = getattr(self._client, name)
        return lambda argument, *_: call(argument, flight.FlightCallOptions(headers=[self._header]))


@pytest.fixture
def reader(server: FlightSqlServer) -> Iterator[UserClient]:
    with flight.connect(f"grpc://127.0.0.1:{server.port}") as client:
        yield UserClient(client, "reader")


def _connect(server: FlightSqlServer, user: str) -> adbc.Connection:
    options = {"username": user, "password": "pw"}
    return adbc.connect(f"grpc://127.0.0.1:{server.port}", options, autocommit=True)


def _run(server: FlightSqlServer, user: str, sql: str) -> list[tuple[object, ...]]:
    with _connect(server, user) as connection, connection.cursor() as cursor:
        cursor.execute(sql)
        return list(cursor.fetchall())


# --- reading ------------------------------------------------------------------------------------------


def test_a_user_reads_the_tables_that_he_may_read(server: FlightSqlServer) -> None:
    assert _run(server, "reader", "SELECT count(*) FROM ORDERS") == [(3,)]
    assert _run(server, "root", "SELECT item FROM hidden") == [("secret",)]


# Every way to name a table. What is said must not depend on whether there is one.
NAMED = [
    "SELECT * FROM {0}",
    "SELECT * FROM main.{0}",
    'SELECT * FROM "{0}"',
    "FROM {0}",
    "TABLE {0}",
    "SELECT * FROM orders JOIN {0} USING (id)",
    "SELECT * FROM orders, LATERAL (SELECT * FROM {0})",
    "SELECT (SELECT max(id) FROM {0})",
    "SELECT * FROM orders WHERE id IN (SELECT id FROM {0})",
    "WITH x AS (SELECT * FROM {0}) SELECT * FROM x",
    "WITH x AS MATERIALIZED (FROM {0}) SELECT 1",
    "SELECT id FROM orders UNION ALL SELECT id FROM {0}",
    "SELECT {0}.id FROM orders",
    "SELECT * FROM {0} WHERE false",
    "SELECT * FROM orders ORDER BY (SELECT count(*) FROM {0})",
    "DESCRIBE {0}",
    "DESCRIBE SELECT * FROM {0}",
    "SUMMARIZE {0}",
    "SHOW {0}",
    "EXPLAIN SELECT * FROM {0}",
    "EXPLAIN ANALYZE SELECT * FROM {0}",
    "PIVOT {0} ON item IN ('a') USING sum(id)",
    "SELECT * FROM merutable_changes('{0}', 0)",
    "SELECT * FROM merutable_changes('{0}', 0, follow := true)",
    "SELECT count(*) FROM merutable_changes('{0}', 0)",
    "SELECT * FROM merutable_digest('{0}')",
    "SELECT * FROM merutable_wait('{0}', 0, 100)",
    "SELECT merutable_seq('{0}')",
    "SELECT merutable_lag_ms('{0}')",
    "INSERT INTO orders SELECT * FROM {0}",
    "DELETE FROM orders WHERE id IN (SELECT id FROM {0})",
    "UPDATE orders SET item = (SELECT max(item) FROM {0})",
    "INSERT INTO {0} VALUES (1, 'a', 1.0)",
    "UPDATE {0} SET item = 'x'",
    "DELETE FROM {0}",
    "DROP TABLE {0}",
    "ALTER TABLE {0} ADD COLUMN more INT",
]


@pytest.mark.parametrize("user", ["reader", "writer"])
def test_a_table_of_others_is_answered_for_as_one_that_is_not_there(
    server: FlightSqlServer, user: str
) -> None:
    with flight.connect(f"grpc://127.0.0.1:{server.port}") as client:
        raw = UserClient(client, user)
        for template in NAMED:
            hidden, absent = (_refusal(raw, template.format(name)) for name in ("hidden", "absent"))
            assert hidden.replace("hidden", "absent") == absent, template


@pytest.mark.parametrize("template", NAMED)
def test_get_schema_and_prepare_say_no_more(reader: UserClient, template: str) -> None:
    texts = []
    for name in ("hidden", "absent"):
        query = template.format(name)
        command = pb.CommandStatementQuery(query=query)
        request = pb.ActionCreatePreparedStatementRequest(query=query)
        with pytest.raises((pa.ArrowException, OSError, KeyError)) as schema:
            reader.client.get_schema(flight.FlightDescriptor.for_command(pack(command)))
        with pytest.raises((pa.ArrowException, OSError, KeyError)) as prepare:
            reader.act("CreatePreparedStatement", request)
        texts.append((str(schema.value) + str(prepare.value)).replace(name, "?"))
    assert texts[0] == texts[1]


def _refusal(raw: RawClient, sql: str) -> str:
    with pytest.raises((pa.ArrowException, KeyError)) as caught:
        raw.rows(sql)
    return f"{type(caught.value).__name__}: {caught.value}"


# Every list of tables there is.
LISTS = [
    "SHOW TABLES",
    "SELECT table_name FROM merutable_tables()",
    "SELECT * FROM merutable_status()",
    "SELECT count(*) FROM merutable_tables()",
    "SELECT table_name FROM information_schema.tables",
    "SELECT table_name, column_name FROM information_schema.columns",
    "SELECT * FROM information_schema.table_constraints",
    "SELECT * FROM information_schema.key_column_usage",
]


@pytest.mark.parametrize("sql", LISTS)
def test_no_list_shows_a_table_of_others(
    server: FlightSqlServer, service: MemoryService, reader: UserClient, sql: str
) -> None:
    def answer() -> str:
        try:
            return str(reader.rows(sql).to_pylist())
        except pa.ArrowInvalid as error:  # not served here
            return str(error)

    found = answer()
    assert "hidden" not in found and "odd" not in found
    for name in ("hidden", "odd"):
        del service.tables_by_name[name]
    assert answer() == found


@pytest.mark.parametrize(
    "command",
    [
        pb.CommandGetTables(),
        pb.CommandGetTables(include_schema=True),
        pb.CommandGetTables(table_name_filter_pattern="hid%"),
        pb.CommandGetTables(table_name_filter_pattern="hidden", include_schema=True),
        pb.CommandGetPrimaryKeys(table="hidden"),
        pb.CommandGetExportedKeys(table="hidden"),
        pb.CommandGetImportedKeys(table="hidden"),
        pb.CommandGetCrossReference(pk_table="hidden", fk_table="orders"),
        pb.CommandGetDbSchemas(),
        pb.CommandGetCatalogs(),
        pb.CommandGetSqlInfo(),
    ],
    ids=lambda command: f"{command.DESCRIPTOR.name} {command}".replace("\n", " "),
)
def test_no_metadata_shows_a_table_of_others(
    service: MemoryService, reader: UserClient, command: object
) -> None:
    found = reader.reply(command)  # type: ignore[arg-type]
    assert "hidden" not in str(found.to_pylist())
    for name in ("hidden", "odd"):
        del service.tables_by_name[name]
    assert reader.reply(command).equals(found)  # type: ignore[arg-type]


def test_the_objects_of_adbc_are_those_of_the_user(server: FlightSqlServer) -> None:
    with _connect(server, "reader") as connection:
        objects = json.dumps(connection.adbc_get_objects().read_all().to_pylist(), default=str)
        assert "orders" in objects and "hidden" not in objects and "odd" not in objects
        with pytest.raises(adbc_driver_manager.Error) as caught:
            connection.adbc_get_table_schema("hidden")
        assert caught.value.status_code == adbc_driver_manager.AdbcStatusCode.NOT_FOUND


def test_a_user_without_tables_sees_none_and_may_still_calculate(server: FlightSqlServer) -> None:
    assert _run(server, "nobody", "SELECT 1 + 1") == [(2,)]
    assert _run(server, "nobody", "SHOW TABLES") == []


def test_rights_that_are_taken_count_for_statements_that_were_prepared_before(
    server: FlightSqlServer, users: Path
) -> None:
    with _connect(server, "root") as connection, connection.cursor() as cursor:
        cursor.adbc_prepare("SELECT count(*) FROM hidden")
        cursor.execute("SELECT count(*) FROM hidden")
        assert cursor.fetchall() == [(1,)]
        entries = json.loads(users.read_text())
        entries["users"]["root"]["read"] = ["orders"]
        users.with_suffix(".new").write_text(json.dumps(entries))
        users.with_suffix(".new").replace(users)
        with pytest.raises(adbc_driver_manager.Error, match="hidden"):
            cursor.execute("SELECT count(*) FROM hidden")


def test_a_view_within_rights_offers_all_that_a_service_does() -> None:
    offered = {name for name in vars(Service) if not name.startswith("_")}
    assert offered <= {name for name in vars(RestrictedService) if not name.startswith("_")}


# --- writing ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "sql",
    [
        "INSERT INTO orders VALUES (4, 'd', 4.5)",
        "UPDATE orders SET item = 'x'",
        "DELETE FROM orders",
        "CREATE TABLE mine (id BIGINT PRIMARY KEY)",
        "DROP TABLE orders",
        "ALTER TABLE orders ADD COLUMN more INT",
    ],
)
def test_who_may_only_read_is_told_when_he_prepares_a_write(
    server: FlightSqlServer, service: MemoryService, sql: str
) -> None:
    with (
        _connect(server, "reader") as connection,
        connection.cursor() as cursor,
        pytest.raises(adbc_driver_manager.Error, match="user 'reader' may only read"),
    ):
        cursor.adbc_prepare(sql)
    assert service.writes_total == 0


@pytest.mark.parametrize(
    ("user", "sql", "reason"),
    [
        ("writer", "INSERT INTO odd VALUES (1, 'x')", "may not write to table 'odd'"),
        ("writer", "DELETE FROM odd", "may not write to table 'odd'"),
        ("writer", "DROP TABLE orders", "may not create, drop or alter table 'orders'"),
        ("writer", "ALTER TABLE orders ADD COLUMN more INT", "may not create, drop or alter"),
        ("writer", "CREATE TABLE orders (id BIGINT PRIMARY KEY)", "may not create, drop or alter"),
        ("writer", "CREATE TABLE new1 (id BIGINT PRIMARY KEY)", "may not create, drop or alter"),
        ("maker", "CREATE TABLE other (id BIGINT PRIMARY KEY)", "may not create, drop or alter"),
        ("maker", "CREATE TABLE hidden (id BIGINT PRIMARY KEY)", "may not create, drop or alter"),
        ("maker", "CREATE TABLE IF NOT EXISTS hidden (id BIGINT PRIMARY KEY)", "may not create"),
    ],
)
def test_a_write_beyond_the_users_rights_is_refused(
    server: FlightSqlServer, service: MemoryService, user: str, sql: str, reason: str
) -> None:
    with pytest.raises(adbc_driver_manager.Error, match=reason) as caught:
        _run(server, user, sql)
    assert caught.value.status_code == adbc_driver_manager.AdbcStatusCode.UNAUTHORIZED
    assert service.writes_total == 0


def test_a_write_within_the_users_rights_is_done(server: FlightSqlServer, service: MemoryService) -> None:
    assert _run(server, "writer", "INSERT INTO orders VALUES (4, 'd', 4.5)") == [(1, 4)]
    _run(server, "maker", "CREATE TABLE new1 (id BIGINT PRIMARY KEY)")
    assert service.writes_total == 2


def test_prepared_and_direct_updates_and_ingestion_are_held_to_the_same(
    server: FlightSqlServer, service: MemoryService
) -> None:
    service.add_table("new1", ODD)
    with _connect(server, "writer") as connection, connection.cursor() as cursor:
        with pytest.raises(adbc_driver_manager.Error, match="may not write to table 'odd'"):
            cursor.executemany("INSERT INTO odd VALUES (?, ?)", [(1, "x")])
        with adbc_driver_manager.AdbcStatement(connection.adbc_connection) as statement:
            statement.set_sql_query("DELETE FROM odd")
            with pytest.raises(adbc_driver_manager.Error, match="may not write to table 'odd'"):
                statement.execute_update()
        assert cursor.adbc_ingest("orders", _orders(4), mode="append") == 1
        for table, mode, reason in (
            ("odd", "append", "may not write to table 'odd'"),
            ("hidden", "append", "there is no table 'hidden'"),
            ("absent", "append", "there is no table 'absent'"),
            ("orders", "replace", "may not create, drop or alter table 'orders'"),
            ("hidden", "create", "may not create, drop or alter table 'hidden'"),
            ("absent", "create", "may not create, drop or alter table 'absent'"),
            ("hidden", "create_append", "may not create, drop or alter table 'hidden'"),
        ):
            with pytest.raises(adbc_driver_manager.Error, match=reason):
                cursor.adbc_ingest(table, _orders(5), mode=mode)
    assert service.tables_by_name["hidden"].seq == 1
    with _connect(server, "maker") as connection, connection.cursor() as cursor:
        assert cursor.adbc_ingest("new2", _orders(1), mode="create") == 1


def _orders(order_id: int) -> pa.Table:
    return pa.table({"id": [order_id], "item": ["i"], "price": [1.0]})


def test_a_plan_that_waits_is_gone_with_the_right_to_read_its_table(
    server: FlightSqlServer, users: Path
) -> None:
    header = (b"authorization", b"Basic " + b64encode(b"reader:pw"))
    options = flight.FlightCallOptions(headers=[header])
    with flight.connect(f"grpc://127.0.0.1:{server.port}") as client:
        descriptor = flight.FlightDescriptor.for_command(
            pack(pb.CommandStatementQuery(query="SELECT * FROM orders"))
        )
        info = client.get_flight_info(descriptor, options)
        entries = json.loads(users.read_text())
        entries["users"]["reader"]["read"] = ["odd"]
        changed = users.with_suffix(".new")
        changed.write_text(json.dumps(entries))
        changed.replace(users)
        until(lambda: is_refused(client, descriptor, options), "the right is gone")
        with pytest.raises(KeyError, match="the ticket is unknown"):
            client.do_get(info.endpoints[0].ticket, options).read_all()


def is_refused(
    client: flight.FlightClient, descriptor: flight.FlightDescriptor, options: flight.FlightCallOptions
) -> bool:
    """Whether the user may not read it now."""
    try:
        client.get_flight_info(descriptor, options)
    except KeyError:
        return True
    return False
