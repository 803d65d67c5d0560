"""What a primary publishes about a table, and the base it points to: files, or the table over Flight."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from uuid import UUID

from flight_replica.base.empty import EmptyBase
from flight_replica.base.flight import FlightBase
from flight_replica.base.merutable import MerutableBase
from flight_replica.base.on_demand import OnDemandBase
from flight_replica.base.source import BaseSnapshot, BaseSource
from flight_replica.errors import (
    BaseError,
    BaseNotUsable,
    ConfigError,
    FeedError,
    LineageChanged,
    Unavailable,
)
from flight_replica.log.source import LogSource
from flight_replica.replica.reach import why_denied, why_out_of_reach
from flight_replica.schema import TableSchema

_log = logging.getLogger(__name__)

FLIGHT = "flight"


@dataclass(frozen=True, slots=True)
class PublishedTable:
    """One row of a primary's `merutable_tables()`."""

    name: str
    lineage: UUID
    table_uuid: str
    low_water: int
    high_water: int
    base_kind: str | None
    base_uri: str | None
    base_version: int | None
    base_seq: int | None

    @property
    def start_seq(self) -> int:
        """Where a replica that has nothing begins to follow: at the published base."""
        return self.base_seq if self.base_seq is not None else 0

    def vouch(self, snapshot: BaseSnapshot) -> BaseSnapshot:
        """The snapshot at the seq that the publisher knows for this very version, where that is larger.

        A compaction that drops the newest tombstone takes its seq out of the files. Source: CF 4.
        """
        if snapshot.version != self.base_version or self.base_seq is None:
            return snapshot
        base_seq = max(snapshot.base_seq, self.base_seq)
        return replace(snapshot, base_seq=base_seq, is_lower_bound=False)


@dataclass(frozen=True, slots=True)
class Opening:
    """How a table begins: what to read, and from where to where."""

    log: LogSource
    base: BaseSource
    begin: Callable[[], int]  # choose the base; the seq to follow from
    reach_seq: int  # answer from here on: an earlier process may have shown it

    def close(self) -> None:
        """End both, for whom nobody has taken them."""
        self.log.close()
        if isinstance(self.base, OnDemandBase):
            self.base.close()


OverFlight = Callable[[str | None], FlightBase]
"""Makes the base of the table over Flight: from a server's URI, None for the one that is followed."""


