"""Servers with logins and TLS as processes: replicas of replicas, the command line, and no secret told."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import jwt
import pytest

from flight_replica.client import query
from flight_replica.errors import ReplicaError
from tests.accounts import write_users
from tests.certificates import Authority
from tests.processes import ROOT, Server, running, until

SECRET = "the secret of these tests' tokens, long enough"
PASSWORDS = {"root": "root's pass phrase", "copy": "copy's pass phrase"}


def _run(*arguments: str, says: str = "", **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "flight_replica", *arguments],
        cwd=ROOT,
        input=says,
        capture_output=True,
        text=True,
        timeout=60,
        env={"PATH": "", **variables},
    )


def _token(**claims: object) -> str:
    given = {"sub": "second", "aud": "replica", "exp": time.time() + 60, **claims}
    return jwt.encode(given, SECRET, "HS256")


class Chain:
    """A primary with passwords, a replica of it that takes JWTs, and what clients need for both."""

    def __init__(self, directory: Path) -> None:
        authority = Authority(directory)
        pair, own = authority.signed("server"), authority.signed("client")
        self.directory = directory
        self.ca = authority.ca
        self.users = write_users(
            directory / "users.json",
            root={"password": PASSWORDS["root"], "write": ["*"], "ddl": True},
            copy={"password": PASSWORDS["copy"], "read": ["orders"]},
        )
        self.token_file = directory / "token"
        self.password_file = directory / "password"
        self.password_file.write_text(PASSWORDS["copy"] + "\n")
        (directory / "secret").write_text(SECRET + "\n")
        self.tls = ["--tls-cert", str(pair.certificate), "--tls-key", str(pair.key)]
        self.mutual = ["--primary-cert", str(own.certificate), "--primary-key", str(own.key)]
        self.primary = Server(
            *("primary", "--data", str(directory / "primary"), "--auth", "basic", "--users"),
            *(str(self.users), *self.tls, "--mtls-ca", str(self.ca)),
        )
        self.certificate = own

    def start_replica(self) -> Server:
        return Server(
            *("--log-level", "debug", "serve", "--primary", self.primary.uri),
            *("--primary-ca", str(self.ca), *self.mutual),
            *("--primary-user", "copy"),
            *("--auth", "jwt", "--jwt-secret-file", str(self.directory / "secret")),
            *("--jwt-audience", "replica", *self.tls),
            env={"FLIGHT_REPLICA_PRIMARY_PASSWORD": PASSWORDS["copy"]},
        )

    def start_second(self, replica: Server) -> Server:
        return Server(
            *("--log-level", "debug", "serve", "--primary", replica.uri),
            *("--primary-ca", str(self.ca)),
            *("--primary-token-file", str(self.token_file)),
        )

    def ask_primary(self, user: str, sql: str) -> list[dict[str, object]]:
        chain, key = self.certificate.texts
        options = {
            "adbc.flight.sql.client_option.tls_root_certs": self.ca.read_text(),
            "adbc.flight.sql.client_option.mtls_cert_chain": chain.decode(),
            "adbc.flight.sql.client_option.mtls_private_key": key.decode(),
            "username": user,
            "password": PASSWORDS[user],
        }
        return query(self.primary.uri, sql, options).to_pylist()

    def ask_replica(self, server: Server, token: str, sql: str) -> list[dict[str, object]]:
        options = {
            "adbc.flight.sql.client_option.tls_root_certs": self.ca.read_text(),
            "adbc.flight.sql.authorization_header": f"Bearer {token}",
        }
        return query(server.uri, sql, options).to_pylist()


@pytest.fixture(scope="module")
def chain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chain]:
    found = Chain(tmp_path_factory.mktemp("secure"))
    with running(found.primary):
        found.ask_primary("root", "CREATE TABLE orders (id BIGINT PRIMARY KEY, item VARCHAR)")
        found.ask_primary("root", "CREATE TABLE hidden (id BIGINT PRIMARY KEY)")
        found.ask_primary("root", "INSERT INTO orders VALUES (1, 'a')")
        yield found


def test_replicas_follow_each_other_over_tls_with_certificate_password_and_renewed_token(
    chain: Chain,
) -> None:
    count = "SELECT count(*) AS n FROM orders"
    first = _token()
    chain.token_file.write_text(first)
    replica = chain.start_replica()
    second = None
    with running(replica):
        until(lambda: _n(lambda: chain.ask_replica(replica, _token(), count)) == 1, "the replica follows")
        assert [row["name"] for row in chain.ask_replica(replica, _token(), "SHOW TABLES")] == ["orders"]
        assert chain.ask_replica(replica, _token(merutable_read=[]), "SHOW TABLES") == []
        second = chain.start_second(replica)
        with running(second):
            until(lambda: _n(lambda: query(second.uri, count).to_pylist()) == 1, "the second one follows")
            chain.token_file.write_text(_token(merutable_read=["orders"]))
            chain.ask_primary("root", "INSERT INTO orders VALUES (2, 'b')")
            until(lambda: _n(lambda: query(second.uri, count).to_pylist()) == 2, "a write arrives")
            told = _ended(chain, replica, second)
    for secret in (SECRET, first, *PASSWORDS.values(), chain.token_file.read_text(), "PRIVATE KEY"):
        assert secret not in told
    assert "scrypt$" not in told


def _n(ask: object) -> object:
    try:
        return ask()[0]["n"]  # type: ignore[operator]
    except ReplicaError:
        return None


def _ended(chain: Chain, *servers: Server) -> str:
    """All that the servers said, after clients have tried what is refused."""
    for options in (
        {"username": "root", "password": PASSWORDS["copy"]},
        {"adbc.flight.sql.authorization_header": f"Bearer {_token(aud='others')}"},
    ):
        ca = {"adbc.flight.sql.client_option.tls_root_certs": chain.ca.read_text()}
        with pytest.raises(ReplicaError):
            query(servers[0].uri, "SELECT 1", ca | options)
    for server in reversed(servers):
        server.terminate()
    return "\n".join(line for server in (chain.primary, *servers) for line in server.errors)


def test_the_client_commands_take_password_token_and_certificates(chain: Chain) -> None:
    own = chain.certificate
    access = ["--ca", str(chain.ca), "--cert", str(own.certificate), "--key", str(own.key)]
    sql = ["sql", chain.primary.uri, "SELECT 1 AS one", "--format", "csv", *access]
    by_file = _run(*sql, "--user", "copy", "--password-file", str(chain.password_file))
    assert by_file.stdout.splitlines() == ["one", "1"], by_file.stderr
    by_variable = _run(*sql, "--user", "copy", FLIGHT_REPLICA_PASSWORD=PASSWORDS["copy"])
    assert by_variable.stdout.splitlines() == ["one", "1"], by_variable.stderr
    wrong = _run(*sql, "--user", "copy", FLIGHT_REPLICA_PASSWORD="not copy's")
    assert wrong.returncode == 1
    assert "wrong user or password" in wrong.stderr
    assert "not copy's" not in wrong.stderr


def test_a_user_is_added_changed_and_removed_by_command(tmp_path: Path) -> None:
    path = tmp_path / "users.json"
    added = _run("user", str(path), "ann", "--read", "o*", "--write", "orders", says="first\n")
    assert (added.returncode, added.stdout, added.stderr) == (0, "", "")
    first = json.loads(path.read_text())["users"]["ann"]
    assert (first["read"], first["write"], first["ddl"]) == (["o*"], ["orders"], False)
    assert _run("user", str(path), "ann", says="second\n").returncode == 0
    second = json.loads(path.read_text())["users"]["ann"]
    assert second["password"] != first["password"]
    assert second["read"] == ["o*"]
    assert "empty" in _run("user", str(path), "bob", says="\n").stderr
    assert _run("user", str(path), "ann", "--remove").returncode == 0
    assert json.loads(path.read_text()) == {"users": {}}
    assert "no user 'ann'" in _run("user", str(path), "ann", "--remove").stderr


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--listen", "0.0.0.0:0"], "say --allow-open"),
        (["--listen", "[::]:0"], "say --allow-open"),
        (["--auth", "basic"], "--auth basic and --users FILE go together"),
        (["--users", "x"], "--auth basic and --users FILE go together"),
        (["--auth", "basic", "--users", "/nowhere/users"], "can't be read"),
        (["--auth", "jwt"], "--jwt-audience"),
        (["--auth", "jwt", "--jwt-audience", "a"], "either a secret"),
        (["--jwt-audience", "a"], "--jwt-audience goes with --auth jwt"),
        (["--tls-cert", "x"], "--tls-cert and --tls-key go together"),
        (["--mtls-ca", "x"], "--mtls-ca needs --tls-cert"),
        (["--primary-user", "x"], "--primary-user needs a password"),
        (["--primary-cert", "x"], "--primary-cert and --primary-key go together"),
        (["--primary-token-file", "/nowhere/token"], "token file /nowhere/token can't be read"),
    ],
)
def test_options_that_do_not_go_together_are_refused_at_the_start(
    capsys: pytest.CaptureFixture[str], options: list[str], message: str
) -> None:
    from flight_replica.cli import main

    assert main(["serve", "--primary", "grpc://127.0.0.1:1", *options]) == 1
    assert message in capsys.readouterr().err


def test_an_open_server_can_be_asked_for_by_name(tmp_path: Path) -> None:
    server = Server("primary", "--data", str(tmp_path), "--allow-open", listen="0.0.0.0:0")
    with running(server):
        port = server.address.rpartition(":")[2]
        assert query(f"grpc://127.0.0.1:{port}", "SELECT 1 AS one").to_pylist() == [{"one": 1}]


def test_no_secret_stands_in_help() -> None:
    for command in ("primary", "serve", "sql", "status", "user"):
        shown = _run(command, "--help", FLIGHT_REPLICA_JWT_SECRET=SECRET, FLIGHT_REPLICA_PASSWORD=SECRET)
        assert shown.returncode == 0
        assert SECRET not in shown.stdout
