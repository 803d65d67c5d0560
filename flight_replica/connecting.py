"""The command line's options about how a client, or a replica, connects to a server and as whom.

Secrets come out of files or environment variables alone: a command line can be read by every process.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from flight_replica.errors import ConfigError

if TYPE_CHECKING:
    from flight_replica.log.credentials import Authorization
    from flight_replica.log.feed_client import Endpoint

_VARIABLE = "FLIGHT_REPLICA_{}"  # + PRIMARY_TOKEN, PRIMARY_PASSWORD, TOKEN, PASSWORD


def add_client_access(parser: argparse.ArgumentParser, of: str = "", servers: str | None = None) -> None:
    """--ca, --user, --password-file, --token-file, --cert, --key; each begins with `of` ("primary-").

    `servers` says to whom, for people.
    """
    variable = _VARIABLE.format(of.upper().replace("-", "_"))
    if servers is None:
        servers = "the primary, and to the servers of --feed and --base flight" if of else "the server"
    group = parser.add_argument_group(f"how to connect to {servers}")
    group.add_argument(
        f"--{of}ca", dest=f"{of}ca", type=Path, metavar="FILE", help="CA of the server's certificate, PEM"
    )
    group.add_argument(f"--{of}user", dest=f"{of}user", metavar="NAME", help="log in as this user")
    group.add_argument(
        f"--{of}password-file",
        dest=f"{of}password",
        type=Path,
        metavar="FILE",
        help=f"the user's password (or in {variable}PASSWORD)",
    )
    group.add_argument(
        f"--{of}token-file",
        dest=f"{of}token",
        type=Path,
        metavar="FILE",
        help=f"a bearer token, read for every call (or in {variable}TOKEN)",
    )
    group.add_argument(
        f"--{of}cert", dest=f"{of}cert", type=Path, metavar="FILE", help="this client's certificate, PEM"
    )
    group.add_argument(f"--{of}key", dest=f"{of}key", type=Path, metavar="FILE", help="its key, PEM")


def is_access_given(options: argparse.Namespace, of: str) -> bool:
    """Whether one of the options that begin with `of`, or a variable in their place, says something."""
    found = vars(options)
    secrets = (_VARIABLE.format(f"{of}{name}".upper().replace("-", "_")) for name in ("password", "token"))
    return any(
        found[f"{of}{name}"] is not None for name in ("ca", "user", "password", "token", "cert", "key")
    ) or any(name in os.environ for name in secrets)


def endpoint(uri: str, options: argparse.Namespace, of: str = "") -> Endpoint:
    """The server at `uri` and how the options say to talk to it. Raises `ConfigError`."""
    from flight_replica.flightsql.tls import check_ca, check_pair, read_pem
    from flight_replica.log.feed_client import Endpoint

    found = vars(options)
    ca, certificate, key = (found[f"{of}{name}"] for name in ("ca", "cert", "key"))
    if (certificate is None) != (key is None):
        raise ConfigError(f"--{of}cert and --{of}key go together")
    pair = None
    if certificate is not None:
        check_pair(certificate, key)
        pair = (read_pem(certificate, f"--{of}cert"), read_pem(key, f"--{of}key"))
    if ca is not None:
        check_ca(ca)
    return Endpoint(
        uri,
        tls_root_certs=read_pem(ca, f"--{of}ca") if ca is not None else None,
        authorization=_authorization(found, of),
        client_certificate=pair,
    )


def _authorization(found: Mapping[str, object], of: str) -> Authorization | None:
    from flight_replica.log.credentials import Secret, basic, bearer, secret_in

    def secret(name: str) -> Secret | None:
        path = found[f"{of}{name}"]
        if isinstance(path, Path):
            read = secret_in(path, name)
            read()  # a wrong path is told at once
            return read
        value = os.environ.get(_VARIABLE.format(f"{of}{name}".upper().replace("-", "_")))
        return (lambda: value) if value is not None else None

    user, password, token = found[f"{of}user"], secret("password"), secret("token")
    if isinstance(user, str):
        if password is None:
            raise ConfigError(f"--{of}user needs a password: --{of}password-file or its variable")
        return basic(user, password)
    if found[f"{of}password"] is not None:
        raise ConfigError(f"--{of}password-file goes with --{of}user")
    return bearer(token) if token is not None else None


def adbc_options(at: Endpoint) -> dict[str, str]:
    """The same for the ADBC driver."""
    options = {}
    prefix = "adbc.flight.sql.client_option."
    if at.tls_root_certs is not None:
        options[f"{prefix}tls_root_certs"] = at.tls_root_certs.decode()
    if at.client_certificate is not None:
        certificate, key = at.client_certificate
        options[f"{prefix}mtls_cert_chain"] = certificate.decode()
        options[f"{prefix}mtls_private_key"] = key.decode()
    if at.authorization is not None:
        options["adbc.flight.sql.authorization_header"] = at.authorization()
    return options
