"""The command line's options about who may connect to a server, and what they may use up.

Secrets come out of files or environment variables alone: a command line can be read by every process.
"""

from __future__ import annotations

import argparse
import ipaddress
import logging
import math
import os
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from flight_replica.errors import ConfigError
from flight_replica.table_options import pairs

if TYPE_CHECKING:
    from flight_replica.flightsql.auth import Logins
    from flight_replica.flightsql.limits import ServerLimits
    from flight_replica.flightsql.tls import ServerTls

logger = logging.getLogger(__name__)

JWT_SECRET = "FLIGHT_REPLICA_JWT_SECRET"
_JWT_OPTIONS = ("jwt_secret_file", "jwks", "jwt_audience", "jwt_issuer", "jwt_read")


@dataclass(frozen=True, slots=True)
class ServerAccess:
    """How a server lets clients in, and how much they may use up."""

    logins: Logins
    tls: ServerTls | None
    limits: ServerLimits

    @property
    def scheme(self) -> str:
        return "grpc+tls" if self.tls is not None else "grpc"


def add_server_access(parser: argparse.ArgumentParser) -> None:
    """--auth, --users, --jwt-…, --tls-…, --mtls-ca, --limit."""
    parser.add_argument(
        "--limit",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="set a limit of the server, such as statement_seconds=60 or result_bytes_max=1000000000 "
        "(repeatable; names and defaults: docs/flight-sql/limits.md)",
    )
    group = parser.add_argument_group(
        "who may connect", "Without any of these everybody may, from this machine alone."
    )
    group.add_argument(
        "--auth",
        choices=["none", "basic", "jwt"],
        default="none",
        help="none, users with passwords (--users), or JWT bearer tokens (default: %(default)s)",
    )
    group.add_argument(
        "--allow-open",
        action="store_true",
        help="with --auth none: let everybody in who reaches the address, not this machine alone",
    )
    group.add_argument(
        "--users", type=Path, metavar="FILE", help="users, passwords' hashes and rights; see `user`"
    )
    group.add_argument(
        "--token-seconds",
        type=float,
        default=86_400.0,
        metavar="S",
        help="how long a login is good; half way the client gets the next token (default: %(default)g)",
    )
    _add_jwt(group)
    group.add_argument("--tls-cert", type=Path, metavar="FILE", help="the server's certificate chain, PEM")
    group.add_argument("--tls-key", type=Path, metavar="FILE", help="its key, PEM, without a password")
    group.add_argument(
        "--mtls-ca", type=Path, metavar="FILE", help="let clients in only with a certificate of this CA"
    )


def _add_jwt(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--jwt-secret-file",
        type=Path,
        metavar="FILE",
        help=f"the secret of HS256 tokens, 32 bytes or more (or in {JWT_SECRET})",
    )
    group.add_argument(
        "--jwks",
        type=Path,
        metavar="FILE",
        help="the public keys of RS256 and ES256 tokens; read again when it changes",
    )
    group.add_argument("--jwt-audience", metavar="TEXT", help="the aud that a token must have (required)")
    group.add_argument("--jwt-issuer", metavar="TEXT", help="the iss that a token must have (default: any)")
    group.add_argument(
        "--jwt-leeway",
        type=float,
        default=30.0,
        metavar="S",
        help="how far the issuer's clock may be off (default: %(default)g)",
    )
    group.add_argument(
        "--jwt-read",
        action="append",
        metavar="PATTERN",
        help="tables that a token without the claim merutable_read may read (repeatable; default: all)",
    )


def server_access(options: argparse.Namespace) -> ServerAccess:
    """What the options say. Raises `ConfigError` for what doesn't go together or can't be read."""
    tls = _server_tls(options)
    _check_users(options)
    _check_reach(options, tls)
    return ServerAccess(_logins(options), tls, _limits(options))


