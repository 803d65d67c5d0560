"""Flight calls by bare gRPC, which shows what pyarrow's client hides: exact codes, texts and trailers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Self

import grpc
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.message import Message
from pyarrow import flight

from flight_replica._pb import flight_sql_pb2 as pb
from flight_replica.flightsql.commands import pack

_SERVICE = "/arrow.flight.protocol.FlightService/"
_UNARY = frozenset({"GetFlightInfo", "GetSchema"})


@dataclass(frozen=True)
class Reply:
    """How a call ended."""

    code: str  # OK or another name of gRPC's
    text: str = ""
    trailers: Mapping[str, str | bytes] = field(default_factory=dict)
    messages: tuple[bytes, ...] = ()


class BareGrpc:
    """One connection. Requests are serialized protobuf, well-formed or not."""

    def __init__(self, port: int) -> None:
        self._channel = grpc.insecure_channel(
            f"127.0.0.1:{port}",
            [("grpc.max_receive_message_length", -1), ("grpc.use_local_subchannel_pool", 1)],
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._channel.close()

    def call(
        self,
        method: str,
        request: bytes,
        headers: Mapping[str, str] | None = None,
        timeout_seconds: float = 60,
    ) -> Reply:
        metadata = tuple((headers or {}).items())
        try:
            if method in _UNARY:
                unary = self._channel.unary_unary(_SERVICE + method)
                return Reply("OK", messages=(unary(request, timeout_seconds, metadata),))
            if method in ("DoPut", "DoExchange", "Handshake"):
                both = self._channel.stream_stream(_SERVICE + method)
                return Reply("OK", messages=tuple(both(iter([request]), timeout_seconds, metadata)))
            stream = self._channel.unary_stream(_SERVICE + method)
            return Reply("OK", messages=tuple(stream(request, timeout_seconds, metadata)))
        except grpc.RpcError as error:
            trailers = {str(key): value for key, value in error.trailing_metadata() or ()}
            return Reply(error.code().name, error.details() or "", trailers)

    def info(self, command: Message | bytes, **headers: str) -> Reply:
        return self.call("GetFlightInfo", descriptor(command), headers)

    def schema(self, command: Message | bytes, **headers: str) -> Reply:
        return self.call("GetSchema", descriptor(command), headers)

    def query(self, sql: str) -> Reply:
        """Plan and fetch: how the first of them that fails ended, or the fetch."""
        planned = self.info(pb.CommandStatementQuery(query=sql))
        if planned.code != "OK":
            return planned
        (endpoint,) = flight.FlightInfo.deserialize(planned.messages[0]).endpoints
        return self.get(endpoint.ticket.ticket)

    def get(self, ticket: bytes) -> Reply:
        return self.call("DoGet", flight.Ticket(ticket).serialize())

    def act(self, name: str, body: Message | bytes) -> Reply:
        data = body if isinstance(body, bytes) else pack(body)
        # An Action has the fields of an Any: a text and bytes.
        return self.call("DoAction", AnyMessage(type_url=name, value=data).SerializeToString())


def descriptor(command: Message | bytes) -> bytes:
    data = command if isinstance(command, bytes) else pack(command)
    return bytes(flight.FlightDescriptor.for_command(data).serialize())
