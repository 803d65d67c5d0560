"""`ServerLimits`: every limit of the Flight SQL front, with its unit and why its default is what it is."""

from __future__ import annotations

from dataclasses import asdict, dataclass


@dataclass(frozen=True, slots=True)
class ServerLimits:
    """Limits of one server. Their names stand in the errors that they cause."""

    statement_seconds: float = 300.0
    """From DoGet to the last batch taken by the client; the statement is then interrupted."""

    stalled_seconds: float = 120.0
    """How long a batch waits for its client to take it before the statement is ended. A peer that vanished
    without a word holds its connection open for hours; a person who looks at a first page is shorter."""

    result_bytes_max: int = 1 << 40
    """Arrow bytes of one statement's rows. Far above what anybody wants; lower it to protect a network."""

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

    bound_bytes_total_max: int = 1 << 30
    """Arrow bytes of the parameters bound to all prepared statements together."""

    queries_max: int = 64
    """Queries that run or stream at once."""

    query_wait_seconds: float = 10.0
    """How long a query waits for its turn before it is told to try again."""

    follows_max: int = 1000
    """Follow streams open at once; each takes one thread."""

    sessions_max: int = 10_000
    """Sessions that have set something; one that never did costs nothing."""

    session_idle_seconds: float = 3600.0
    """What a session has set is forgotten after so long without a call of its client."""

    session_option_bytes_max: int = 4096
    """UTF-8 bytes of one session option's value."""

    waits_max: int = 256
    """Calls that wait for a position or an age at once; each holds a thread of the server."""

    transactions_max: int = 10_000
    """Transactions open at once. One that holds nothing makes room for a new one."""

    transaction_idle_seconds: float = 600.0
    """A transaction that holds writes or a snapshot is rolled back after so long without a call."""

    transaction_seconds: float = 3600.0
    """The longest that a transaction may hold writes or a snapshot."""

    pins_max: int = 32
    """Pinned views, named ones and those of snapshot transactions; each keeps old rows in memory."""

    pin_seconds: float = 3600.0
    """The age at which a named pin ends."""

    pin_idle_seconds: float = 600.0
    """A named pin that no statement used for so long ends."""

    pin_sessions: int = 16
    """Statements that a pin or snapshot runs at once; one that fails costs it one of these for good."""

    batch_bytes_max: int = 2 << 20
    """Arrow bytes of one batch on the wire, or one row however large. ADBC refuses 16 MiB, others 4 MiB."""


DEFAULT_LIMITS = ServerLimits()


class LiveLimits(ServerLimits):
    """The limits of a running server, which its parts share. Read at each use, and changed in place."""

    __slots__ = ()

    def __init__(self, limits: ServerLimits) -> None:
        super().__init__(**asdict(limits))

    def change(self, limits: ServerLimits) -> None:
        """From now on they are these. What has begun under another limit may go on under it."""
        for name, value in asdict(limits).items():
            object.__setattr__(self, name, value)  # each by itself: no part reads two as one
