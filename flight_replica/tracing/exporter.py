"""`Tracing`: where spans go, from the start of a process to its end."""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping

from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor

from flight_replica.logs.query_text import QueryText
from flight_replica.tracing.applies import TracedApplies
from flight_replica.tracing.queries import TracedQueries

__all__ = ["Tracing"]

logger = logging.getLogger(__name__)

CLOSE_SECONDS = 3.0  # for the last spans; a collector that doesn't answer holds up nothing
_SERVICE_NAME = "flight-replica"


class Tracing:
    """Sends spans from its making to `close`. Owns the threads of OpenTelemetry's batch processor.

    Sampling, headers, certificates, batch sizes and the resource are OpenTelemetry's own settings, by its own
    variables (`OTEL_…`). Spans that can't be sent are dropped.
    """

    def __init__(self, endpoint: str | None, version: str, query_text: QueryText) -> None:
        """`endpoint`: OTLP over gRPC, such as http://127.0.0.1:4317; None: what OTEL_EXPORTER_OTLP_… says."""
        # What a variable says of the resource wins over this.
        resource = Resource({"service.name": _SERVICE_NAME, "service.version": version}).merge(
            _of_variables()
        )
        self._provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        self._provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint=endpoint)))
        tracer = self._provider.get_tracer("flight_replica", version)
        self.queries = TracedQueries(tracer, query_text)
        self.applies = TracedApplies(tracer)
        logger.info("tracing endpoint=%s", endpoint or "of OTEL_EXPORTER_OTLP_ENDPOINT")

    def close(self) -> None:
        """Send what is left, for at most `CLOSE_SECONDS`."""
        ending = threading.Thread(target=self._provider.shutdown, name="tracing-end", daemon=True)
        ending.start()
        ending.join(CLOSE_SECONDS)
        if ending.is_alive():
            logger.warning("last spans not sent seconds=%g", CLOSE_SECONDS)


def _of_variables() -> Resource:
    """What OTEL_RESOURCE_ATTRIBUTES and OTEL_SERVICE_NAME say; no name where they give none."""
    found: Mapping[str, object] = Resource.create().attributes
    said = {name: value for name, value in found.items() if not str(value).startswith("unknown_service")}
    return Resource(said)  # type: ignore[arg-type]
