"""What a primary publishes about a table, and the base it points to."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from urllib.parse import unquote, urlparse
from uuid import UUID

from flight_replica.base.empty import EmptyBase
from flight_replica.base.iceberg import IcebergBase
from flight_replica.base.merutable import MerutableBase
from flight_replica.base.source import BaseSnapshot, BaseSource
from flight_replica.errors import BaseError, BaseNotUsable
from flight_replica.log.source import LogSource
from flight_replica.schema import TableSchema


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


@dataclass(frozen=True, slots=True)
class Opening:
    """How a table begins: what to read, and from where to where."""

    log: LogSource
    base: BaseSource
    start_seq: int  # follow from here
    reach_seq: int  # answer from here on: an earlier process may have shown it


class PublishedBase:
    """A `BaseSource` at wherever the primary says that the table's base lies now.

    `published` asks the primary; `schema` is the feed's, for a table that has no base yet.
    """

    def __init__(self, published: Callable[[], PublishedTable], schema: TableSchema) -> None:
        self._published = published
        self._schema = schema

    def poll(self) -> int | None:
        published = self._published()
        if published.base_kind is not None:
            return published.base_version
        return EmptyBase.VERSION if published.low_water == 0 else None

    def load(self) -> BaseSnapshot:
        published = self._published()
        return _vouched(base_of(published, self._schema).load(), published)


class EmptyUntilFlushed:
    """A base of stated columns that holds nothing until its catalog's first commit, which says the lineage.

    Before that the lineage is the nil UUID, so the first commit begins the table afresh.
    """

    def __init__(self, base: BaseSource, table: str, schema: TableSchema) -> None:
        self._base = base
        self._empty = EmptyBase(table, UUID(int=0), schema)

    def poll(self) -> int | None:
        return self._base.poll()

    def load(self) -> BaseSnapshot:
        try:
            return self._base.load()
        except BaseNotUsable:
            if self._base.poll() != EmptyBase.VERSION:
                raise
            return self._empty.load()


def _vouched(snapshot: BaseSnapshot, published: PublishedTable) -> BaseSnapshot:
    """The snapshot at the seq that the publisher knows for this very version, where that is larger.

    A compaction that drops the newest tombstone takes its seq out of the files. Source: CF 4.
    """
    if snapshot.version != published.base_version or published.base_seq is None:
        return snapshot
    base_seq = max(snapshot.base_seq, published.base_seq)
    return replace(snapshot, base_seq=base_seq, is_lower_bound=False)


def base_of(published: PublishedTable, schema: TableSchema) -> BaseSource:
    """The base that `published` points to. Raises `BaseNotUsable` where there is none."""
    uri = published.base_uri
    if published.base_kind is None:
        if published.low_water > 0:
            raise BaseNotUsable(
                f"table {published.name!r}: no base yet, and the log begins at {published.low_water}"
            )
        return EmptyBase(published.name, published.lineage, schema)
    if published.base_kind == "iceberg" and uri is not None:
        return IcebergBase(uri, table=published.name, lineage=published.lineage)
    if published.base_kind == "merutable" and uri is not None:
        return MerutableBase(
            local_path(uri),
            table=published.name,
            schema=schema,
            lineage=published.lineage,
            table_uuid=UUID(published.table_uuid),
        )
    raise BaseError(
        f"table {published.name!r}: a base of kind {published.base_kind!r} at {uri} can't be read"
    )


def local_path(uri: str) -> str:
    """The path of a `file://` URI, or a path as it stands."""
    return unquote(urlparse(uri).path) if uri.startswith("file:") else uri
