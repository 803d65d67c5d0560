"""Health, reflection and control over gRPC, by clients of grpcio."""

from __future__ import annotations

import base64
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import grpc
import jwt
import pytest
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase
from pyarrow import flight

from flight_replica._pb import admin_pb2 as pb
from flight_replica._pb import admin_pb2_grpc
from flight_replica.admin.limits import AdminLimits
from flight_replica.admin.server import AdminServer
from flight_replica.client import query as run_query
from flight_replica.errors import ConfigError
from flight_replica.flightsql.auth import BasicLogins, JwtLogins, Logins
from flight_replica.flightsql.jwt_logins import JwtSettings, JwtVerifier
from flight_replica.flightsql.tls import ServerTls, read_server_tls
from flight_replica.flightsql.tokens import Tokens
from flight_replica.flightsql.users import UsersFile
from tests.accounts import write_users
from tests.certificates import Authority
from tests.integration.flightsql.clients import RawClient
from tests.integration.flightsql.test_cancel import ENDLESS, read_on
from tests.pair import Pair, log_levels_kept, served_pair
from tests.processes import until

SERVING, NOT_SERVING, SERVICE_UNKNOWN = 1, 2, 3
SECONDS = 60.0  # the longest that a call may take here
SECRET = b"the secret of these tests' tokens, long enough"


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    with served_pair(tmp_path_factory.mktemp("pair")) as found:
        yield found


@contextmanager
def served(pair: Pair, logins: Logins | None = None, tls: ServerTls | None = None) -> Iterator[AdminServer]:
    with closing(AdminServer(pair.control, "127.0.0.1", 0, logins=logins, tls=tls)) as server:
        yield server


@pytest.fixture(scope="module")
def channel(pair: Pair) -> Iterator[grpc.Channel]:
    with served(pair) as server, opened(server) as found:
        yield found


def opened(server: AdminServer) -> grpc.Channel:
    return grpc.insecure_channel(f"127.0.0.1:{server.port}")


def health(channel: grpc.Channel, name: str = "") -> int:
    request = health_pb2.HealthCheckRequest(service=name)
    return int(health_pb2_grpc.HealthStub(channel).Check(request, timeout=SECONDS).status)


def refused(call: object) -> grpc.StatusCode:
    """The code of the error that `call` raises."""
    with pytest.raises(grpc.RpcError) as failure:
        call()  # type: ignore[operator]
    return failure.value.code()


class Admin:
    """Every method of the service, by its name, for one caller."""

    def __init__(self, channel: grpc.Channel, **headers: str) -> None:
        self._stub = admin_pb2_grpc.AdminStub(channel)
        self._metadata = tuple(headers.items())

    def __getattr__(self, name: str) -> object:
        method = getattr(self._stub, name)
        return lambda request: method(request, timeout=SECONDS, metadata=self._metadata)


