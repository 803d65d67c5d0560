"""`TracedApplies`: ops on their way from the origin to this replica's readers, as spans."""

from __future__ import annotations

import logging

from opentelemetry.trace import SpanKind, Tracer, set_span_in_context

from flight_replica.replica.measures import Applied

__all__ = ["TracedApplies"]

logger = logging.getLogger(__name__)


class TracedApplies:
    """Hears of what becomes visible; never raises.

    One trace for each batch of commits: `replicate`, and below it `feed`, from when the origin sent its last
    op (on this host's clock, as far as the two clocks are known) until it was taken out of the queue, and
    `apply`, until readers see it. The origin doesn't know the traces of those who wrote.
    """

    def __init__(self, tracer: Tracer) -> None:
        self._tracer = tracer

    def __call__(self, applied: Applied) -> None:
        try:
            self._trace(applied)
        except Exception:  # the table has no part in it
            logger.exception("tracing failed table=%s", applied.table)

    def _trace(self, applied: Applied) -> None:
        sent_us = applied.received_at_us if applied.sent_at_us is None else applied.sent_at_us
        began_us = min(sent_us, applied.received_at_us)
        root = self._tracer.start_span("replicate", kind=SpanKind.CONSUMER, start_time=began_us * 1000)
        if root.is_recording():
            root.set_attributes(
                {
                    "flight_replica.table": applied.table,
                    "flight_replica.after_seq": applied.after,
                    "flight_replica.through_seq": applied.through,
                    "flight_replica.ops": applied.ops,
                    "flight_replica.bytes": applied.bytes,
                }
            )
            below = set_span_in_context(root)
            if applied.sent_at_us is not None:
                feed = self._tracer.start_span("feed", context=below, start_time=began_us * 1000)
                feed.end(applied.received_at_us * 1000)
            apply = self._tracer.start_span("apply", context=below, start_time=applied.began_at_us * 1000)
            apply.end(applied.visible_at_us * 1000)
        root.end(applied.visible_at_us * 1000)
