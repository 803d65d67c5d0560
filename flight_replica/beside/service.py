"""`FeedService`: the tables of running engines as a Flight SQL server: their feeds, and their rows.

The rows are those of replicas in this process, which follow the feeds over the engine's own files, merge on
read, so that nothing is copied: a base over Flight comes out of them, and so do queries, waits and digests.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from flight_replica.base.merutable import MerutableBase
from flight_replica.base.source import BaseSnapshot
from flight_replica.beside.engine_feed import EngineFeed
from flight_replica.beside.engine_table import EngineTable
from flight_replica.beside.publication import Publication
from flight_replica.errors import BaseNotUsable, ReplicaError, TableNotFound, Unavailable
from flight_replica.flightsql.service import TableEntry
from flight_replica.log.feed import TableFeed
from flight_replica.log.in_process import InProcessLogSource
from flight_replica.replica.published import Opening
from flight_replica.replica.service import ReplicaService
from flight_replica.replica.stats import ReplicaSettings
from flight_replica.state.workspace import Workspace

REPLICA_SETTINGS = ReplicaSettings(
    history_bytes_max=64 << 20,  # the feeds keep the ops, on disk
    tail_bytes_max=256 << 20,
    native_disk_bytes_max=0,  # merge on read: no copy of the table beside its engine
    base_poll_seconds=30.0,  # each newer base costs reading the keys of files that overlap
)


def wall_clock_us() -> int:
    """This host's clock: the feeds' commit times are when an op was seen here."""
    return time.time_ns() // 1000


class FeedService(ReplicaService):
    """Implements `Service`. Owns `tables` and the workspace, until `close`."""

    product = "feed server"

    def __init__(
        self, workspace: Workspace, tables: Sequence[EngineTable], published: Mapping[str, Publication]
    ) -> None:
        """`published`: where the base of a table is, for those whose base isn't published over Flight."""
        self._engine_tables = {table.name: table for table in tables}
        self._publications = published
        origins = {table.name: _Origin(table) for table in tables}
        super().__init__(workspace, fixed=origins, settings=REPLICA_SETTINGS)

    @property
    def read_only_reason(self) -> str | None:
        return "this is a feed server, which only reads; write through the engine's own process"

    def tables(self) -> Sequence[TableEntry]:
        return [self._entry(entry) for entry in super().tables()]

    def _entry(self, entry: TableEntry) -> TableEntry:
        """What the feed knows of a table, and the replica of its rows."""
        table = self._engine_tables[entry.name]
        try:
            feed = table.feed
        except ReplicaError as error:
            return replace(entry, state="loading" if entry.schema is None else "degraded", reason=str(error))
        at = entry.position
        if at.lineage != feed.lineage:  # the replica is about to begin it
            at = replace(at, lineage=feed.lineage, base_seq=0, visible_seq=0, commit_time_us=0, lag_us=-1)
        at = replace(at, high_water=max(at.high_water, feed.high_water))
        trouble = table.trouble
        publication = self._publications.get(entry.name)
        base = publication.base(feed) if publication is not None else None
        is_over_flight = base is None and entry.schema is not None
        return replace(
            entry,
            schema=entry.schema or feed.schema,
            table_uuid=str(table.table_uuid or feed.lineage),
            low_water=feed.low_water,
            position=at,
            base_kind="flight" if base is None else base.kind,
            base_uri=None if base is None else base.uri,
            base_version=None if base is None else base.version,
            base_seq=(at.visible_seq if is_over_flight else None) if base is None else base.seq,
            state="degraded" if trouble and entry.state == "serving" else entry.state,
            reason="; ".join(filter(None, (trouble, entry.reason))),
        )

    def feed(self, table: str) -> TableFeed:
        if table not in self._engine_tables:
            raise TableNotFound(f"there is no table {table!r}")
        return self._engine_tables[table].feed

    def clock_us(self) -> int:
        return wall_clock_us()

    def close(self) -> None:
        for table in self._engine_tables.values():
            table.close()
        super().close()


@dataclass(frozen=True, slots=True)
class _Origin:
    """Opens a table for the replica in this process."""

    table: EngineTable

    def __call__(self) -> Opening:
        try:
            feed = self.table.feed
        except Unavailable as error:  # it waits for the engine, or its log is being read
            raise BaseNotUsable(str(error)) from error
        log = InProcessLogSource(feed, clock_us=wall_clock_us)
        start_seq = feed.files_reach or 0
        return Opening(log, _VouchedBase(self.table, feed), lambda: start_seq, feed.high_water)


class _VouchedBase:
    """A `BaseSource`: the engine's catalog at the seq that the feed vouches for."""

    def __init__(self, table: EngineTable, feed: EngineFeed) -> None:
        self._feed = feed
        self._files = MerutableBase(
            table.settings.catalog,
            table=table.name,
            schema=feed.schema,
            lineage=feed.lineage,
            table_uuid=table.table_uuid,
        )

    def poll(self) -> int | None:
        newest = self._feed.newest_snapshot
        return newest[0] if newest is not None else None

    def load(self) -> BaseSnapshot:
        snapshot = self._files.load()
        vouched = self._feed.vouched_seq(snapshot.version)
        if vouched is None:  # newer than the newest one that the feed has looked at
            return snapshot
        return replace(snapshot, base_seq=max(snapshot.base_seq, vouched), is_lower_bound=False)