def basic(user: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


# --- health -------------------------------------------------------------------------------------------


def test_the_server_and_each_table_have_their_health(channel: grpc.Channel) -> None:
    assert health(channel) == SERVING
    assert health(channel, "orders") == SERVING
    assert refused(lambda: health(channel, "nothing")) is grpc.StatusCode.NOT_FOUND


def test_a_paused_table_is_not_serving_and_the_server_is(channel: grpc.Channel) -> None:
    admin = Admin(channel)
    admin.PauseTable(pb.TableRequest(table="orders"))
    try:
        assert health(channel, "orders") == NOT_SERVING
        assert health(channel) == SERVING
    finally:
        admin.ResumeTable(pb.TableRequest(table="orders"))
    assert health(channel, "orders") == SERVING


def test_a_watcher_of_health_hears_of_each_change(channel: grpc.Channel) -> None:
    admin = Admin(channel)
    watching = health_pb2_grpc.HealthStub(channel).Watch(
        health_pb2.HealthCheckRequest(service="orders"), timeout=SECONDS
    )
    assert next(watching).status == SERVING
    admin.PauseTable(pb.TableRequest(table="orders"))
    assert next(watching).status == NOT_SERVING
    admin.ResumeTable(pb.TableRequest(table="orders"))
    assert next(watching).status == SERVING
    watching.cancel()


def test_a_watcher_of_a_table_that_is_not_there_hears_when_it_comes_and_goes(
    channel: grpc.Channel, pair: Pair
) -> None:
    watching = health_pb2_grpc.HealthStub(channel).Watch(
        health_pb2.HealthCheckRequest(service="later"), timeout=SECONDS
    )
    assert next(watching).status == SERVICE_UNKNOWN
    pair.write("CREATE TABLE later (id BIGINT PRIMARY KEY)")
    while next(watching).status != SERVING:  # it may be seen while it loads
        pass
    pair.write("DROP TABLE later")
    while next(watching).status != SERVICE_UNKNOWN:
        pass
    watching.cancel()


def test_watchers_who_log_in_nowhere_leave_streams_to_users(pair: Pair) -> None:
    limits = AdminLimits(admin_streams_max=4)
    with (
        closing(AdminServer(pair.control, "127.0.0.1", 0, limits=limits)) as server,
        opened(server) as channel,
    ):
        stub = health_pb2_grpc.HealthStub(channel)
        request = health_pb2.HealthCheckRequest(service="orders")
        watching = [stub.Watch(request, timeout=SECONDS) for _ in range(2)]
        assert [next(each).status for each in watching] == [SERVING, SERVING]
        third = stub.Watch(request, timeout=SECONDS)
        assert refused(lambda: next(third)) is grpc.StatusCode.RESOURCE_EXHAUSTED
        admin = Admin(channel)
        status = admin.WatchStatus(pb.WatchStatusRequest())
        assert next(status).server.product == "replica"
        # What asks for services is a stream too, for as long as its client wants.
        asking = threading.Event()
        stub_of_reflection = reflection_pb2_grpc.ServerReflectionStub(channel)
        asked = iter([reflection_pb2.ServerReflectionRequest(list_services="")])

        def requests() -> Iterator[object]:
            yield from asked
            asking.wait(SECONDS)

        reflected = stub_of_reflection.ServerReflectionInfo(requests(), timeout=SECONDS)
        assert next(reflected).list_services_response.service
        fifth = admin.WatchStatus(pb.WatchStatusRequest())
        assert refused(lambda: next(fifth)) is grpc.StatusCode.RESOURCE_EXHAUSTED
        asking.set()
        for each in (*watching, status, reflected):
            each.cancel()


def test_health_lists_to_a_user_what_he_may_read(pair: Pair, tmp_path: Path) -> None:
    path = write_users(
        tmp_path / "users.json", ann={"password": "ann's"}, bob={"password": "bob's", "read": ["items"]}
    )
    with served(pair, BasicLogins(UsersFile(path), Tokens(seconds=60))) as server, opened(server) as channel:
        stub = health_pb2_grpc.HealthStub(channel)

        def listed(**headers: str) -> dict[str, int]:
            request = health_pb2.HealthListRequest()
            found = stub.List(request, timeout=SECONDS, metadata=tuple(headers.items()))
            return {name: found.statuses[name].status for name in found.statuses}

        assert listed(authorization=basic("ann", "ann's")).items() >= {"": SERVING, "orders": SERVING}.items()
        assert listed(authorization=basic("bob", "bob's")).keys() == {""}
        assert refused(listed) is grpc.StatusCode.UNAUTHENTICATED


def test_the_server_is_not_serving_once_it_drains(tmp_path: Path) -> None:
    with served_pair(tmp_path) as pair, served(pair) as server, opened(server) as channel:
        assert health(channel) == SERVING
        pair.control.begin_draining()
        assert health(channel) == health(channel, "orders") == NOT_SERVING


# --- reflection ---------------------------------------------------------------------------------------


def test_a_reflection_client_finds_services_and_methods(channel: grpc.Channel) -> None:
    database = ProtoReflectionDescriptorDatabase(channel)
    assert {"merutable.admin.v1.Admin", "grpc.health.v1.Health"} <= set(database.get_services())
    service = DescriptorPool(database).FindServiceByName("merutable.admin.v1.Admin")
    assert {"Status", "WatchStatus", "PauseTable", "CancelQuery"} <= {each.name for each in service.methods}


# --- control ------------------------------------------------------------------------------------------


def test_status_tells_of_server_and_tables(channel: grpc.Channel, pair: Pair) -> None:
    status = Admin(channel).Status(pb.StatusRequest())
    assert status.server.product == "replica"
    assert status.server.version
    (table,) = (table for table in status.tables if table.name == "orders")
    assert (table.state, table.visible_seq, table.lag_seqs) == ("serving", pair.seq("orders"), 0)
    assert table.details.state_kind


def test_a_watched_status_goes_on_until_its_client_goes(channel: grpc.Channel) -> None:
    watching = Admin(channel).WatchStatus(pb.WatchStatusRequest(interval_seconds=0.1))
    uptimes = [next(watching).server.uptime_seconds for _ in range(3)]
    assert uptimes == sorted(set(uptimes))
    watching.cancel()
    for seconds in (0.001, 1e9, float("nan"), -1.0):
        refusing = Admin(channel).WatchStatus(pb.WatchStatusRequest(interval_seconds=seconds))
        assert refused(lambda refusing=refusing: next(refusing)) is grpc.StatusCode.INVALID_ARGUMENT


def test_statements_that_took_long_are_listed(
    channel: grpc.Channel, pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pair.control.slow, "slow_seconds", 0.0)
    run_query(pair.uri, "SELECT count(*) AS n FROM orders")

    def listed() -> pb.ListSlowQueriesResponse:
        return Admin(channel).ListSlowQueries(pb.ListSlowQueriesRequest())

    until(lambda: len(listed().queries) > 0, "it has ended")
    found = listed().queries[0]
    assert (found.sql, found.outcome, found.rows) == ("SELECT count(*) AS n FROM orders", "done", 1)
    assert found.visible_seqs == {"orders": pair.seq("orders")}
    assert found.seconds > 0


def test_a_running_query_is_listed_and_cancelled(channel: grpc.Channel, pair: Pair) -> None:
    admin = Admin(channel)
    with flight.connect(pair.uri) as client:
        raw = RawClient(client)
        stream = raw.open(raw.info(ENDLESS))
        until(
            lambda: (
                [query.phase for query in admin.ListQueries(pb.ListQueriesRequest()).queries] == ["executing"]
            ),
            "it runs",
        )
        (query,) = admin.Status(pb.StatusRequest()).queries
        assert query.sql == ENDLESS
        (session,) = admin.ListSessions(pb.ListSessionsRequest()).sessions
        assert (session.id, session.queries) == (query.session, 1)
        assert admin.CancelQuery(pb.CancelQueryRequest(id=query.id)).id == query.id
        with pytest.raises(flight.FlightCancelledError, match="cancelled by an operator"):
            read_on(stream)
    again = pb.CancelQueryRequest(id=query.id)
    assert refused(lambda: admin.CancelQuery(again)) is grpc.StatusCode.NOT_FOUND


def test_tables_are_rebased_compacted_removed_and_added(channel: grpc.Channel, pair: Pair) -> None:
    admin = Admin(channel)
    seq = pair.seq("orders")
    assert admin.RebaseTable(pb.TableRequest(table="orders")).visible_seq == seq
    compacted = admin.CompactTable(pb.TableRequest(table="orders"))
    assert (compacted.visible_seq, compacted.state_kind) == (seq, "merge on apply")
    admin.RemoveTable(pb.TableRequest(table="orders"))
    assert pair.state("orders") == ""
    assert refused(lambda: health(channel, "orders")) is grpc.StatusCode.NOT_FOUND
    admin.AddTable(pb.AddTableRequest(table="orders"))
    pair.wait_serving("orders")
    again = pb.AddTableRequest(table="orders")
    assert refused(lambda: admin.AddTable(again)) is grpc.StatusCode.ALREADY_EXISTS


def test_pins_are_listed_and_released(channel: grpc.Channel, pair: Pair) -> None:
    admin = Admin(channel)
    with flight.connect(pair.uri) as client:
        RawClient(client).rows("SELECT * FROM orders", merutable_pin="p")
        (pin,) = admin.ListPins(pb.ListPinsRequest()).pins
        assert (pin.name, pin.visible_seqs["orders"]) == ("p", pair.seq("orders"))
        admin.ReleasePin(pb.ReleasePinRequest(user=pin.user, name=pin.name))
    assert not admin.ListPins(pb.ListPinsRequest()).pins


def test_the_log_level_is_changed_and_a_wrong_one_refused(channel: grpc.Channel) -> None:
    admin = Admin(channel)
    before = admin.GetLogLevel(pb.GetLogLevelRequest()).level
    with log_levels_kept():
        assert admin.SetLogLevel(pb.SetLogLevelRequest(level="error")).before == before
        wrong = pb.SetLogLevelRequest(level="loud")
        assert refused(lambda: admin.SetLogLevel(wrong)) is grpc.StatusCode.INVALID_ARGUMENT


def test_errors_have_their_codes_and_one_line(channel: grpc.Channel, pair: Pair) -> None:
    with pytest.raises(grpc.RpcError) as failure:
        Admin(channel).PauseTable(pb.TableRequest(table="nothing"))
    assert failure.value.code() is grpc.StatusCode.NOT_FOUND
    assert failure.value.details() == "there is no table 'nothing'"
    with (
        closing(AdminServer(pair.primary_control, "127.0.0.1", 0)) as server,
        opened(server) as of_primary,
        pytest.raises(grpc.RpcError) as failure,
    ):
        Admin(of_primary).PauseTable(pb.TableRequest(table="orders"))
    assert failure.value.code() is grpc.StatusCode.UNIMPLEMENTED


def test_a_request_that_is_too_large_and_bytes_that_are_none_are_refused(channel: grpc.Channel) -> None:
    large = pb.CancelQueryRequest(id="x" * (2 << 20))
    assert refused(lambda: Admin(channel).CancelQuery(large)) is grpc.StatusCode.RESOURCE_EXHAUSTED
    raw = channel.unary_unary("/merutable.admin.v1.Admin/CancelQuery")
    assert refused(lambda: raw(b"\xff\xff", timeout=SECONDS)) is grpc.StatusCode.INTERNAL
    assert Admin(channel).Status(pb.StatusRequest()).server.product == "replica"


def test_streams_are_limited_and_calls_answered_beside_them(pair: Pair) -> None:
    limits = AdminLimits(admin_streams_max=2, admin_calls_max=4)
    with (
        closing(AdminServer(pair.control, "127.0.0.1", 0, limits=limits)) as server,
        opened(server) as channel,
    ):
        streams = [Admin(channel).WatchStatus(pb.WatchStatusRequest()) for _ in range(2)]
        for stream in streams:
            next(stream)
        third = Admin(channel).WatchStatus(pb.WatchStatusRequest())
        assert refused(lambda: next(third)) is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert health(channel) == SERVING
        streams[0].cancel()

        def is_free() -> bool:
            stream = Admin(channel).WatchStatus(pb.WatchStatusRequest())
            try:
                next(stream)
            except grpc.RpcError:
                return False
            stream.cancel()
            return True

        until(is_free, "the place of the one that went")


def test_a_server_that_closes_ends_its_streams(pair: Pair) -> None:
    with served(pair) as server, opened(server) as channel:
        stream = Admin(channel).WatchStatus(pb.WatchStatusRequest(interval_seconds=60))
        next(stream)
        began = time.monotonic()
        server.close()
        assert list(stream) == []
        assert time.monotonic() - began < 30


def test_an_address_in_use_is_said_at_once(pair: Pair) -> None:
    with served(pair) as server, pytest.raises(ConfigError, match=f"127.0.0.1:{server.port}"):
        AdminServer(pair.control, "127.0.0.1", server.port)


# --- who may ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def users(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_users(
        tmp_path_factory.mktemp("users") / "users.json",
        ann={"password": "ann's", "admin": True},
        bob={"password": "bob's", "read": ["orders"]},
        eve={"password": "eve's", "read": ["items"]},
    )


