"""TLS and mTLS through real clients, right and wrong; and files that can't work, told at the start."""

from __future__ import annotations

from pathlib import Path

import adbc_driver_flightsql.dbapi as adbc
import adbc_driver_manager
import pytest
from pyarrow import flight

from flight_replica._pb import flight_sql_pb2 as pb
from flight_replica.errors import ConfigError
from flight_replica.flightsql.server import FlightSqlServer
from flight_replica.flightsql.tls import ServerTls, read_server_tls
from tests.certificates import Authority, Pair
from tests.integration.flightsql.clients import descriptor
from tests.integration.flightsql.conftest import Serve

OPTION = "adbc.flight.sql.client_option."
SHORT = flight.FlightCallOptions(timeout=5.0)


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("certificates")


@pytest.fixture(scope="module")
def authority(directory: Path) -> Authority:
    return Authority(directory)


@pytest.fixture(scope="module")
def stranger(directory: Path) -> Authority:
    return Authority(directory, "strangers")


@pytest.fixture(scope="module")
def pair(authority: Authority) -> Pair:
    return authority.signed("server")


@pytest.fixture
def server(serve: Serve, pair: Pair) -> FlightSqlServer:
    return serve(tls=read_server_tls(pair.certificate, pair.key))


@pytest.fixture
def mutual(serve: Serve, pair: Pair, authority: Authority) -> FlightSqlServer:
    return serve(tls=read_server_tls(pair.certificate, pair.key, authority.ca))


def _count(server: FlightSqlServer, **options: bytes | str) -> object:
    with flight.FlightClient(f"grpc+tls://127.0.0.1:{server.port}", **options) as client:
        query = descriptor(pb.CommandStatementQuery(query="SELECT count(*) FROM orders"))
        info = client.get_flight_info(query, SHORT)
        return client.do_get(info.endpoints[0].ticket, SHORT).read_all().column(0)[0].as_py()


def _adbc_count(server: FlightSqlServer, **options: str) -> object:
    given = {OPTION + name: text for name, text in options.items()}
    uri = f"grpc+tls://127.0.0.1:{server.port}"
    with adbc.connect(uri, given, autocommit=True) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM orders")
        return cursor.fetchall()[0][0]


def test_clients_that_trust_the_ca_connect(server: FlightSqlServer, authority: Authority) -> None:
    assert _count(server, tls_root_certs=authority.ca.read_bytes()) == 3
    assert _adbc_count(server, tls_root_certs=authority.ca.read_text()) == 3


def test_clients_that_do_not_trust_the_ca_refuse(server: FlightSqlServer, stranger: Authority) -> None:
    with pytest.raises(flight.FlightUnavailableError):
        _count(server, tls_root_certs=stranger.ca.read_bytes())
    with pytest.raises(adbc_driver_manager.OperationalError, match="certificate"):
        _adbc_count(server, tls_root_certs=stranger.ca.read_text())


def test_nothing_is_answered_in_the_clear(server: FlightSqlServer) -> None:
    with (
        flight.connect(f"grpc://127.0.0.1:{server.port}") as client,
        pytest.raises((flight.FlightUnavailableError, flight.FlightTimedOutError)),
    ):
        list(client.list_actions(SHORT))


def test_a_client_with_a_certificate_of_the_ca_is_let_in(
    mutual: FlightSqlServer, authority: Authority
) -> None:
    chain, key = authority.signed("client").texts
    assert _count(mutual, tls_root_certs=authority.ca.read_bytes(), cert_chain=chain, private_key=key) == 3
    found = _adbc_count(
        mutual,
        tls_root_certs=authority.ca.read_text(),
        mtls_cert_chain=chain.decode(),
        mtls_private_key=key.decode(),
    )
    assert found == 3


def test_a_client_without_a_certificate_or_with_a_strangers_is_kept_out(
    mutual: FlightSqlServer, authority: Authority, stranger: Authority
) -> None:
    chain, key = stranger.signed("stranger").texts
    trusted = authority.ca.read_bytes()
    with pytest.raises(flight.FlightUnavailableError):
        _count(mutual, tls_root_certs=trusted)
    with pytest.raises(flight.FlightUnavailableError):
        _count(mutual, tls_root_certs=trusted, cert_chain=chain, private_key=key)
    with pytest.raises(adbc_driver_manager.OperationalError):
        _adbc_count(mutual, tls_root_certs=trusted.decode())


def test_the_key_stays_out_of_repr(pair: Pair) -> None:
    assert "PRIVATE KEY" not in repr(read_server_tls(pair.certificate, pair.key))
    assert "secret" not in repr(ServerTls(b"c", b"secret"))


def test_files_that_cannot_work_are_refused_by_name(
    directory: Path, pair: Pair, authority: Authority
) -> None:
    other = authority.signed("other")
    text = directory / "text.txt"
    text.write_text("no certificate")
    empty = directory / "empty.pem"
    empty.write_text("-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n")
    for certificate, key, ca, message in (
        (pair.certificate, other.key, None, "doesn't work with key"),
        (pair.certificate, directory / "missing.key", None, r"missing\.key, can't be read"),
        (text, pair.key, None, r"text\.txt, is no PEM file"),
        (empty, pair.key, None, r"empty\.pem doesn't work"),
        (pair.certificate, pair.key, text, r"text\.txt, is no PEM file"),
        (pair.certificate, pair.key, empty, r"empty\.pem has no certificate"),
    ):
        with pytest.raises(ConfigError, match=message):
            read_server_tls(certificate, key, ca)
