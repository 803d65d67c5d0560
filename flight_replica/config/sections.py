"""Sections that the configurations of several commands share. What each command has besides: commands.py."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar

from pydantic import SecretStr

from flight_replica.config.kinds import (
    ADDRESS,
    COUNT,
    MILLISECONDS,
    PATH,
    SECONDS,
    SECONDS_ABOVE_ZERO,
    SECRET,
    SIZE,
    SIZE_ABOVE_ZERO,
    SWITCH,
    TEXT,
    TEXTS,
    WHOLE_MILLISECONDS,
    Address,
    Kind,
    one_of,
)
from flight_replica.config.settings import Section, section_of, setting
from flight_replica.flightsql.limits import ServerLimits
from flight_replica.logs.query_text import QueryText
from flight_replica.logs.setup import LEVELS, LogFormat

__all__ = [
    "Access",
    "Admin",
    "Http",
    "Lifecycle",
    "Log",
    "Primary",
    "ServerConfig",
    "State",
    "Tracing",
]


class Access(Section):
    section_title = "who may connect"
    section_text = "Without any of these everybody may, from this machine alone."

    auth: Annotated[str, one_of("none", "basic", "jwt")] = setting(
        "none",
        "none, basic (users with passwords, --users) or jwt (bearer tokens)",
        flag="--auth",
    )
    allow_open: Annotated[bool, SWITCH] = setting(
        False,
        "with --auth none: let everybody in who reaches the address, not this machine alone",
        flag="--allow-open",
    )
    users: Annotated[Path | None, PATH] = setting(
        None,
        "users, passwords' hashes and rights; see `user`. A changed file is taken at once",
        flag="--users",
        metavar="FILE",
        reload=True,
        example='"users.json"',
    )
    token_seconds: Annotated[float, SECONDS_ABOVE_ZERO] = setting(
        86_400.0,
        "how long a login is good; half way the client gets the next token",
        flag="--token-seconds",
        metavar="S",
    )
    jwt_secret: Annotated[SecretStr | None, SECRET] = setting(
        None,
        "the secret of HS256 tokens itself, 32 bytes or more; better in its variable than in a file, and not "
        "asked for where jwks or jwt_secret_file is set",
        variable="FLIGHT_REPLICA_JWT_SECRET",
        secret=True,
        example='"…"',
    )
    jwt_secret_file: Annotated[Path | None, PATH] = setting(
        None,
        "the secret of HS256 tokens, 32 bytes or more (or in FLIGHT_REPLICA_JWT_SECRET)",
        flag="--jwt-secret-file",
        metavar="FILE",
        example='"jwt-secret"',
    )
    jwks: Annotated[Path | None, PATH] = setting(
        None,
        "the public keys of RS256 and ES256 tokens; read again when it changes",
        flag="--jwks",
        metavar="FILE",
        example='"jwks.json"',
    )
    jwt_audience: Annotated[str | None, TEXT] = setting(
        None,
        "the aud that a token must have (required)",
        flag="--jwt-audience",
        metavar="TEXT",
        example='"flight-replica"',
    )
    jwt_issuer: Annotated[str | None, TEXT] = setting(
        None,
        "the iss that a token must have (default: any)",
        flag="--jwt-issuer",
        metavar="TEXT",
        example='"https://login.example.org"',
    )
    jwt_leeway_seconds: Annotated[float, SECONDS] = setting(
        30.0, "how far the issuer's clock may be off", flag="--jwt-leeway", metavar="S"
    )
    jwt_read: Annotated[tuple[str, ...] | None, TEXTS] = setting(
        None,
        "tables that a token without the claim merutable_read may read (repeatable; default: all)",
        flag="--jwt-read",
        metavar="PATTERN",
        example='["orders", "items_*"]',
    )
    tls_cert: Annotated[Path | None, PATH] = setting(
        None,
        "the server's certificate chain, PEM",
        flag="--tls-cert",
        metavar="FILE",
        reload=True,
        example='"server.pem"',
    )
    tls_key: Annotated[Path | None, PATH] = setting(
        None,
        "its key, PEM, without a password",
        flag="--tls-key",
        metavar="FILE",
        reload=True,
        example='"server.key"',
    )
    mtls_ca: Annotated[Path | None, PATH] = setting(
        None,
        "let clients in only with a certificate of this CA",
        flag="--mtls-ca",
        metavar="FILE",
        reload=True,
        example='"clients-ca.pem"',
    )


def _kind_of_limit(name: str) -> Kind:
    """By the unit in its name."""
    if name == "batch_bytes_max":
        return SIZE_ABOVE_ZERO
    return SECONDS if name.endswith("_seconds") else SIZE if "bytes" in name else COUNT


class _Limits(Section):
    section_title = "limits"
    section_text = (
        "What clients may use up. On the command line: --limit NAME=VALUE. What happens beyond each: "
        "docs/flight-sql/limits.md."
    )


if TYPE_CHECKING:

    class Limits(_Limits):
        """Every field of `ServerLimits`."""
else:
    Limits = section_of("Limits", _Limits, ServerLimits, _kind_of_limit)


class Log(Section):
    section_title = "logs"

    level: Annotated[str, one_of(*LEVELS)] = setting(
        "info",
        "least severe messages on stderr; on the command line --log-level, before the command",
        reload=True,
    )
    format: Annotated[str, one_of(*LogFormat)] = setting("human", "lines for people, or one JSON object each")
    slow_query_ms: Annotated[float, MILLISECONDS] = setting(
        1000.0, "a query that takes as long is logged as slow; 0: none is", reload=True
    )
    query_text: Annotated[str, one_of(*QueryText)] = setting(
        "normalized",
        "what of a statement's text is in the log of slow queries and in traces: full, normalized (with ? "
        "for each literal, and without comments) or none. Values bound to parameters never are",
        reload=True,
    )


class Admin(Section):
    section_title = "control"
    section_text = "Health and control over gRPC, on a port of its own."

    listen: Annotated[Address | None, ADDRESS] = setting(
        None,
        "address of health and control over gRPC (default: not served)",
        flag="--admin-listen",
        metavar="HOST:PORT",
        example='"127.0.0.1:4713"',
    )


class Http(Section):
    section_title = "HTTP"
    section_text = "Probes, metrics and the page, on a port of its own."

    listen: Annotated[Address | None, ADDRESS] = setting(
        None,
        "address of probes, metrics and the page over HTTP (default: not served)",
        flag="--http-listen",
        metavar="HOST:PORT",
        example='"127.0.0.1:4714"',
    )
    hosts: Annotated[tuple[str, ...], TEXTS] = setting(
        (),
        "names by which browsers reach the port, besides the host's own; other names are refused",
        example='["replica.example.org"]',
    )


class Lifecycle(Section):
    section_title = "life cycle"

    drain_seconds: Annotated[float, SECONDS] = setting(
        30.0, "how long streams may go on after SIGTERM before they are ended"
    )


class Tracing(Section):
    section_title = "tracing"
    section_text = (
        "OpenTelemetry; needs flight-replica[tracing]. Everything else is said by OpenTelemetry's own "
        "variables, OTEL_…: sampling, headers, certificates, the service's name."
    )

    endpoint: Annotated[str | None, TEXT] = setting(
        None,
        "where spans are sent, by OTLP over gRPC (default: what OTEL_EXPORTER_OTLP_ENDPOINT says, and no "
        "tracing without it)",
        example='"http://127.0.0.1:4317"',
    )


class State(Section):
    """`ReplicaSettings` of every table; the defaults are those of merge on apply."""

    section_title = "tables in memory and on disk"

    history_bytes_max: Annotated[int, SIZE] = setting(
        256 << 20, "ops of a table kept for replicas of this replica, and for newer bases"
    )
    commit_bytes_max: Annotated[int, SIZE] = setting(1 << 30, "the ops of one commit, which is applied whole")
    tail_bytes_max: Annotated[int, SIZE] = setting(
        1 << 30, "ops applied over one base before a newer one is looked for at once"
    )
    rebase_timeout_seconds: Annotated[float, SECONDS_ABOVE_ZERO] = setting(
        60.0, "how long a newer base may take to catch up before it is given up"
    )
    native_disk_bytes_max: Annotated[int, SIZE] = setting(
        64 << 30, "for all native copies together; a table that may not fit stays on merge on read; 0: all do"
    )
    base_poll_seconds: Annotated[float, SECONDS_ABOVE_ZERO] = setting(
        5.0, "how often a newer base is looked for"
    )
    heartbeat_ms: Annotated[int, WHOLE_MILLISECONDS] = setting(
        500, "how often a feed served to other replicas says that nothing is new"
    )


class Primary(Section):
    """What a replica follows, and how it connects there."""

    section_title = "how to connect to the primary, and to the servers of --feed and --base flight"

    uri: Annotated[str | None, TEXT] = setting(
        None,
        "grpc://HOST:PORT of what to follow; it says where its bases lie, and one that this host can't "
        "read comes over the same port",
        flag="--primary",
        metavar="URI",
        example='"grpc://127.0.0.1:4711"',
    )
    tables: Annotated[tuple[str, ...], TEXTS] = setting(
        (),
        "follow this table only (repeatable; default: every table, also those that come later)",
        flag="--table",
        metavar="NAME",
    )
    ca: Annotated[Path | None, PATH] = setting(
        None, "CA of the server's certificate, PEM", flag="--primary-ca", metavar="FILE", example='"ca.pem"'
    )
    user: Annotated[str | None, TEXT] = setting(
        None, "log in as this user", flag="--primary-user", metavar="NAME", example='"replica"'
    )
    password: Annotated[SecretStr | None, SECRET] = setting(
        None, "the user's password itself; better in its variable than in a file", secret=True, example='"…"'
    )
    password_file: Annotated[Path | None, PATH] = setting(
        None,
        "the user's password (or in FLIGHT_REPLICA_PRIMARY_PASSWORD)",
        flag="--primary-password-file",
        metavar="FILE",
        example='"password"',
    )
    token: Annotated[SecretStr | None, SECRET] = setting(
        None, "a bearer token itself; better in its variable than in a file", secret=True, example='"…"'
    )
    token_file: Annotated[Path | None, PATH] = setting(
        None,
        "a bearer token, read for every call (or in FLIGHT_REPLICA_PRIMARY_TOKEN)",
        flag="--primary-token-file",
        metavar="FILE",
        example='"token"',
    )
    cert: Annotated[Path | None, PATH] = setting(
        None, "this client's certificate, PEM", flag="--primary-cert", metavar="FILE", example='"client.pem"'
    )
    key: Annotated[Path | None, PATH] = setting(
        None, "its key, PEM", flag="--primary-key", metavar="FILE", example='"client.key"'
    )


class ServerConfig(Section):
    """What every server has."""

    command: ClassVar[str]

    listen: Annotated[Address, ADDRESS] = setting(
        ("127.0.0.1", 0),
        "address to serve on; port 0 picks a free one",
        flag="--listen",
        metavar="HOST:PORT",
        example='"127.0.0.1:4712"',
    )
    access: Access = Access()
    limits: Limits = Limits()
    log: Log = Log()
    admin: Admin = Admin()
    http: Http = Http()
    lifecycle: Lifecycle = Lifecycle()
    tracing: Tracing = Tracing()
