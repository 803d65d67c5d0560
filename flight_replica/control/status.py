"""What `Control` answers: values of one moment."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from flight_replica.control.steering import TableDetails
from flight_replica.flightsql.service import TableEntry


@dataclass(frozen=True, slots=True)
class ServerInfo:
    """A server process. `addresses`: what it serves, such as `flight` -> `grpc://127.0.0.1:4712`."""

    product: str  # primary, replica, feed server
    version: str
    pid: int
    started_at_us: int  # µs since 1970
    uptime_seconds: float
    addresses: Mapping[str, str]
    is_draining: bool  # it ends, and takes no new calls


@dataclass(frozen=True, slots=True)
class TableStatus:
    """One table."""

    name: str
    state: str  # serving, loading, waiting, degraded, paused
    reason: str
    lineage: str
    table_uuid: str
    base_seq: int
    visible_seq: int
    high_water: int  # the newest seq of the origin that is known of
    lag_us: int  # −1 unknown
    commit_time_us: int  # of visible_seq; 0 unknown
    low_water: int
    published_base_kind: str | None  # where other replicas find its base
    published_base_uri: str | None
    published_base_version: int | None
    published_base_seq: int | None
    details: TableDetails | None  # None at a server that holds no base and tail

    @property
    def lag_seqs(self) -> int:
        """Ops that are known of and not visible."""
        return max(0, self.high_water - self.visible_seq)

    @property
    def is_readable(self) -> bool:
        """Whether queries are answered."""
        return self.state in ("serving", "degraded", "paused")

    @property
    def is_well(self) -> bool:
        """Whether it is readable and follows."""
        return self.state == "serving"


def table_status(entry: TableEntry, details: TableDetails | None) -> TableStatus:
    at = entry.position
    return TableStatus(
        name=entry.name,
        state=str(entry.state),
        reason=entry.reason,
        lineage=str(at.lineage),
        table_uuid=entry.table_uuid,
        base_seq=at.base_seq,
        visible_seq=at.visible_seq,
        high_water=at.high_water,
        lag_us=at.lag_us,
        commit_time_us=at.commit_time_us,
        low_water=entry.low_water,
        published_base_kind=entry.base_kind,
        published_base_uri=entry.base_uri,
        published_base_version=entry.base_version,
        published_base_seq=entry.base_seq,
        details=details,
    )


@dataclass(frozen=True, slots=True)
class SessionStatus:
    """A client that has set options, runs a statement or has a transaction open."""

    id: str
    user: str
    options: Sequence[str]  # names of what is set, without the values
    idle_seconds: float  # since its last call; 0 while a statement of it runs
    queries: int  # under way
    transactions: int


@dataclass(frozen=True, slots=True)
class PinStatus:
    """A named pin: a moment that a client holds."""

    user: str
    name: str
    age_seconds: float
    idle_seconds: float
    visible_seqs: Mapping[str, int]  # table -> seq that it shows
