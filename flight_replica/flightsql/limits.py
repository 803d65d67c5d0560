"""`ServerLimits`: every limit of the Flight SQL front, with its unit and why its default is what it is."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ServerLimits:
    """Limits of one server. Their names stand in the errors that they cause."""

    statement_seconds: float = 300.0
    """From DoGet to the last batch taken by the client; the statement is then interrupted."""

    planned_seconds: float = 30.0
    """How long a planned statement waits for its DoGet before its view is let go."""

    planned_max: int = 512
    """Statements planned and not fetched yet; each pins a view."""

    prepared_idle_seconds: float = 3600.0
    """A prepared statement that nobody used for so long is closed: some clients never close theirs."""

    prepared_max: int = 10_000
    """Prepared statements; each holds its text and its bound parameters."""

    bound_bytes_max: int = 64 << 20
    """Arrow bytes of the parameters bound to one statement."""

    queries_max: int = 64
    """Queries that run or stream at once."""

    query_wait_seconds: float = 10.0
    """How long a query waits for its turn before it is told to try again."""

    follows_max: int = 1000
    """Follow streams open at once; each takes one thread."""

    batch_bytes_max: int = 2 << 20
    """Arrow bytes of one batch on the wire, or one row however large. ADBC refuses 16 MiB, others 4 MiB."""


DEFAULT_LIMITS = ServerLimits()
