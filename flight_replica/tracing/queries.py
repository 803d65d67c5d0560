"""`TracedQueries`: each statement that has ended as spans, below the caller's own span where it names one."""

from __future__ import annotations

from opentelemetry.trace import Span, SpanKind, Status, StatusCode, Tracer, set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from flight_replica.flightsql.observing import Outcome, Phase, QueryRecord
from flight_replica.logs.query_text import QueryText, shown_text

__all__ = ["TracedQueries"]

_PROPAGATOR = TraceContextTextMapPropagator()
_WELL = (Outcome.DONE, Outcome.ABANDONED)


class TracedQueries:
    """A `QueryObserver`.

    A statement is the span `query`, and below it `plan`, `wait` (for a position), `queue` (for a place to
    run), `execute` until the first batch, and `stream` from there. Between `plan` and `execute` is what its
    client took to fetch it.
    """

    def __init__(self, tracer: Tracer, query_text: QueryText) -> None:
        self._tracer = tracer
        self.query_text = query_text

    def query_ended(self, record: QueryRecord) -> None:
        caller = _PROPAGATOR.extract(dict(record.trace))
        began_ns = record.started_at_us * 1000
        span = self._tracer.start_span("query", context=caller, kind=SpanKind.SERVER, start_time=began_ns)
        if span.is_recording():
            self._describe(span, record)
            self._phases(span, record)
        span.end(record.ended_at_us * 1000)

    def _describe(self, span: Span, record: QueryRecord) -> None:
        span.set_attributes(
            {
                "db.system.name": "merutable",
                "flight_replica.query_id": record.id,
                "flight_replica.request_id": record.request_id,
                "flight_replica.kind": record.kind,
                "flight_replica.outcome": record.outcome,
                "flight_replica.rows": record.rows,
                "flight_replica.bytes": record.bytes,
                "flight_replica.lag_us": record.lag_us,
                "flight_replica.tables": list(record.tables),
            }
        )
        for table, seq in record.visible_seqs.items():
            span.set_attribute(f"flight_replica.seq.{table}", seq)
        if record.user:
            span.set_attribute("enduser.id", record.user)
        if (text := shown_text(record.sql, self.query_text)) is not None:
            span.set_attribute("db.query.text", text)
        if record.error:
            span.set_attribute("error.type", record.error)
        if record.outcome not in _WELL:
            # The error's text may quote the statement's values.
            span.set_status(Status(StatusCode.ERROR, record.error))

    def _phases(self, query: Span, record: QueryRecord) -> None:
        began, ended_us = record.began_at_us, record.ended_at_us
        planned_us = began.get(Phase.PLANNED, began.get(Phase.EXECUTING, ended_us))
        streaming_us = began.get(Phase.STREAMING, ended_us)
        plan = self._span("plan", query, began[Phase.PLANNING], planned_us)
        executing = query
        if Phase.EXECUTING in began:
            seconds = record.execute_seconds  # also between batches
            executing = self._span("execute", query, began[Phase.EXECUTING], streaming_us, seconds)
        if Phase.STREAMING in began:
            self._span("stream", query, streaming_us, ended_us, record.stream_seconds)
        waited = {
            "wait": (Phase.WAITING, record.wait_seconds - record.queue_seconds),
            "queue": (Phase.QUEUED, record.queue_seconds),
        }
        for name, (phase, seconds) in waited.items():
            if (from_us := began.get(phase)) is not None:
                above = plan if from_us < planned_us else executing
                self._span(name, above, from_us, from_us + int(seconds * 1e6), seconds)

    def _span(
        self, name: str, above: Span, began_us: int, ended_us: int, seconds: float | None = None
    ) -> Span:
        """A span that is over. `seconds`: how much of its time was spent on what it is named after."""
        span = self._tracer.start_span(name, context=set_span_in_context(above), start_time=began_us * 1000)
        if seconds is not None:
            span.set_attribute("flight_replica.seconds", seconds)
        span.end(ended_us * 1000)
        return span