@pytest.fixture(scope="module")
def closed_channel(pair: Pair, users: Path) -> Iterator[grpc.Channel]:
    logins = BasicLogins(UsersFile(users), Tokens(seconds=60))
    with served(pair, logins) as server, opened(server) as found:
        yield found


def test_probes_need_no_login_and_everything_else_does(closed_channel: grpc.Channel) -> None:
    assert health(closed_channel) == health(closed_channel, "orders") == SERVING
    nobody = Admin(closed_channel)
    assert refused(lambda: nobody.Status(pb.StatusRequest())) is grpc.StatusCode.UNAUTHENTICATED
    watching = nobody.WatchStatus(pb.WatchStatusRequest())
    assert refused(lambda: next(watching)) is grpc.StatusCode.UNAUTHENTICATED
    database = ProtoReflectionDescriptorDatabase(closed_channel)
    assert refused(database.get_services) is grpc.StatusCode.UNAUTHENTICATED
    wrong = Admin(closed_channel, authorization=basic("ann", "wrong"))
    assert refused(lambda: wrong.Status(pb.StatusRequest())) is grpc.StatusCode.UNAUTHENTICATED


def test_rights_hold_as_on_the_flight_port(closed_channel: grpc.Channel) -> None:
    ann = Admin(closed_channel, authorization=basic("ann", "ann's"))
    bob = Admin(closed_channel, authorization=basic("bob", "bob's"))
    eve = Admin(closed_channel, authorization=basic("eve", "eve's"))
    orders = pb.TableRequest(table="orders")
    assert [table.name for table in bob.Status(pb.StatusRequest()).tables] == ["orders"]
    assert [table.name for table in eve.Status(pb.StatusRequest()).tables] == []
    assert refused(lambda: bob.PauseTable(orders)) is grpc.StatusCode.PERMISSION_DENIED
    assert refused(lambda: bob.GetLogLevel(pb.GetLogLevelRequest())) is grpc.StatusCode.PERMISSION_DENIED
    assert ann.PauseTable(orders).reason == "paused by ann"
    assert ann.ResumeTable(orders).state == "serving"


