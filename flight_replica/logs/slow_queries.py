"""`SlowQueryLog`: one line for each statement that took long, with where its time went."""

from __future__ import annotations

import logging

from flight_replica.flightsql.observing import QueryKind, QueryRecord
from flight_replica.logs.events import FIELDS
from flight_replica.logs.query_text import QueryText, shown_text
from flight_replica.logs.request import in_request

__all__ = ["SlowQueryLog"]

logger = logging.getLogger(__name__)

_DECIMALS = 3  # of seconds: milliseconds


class SlowQueryLog:
    """A `QueryObserver`. Its settings may be changed at any time."""

    def __init__(self, slow_query_ms: float, query_text: QueryText = QueryText.NORMALIZED) -> None:
        """`slow_query_ms` 0: nothing is logged."""
        self.slow_query_ms = slow_query_ms
        self.query_text = query_text

    def query_ended(self, record: QueryRecord) -> None:
        # Not what its client took to fetch what was planned. A feed without end isn't slow.
        seconds = record.plan_seconds + record.wait_seconds + record.execute_seconds + record.stream_seconds
        limit_ms = self.slow_query_ms
        if limit_ms > 0 and seconds * 1000 >= limit_ms and record.kind is not QueryKind.FOLLOW:
            with in_request(record.request_id):
                logger.warning("slow query", extra={FIELDS: self._fields(record, seconds)})

    def _fields(self, record: QueryRecord, seconds: float) -> dict[str, object]:
        fields: dict[str, object] = {
            "query": record.id,
            "kind": record.kind,
            "outcome": record.outcome,
            "seconds": round(seconds, _DECIMALS),
            "plan_seconds": round(record.plan_seconds, _DECIMALS),
            "wait_seconds": round(record.wait_seconds, _DECIMALS),
            "execute_seconds": round(record.execute_seconds, _DECIMALS),
            "stream_seconds": round(record.stream_seconds, _DECIMALS),
            "rows": record.rows,
            "bytes": record.bytes,
            "seqs": dict(record.visible_seqs),
            "user": record.user,
            "peer": record.peer,
        }
        if record.error:
            fields["error"] = record.error  # its text may quote a bound value
        text = shown_text(record.sql, self.query_text)
        if text is not None:
            fields["sql"] = text
        return fields
