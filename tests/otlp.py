"""A collector of OpenTelemetry spans: the receiving side of OTLP over gRPC, as a real server."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass

import grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2 as pb
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2_grpc as services
from opentelemetry.proto.common.v1.common_pb2 import AnyValue

from tests.processes import until


@dataclass(frozen=True)
class ReceivedSpan:
    name: str
    trace_id: str
    span_id: str
    parent_id: str  # "" for a root
    began_ns: int
    ended_ns: int
    is_error: bool
    attributes: dict[str, object]
    resource: dict[str, object]


class Collector(services.TraceServiceServicer):
    """What has come so far."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._spans: list[ReceivedSpan] = []
        self.endpoint = ""

    def Export(self, request: pb.ExportTraceServiceRequest, context: object) -> pb.ExportTraceServiceResponse:
        with self._lock:
            for of_resource in request.resource_spans:
                resource = {one.key: _value(one.value) for one in of_resource.resource.attributes}
                for of_scope in of_resource.scope_spans:
                    self._spans += [_received(span, resource) for span in of_scope.spans]
        return pb.ExportTraceServiceResponse()

    @property
    def spans(self) -> list[ReceivedSpan]:
        with self._lock:
            return list(self._spans)

    def named(self, name: str, count: int = 1) -> list[ReceivedSpan]:
        """The spans of this name, once there are so many."""
        until(lambda: len(self._of(name)) >= count, f"{count} spans {name!r}")
        return self._of(name)

    def _of(self, name: str) -> list[ReceivedSpan]:
        return [span for span in self.spans if span.name == name]

    def below(self, parent: ReceivedSpan) -> dict[str, ReceivedSpan]:
        """The children of a span, by name."""
        return {span.name: span for span in self.spans if span.parent_id == parent.span_id}


def _value(value: AnyValue) -> object:
    kind = value.WhichOneof("value")
    if kind == "array_value":
        return [_value(one) for one in value.array_value.values]
    return getattr(value, kind) if kind else None


def _received(span: object, resource: dict[str, object]) -> ReceivedSpan:
    return ReceivedSpan(
        name=span.name,  # type: ignore[attr-defined]
        trace_id=span.trace_id.hex(),  # type: ignore[attr-defined]
        span_id=span.span_id.hex(),  # type: ignore[attr-defined]
        parent_id=span.parent_span_id.hex(),  # type: ignore[attr-defined]
        began_ns=span.start_time_unix_nano,  # type: ignore[attr-defined]
        ended_ns=span.end_time_unix_nano,  # type: ignore[attr-defined]
        is_error=span.status.code == span.status.STATUS_CODE_ERROR,  # type: ignore[attr-defined]
        attributes={one.key: _value(one.value) for one in span.attributes},  # type: ignore[attr-defined]
        resource=resource,
    )


@contextmanager
def collecting() -> Iterator[Collector]:
    """A collector that listens in the block."""
    collector = Collector()
    server = grpc.server(ThreadPoolExecutor(2))
    services.add_TraceServiceServicer_to_server(collector, server)
    collector.endpoint = f"http://127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    server.start()
    try:
        yield collector
    finally:
        server.stop(None).wait()
