"""Certificates and keys out of PEM files: `ServerTls` for a server, `read_pem` for either side.

They are read once, and again when SIGHUP says so (reloading.py).
"""

from __future__ import annotations

import ssl
from dataclasses import dataclass, field
from pathlib import Path

from flight_replica.errors import ConfigError


@dataclass(frozen=True, slots=True)
class ServerTls:
    """PEM texts. With `client_ca` a client without a certificate of that CA gets no connection (mTLS)."""

    certificate: bytes
    key: bytes = field(repr=False)
    client_ca: bytes | None = None

    def options(self) -> dict[str, object]:
        """The arguments of pyarrow's server."""
        return {
            "tls_certificates": [(self.certificate, self.key)],
            "verify_client": self.client_ca is not None,
            "root_certificates": self.client_ca,
        }


def read_server_tls(certificate: Path, key: Path, client_ca: Path | None = None) -> ServerTls:
    """What stands in the files. Raises `ConfigError` for what can't work: gRPC would only fail later."""
    check_pair(certificate, key)
    if client_ca is not None:
        check_ca(client_ca)
    return ServerTls(
        read_pem(certificate, "the server's certificate"),
        read_pem(key, "the server's key"),
        read_pem(client_ca, "the clients' CA") if client_ca is not None else None,
    )


def read_pem(path: Path, what: str) -> bytes:
    """The file's bytes. Raises `ConfigError` naming the file and what it should be."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ConfigError(f"{what}, {path}, can't be read: {error.strerror}") from error
    if b"-----BEGIN " not in data:
        raise ConfigError(f"{what}, {path}, is no PEM file")
    return data


def check_pair(certificate: Path, key: Path) -> None:
    """Raises `ConfigError` where the key isn't the certificate's, or is locked by a password."""
    read_pem(certificate, "the certificate")
    read_pem(key, "the key")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        # With a password given, OpenSSL doesn't ask for one at the terminal.
        context.load_cert_chain(certificate, key, password="")
    except (ssl.SSLError, OSError) as error:
        reason = getattr(error, "reason", None) or "unknown reason"
        raise ConfigError(f"certificate {certificate} doesn't work with key {key}: {reason}") from None


def check_ca(path: Path) -> None:
    """Raises `ConfigError` for a file without certificates."""
    read_pem(path, "the CA")
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(path)
    except (ssl.SSLError, OSError) as error:
        raise ConfigError(f"CA {path} has no certificate: {getattr(error, 'reason', None)}") from None
