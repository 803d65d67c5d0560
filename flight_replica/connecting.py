"""The command line's options about how a client, or a replica, connects to a server and as whom.

Secrets come out of files or environment variables alone: a command line can be read by every process.
"""

from __future__ import annotations

import argparse
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from flight_replica.arrow_alone import keep_pandas_out
from flight_replica.errors import ConfigError

if TYPE_CHECKING:
    from flight_replica.config.sections import Primary
    from flight_replica.log.credentials import Authorization
    from flight_replica.log.feed_client import Endpoint

_VARIABLE = "FLIGHT_REPLICA_{}"  # + TOKEN, PASSWORD


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


@dataclass(frozen=True, slots=True)
class _Way:
    """How to talk to a server, and as whom. Names of options begin with `of`."""

    of: str
    ca: Path | None
    cert: Path | None
    key: Path | None
    user: str | None
    password_file: Path | None
    token_file: Path | None
    password: str | None = field(repr=False)  # itself, where there is no file
    token: str | None = field(repr=False)


def endpoint(uri: str, options: argparse.Namespace, of: str = "") -> Endpoint:
    """The server at `uri` and how the options say to talk to it. Raises `ConfigError`."""
    found = vars(options)
    variable = _VARIABLE.format(of.upper().replace("-", "_"))
    return _endpoint(
        uri,
        _Way(
            of,
            ca=found[f"{of}ca"],
            cert=found[f"{of}cert"],
            key=found[f"{of}key"],
            user=found[f"{of}user"],
            password_file=found[f"{of}password"],
            token_file=found[f"{of}token"],
            password=os.environ.get(f"{variable}PASSWORD"),
            token=os.environ.get(f"{variable}TOKEN"),
        ),
    )


def primary_endpoint(uri: str, primary: Primary) -> Endpoint:
    """The server at `uri` and how the section [primary] says to talk to it. Raises `ConfigError`."""
    return _endpoint(
        uri,
        _Way(
            "primary-",
            ca=primary.ca,
            cert=primary.cert,
            key=primary.key,
            user=primary.user,
            password_file=primary.password_file,
            token_file=primary.token_file,
            password=primary.password.get_secret_value() if primary.password is not None else None,
            token=primary.token.get_secret_value() if primary.token is not None else None,
        ),
    )


def _endpoint(uri: str, way: _Way) -> Endpoint:
    keep_pandas_out()

    from flight_replica.flightsql.tls import check_ca, check_pair, read_pem
    from flight_replica.log.feed_client import Endpoint

    if (way.cert is None) != (way.key is None):
        raise ConfigError(f"--{way.of}cert and --{way.of}key go together")
    pair = None
    if way.cert is not None and way.key is not None:
        check_pair(way.cert, way.key)
        pair = (read_pem(way.cert, f"--{way.of}cert"), read_pem(way.key, f"--{way.of}key"))
    if way.ca is not None:
        check_ca(way.ca)
    return Endpoint(
        uri,
        tls_root_certs=read_pem(way.ca, f"--{way.of}ca") if way.ca is not None else None,
        authorization=_authorization(way),
        client_certificate=pair,
    )


def _authorization(way: _Way) -> Authorization | None:
    from flight_replica.log.credentials import Secret, basic, bearer, secret_in

    def secret(path: Path | None, name: str, value: str | None) -> Secret | None:
        if path is None:
            return (lambda: value) if value is not None else None
        read = secret_in(path, name)
        read()  # a wrong path is told at once
        return read

    password = secret(way.password_file, "password", way.password)
    token = secret(way.token_file, "token", way.token)
    if way.user is not None:
        if password is None:
            raise ConfigError(f"--{way.of}user needs a password: --{way.of}password-file or its variable")
        return basic(way.user, password)
    if way.password_file is not None:
        raise ConfigError(f"--{way.of}password-file goes with --{way.of}user")
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
