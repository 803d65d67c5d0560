"""Whether a process traces: `start_tracing`. Loads OpenTelemetry only then."""

from __future__ import annotations

import logging
import os
from importlib.metadata import version
from typing import TYPE_CHECKING

from flight_replica.errors import ConfigError
from flight_replica.logs.query_text import QueryText

if TYPE_CHECKING:
    from flight_replica.tracing.exporter import Tracing

__all__ = ["start_tracing"]

logger = logging.getLogger(__name__)

# OpenTelemetry's own variables that name a receiver.
_ENDPOINT_VARIABLES = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")


def start_tracing(endpoint: str | None, query_text: QueryText) -> Tracing | None:
    """Send spans to `endpoint`, or where OpenTelemetry's variables say; None where neither names a receiver.

    Raises `ConfigError` where `endpoint` is set and can't be used.
    """
    variable = next((name for name in _ENDPOINT_VARIABLES if os.environ.get(name)), None)
    if endpoint is None and variable is None:
        return None
    try:
        from flight_replica.tracing.exporter import Tracing
    except ImportError as error:
        if endpoint is None:  # the variable may be meant for other programs of the host
            logger.warning("no tracing without flight-replica[tracing] variable=%s error=%s", variable, error)
            return None
        raise ConfigError(f"tracing.endpoint: install flight-replica[tracing] for it ({error})") from error
    return Tracing(endpoint, version("flight-replica"), query_text)