def test_the_token_of_a_login_is_good_here_too(pair: Pair, users: Path) -> None:
    tokens = Tokens(seconds=60)
    logins = BasicLogins(UsersFile(users), tokens)
    with served(pair, logins) as server, opened(server) as channel:
        token = logins.exchange("ann", "ann's")
        bearer = Admin(channel, authorization=f"Bearer {token}")
        assert bearer.GetLogLevel(pb.GetLogLevelRequest()).level


def test_the_claim_of_a_jwt_gives_the_admin_right(pair: Pair) -> None:
    logins = JwtLogins(JwtVerifier(JwtSettings(audience="replica", secret=SECRET)))

    def admin(channel: grpc.Channel, **claims: object) -> Admin:
        given = {"sub": "ann", "aud": "replica", "exp": time.time() + 60, **claims}
        return Admin(channel, authorization="Bearer " + jwt.encode(given, SECRET.decode(), "HS256"))

    with served(pair, logins) as server, opened(server) as channel:
        assert admin(channel, merutable_admin=True).GetLogLevel(pb.GetLogLevelRequest()).level
        plain = admin(channel)
        code = refused(lambda: plain.GetLogLevel(pb.GetLogLevelRequest()))
        assert code is grpc.StatusCode.PERMISSION_DENIED
        odd = admin(channel, merutable_admin="yes")
        assert refused(lambda: odd.Status(pb.StatusRequest())) is grpc.StatusCode.UNAUTHENTICATED


