"""`AdminClient`: the admin port of a server, for the command line; errors in our own tree."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from urllib.parse import urlsplit

import grpc
from google.protobuf.message import Message

from flight_replica._pb import admin_pb2 as pb
from flight_replica._pb import admin_pb2_grpc
from flight_replica.errors import (
    AlreadyExists,
    Busy,
    Cancelled,
    ConfigError,
    Forbidden,
    InvalidStatement,
    NotServed,
    ReplicaError,
    StatementNotFound,
    TimedOut,
    Unauthenticated,
    Unavailable,
    Unsupported,
)
from flight_replica.log.feed_client import Endpoint

_ERRORS: dict[grpc.StatusCode, type[ReplicaError]] = {
    grpc.StatusCode.UNAVAILABLE: Unavailable,
    grpc.StatusCode.UNIMPLEMENTED: Unsupported,
    grpc.StatusCode.NOT_FOUND: StatementNotFound,
    grpc.StatusCode.ALREADY_EXISTS: AlreadyExists,
    grpc.StatusCode.PERMISSION_DENIED: Forbidden,
    grpc.StatusCode.UNAUTHENTICATED: Unauthenticated,
    grpc.StatusCode.INVALID_ARGUMENT: InvalidStatement,
    grpc.StatusCode.RESOURCE_EXHAUSTED: Busy,
    grpc.StatusCode.CANCELLED: Cancelled,
    grpc.StatusCode.DEADLINE_EXCEEDED: TimedOut,
}
REPLY_BYTES_MAX = 64 << 20


class NoAdminPort(ReplicaError):
    """Something answers at this address that isn't an admin port; a Flight port, perhaps."""


class AdminClient:
    """One connection, opened at the first call. Ends with `close`."""

    def __init__(self, at: Endpoint) -> None:
        """Raises `ConfigError` for what is no address."""
        self._uri = at.uri
        self._authorization = at.authorization
        self._channel = _channel(at)
        self._stub = admin_pb2_grpc.AdminStub(self._channel)

    def __enter__(self) -> AdminClient:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        self._channel.close()

    def status(self) -> pb.ServerStatus:
        """Raises `NoAdminPort`, `Unavailable`, `Unauthenticated`."""
        return self.call("Status", pb.StatusRequest())

    def watch(self, interval_seconds: float) -> Iterator[pb.ServerStatus]:
        """The status now and at each interval, until it is closed. Raises as `status`."""
        request = pb.WatchStatusRequest(interval_seconds=interval_seconds)
        with self._told():
            stream = self._stub.WatchStatus(request, metadata=self._metadata())
            try:
                yield from stream
            finally:
                stream.cancel()
        raise Unavailable(f"{self._uri}: the server has ended the stream")

    def call(self, name: str, request: Message) -> Message:
        """What the method of this name answers. Raises what the server raises, in one line."""
        with self._told():
            return getattr(self._stub, name)(request, metadata=self._metadata())

    def _metadata(self) -> tuple[tuple[str, str], ...]:
        return (("authorization", self._authorization()),) if self._authorization is not None else ()

    @contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except grpc.RpcError as error:
            code, text = error.code(), (error.details() or "").partition("\n")[0]
            if code is grpc.StatusCode.UNIMPLEMENTED and not text:
                raise NoAdminPort(
                    f"{self._uri} is no admin port; a server prints its own at the start"
                ) from None
            kind = _ERRORS.get(code, NotServed)
            raise kind(f"{self._uri}: {text or code.name}") from error


def _channel(at: Endpoint) -> grpc.Channel:
    parts = urlsplit(at.uri)
    if parts.scheme not in ("grpc", "grpc+tcp", "grpc+tls") or not parts.netloc or parts.path.strip("/"):
        raise ConfigError(f"{at.uri!r}: expected grpc://HOST:PORT or grpc+tls://HOST:PORT")
    options = (("grpc.max_receive_message_length", REPLY_BYTES_MAX), ("grpc.enable_retries", 0))
    if parts.scheme != "grpc+tls":
        return grpc.insecure_channel(parts.netloc, options)
    certificate, key = at.client_certificate or (None, None)
    return grpc.secure_channel(
        parts.netloc, grpc.ssl_channel_credentials(at.tls_root_certs, key, certificate), options
    )
