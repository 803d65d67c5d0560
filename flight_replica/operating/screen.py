"""A server's status on one screen."""

from __future__ import annotations

from collections.abc import Sequence

from flight_replica._pb import admin_pb2 as pb
from flight_replica.operating.tables import lines_of
from flight_replica.operating.values import age, count, duration, printable, size

SQL_CHARACTERS = 60
_TABLE = ("table", "state", "lag", "behind", "visible", "base", "held as", "tail", "rebases")
_QUERY = ("query", "kind", "user", "phase", "seconds", "rows", "reads", "statement")
_RIGHT = ("lag", "behind", "visible", "base", "tail", "rebases", "seconds", "rows")


def screen(status: pb.ServerStatus) -> list[str]:
    """Lines without colours or line ends, the most important ones first."""
    return [*_head(status), "", *table_lines(status.tables), *_reasons(status.tables), "", *_queries(status)]


def _head(status: pb.ServerStatus) -> list[str]:
    server = status.server
    where = server.addresses.get("flight", "")
    first = printable(f"{server.product} {server.version}".strip() + (f" on {where}" if where else ""))
    if server.pid:
        first += f", pid {server.pid}, up {duration(server.uptime_seconds)}"
    return [first, _verdict(status)]


def _verdict(status: pb.ServerStatus) -> str:
    if status.server.is_draining:
        return "it is shutting down"
    wrong = [table for table in status.tables if table.state != "serving"]
    if not status.tables:
        return "no tables"
    if not wrong:
        return f"all well: {_tables(len(status.tables))} serving"
    return f"{len(wrong)} of {_tables(len(status.tables))} not well"


def _tables(number: int) -> str:
    return f"{number} table" if number == 1 else f"{number} tables"


def table_lines(tables: Sequence[pb.Table]) -> list[str]:
    """The tables and how they are."""
    rows = []
    for table in tables:
        held = table.details.state_kind or "-"
        rows.append(
            (
                table.name,
                table.state,
                age(table.lag_us),
                count(table.lag_seqs),
                count(table.visible_seq),
                count(table.base_seq),
                held,
                size(table.details.tail_bytes) if table.HasField("details") else "-",
                count(table.details.rebase_count) if table.HasField("details") else "-",
            )
        )
    return lines_of(_TABLE, rows, _RIGHT)


def _reasons(tables: Sequence[pb.Table]) -> list[str]:
    found = []
    for table in tables:
        told = table.reason or table.details.build  # a reason tells of the build too
        if told:
            found.append(f"  {printable(table.name)}: {printable(told)}")
    return found


def _queries(status: pb.ServerStatus) -> list[str]:
    if not status.queries:
        return ["no queries"]
    waiting = sum(query.phase in ("waiting", "queued") for query in status.queries)
    return [f"{len(status.queries)} queries, {waiting} of them waiting", *query_lines(status.queries)]


def query_lines(queries: Sequence[pb.Query]) -> list[str]:
    """Statements under way."""
    rows = [
        (
            query.id,
            query.kind,
            query.user or "-",
            query.phase,
            f"{query.seconds:.1f}",
            count(query.rows),
            ",".join(f"{table}@{query.visible_seqs[table]}" for table in query.visible_seqs)
            or ",".join(query.tables)
            or "-",
            _cut(query.sql),
        )
        for query in queries
    ]
    return lines_of(_QUERY, rows, _RIGHT)


def _cut(sql: str) -> str:
    text = " ".join(sql.split())
    return text if len(text) <= SQL_CHARACTERS else text[: SQL_CHARACTERS - 1] + "…"
