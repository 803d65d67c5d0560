"""`AdminServer`: health, reflection and control on a port of their own, in the process of a server."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import grpc
from grpc_health.v1 import health_pb2_grpc
from grpc_reflection.v1alpha import reflection, reflection_pb2_grpc

from flight_replica._pb import admin_pb2, admin_pb2_grpc
from flight_replica.admin.gate import Gate, Stream
from flight_replica.admin.health import HealthServicer
from flight_replica.admin.limits import DEFAULT_ADMIN_LIMITS, AdminLimits
from flight_replica.admin.servicer import AdminServicer
from flight_replica.control.control import Control
from flight_replica.control.health import HealthBook
from flight_replica.errors import ConfigError
from flight_replica.flightsql.auth import Login, Logins, OpenLogins
from flight_replica.flightsql.port import in_uri
from flight_replica.flightsql.tls import ServerTls

ADMIN = admin_pb2.DESCRIPTOR.services_by_name["Admin"].full_name
HEALTH = "grpc.health.v1.Health"

CLOSE_SECONDS = 2.0  # how long calls under way may take once it is to end
_KEEPALIVE_MS = 30_000  # a watcher that vanished without a word is noticed after about this


class AdminServer:
    """Serves from creation to `close`. Owns its threads, not `control`."""

    def __init__(
        self,
        control: Control,
        host: str,
        port: int,
        *,
        logins: Logins | None = None,
        tls: ServerTls | None = None,
        limits: AdminLimits = DEFAULT_ADMIN_LIMITS,
    ) -> None:
        """`port` 0: a free one, see `.uri`. `logins` None: everybody is let in; `tls` None: in the clear.

        Raises `ConfigError` when the address can't be used.
        """
        self._tls = tls
        self._gate = Gate(logins or OpenLogins(), limits)
        self._server = grpc.server(
            ThreadPoolExecutor(limits.admin_calls_max, "admin"),
            options=(
                ("grpc.so_reuseport", 0),  # an address that is taken is an error, not a surprise
                ("grpc.max_receive_message_length", limits.request_bytes_max),
                ("grpc.max_send_message_length", limits.reply_bytes_max),
                ("grpc.keepalive_time_ms", _KEEPALIVE_MS),
            ),
            maximum_concurrent_rpcs=limits.admin_calls_max,
        )
        admin_pb2_grpc.add_AdminServicer_to_server(AdminServicer(control, self._gate), self._server)
        health_pb2_grpc.add_HealthServicer_to_server(
            HealthServicer(HealthBook(control), self._gate), self._server
        )
        reflection_pb2_grpc.add_ServerReflectionServicer_to_server(_Reflection(self._gate), self._server)
        address = in_uri(host)
        try:
            bound = self._listen(f"{address}:{port}")
        except RuntimeError:
            raise ConfigError(
                f"--admin-listen {host}:{port}: the address can't be used, or is in use"
            ) from None
        self.port: int = bound
        self.uri = f"grpc{'+tls' if tls is not None else ''}://{address}:{bound}"
        self._server.start()

    def _listen(self, address: str) -> int:
        if self._tls is None:
            return int(self._server.add_insecure_port(address))
        first = _certificates(self._tls)
        credentials = grpc.dynamic_ssl_server_credentials(
            first, self._newest_certificates, self._tls.client_ca is not None
        )
        return int(self._server.add_secure_port(address, credentials))

    def use_tls(self, tls: ServerTls) -> None:
        """Show another certificate to clients that connect from now on."""
        assert self._tls is not None, "a server in the clear stays so"
        self._tls = tls

    def _newest_certificates(self) -> grpc.ServerCertificateConfiguration:
        assert self._tls is not None, "a server in the clear"
        return _certificates(self._tls)

    def close(self) -> None:
        """End streams at once, and calls soon. Idempotent."""
        self._gate.close()
        self._server.stop(CLOSE_SECONDS).wait()


def _certificates(tls: ServerTls) -> grpc.ServerCertificateConfiguration:
    return grpc.ssl_server_certificate_configuration([(tls.key, tls.certificate)], tls.client_ca)


class _Reflection(reflection.ReflectionServicer):  # type: ignore[misc]
    """What is served here, for those who may call."""

    def __init__(self, gate: Gate) -> None:
        super().__init__((ADMIN, HEALTH, reflection.SERVICE_NAME))
        self._gate = gate

    def ServerReflectionInfo(
        self, request_iterator: Iterator[object], context: grpc.ServicerContext
    ) -> Iterator[object]:
        def reflect(login: Login, stream: Stream) -> Iterator[object]:
            yield from super(_Reflection, self).ServerReflectionInfo(request_iterator, context)

        return self._gate.answers(context, reflect)
