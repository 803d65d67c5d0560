"""`FeedClient`: one Flight connection to a server of feeds, and its errors in our tree.

Knows pyarrow.flight and the statements of the feed, nothing of positions, threads or retries.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import TracebackType
from uuid import UUID

import pyarrow as pa
import pyarrow.flight as flight
from google.protobuf.any_pb2 import Any as AnyMessage

from flight_replica._pb import flight_sql_pb2
from flight_replica.errors import (
    ConfigError,
    FeedError,
    ReplicaError,
    StatementNotFound,
    TableNotFound,
    Unavailable,
)
from flight_replica.log.credentials import Authorization
from flight_replica.log.wire import LINEAGE_HEADER, decode_log_gap

# A peer that doesn't answer pings is cut off, which frees a call that hangs where nothing else can
# end it: pyarrow can't cancel a DoGet before the server has sent the schema.
KEEPALIVE_MS = 20_000
KEEPALIVE_TIMEOUT_MS = 10_000

_DETAIL = re.compile(r"\. Detail: [A-Z]\w*$")  # what pyarrow appends: Failed, Unavailable, …


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where a primary listens and how to talk to it. Secrets stay out of `repr`."""

    uri: str  # grpc://host:port or grpc+tls://host:port
    tls_root_certs: bytes | None = None  # PEM; None: the system's
    authorization: Authorization | None = field(default=None, repr=False)
    client_certificate: tuple[bytes, bytes] | None = field(default=None, repr=False)  # PEM chain and key
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    rpc_timeout_seconds: float = 5.0  # of every call but an open stream

    def __post_init__(self) -> None:
        """Raises `ConfigError` for a URI with a user in it: URIs stand in errors, logs and on pages."""
        if "@" in self.uri:
            raise ConfigError(
                f"{self.uri.rpartition('@')[2]}: no user or password stands in a URI, which is shown and "
                "logged; options name them"
            )


class FeedClient:
    """One connection. Calls may come from several threads; `close` lets go of it."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint
        options: dict[str, object] = {
            "generic_options": [
                ("grpc.keepalive_time_ms", KEEPALIVE_MS),
                ("grpc.keepalive_timeout_ms", KEEPALIVE_TIMEOUT_MS),
                ("grpc.http2.ping_timeout_ms", KEEPALIVE_TIMEOUT_MS),
            ]
        }
        if endpoint.tls_root_certs is not None:
            options["tls_root_certs"] = endpoint.tls_root_certs
        if endpoint.client_certificate is not None:
            options["cert_chain"], options["private_key"] = endpoint.client_certificate
        try:
            self._client = flight.FlightClient(endpoint.uri, **options)
        except (pa.ArrowException, OSError) as error:
            raise ConfigError(f"{endpoint.uri} can't be connected to: {_text(error)}") from error

    def plan(self, sql: str, lineage: UUID | None = None) -> flight.FlightInfo:
        """GetFlightInfo of a statement. Raises what `in_our_terms` makes of the server's error."""
        command = AnyMessage()
        command.Pack(flight_sql_pb2.CommandStatementQuery(query=sql), "type.googleapis.com")
        descriptor = flight.FlightDescriptor.for_command(command.SerializeToString())
        try:
            info = self._client.get_flight_info(descriptor, self._options(lineage, is_bounded=True))
        except (pa.ArrowException, OSError) as error:
            raise in_our_terms(error, self._endpoint.uri) from error
        if len(info.endpoints) != 1:
            raise FeedError(
                f"{self._endpoint.uri} gave {len(info.endpoints)} endpoints for {sql}, expected 1"
            )
        return info

    def open(self, info: flight.FlightInfo, lineage: UUID | None = None) -> flight.FlightStreamReader:
        """DoGet of a plan, on this connection. Returns with the schema; there is no deadline."""
        try:
            return self._client.do_get(info.endpoints[0].ticket, self._options(lineage))
        except (pa.ArrowException, OSError) as error:
            raise in_our_terms(error, self._endpoint.uri, is_planned=True) from error

    def next_chunk(self, stream: flight.FlightStreamReader) -> flight.FlightStreamChunk | None:
        """The next chunk of an open stream, None at its normal end."""
        try:
            return stream.read_chunk()
        except StopIteration:
            return None
        except (pa.ArrowException, OSError) as error:
            raise in_our_terms(error, self._endpoint.uri, is_planned=True) from error

    def query(self, sql: str) -> pa.Table:
        """A whole small answer."""
        info = self.plan(sql)
        try:
            options = self._options(None, is_bounded=True)
            return self._client.do_get(info.endpoints[0].ticket, options).read_all()
        except (pa.ArrowException, OSError) as error:
            raise in_our_terms(error, self._endpoint.uri, is_planned=True) from error

    def act(self, name: str, body: bytes) -> None:
        """One action whose answer says nothing."""
        try:
            list(self._client.do_action(flight.Action(name, body), self._options(None, is_bounded=True)))
        except (pa.ArrowException, OSError) as error:
            raise in_our_terms(error, self._endpoint.uri) from error

    def close(self) -> None:
        self._client.close()

    def __enter__(self) -> FeedClient:
        return self

    def __exit__(
        self, _type: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self.close()

    def _options(self, lineage: UUID | None, is_bounded: bool = False) -> flight.FlightCallOptions:
        headers = {name.lower(): value for name, value in self._endpoint.headers.items()}
        if self._endpoint.authorization is not None:
            headers["authorization"] = self._endpoint.authorization()
        if lineage is not None:
            headers[LINEAGE_HEADER] = str(lineage)
        encoded = [(name.encode(), value.encode()) for name, value in headers.items()]
        timeout = self._endpoint.rpc_timeout_seconds if is_bounded else None
        return flight.FlightCallOptions(timeout=timeout, headers=encoded)


def changes_sql(table: str, since: int, is_following: bool = False) -> str:
    """The feed's statement (CF 1)."""
    name = table.replace("'", "''")
    follow = ", follow := true" if is_following else ""
    return f"SELECT * FROM merutable_changes('{name}', {since}{follow})"


def in_our_terms(error: Exception, uri: str, is_planned: bool = False) -> ReplicaError:
    """A Flight or Arrow error of a call as one of ours. A gap is known by its details alone (CF 3).

    `is_planned`: the call was a DoGet, where NOT_FOUND may just mean that the ticket ran out; planning
    again tells whether the table is gone.
    """
    gap = decode_log_gap(getattr(error, "extra_info", None))
    if gap is not None:
        return gap
    text = f"{uri}: {_text(error)}"
    if isinstance(error, KeyError):
        return StatementNotFound(text) if is_planned else TableNotFound(text)
    if isinstance(error, flight.FlightUnauthenticatedError | flight.FlightUnauthorizedError):
        return ConfigError(text)
    if isinstance(error, pa.ArrowInvalid | pa.ArrowNotImplementedError):
        return FeedError(text)
    return Unavailable(text)


def _text(error: Exception) -> str:
    """The first line of a Flight error, without what gRPC and pyarrow add to it."""
    text = str(error).partition(". gRPC client debug context")[0]
    text = text.partition(". Detail: Python exception")[0].partition("\n")[0]
    return _DETAIL.sub("", text)