class PublishedBase:
    """A `BaseSource` at wherever the primary says that the table's base lies now.

    Where this host can't read what is published, the base comes over Flight from the server that is
    followed, for as long as this object lives. Damage of what it can read isn't such a reason. An
    `OnDemandBase`, though files are never fetched on demand.
    """

    def __init__(
        self, published: Callable[[], PublishedTable], schema: TableSchema, over_flight: OverFlight
    ) -> None:
        """`published` asks the primary; `schema` is the feed's, for a table that has no base yet."""
        self._published = published
        self._schema = schema
        self._over_flight = over_flight
        self._flight: FlightBase | None = None  # once it is taken so
        self._wanted_seq = 0
        self._has_loaded = False
        self.remark = ""

    def begin(self) -> int:
        """Choose the base; the seq to follow from. Raises `BaseNotUsable`, `Unavailable`, `TableNotFound`."""
        published = self._published()
        reason = _why_over_flight(published)
        if reason is None:
            return published.start_seq
        return self._take_over_flight(published, reason).begin().base_seq

    def resume(self) -> None:
        """Raises as `begin`."""
        self._has_loaded = True
        published = self._published()
        reason = _why_over_flight(published)
        if reason is not None:
            self._take_over_flight(published, reason).resume()

    def poll(self) -> int | None:
        if self._flight is not None:
            return self._flight.poll()
        published = self._published()
        if published.base_kind is not None:
            return published.base_version
        return EmptyBase.VERSION if published.low_water == 0 else None

    def load(self) -> BaseSnapshot:
        if self._flight is None:
            published = self._published()
            try:
                snapshot = self._load_files(published)
            except _OutOfReach as error:
                self._give_up_files(published, str(error))
            else:
                self._has_loaded = True
                return snapshot
        assert self._flight is not None, "neither files nor Flight"
        return self._flight.load()

    @property
    def progress(self) -> str:
        return self._flight.progress if self._flight is not None else ""

    def want(self, seq: int) -> None:
        self._wanted_seq = max(self._wanted_seq, seq)
        if self._flight is not None:
            self._flight.want(seq)

    def close(self) -> None:
        if self._flight is not None:
            self._flight.close()

    def _load_files(self, published: PublishedTable) -> BaseSnapshot:
        """Raises `_OutOfReach` where it has to be Flight, else as `load`."""
        reason = _why_over_flight(published)
        if reason is not None:
            raise _OutOfReach(reason)
        try:
            snapshot = _files_of(published, self._schema).load()
        except (BaseError, ConfigError) as error:
            denied = why_denied(error, published.base_uri or "")
            if denied:
                raise _OutOfReach(denied) from error
            raise
        return published.vouch(snapshot)

    def _give_up_files(self, published: PublishedTable, reason: str) -> None:
        """Go over to Flight. A table that is served needs nothing of it until it wants a newer base."""
        if self._has_loaded and not self._wanted_seq:
            self._flight = self._over_flight(None)
            raise BaseNotUsable(f"table {published.name!r}: {reason}; the base that is here is kept")
        self._take_over_flight(published, reason).want(self._wanted_seq)

    def _take_over_flight(self, published: PublishedTable, reason: str) -> FlightBase:
        """`reason` is empty where it is published so."""
        stated = published.base_uri if published.base_kind == FLIGHT else None
        for uri in dict.fromkeys((stated, None)):
            flight = self._over_flight(uri)
            try:
                flight.begin()
            except (Unavailable, FeedError, ConfigError, BaseNotUsable, LineageChanged) as error:
                flight.close()
                if uri is not None:  # the server that is followed may have it too
                    reason = f"{uri}: {error}"
                    continue
                if not reason:
                    raise
                raise BaseNotUsable(
                    f"table {published.name!r}: {reason}; nor can the base be taken over Flight: {error}"
                ) from error
            except BaseException:
                flight.close()
                raise
            break
        self._flight = flight
        if reason:
            self.remark = f"base taken over Flight from {flight.place}: {reason}"
        why = reason or "published so"
        _log.info("base over Flight table=%s from=%s reason=%s", published.name, flight.place, why)
        return flight


class _OutOfReach(BaseError):
    """This host can't read what is published."""


def _why_over_flight(published: PublishedTable) -> str | None:
    """Why the base has to come over Flight, empty where that is how it is published; None: by files."""
    if published.base_kind == FLIGHT:
        return ""
    if published.base_kind is None:
        if published.low_water == 0:
            return None
        return f"no base is published and the log begins at {published.low_water}"
    if published.base_uri is None:
        return f"a base of kind {published.base_kind!r} is published without its place"
    return why_out_of_reach(published.base_kind, published.base_uri) or None


def _files_of(published: PublishedTable, schema: TableSchema) -> BaseSource:
    """The base in files that `published` points to, one of those that can be tried."""
    if published.base_kind is None:
        return EmptyBase(published.name, published.lineage, schema)
    assert published.base_uri is not None, "a base in files has a place"
    if published.base_kind == "iceberg":
        from flight_replica.base.iceberg import IcebergBase  # pyiceberg: 0.3 s that a start can do without

        return IcebergBase(published.base_uri, table=published.name, lineage=published.lineage)
    assert published.base_kind == "merutable", f"a base of kind {published.base_kind}"
    return MerutableBase(
        published.base_uri,
        table=published.name,
        schema=schema,
        lineage=published.lineage,
        table_uuid=UUID(published.table_uuid),
    )
