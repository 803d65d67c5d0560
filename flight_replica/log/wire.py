"""The feed's messages as bytes: marks, positions, log gaps, schema metadata and names in headers.

Everything here is a pure function between the values of `log/source.py` and `position.py` and what
travels (proto/feed.proto). Nothing here knows Flight; `change_feed.py` reads with it, `flightsql/`
writes with it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from urllib.parse import quote, unquote
from uuid import UUID

from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.message import DecodeError

from flight_replica._pb import feed_pb2, status_pb2
from flight_replica.errors import FeedError, LogGap, SchemaMismatch
from flight_replica.log.source import FeedMark
from flight_replica.position import TablePosition
from flight_replica.schema import TableSchema

LINEAGE_HEADER = "merutable-lineage"
_TYPE_PREFIX = "type.googleapis.com"
_LINEAGE = b"merutable.lineage"
_TABLE = b"merutable.table"
_PRIMARY_KEY = b"merutable.primary_key"
_SCHEMA = b"merutable.schema"


def encode_mark(mark: FeedMark) -> bytes:
    """The mark as app_metadata of a follow batch: the bare message, not in an Any."""
    return bytes(_mark_message(mark).SerializeToString())


def decode_mark(data: bytes) -> FeedMark:
    """Raises `FeedError` for bytes that aren't a mark, or one without a lineage of 16 bytes."""
    message = feed_pb2.FeedMark()
    try:
        message.ParseFromString(data)
    except DecodeError as error:
        raise FeedError(f"app_metadata of {len(data)} bytes is not a FeedMark") from error
    return _mark_value(message)


def encode_positions(positions: Iterable[TablePosition], mark: FeedMark | None = None) -> bytes:
    """`FlightInfo.app_metadata`; `mark` only for a bounded `SELECT * FROM merutable_changes(…)`."""
    message = feed_pb2.Positions(tables=[_position_message(position) for position in positions])
    if mark is not None:
        message.mark.CopyFrom(_mark_message(mark))
    return bytes(message.SerializeToString())


def decode_positions(data: bytes) -> tuple[tuple[TablePosition, ...], FeedMark | None]:
    """Raises `FeedError` for bytes that aren't a `Positions` message."""
    message = feed_pb2.Positions()
    try:
        message.ParseFromString(data)
    except DecodeError as error:
        raise FeedError(f"app_metadata of {len(data)} bytes is not a Positions message") from error
    mark = _mark_value(message.mark) if message.HasField("mark") else None
    return tuple(_position_value(table) for table in message.tables), mark


def encode_log_gap(gap: LogGap, code: int, message: str) -> bytes:
    """Extra info of the Flight error for `gap`: a `google.rpc.Status` with the gap as its one detail.

    `code` and `message` must be the gRPC code and the whole status text as the client will see them,
    pyarrow's own suffix included; the ADBC driver drops details that disagree.
    """
    status = status_pb2.Status(code=code, message=message)
    status.details.add().Pack(_gap_message(gap), _TYPE_PREFIX)
    return bytes(status.SerializeToString())


def decode_log_gap(extra_info: bytes | None) -> LogGap | None:
    """The gap in an error's extra info, as a `google.rpc.Status` or a bare Any; None where there is none."""
    if not extra_info:
        return None
    for detail in _details(extra_info):
        # Any prefix is allowed; the name is what follows the last slash.
        if detail.type_url.rpartition("/")[2] == feed_pb2.LogGap.DESCRIPTOR.full_name:
            return _gap_value(detail.value)
    return None


def feed_metadata(table: str, lineage: UUID, schema: TableSchema) -> dict[bytes, bytes]:
    """Metadata of the Arrow schema of a feed stream; it alone defines the table."""
    return {
        _LINEAGE: str(lineage).encode(),
        _TABLE: table.encode(),
        _PRIMARY_KEY: json.dumps(list(schema.primary_key), ensure_ascii=False).encode(),
        _SCHEMA: schema.to_json().encode(),
    }


