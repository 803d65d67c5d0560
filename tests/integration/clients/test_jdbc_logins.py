"""Encryption and logins through the JDBC driver: user and password, a token, certificates."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import jwt
import pytest

from tests.accounts import write_users
from tests.certificates import Authority, Pair
from tests.clients.programs import ClientError
from tests.integration.clients.conftest import Line
from tests.integration.clients.jdbc_client import Jdbc
from tests.processes import Server, running

SECRET = "a secret of more than thirty-two bytes"
COUNT = "SELECT count(*) FROM orders WHERE id < 4"


@dataclass(frozen=True, slots=True)
class Guarded:
    """Replicas that ask who calls, as HOST:PORT, and what opens them."""

    basic: str  # over TLS, users and passwords
    tokens: str  # over TLS, JWT
    mutual: str  # over TLS with client certificates
    ca: Path
    client: Pair
    other_client: Pair  # of a CA that nobody trusts


@pytest.fixture(scope="module")
def guarded(line: Line, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    folder = tmp_path_factory.mktemp("logins")
    authority = Authority(folder)
    pair = authority.signed("server")
    secret = folder / "secret"
    secret.write_text(SECRET)
    users = write_users(
        folder / "users.json",
        ann={"password": "pass word&1"},
        bob={"password": "b", "read": ["odd*"]},
    )
    serve = ["serve", "--primary", f"grpc://{line.primary}", "--tls-cert", str(pair.certificate)]
    serve += ["--tls-key", str(pair.key)]
    servers = [
        _Encrypted(*serve, "--auth", "basic", "--users", str(users)),
        _Encrypted(*serve, "--auth", "jwt", "--jwt-secret-file", str(secret), "--jwt-audience", "replica"),
        _Encrypted(*serve, "--mtls-ca", str(authority.ca)),
    ]
    with running(*servers):
        addresses = [server.address for server in servers]
        other = Authority(folder, "other").signed("stranger")
        yield Guarded(*addresses, authority.ca, authority.signed("client"), other)


class _Encrypted(Server):
    """A server over TLS."""

    scheme = "grpc+tls"


def _token(**claims: object) -> str:
    given = {"sub": "ann", "aud": "replica", "exp": int(time.time()) + 600, **claims}
    return jwt.encode(given, SECRET, "HS256")


def test_user_and_password_log_in_over_tls(jdbc: Jdbc, guarded: Guarded) -> None:
    connection = jdbc.connect(
        guarded.basic, is_encrypted=True, tlsRootCerts=guarded.ca, user="ann", password="pass word&1"
    )
    assert connection.rows(COUNT) == [(3,)]
    assert connection.rows(COUNT) == [(3,)]


@pytest.mark.parametrize("login", [{"user": "ann", "password": "wrong"}, {"user": "", "password": ""}])
def test_a_wrong_login_fails_the_connect(jdbc: Jdbc, guarded: Guarded, login: dict[str, str]) -> None:
    with pytest.raises(ClientError, match="UNAUTHENTICATED") as found:
        jdbc.connect(guarded.basic, is_encrypted=True, tlsRootCerts=guarded.ca, **login)
    assert "pass word" not in str(found.value)


def test_without_a_login_nothing_is_answered(jdbc: Jdbc, guarded: Guarded) -> None:
    connection = jdbc.connect(guarded.basic, is_encrypted=True, tlsRootCerts=guarded.ca)
    with pytest.raises(ClientError, match=r"(?i)log ?in|unauthenticated|authorization"):
        connection.rows("SELECT 1")


def test_a_table_that_one_may_not_read_is_not_there(jdbc: Jdbc, guarded: Guarded) -> None:
    connection = jdbc.connect(
        guarded.basic, is_encrypted=True, tlsRootCerts=guarded.ca, user="bob", password="b"
    )
    assert connection.rows('SELECT count(*) FROM "odd _%name"') == [(0,)]
    with pytest.raises(ClientError, match="orders"):
        connection.rows(COUNT)
    names = [row["TABLE_NAME"] for row in connection.metadata("getTables", None, None, "%", ["TABLE"])]
    assert names == ["odd _%name"]


def test_a_token_logs_in(jdbc: Jdbc, guarded: Guarded) -> None:
    connection = jdbc.connect(guarded.tokens, is_encrypted=True, tlsRootCerts=guarded.ca, token=_token())
    assert connection.rows(COUNT) == [(3,)]


@pytest.mark.parametrize("claims", [{"exp": 1_000_000_000}, {"aud": "somebody else"}])
def test_a_wrong_token_fails_the_connect(jdbc: Jdbc, guarded: Guarded, claims: dict[str, object]) -> None:
    with pytest.raises(ClientError, match="UNAUTHENTICATED"):
        jdbc.connect(guarded.tokens, is_encrypted=True, tlsRootCerts=guarded.ca, token=_token(**claims))


def test_a_client_certificate_lets_in(jdbc: Jdbc, guarded: Guarded) -> None:
    connection = jdbc.connect(
        guarded.mutual,
        is_encrypted=True,
        tlsRootCerts=guarded.ca,
        clientCertificate=guarded.client.certificate,
        clientKey=guarded.client.key,
    )
    assert connection.rows(COUNT) == [(3,)]


def test_without_a_certificate_of_the_ca_nobody_is_let_in(jdbc: Jdbc, guarded: Guarded) -> None:
    stranger = guarded.other_client
    for given in ({}, {"clientCertificate": stranger.certificate, "clientKey": stranger.key}):
        with pytest.raises(ClientError):
            jdbc.connect(guarded.mutual, is_encrypted=True, tlsRootCerts=guarded.ca, **given).rows("SELECT 1")


def test_a_server_of_an_unknown_ca_is_not_trusted(jdbc: Jdbc, guarded: Guarded) -> None:
    with pytest.raises(ClientError):
        jdbc.connect(guarded.basic, is_encrypted=True, user="ann", password="pass word&1")
    unchecked = jdbc.connect(
        guarded.basic,
        is_encrypted=True,
        disableCertificateVerification="true",
        user="ann",
        password="pass word&1",
    )
    assert unchecked.rows("SELECT 1") == [(1,)]


def test_a_plain_client_of_an_encrypted_server_is_refused(jdbc: Jdbc, guarded: Guarded) -> None:
    with pytest.raises(ClientError):
        jdbc.connect(guarded.basic, user="ann", password="pass word&1")