def test_a_watcher_whose_user_is_changed_is_ended(pair: Pair, tmp_path: Path) -> None:
    path = write_users(tmp_path / "users.json", ann={"password": "ann's", "admin": True})
    logins = BasicLogins(UsersFile(path), Tokens(seconds=60))
    with served(pair, logins) as server, opened(server) as channel:
        ann = Admin(channel, authorization=basic("ann", "ann's"))
        watching = ann.WatchStatus(pb.WatchStatusRequest(interval_seconds=0.1))
        next(watching)
        write_users(path, bob={"password": "bob's"})
        with pytest.raises(grpc.RpcError) as failure:
            for _ in watching:
                pass
        assert failure.value.code() is grpc.StatusCode.UNAVAILABLE


def test_tls_and_client_certificates_hold_as_on_the_flight_port(pair: Pair, tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    own, other = authority.signed("server"), authority.signed("client")
    tls = read_server_tls(own.certificate, own.key, authority.ca)
    with served(pair, tls=tls) as server:
        address = f"127.0.0.1:{server.port}"
        assert server.uri == f"grpc+tls://{address}"
        roots = authority.ca.read_bytes()
        certificate, key = other.texts
        good = grpc.ssl_channel_credentials(roots, key, certificate)
        with grpc.secure_channel(address, good) as channel:
            assert health(channel) == SERVING
            assert Admin(channel).Status(pb.StatusRequest()).server.product == "replica"
        with grpc.secure_channel(address, grpc.ssl_channel_credentials(roots)) as channel:
            assert refused(lambda: health(channel)) is grpc.StatusCode.UNAVAILABLE
        with grpc.insecure_channel(address) as channel:
            assert refused(lambda: health(channel)) is grpc.StatusCode.UNAVAILABLE


def test_a_newer_certificate_is_shown_to_those_who_connect_then(pair: Pair, tmp_path: Path) -> None:
    old, new = Authority(tmp_path, "old"), Authority(tmp_path, "new")
    before, after = old.signed("before"), new.signed("after")
    with served(pair, tls=read_server_tls(before.certificate, before.key)) as server:
        address = f"127.0.0.1:{server.port}"
        of_old = grpc.ssl_channel_credentials(old.ca.read_bytes())
        of_new = grpc.ssl_channel_credentials(new.ca.read_bytes())
        with grpc.secure_channel(address, of_old) as kept:
            assert health(kept) == SERVING
            server.use_tls(read_server_tls(after.certificate, after.key))
            with grpc.secure_channel(address, of_new) as channel:
                assert health(channel) == SERVING
            assert health(kept) == SERVING  # its connection stays
