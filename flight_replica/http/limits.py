"""`HttpLimits`: every limit of the HTTP port, with its unit and why its default is what it is."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class HttpLimits:
    """Limits of one HTTP port."""

    connections_max: int = 256
    """Open connections; one more is closed at once. A browser opens six, a scraper one."""

    header_bytes_max: int = 16 << 10
    """Request line and headers together. Cookies and tokens need two KiB at most."""

    header_seconds: float = 10.0
    """From a request's first byte to the end of its headers; a new connection may say nothing for so long."""

    body_bytes_max: int = 1 << 20
    """Of one request. The longest thing that anybody sends is a statement."""

    body_seconds: float = 10.0
    """From the end of the headers to the end of the body."""

    idle_seconds: int = 30
    """How long a connection without a request is kept: longer than most scrape intervals."""

    streams_max: int = 64
    """Event streams open at once: pages that somebody looks at."""

    logins_max: int = 1000
    """Browser logins; one more ends the one used longest ago."""

    login_idle_seconds: float = 8 * 3600.0
    """A browser login that nobody used for so long ends: a working day."""


DEFAULT_HTTP_LIMITS = HttpLimits()
