"""The Flight port's certificate for HTTP: an `SSLContext` that takes a renewed one while it is used."""

from __future__ import annotations

import os
import ssl
import tempfile
from pathlib import Path

from flight_replica.flightsql.tls import ServerTls


def http_context(tls: ServerTls) -> ssl.SSLContext:
    """As the Flight port does: TLS 1.2 or newer, and clients' certificates where a CA is given."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.set_alpn_protocols(["http/1.1"])
    if tls.client_ca is not None:
        context.load_verify_locations(cadata=tls.client_ca.decode())
        context.verify_mode = ssl.CERT_REQUIRED
    load_certificate(context, tls)
    return context


def load_certificate(context: ssl.SSLContext, tls: ServerTls) -> None:
    """Show this certificate to those who connect from now on."""
    # OpenSSL's chain loader takes files alone; they are this process's, and gone when it returns.
    with tempfile.TemporaryDirectory() as directory:
        certificate, key = Path(directory, "certificate"), Path(directory, "key")
        certificate.write_bytes(tls.certificate)
        handle = os.open(key, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(handle, "wb") as file:
            file.write(tls.key)
        context.load_cert_chain(certificate, key)
