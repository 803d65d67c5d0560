"""What `Control` answers, as messages of proto/admin.proto."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

from google.protobuf.message import Message

from flight_replica._pb import admin_pb2 as pb
from flight_replica.control.status import PinStatus, ServerInfo, SessionStatus, TableStatus
from flight_replica.control.steering import Rebased, TableDetails
from flight_replica.flightsql.observing import QueryRecord, RunningQuery


def server_message(server: ServerInfo) -> pb.Server:
    return pb.Server(**asdict(server))


def status_message(
    server: ServerInfo, tables: Sequence[TableStatus], queries: Sequence[RunningQuery]
) -> pb.ServerStatus:
    return pb.ServerStatus(
        server=server_message(server),
        tables=map(table_message, tables),
        queries=map(query_message, queries),
    )


def table_message(table: TableStatus) -> pb.Table:
    return pb.Table(
        name=table.name,
        state=table.state,
        reason=table.reason,
        lineage=table.lineage,
        table_uuid=table.table_uuid,
        base_seq=table.base_seq,
        visible_seq=table.visible_seq,
        high_water=table.high_water,
        lag_seqs=table.lag_seqs,
        lag_us=table.lag_us,
        commit_time_us=table.commit_time_us,
        low_water=table.low_water,
        base_kind=table.published_base_kind,
        base_uri=table.published_base_uri,
        base_version=table.published_base_version,
        published_base_seq=table.published_base_seq,
        details=_details(table.details) if table.details is not None else None,
    )


def _details(details: TableDetails) -> pb.TableDetails:
    return pb.TableDetails(
        state_kind=details.state_kind,
        base_version=details.base_version,
        ops_applied=details.ops_applied,
        tail_bytes=details.tail_bytes,
        history_bytes=details.history_bytes,
        rebase_count=details.rebase_count,
        last_rebase_at_us=details.last_rebase_at_us,
        last_rebase_seconds=details.last_rebase_seconds,
        waiting=details.waiting,
        paused_by=details.paused_by,
        build=details.build,
    )


def rebased_message(rebased: Rebased) -> pb.Rebased:
    return pb.Rebased(**asdict(rebased))


def query_message(query: RunningQuery) -> pb.Query:
    return pb.Query(**_sent(query, pb.Query))


def ended_query_message(record: QueryRecord) -> pb.EndedQuery:
    return pb.EndedQuery(**_sent(record, pb.EndedQuery))


def session_message(session: SessionStatus) -> pb.Session:
    return pb.Session(**asdict(session))


def pin_message(pin: PinStatus) -> pb.Pin:
    return pb.Pin(**asdict(pin))


def _sent(found: RunningQuery | QueryRecord, message: type[Message]) -> dict[str, object]:
    """What the message has of a statement, by name: observers are told more than operators need.

    Texts that a client sent may hold halves of surrogate pairs, which no message carries.
    """
    values = {name: getattr(found, name) for name in message.DESCRIPTOR.fields_by_name}
    return {
        name: value.encode("utf-8", "replace").decode() if isinstance(value, str) else value
        for name, value in values.items()
    }
