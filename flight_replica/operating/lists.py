"""Slow statements, sessions and pins as lines."""

from __future__ import annotations

from collections.abc import Sequence

from flight_replica._pb import admin_pb2 as pb
from flight_replica.operating.tables import lines_of
from flight_replica.operating.values import age, count, duration

SQL_CHARACTERS = 60


def slow_lines(queries: Sequence[pb.EndedQuery]) -> list[str]:
    names = (
        "query",
        "user",
        "outcome",
        "seconds",
        "wait",
        "plan",
        "execute",
        "stream",
        "rows",
        "lag",
        "statement",
    )
    rows = [
        (
            query.id,
            query.user or "-",
            query.outcome,
            f"{query.seconds:.2f}",
            f"{query.wait_seconds:.2f}",
            f"{query.plan_seconds:.2f}",
            f"{query.execute_seconds:.2f}",
            f"{query.stream_seconds:.2f}",
            count(query.rows),
            age(query.lag_us),
            " ".join(query.sql.split())[:SQL_CHARACTERS],
        )
        for query in queries
    ]
    return lines_of(names, rows, ("seconds", "wait", "plan", "execute", "stream", "rows", "lag"))


def session_lines(sessions: Sequence[pb.Session]) -> list[str]:
    names = ("session", "user", "idle", "queries", "transactions", "options")
    rows = [
        (
            session.id,
            session.user or "-",
            duration(session.idle_seconds),
            count(session.queries),
            count(session.transactions),
            ",".join(session.options) or "-",
        )
        for session in sessions
    ]
    return lines_of(names, rows, ("idle", "queries", "transactions"))


def pin_lines(pins: Sequence[pb.Pin]) -> list[str]:
    names = ("user", "pin", "age", "idle", "shows")
    rows = [
        (
            pin.user or "-",
            pin.name,
            duration(pin.age_seconds),
            duration(pin.idle_seconds),
            ",".join(f"{table}@{pin.visible_seqs[table]}" for table in sorted(pin.visible_seqs)),
        )
        for pin in pins
    ]
    return lines_of(names, rows, ("age", "idle"))
