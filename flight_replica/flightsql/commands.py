"""Flight SQL messages in and out of the bytes that carry them. What they mean: server.py.

Commands, tickets and the bodies of Flight SQL's actions are a message in an Any; results of a DoPut and
the base protocol's actions are bare messages. Source: FlightSql.proto.
"""

from __future__ import annotations

from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.message import DecodeError, Message

from flight_replica._pb import flight_sql_pb2
from flight_replica.errors import InvalidStatement

_PREFIX = "type.googleapis.com"
_PACKAGE: str = flight_sql_pb2.DESCRIPTOR.package
_CLASSES: dict[str, type[Message]] = {
    f"{_PACKAGE}.{name}": getattr(flight_sql_pb2, name)
    for name in flight_sql_pb2.DESCRIPTOR.message_types_by_name
}


def pack(message: Message) -> bytes:
    """The message in an Any."""
    carrier = AnyMessage()
    carrier.Pack(message, _PREFIX)
    return bytes(carrier.SerializeToString())


def unpack(data: bytes, what: str) -> Message:
    """The message in an Any, whatever the prefix of its type. `what` is what the bytes should be.

    Raises `InvalidStatement` for anything but a known Flight SQL message.
    """
    carrier = AnyMessage()
    try:
        carrier.ParseFromString(data)
    except DecodeError as error:
        raise InvalidStatement(f"{what}: {len(data)} bytes that are no protobuf Any") from error
    name = carrier.type_url.rpartition("/")[2]
    message_class = _CLASSES.get(name)
    if message_class is None:
        raise InvalidStatement(f"{what}: {name or 'no type'} is not a Flight SQL message known here")
    return parsed(message_class(), carrier.value, what)


def parsed(message: Message, data: bytes, what: str) -> Message:
    """`message`, filled from its bytes. Raises `InvalidStatement`."""
    try:
        message.ParseFromString(data)
    except DecodeError as error:
        name = message.DESCRIPTOR.name
        raise InvalidStatement(f"{what}: {len(data)} bytes that are no {name}") from error
    return message
