"""A table whose base, and feed if there is one, are stated by hand; whether they fit together.

What doesn't fit is told before anything is served, in one line: other lineages, a schema that isn't a
beginning of the feed's, a base that the feed doesn't reach back to, or that is ahead of it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from uuid import UUID

from flight_replica.base.empty import EmptyBase
from flight_replica.base.flight import FlightBase, server_and_table
from flight_replica.base.merutable import MerutableBase
from flight_replica.base.source import BaseSnapshot, BaseSource
from flight_replica.base.text_base import TextBase
from flight_replica.conform import can_become
from flight_replica.errors import BaseError, BaseNotUsable, ConfigError, LineageChanged, ReplicaError
from flight_replica.log.change_feed import ChangeFeedLogSource
from flight_replica.log.feed_client import Endpoint
from flight_replica.log.no_log import NoLog
from flight_replica.log.source import LogSource
from flight_replica.log.text_log import TextLog
from flight_replica.replica.published import Opening, PublishedTable
from flight_replica.replica.upstream import Upstream
from flight_replica.schema import TableSchema
from flight_replica.text_columns import TextChoice, TextColumns

__all__ = ["StatedBase", "StatedTable"]

_log = logging.getLogger(__name__)

_CATALOG = "catalog:"  # before the name of a table in one of pyiceberg's catalogs


@dataclass(frozen=True, slots=True)
class StatedBase:
    """Where the base lies, `kind:place`, and what is said of it by hand."""

    kind: str  # merutable, iceberg or flight
    place: str
    key: Sequence[str] | None = None
    base_seq: int | None = None
    schema: TableSchema | None = None
    is_insert_only: bool = False  # no row of the engine's table was ever changed or deleted


class StatedTable:
    """The `Origin` of one table by hand. Not thread-safe: `check` first, then the table's thread calls it."""

    def __init__(
        self,
        name: str,
        base: StatedBase,
        endpoint: Endpoint,
        new_folder: Callable[[], Path],
        *,
        lineage: UUID | None = None,
        feed: str | None = None,
        texts: TextColumns | None = None,
    ) -> None:
        """`feed` is `grpc://HOST:PORT[/TABLE]`; `endpoint` says how to talk to whatever server is named.

        Raises `ConfigError` for places that can't be one.
        """
        self._name = name
        self._base = base
        self._endpoint = endpoint
        self._new_folder = new_folder
        self._lineage = lineage
        self._choice = TextChoice(texts) if texts is not None else None
        self._feed = server_and_table(feed, name) if feed is not None else None
        self._flight = server_and_table(base.place, name) if base.kind == "flight" else None
        self._checked: Opening | None = None

    @property
    def has_claims(self) -> bool:
        """Whether anything is stated that may not fit, or a server that may not be there."""
        base = self._base
        claims = (base.key, base.base_seq, self._lineage, self._feed, self._flight, self._choice)
        return any(claim is not None for claim in claims)

    def check(self) -> None:
        """Raise `ConfigError`, in one line, where things don't fit. A base that isn't there yet may come."""
        try:
            if self.has_claims:
                self._checked = self._open()
            else:
                self._source(None, None).poll()
        except ConfigError as error:
            raise ConfigError(f"table {self._name!r}: {error}") from error
        except BaseNotUsable as error:
            _log.info("base not there yet table=%s error=%s", self._name, error)
        except ReplicaError as error:
            if self.has_claims:
                text = str(error)
                told = text if repr(self._name) in text else f"table {self._name!r}: {text}"
                raise ConfigError(told) from error
            _log.info("base can't be read yet table=%s error=%s", self._name, error)

    def close(self) -> None:
        """Let go of what `check` opened, where nothing has taken it."""
        opening, self._checked = self._checked, None
        if opening is not None:
            opening.log.close()
            if isinstance(opening.base, FlightBase):
                opening.base.close()

    def __call__(self) -> Opening:
        opening, self._checked = self._checked, None
        return opening or self._open()

    def _open(self) -> Opening:
        opening = self._open_stored()
        if self._choice is None:
            return opening
        base = TextBase(opening.base, self._choice)
        try:
            snapshot = base.load()  # first, since it may leave columns as bytes
        except BaseException:
            opening.log.close()
            raise
        log: LogSource = TextLog(opening.log, self._choice)
        if self._feed is None:
            log = NoLog(snapshot.lineage, snapshot.schema)
        return replace(opening, base=base, log=log)

    def _open_stored(self) -> Opening:
        """With bytes for what is text."""
        if self._feed is None:
            return self._as_it_lies()
        server, table = self._feed
        endpoint = replace(self._endpoint, uri=server)
        upstream = Upstream(endpoint)
        try:
            published = upstream.table(table)
        finally:
            upstream.close()
        if self._lineage not in (None, published.lineage):
            raise LineageChanged(
                f"table {self._name!r}: --lineage says {self._lineage}, the feed at {server} is of lineage "
                f"{published.lineage}"
            )
        log = ChangeFeedLogSource(endpoint, table, lineage=published.lineage)
        try:
            return self._joined(log, server, published)
        except BaseException:
            log.close()
            raise

    def _as_it_lies(self) -> Opening:
        """From its base alone, which stands still."""
        base = self._source(None, None)
        snapshot = _look_at(base)
        log = NoLog(snapshot.lineage, snapshot.schema)
        if not isinstance(base, FlightBase):
            base = _Loaded(base, snapshot)
        return Opening(log, base, lambda: snapshot.base_seq, snapshot.base_seq)

    def _joined(self, log: ChangeFeedLogSource, server: str, published: PublishedTable) -> Opening:
        feed_schema = log.schema
        base = self._source(published, feed_schema)
        try:
            snapshot = _look_at(base)
            if snapshot.lineage != published.lineage:
                raise LineageChanged(
                    f"table {self._name!r}: the base is of lineage {snapshot.lineage}, the feed at {server} "
                    f"of {published.lineage}; if they are one history all the same, say --lineage "
                    f"{self._name}={published.lineage}"
                )
            _check_schema(self._name, snapshot.schema, feed_schema)
            snapshot = published.vouch(snapshot)
            base_seq = snapshot.base_seq
            if base_seq < published.low_water:
                raise BaseError(
                    f"table {self._name!r}: the base is at seq {base_seq}, the feed at {server} begins at "
                    f"{published.low_water}: a newer base is needed"
                )
            if base_seq > max(published.high_water, log.latest_seq()):
                raise BaseError(
                    f"table {self._name!r}: the base is at seq {base_seq}, the feed at {server} has come to "
                    f"{published.high_water} only"
                )
        except BaseException:
            if isinstance(base, FlightBase):
                base.close()
            raise
        if not isinstance(base, FlightBase):
            base = _Loaded(base, snapshot)
        return Opening(log, base, lambda: base_seq, max(base_seq, published.high_water))

    def _source(self, published: PublishedTable | None, feed_schema: TableSchema | None) -> BaseSource:
        """The base as it is stated, in the shape of the feed that it is to join."""
        base = self._base
        if self._flight is not None:
            server, table = self._flight
            at = replace(self._endpoint, uri=server)
            return FlightBase(at, table, self._new_folder(), serve_as=self._name, lineage=self._lineage)
        if base.kind == "iceberg":
            return self._iceberg(feed_schema)
        if published is None:
            files = MerutableBase(base.place, table=self._name, schema=base.schema, lineage=self._lineage)
            return EmptyUntilFlushed(files, self._name, base.schema) if base.schema is not None else files
        # By its UUID a catalog is known as the feed's, unless somebody vouches for it by its lineage.
        uuid = UUID(published.table_uuid) if self._lineage is None else None
        return Vouched(
            MerutableBase(
                base.place, table=self._name, schema=feed_schema, lineage=published.lineage, table_uuid=uuid
            ),
            published,
        )

    def _iceberg(self, feed_schema: TableSchema | None) -> BaseSource:
        """Iceberg lacks some types: the feed's schema says what the columns are, where they can be that."""
        from flight_replica.base.iceberg import IcebergBase
        from flight_replica.base.iceberg_catalogs import CatalogTable

        base = self._base
        opened = load_table = None
        if base.place.startswith(_CATALOG):
            load_table = CatalogTable(base.place.removeprefix(_CATALOG)).load
            if base.base_seq is not None:  # which is true of the snapshot that is there now
                opened, load_table = load_table(), None

        def source(schema: TableSchema | None) -> IcebergBase:
            return IcebergBase(
                opened or base.place,
                table=self._name,
                schema=schema,
                primary_key=base.key,
                base_seq=base.base_seq,
                lineage=self._lineage,
                load_table=load_table,
                is_insert_only=base.is_insert_only,
            )

        own = source(None)
        if feed_schema is None:
            return own
        schema = own.load().schema
        _check_schema(self._name, schema, feed_schema)
        is_same = schema.columns == feed_schema.columns[: len(schema.columns)]
        return own if is_same else source(feed_schema)


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