def _limits(options: argparse.Namespace) -> ServerLimits:
    from flight_replica.flightsql.limits import DEFAULT_LIMITS

    defaults = asdict(DEFAULT_LIMITS)
    found: dict[str, float] = {}
    for name, text in pairs(options.limit, "--limit").items():
        if name not in defaults:
            raise ConfigError(f"--limit {name}={text}: there is no such limit, only {', '.join(defaults)}")
        kind = type(defaults[name])  # a number of things, or seconds
        try:
            found[name] = kind(text)
        except ValueError:
            found[name] = -1
        if not 0 <= found[name] < math.inf:
            raise ConfigError(f"--limit {name}={text}: expected a number from 0, such as {defaults[name]}")
    return replace(DEFAULT_LIMITS, **found)  # type: ignore[arg-type]


def _server_tls(options: argparse.Namespace) -> ServerTls | None:
    from flight_replica.flightsql.tls import read_server_tls

    if (options.tls_cert is None) != (options.tls_key is None):
        raise ConfigError("--tls-cert and --tls-key go together")
    if options.tls_cert is None:
        if options.mtls_ca is not None:
            raise ConfigError("--mtls-ca needs --tls-cert and --tls-key")
        return None
    return read_server_tls(options.tls_cert, options.tls_key, options.mtls_ca)


def _check_users(options: argparse.Namespace) -> None:
    if (options.auth == "basic") != (options.users is not None):
        raise ConfigError("--auth basic and --users FILE go together")
    if options.token_seconds <= 0 or options.jwt_leeway < 0:
        raise ConfigError("--token-seconds is above 0, --jwt-leeway 0 or more")
    given = [name for name in _JWT_OPTIONS if getattr(options, name) is not None]
    if given and options.auth != "jwt":
        raise ConfigError(f"--{given[0].replace('_', '-')} goes with --auth jwt")


def _check_reach(options: argparse.Namespace, tls: ServerTls | None) -> None:
    """Refuse to be open to the world by accident; warn where passwords travel in the clear."""
    host = options.listen[0]
    if _is_loopback(host):
        return
    if options.auth != "none":
        if tls is None:
            logger.warning("passwords and tokens travel in the clear without --tls-cert host=%s", host)
        return
    if not options.allow_open and options.mtls_ca is None:
        raise ConfigError(
            f"--listen {host}: without --auth everybody there could read everything; "
            "choose --auth basic or jwt, or --mtls-ca, or say --allow-open"
        )


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _logins(options: argparse.Namespace) -> Logins:
    from flight_replica.flightsql.auth import BasicLogins, JwtLogins, OpenLogins
    from flight_replica.flightsql.jwt_logins import JwtSettings, JwtVerifier
    from flight_replica.flightsql.tokens import Tokens
    from flight_replica.flightsql.users import EVERY_TABLE, TableNames, UsersFile

    if options.auth == "basic":
        return BasicLogins(UsersFile(options.users), Tokens(seconds=options.token_seconds))
    if options.auth == "none":
        return OpenLogins()
    if options.jwt_audience is None:
        raise ConfigError("--auth jwt needs --jwt-audience: tokens for other services are none for this one")
    settings = JwtSettings(
        audience=options.jwt_audience,
        secret=_jwt_secret(options),
        jwks=options.jwks,
        issuer=options.jwt_issuer,
        leeway_seconds=options.jwt_leeway,
        read=EVERY_TABLE if options.jwt_read is None else TableNames(tuple(options.jwt_read)),
    )
    return JwtLogins(JwtVerifier(settings))


def _jwt_secret(options: argparse.Namespace) -> bytes | None:
    if options.jwt_secret_file is None:
        # With a JWKS file the variable isn't asked for, and may be set for another server.
        value = os.environ.get(JWT_SECRET) if options.jwks is None else None
        return value.encode() if value is not None else None
    try:
        data: bytes = options.jwt_secret_file.read_bytes()
    except OSError as error:
        raise ConfigError(f"--jwt-secret-file {options.jwt_secret_file}: {error.strerror}") from error
    return data.rstrip(b"\r\n")
