"""`AdminLimits`: what callers of the admin port may use up."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class AdminLimits:
    """Their names stand in the errors that they cause."""

    admin_calls_max: int = 48
    """Calls at once, streams too; each holds a thread while it is answered."""

    admin_streams_max: int = 32
    """Streams open at once, so that calls are answered beside them."""

    request_bytes_max: int = 1 << 20
    """One request. Statements aren't sent here, so it is small."""

    reply_bytes_max: int = 64 << 20
    """One answer: thousands of tables, or of statements with their text."""

    interval_seconds_min: float = 0.1
    """The least between two answers of one watch."""

    interval_seconds_max: float = 60.0
    """The most: by then a peer that has vanished is noticed."""


DEFAULT_ADMIN_LIMITS = AdminLimits()