def decode_feed_metadata(metadata: Mapping[bytes, bytes] | None) -> tuple[str, UUID, TableSchema]:
    """Table, lineage and schema of a feed stream.

    Raises `FeedError` where a key is missing or two contradict each other, `SchemaMismatch` for a
    schema that no table can have.
    """
    values = dict(metadata or {})
    missing = [key.decode() for key in (_LINEAGE, _TABLE, _PRIMARY_KEY, _SCHEMA) if key not in values]
    if missing:
        raise FeedError(f"the stream's schema lacks the metadata {', '.join(missing)}")
    table = values[_TABLE].decode(errors="replace")
    try:
        table = values[_TABLE].decode()
        lineage = UUID(values[_LINEAGE].decode())
        primary_key = tuple(json.loads(values[_PRIMARY_KEY]))
        schema = TableSchema.from_json(values[_SCHEMA].decode())
    except (ValueError, TypeError) as error:
        raise FeedError(f"table {table!r}: the stream's schema metadata is malformed: {error}") from error
    if primary_key != schema.primary_key:
        raise FeedError(
            f"table {table!r}: merutable.primary_key is {primary_key}, the schema says {schema.primary_key}"
        )
    return table, lineage, schema


def encode_name(name: str) -> str:
    """A table's name as header text: percent-encoded UTF-8, `=` and `,` included."""
    return quote(name, safe="")


def decode_name(text: str) -> str:
    """Raises `SchemaMismatch` for text that isn't percent-encoded UTF-8."""
    try:
        return unquote(text, errors="strict")
    except UnicodeDecodeError as error:
        raise SchemaMismatch(f"table name {text!r} in a header is not percent-encoded UTF-8") from error


def _lineage(data: bytes, what: str) -> UUID:
    if len(data) != 16:
        raise FeedError(f"{what} has a lineage of {len(data)} bytes, expected 16")
    return UUID(bytes=data)


def _mark_message(mark: FeedMark) -> feed_pb2.FeedMark:
    return feed_pb2.FeedMark(
        lineage=mark.lineage.bytes,
        after=mark.after,
        through=mark.through,
        low_water=mark.low_water,
        high_water=mark.high_water,
        commit_time_us=mark.commit_time_us,
        sent_time_us=mark.sent_time_us,
        commit_through=mark.commit_through,
        heartbeat_ms=mark.heartbeat_ms,
    )


def _mark_value(message: feed_pb2.FeedMark) -> FeedMark:
    return FeedMark(
        lineage=_lineage(message.lineage, "a feed mark"),
        after=message.after,
        through=message.through,
        low_water=message.low_water,
        high_water=message.high_water,
        commit_time_us=message.commit_time_us,
        sent_time_us=message.sent_time_us,
        commit_through=message.commit_through,
        heartbeat_ms=message.heartbeat_ms,
    )


def _position_message(position: TablePosition) -> feed_pb2.TablePosition:
    return feed_pb2.TablePosition(
        table=position.table,
        lineage=position.lineage.bytes,
        base_seq=position.base_seq,
        visible_seq=position.visible_seq,
        commit_time_us=position.commit_time_us,
        lag_us=position.lag_us,
        high_water=position.high_water,
    )


def _position_value(message: feed_pb2.TablePosition) -> TablePosition:
    return TablePosition(
        table=message.table,
        lineage=_lineage(message.lineage, f"the position of table {message.table!r}"),
        base_seq=message.base_seq,
        visible_seq=message.visible_seq,
        commit_time_us=message.commit_time_us,
        lag_us=message.lag_us,
        high_water=message.high_water,
    )


def _gap_message(gap: LogGap) -> feed_pb2.LogGap:
    message = feed_pb2.LogGap(requested=gap.requested, reason=gap.reason)
    if gap.earliest_available is not None:
        message.earliest_available = gap.earliest_available
    if gap.lineage is not None:
        message.lineage = gap.lineage.bytes
    return message


def _gap_value(data: bytes) -> LogGap | None:
    message = feed_pb2.LogGap()
    try:
        message.ParseFromString(data)
    except DecodeError:
        return None
    earliest = message.earliest_available if message.HasField("earliest_available") else None
    lineage = UUID(bytes=message.lineage) if len(message.lineage) == 16 else None
    return LogGap(message.requested, earliest, message.reason, lineage)


def _details(extra_info: bytes) -> list[AnyMessage]:
    """What may hold the gap: the details of a Status, then the bytes themselves as an Any."""
    found: list[AnyMessage] = []
    status = status_pb2.Status()
    bare = AnyMessage()
    try:
        status.ParseFromString(extra_info)
        found.extend(status.details)
    except DecodeError:
        pass  # not a Status; it may still be a bare Any
    try:
        bare.ParseFromString(extra_info)
        found.append(bare)
    except DecodeError:
        pass  # a Status is no Any
    return found