class Vouched:
    """A base in files whose seq the feed's server may know better."""

    def __init__(self, base: BaseSource, published: PublishedTable) -> None:
        self._base = base
        self._published = published

    def poll(self) -> int | None:
        return self._base.poll()

    def load(self) -> BaseSnapshot:
        return self._published.vouch(self._base.load())


class _Loaded:
    """A base whose newest snapshot was loaded a moment ago, so that the first `load` needn't do it again."""

    def __init__(self, base: BaseSource, snapshot: BaseSnapshot) -> None:
        self._base = base
        self._snapshot: BaseSnapshot | None = snapshot

    def poll(self) -> int | None:
        return self._base.poll()

    def load(self) -> BaseSnapshot:
        snapshot, self._snapshot = self._snapshot, None
        if snapshot is not None and snapshot.version == self._base.poll():
            return snapshot
        return self._base.load()


def _look_at(base: BaseSource) -> BaseSnapshot:
    """The snapshot, without the files of one that would have to be fetched."""
    return base.begin() if isinstance(base, FlightBase) else base.load()


def _check_schema(table: str, base: TableSchema, feed: TableSchema) -> None:
    """Raise `BaseError` unless the base's columns are the first ones of the feed's, or can become them."""
    if base.primary_key != feed.primary_key:
        raise BaseError(
            f"table {table!r}: the key of the base is {list(base.primary_key)}, of the feed "
            f"{list(feed.primary_key)}"
        )
    if base.names != feed.names[: len(base.names)]:
        raise BaseError(
            f"table {table!r}: the base has the columns {list(base.names)}, the feed {list(feed.names)}"
        )
    for own, wanted in zip(base.columns, feed.columns, strict=False):
        if not can_become(own.type, wanted.type):
            raise BaseError(
                f"table {table!r}: column {own.name!r} is {own.type} in the base, {wanted.type} in the feed"
            )
