"""What the page shows of one moment, for one user: the message of the live stream."""

from __future__ import annotations

from collections.abc import Sequence

from flight_replica.control.control import Control
from flight_replica.control.status import TableStatus
from flight_replica.flightsql.observing import QueryRecord, RunningQuery
from flight_replica.flightsql.users import User
from flight_replica.http.page.happenings import Happening
from flight_replica.http.page.health import advice_for, health_of
from flight_replica.http.page.positions import lag_ms
from flight_replica.http.page.sampler import Moment, Rebase

SLOW_SHOWN_MAX = 20
SQL_SHOWN_MAX = 500  # characters of a statement


def server_json(control: Control, user: User, uri: str, time_ms: int) -> dict[str, object]:
    info = control.server()
    return {
        "product": info.product,
        "version": info.version,
        "uri": uri,
        "user": user.name,
        "run": f"{info.pid}-{info.started_at_us}",  # another one when the server was started anew
        "started_ms": info.started_at_us // 1000,
        "now_ms": time_ms,
        "is_draining": info.is_draining,
    }


def tables_json(moment: Moment, user: User, rates: dict[str, float | None]) -> list[dict[str, object]]:
    """Of the tables that the user may read."""
    return [
        _table_json(table, moment.rebases.get(table.name, ()), rates.get(table.name))
        for table in moment.tables
        if table.name in user.read
    ]


def advice_json(moment: Moment, user: User) -> list[dict[str, object]]:
    return [advice.as_json() for advice in advice_for([t for t in moment.tables if t.name in user.read])]


def queries_json(control: Control, user: User) -> dict[str, object]:
    """Running ones, and slow ones that have ended: the user's own, or everybody's for an administrator."""
    slow = control.slow_queries(user)[:SLOW_SHOWN_MAX]
    return {
        "running": [_running_json(query) for query in control.queries(user)],
        "slow": [_slow_json(record) for record in slow],
    }


def may_see(happening: Happening, user: User) -> bool:
    """What is about a table is for those who may read it, the rest for administrators."""
    return happening.table in user.read if happening.table else user.may_administer


def _table_json(table: TableStatus, rebases: Sequence[Rebase], rate: float | None) -> dict[str, object]:
    details = table.details
    return {
        "name": table.name,
        "health": health_of(table),
        "state": table.state,
        "reason": table.reason,
        "lineage": table.lineage,
        "visible_seq": str(table.visible_seq),
        "high_water": str(table.high_water),
        "base_seq": str(table.base_seq),
        "low_water": str(table.low_water),
        "lag_ms": lag_ms(table.lag_us),
        "lag_seqs": str(table.lag_seqs),
        "ops_per_second": rate,
        "base_kind": table.published_base_kind,
        "base_uri": table.published_base_uri,
        "base_version": str(table.published_base_version)
        if table.published_base_version is not None
        else None,
        "is_followed": details is None or details.is_followed,
        "build": details.build if details is not None else None,
        "kind": details.state_kind if details is not None else None,
        "ops_applied": str(details.ops_applied) if details is not None else None,
        "tail_bytes": details.tail_bytes if details is not None else None,
        "history_bytes": details.history_bytes if details is not None else None,
        "waiting": details.waiting if details is not None else None,
        "rebase_count": details.rebase_count if details is not None else None,
        "rebases": [
            {"time_ms": found.time_ms, "base_seq": str(found.base_seq), "ms": found.ms} for found in rebases
        ],
    }


def _running_json(query: RunningQuery) -> dict[str, object]:
    return {
        "id": query.id,
        "kind": query.kind,
        "phase": query.phase,
        "sql": _cut(query.sql),
        "user": query.user,
        "peer": query.peer,
        "seconds": query.seconds,
        "rows": query.rows,
        "reads": {table: str(seq) for table, seq in query.visible_seqs.items()},
        "lag_ms": lag_ms(query.lag_us),
    }


def _slow_json(record: QueryRecord) -> dict[str, object]:
    return {
        "id": record.id,
        "outcome": record.outcome,
        "error": record.error,
        "sql": _cut(record.sql),
        "user": record.user,
        "seconds": record.seconds,
        "rows": record.rows,
        "ended_ms": record.started_at_us // 1000 + int(record.seconds * 1000),
        "reads": {table: str(seq) for table, seq in record.visible_seqs.items()},
        "lag_ms": lag_ms(record.lag_us),
    }


def _cut(text: str) -> str:
    return text if len(text) <= SQL_SHOWN_MAX else text[: SQL_SHOWN_MAX - 1] + "…"
