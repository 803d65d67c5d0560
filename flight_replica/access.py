"""Who may connect to a server, and what they may use up, as its configuration says.

Secrets come out of files or variables alone: a command line can be read by every process.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from flight_replica.config.contradictions import is_loopback, ports_of
from flight_replica.config.settings import dotted
from flight_replica.errors import ConfigError

if TYPE_CHECKING:
    from flight_replica.config.sections import Access, ServerConfig
    from flight_replica.flightsql.auth import Logins
    from flight_replica.flightsql.limits import ServerLimits
    from flight_replica.flightsql.tls import ServerTls
    from flight_replica.flightsql.users import UsersFile

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ServerAccess:
    """How a server lets clients in, and how much they may use up."""

    logins: Logins
    tls: ServerTls | None
    limits: ServerLimits
    users: UsersFile | None  # of `logins`, where they have one

    def use_users(self, path: Path) -> int:
        """Take the accounts of this file, as it is now; how many are others. Raises `ConfigError`."""
        assert self.users is not None, "a server that asks for passwords"
        change = self.users.use(path)
        for name in change.added:
            logger.info("user added user=%s file=%s", name, path)
        for name in change.removed:
            logger.info("user removed user=%s file=%s", name, path)
        for name in change.changed:
            logger.info("user changed user=%s file=%s", name, path)
        return len(change.added) + len(change.removed) + len(change.changed)

    @property
    def scheme(self) -> str:
        return "grpc+tls" if self.tls is not None else "grpc"


def server_access(config: ServerConfig) -> ServerAccess:
    """What the configuration says. Raises `ConfigError` for files that can't be used."""
    from flight_replica.flightsql.users import UsersFile

    access = config.access
    tls = server_tls(access)
    if access.auth != "none" and tls is None:
        for path, (host, _) in ports_of(config).items():
            if not is_loopback(host):
                logger.warning(
                    "passwords and tokens travel in the clear without --tls-cert setting=%s host=%s",
                    *(dotted(path), host),
                )
    users = UsersFile(access.users) if access.users is not None else None
    return ServerAccess(_logins(access, users), tls, server_limits(config), users)


def server_limits(config: ServerConfig) -> ServerLimits:
    """The section [limits]."""
    from flight_replica.flightsql.limits import ServerLimits

    return ServerLimits(**config.limits.model_dump())


def server_tls(access: Access) -> ServerTls | None:
    """The certificate, as its files are now; None to serve in the clear. Raises `ConfigError`."""
    from flight_replica.flightsql.tls import read_server_tls

    if access.tls_cert is None or access.tls_key is None:
        return None
    return read_server_tls(access.tls_cert, access.tls_key, access.mtls_ca)


def _logins(access: Access, users: UsersFile | None) -> Logins:
    from flight_replica.flightsql.auth import BasicLogins, JwtLogins, OpenLogins

    if users is not None:
        from flight_replica.flightsql.tokens import Tokens

        return BasicLogins(users, Tokens(seconds=access.token_seconds))
    if access.jwt_audience is None:
        return OpenLogins()
    from flight_replica.flightsql.jwt_logins import JwtSettings, JwtVerifier
    from flight_replica.flightsql.users import EVERY_TABLE, TableNames

    settings = JwtSettings(
        audience=access.jwt_audience,
        secret=_jwt_secret(access),
        jwks=access.jwks,
        issuer=access.jwt_issuer,
        leeway_seconds=access.jwt_leeway_seconds,
        read=EVERY_TABLE if access.jwt_read is None else TableNames(access.jwt_read),
    )
    return JwtLogins(JwtVerifier(settings))


def _jwt_secret(access: Access) -> bytes | None:
    if access.jwks is not None:
        return None
    if access.jwt_secret_file is None:
        return access.jwt_secret.get_secret_value().encode() if access.jwt_secret is not None else None
    try:
        data = access.jwt_secret_file.read_bytes()
    except OSError as error:
        raise ConfigError(
            f"the JWT secret, {access.jwt_secret_file}, can't be read: {error.strerror}"
        ) from error
    return data.rstrip(b"\r\n")
